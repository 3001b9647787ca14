package blob

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKey is how long a key may be, in bytes: 1,024 of S3's and what its service puts before them.
const MaxKey = 1152

// ErrInvalidKey says that a key is empty, longer than MaxKey or not UTF-8.
var ErrInvalidKey = errors.New("key is not 1 to 1,152 bytes of UTF-8")

func checkKey(key string) error {
	if key == "" || len(key) > MaxKey || !utf8.ValidString(key) {
		return ErrInvalidKey
	}
	return nil
}

// A key becomes a path so that a prefix is a directory wherever it can be, and so that the names of one
// directory, each with what it stands for, order as the keys below them do:
//
//	"ecs/tasks/1"  ecs.d/tasks.d/1.o
//
// Each of the first maxSlashes segments before a slash is a directory (.d), and the rest is the object
// (.o), in which further slashes are escaped. A segment of maxName bytes or more gives its first maxName
// bytes to a directory (.c, continued) and goes on inside it; so no name is too long for a file system,
// and no key's name is a prefix of a continued one. Every name ends in one of the three, so none is
// "." or "..", and an object and a directory of one name do not meet.
const (
	maxSlashes = 16
	maxName    = 80 // bytes of the key, three times as many when all are escaped

	objectSuffix    = ".o"
	slashSuffix     = ".d"
	continuedSuffix = ".c"
)

// keyPath answers the directory and the name of a valid key's object, the directory "." or ending in no
// slash.
func keyPath(key string) (dir, name string) {
	dirs, rest := descend(key)
	return joinDirs(dirs), escape(rest) + objectSuffix
}

func joinDirs(dirs []string) string {
	if len(dirs) == 0 {
		return "."
	}
	return strings.Join(dirs, "/")
}

// descend answers the directories that every key with this prefix is below, and what is left of the
// prefix inside the last of them.
func descend(prefix string) (dirs []string, rest string) {
	slashes := 0
	for rest = prefix; ; {
		end := -1
		if slashes < maxSlashes {
			end = strings.IndexByte(rest, '/')
		}
		switch {
		case end >= 0 && end < maxName:
			dirs = append(dirs, escape(rest[:end])+slashSuffix)
			rest = rest[end+1:]
			slashes++
		case len(rest) >= maxName:
			dirs = append(dirs, escape(rest[:maxName])+continuedSuffix)
			rest = rest[maxName:]
		default:
			return dirs, rest
		}
	}
}

// kind is what a name in a directory stands for.
type kind byte

const (
	object    kind = iota + 1
	slash          // the keys that go on after a slash
	continued      // the keys that go on
)

// entry is a name in a directory: the part of a key it stands for, with a slash's slash.
type entry struct {
	part string
	kind kind
}

// name is parseName's inverse.
func (e entry) name() string {
	switch e.kind {
	case slash:
		return escape(e.part[:len(e.part)-1]) + slashSuffix
	case continued:
		return escape(e.part) + continuedSuffix
	}
	return escape(e.part) + objectSuffix
}

// parseName reads a file's name; ok is false for one that no key has.
func parseName(name string) (e entry, ok bool) {
	if len(name) < len(objectSuffix) {
		return entry{}, false
	}
	stem, suffix := name[:len(name)-2], name[len(name)-2:]
	if e.part, ok = unescape(stem); !ok {
		return entry{}, false
	}
	switch {
	case suffix == objectSuffix && len(e.part) < maxName:
		e.kind = object
	case suffix == slashSuffix && len(e.part) < maxName:
		e.part += "/"
		e.kind = slash
	case suffix == continuedSuffix && len(e.part) == maxName:
		e.kind = continued
	default:
		return entry{}, false
	}
	return e, true
}

const hexDigits = "0123456789ABCDEF"

// plain are the bytes that stand for themselves. Letters beyond ASCII are escaped too: there are file
// systems that normalize them.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.'
}

func escape(s string) string {
	n := 0
	for i := range len(s) {
		if !plain(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

// unescape is escape's inverse, and refuses what escape does not write.
func unescape(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			high, low := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
			if high < 0 || low < 0 || plain(byte(high<<4|low)) {
				return "", false
			}
			c = byte(high<<4 | low)
			i += 2
		} else if !plain(c) {
			return "", false
		}
		b = append(b, c)
	}
	return string(b), true
}

func wrap(err error, what, key string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", what, key, err)
}
