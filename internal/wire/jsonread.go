package wire

import (
	"unicode/utf16"
	"unicode/utf8"
)

// jsonReader reads JSON's tokens (RFC 8259, and no more) from a slice.
type jsonReader struct {
	data    []byte
	pos     int
	depth   int
	scratch []byte
}

var (
	errJSONEnd     = inputError("Unexpected end of input")
	errJSONUTF8    = inputError("Invalid UTF-8 in a string")
	errJSONControl = inputError("Control character in a string")
	errJSONEscape  = inputError("Invalid escape in a string")
	errJSONNumber  = inputError("Invalid number")
)

func (r *jsonReader) skipSpace() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return
		}
	}
}

// peek answers the next token's first byte, 0 at the end.
func (r *jsonReader) peek() byte {
	r.skipSpace()
	if r.pos == len(r.data) {
		return 0
	}
	return r.data[r.pos]
}

func (r *jsonReader) unexpected() error {
	if r.pos >= len(r.data) {
		return errJSONEnd
	}
	if c := r.data[r.pos]; c >= ' ' && c < 0x7f {
		return inputErrorf("Unexpected character '%c' at byte %d", c, r.pos)
	}
	return inputErrorf("Unexpected character at byte %d", r.pos)
}

func (r *jsonReader) expect(c byte) error {
	if r.peek() != c {
		return r.unexpected()
	}
	r.pos++
	return nil
}

// enter reads an opening bracket; leave is to be called after the closing one.
func (r *jsonReader) enter(open byte) error {
	if err := r.expect(open); err != nil {
		return err
	}
	if r.depth++; r.depth > MaxDepth {
		return errDepth()
	}
	return nil
}

// more steps to the next element of what enter opened: true before each, false after the last, when it
// has also read the closing bracket.
func (r *jsonReader) more(first bool, closing byte) (bool, error) {
	switch c := r.peek(); {
	case c == closing:
		r.pos++
		r.depth--
		return false, nil
	case first:
		return true, nil
	case c == ',':
		r.pos++
		if r.peek() == closing {
			return false, r.unexpected()
		}
		return true, nil
	}
	return false, r.unexpected()
}

// key reads a member's name and the colon. The bytes are good until the next call.
func (r *jsonReader) key() ([]byte, error) {
	k, err := r.stringBytes()
	if err != nil {
		return nil, err
	}
	return k, r.expect(':')
}

// literal reads null, true or false, whichever word is.
func (r *jsonReader) literal(word string) error {
	if len(r.data)-r.pos < len(word) || string(r.data[r.pos:r.pos+len(word)]) != word {
		return r.unexpected()
	}
	r.pos += len(word)
	return nil
}

// number reads a number and answers its text, and whether it has a fraction or an exponent.
func (r *jsonReader) number() (text []byte, integer bool, err error) {
	start, integer := r.pos, true
	digits := func() bool {
		from := r.pos
		for r.pos < len(r.data) && r.data[r.pos]-'0' < 10 {
			r.pos++
		}
		return r.pos > from
	}
	at := func(c byte) bool { return r.pos < len(r.data) && r.data[r.pos] == c }
	if at('-') {
		r.pos++
	}
	if at('0') {
		r.pos++
	} else if !digits() {
		return nil, false, errJSONNumber
	}
	if at('.') {
		integer = false
		r.pos++
		if !digits() {
			return nil, false, errJSONNumber
		}
	}
	if at('e') || at('E') {
		integer = false
		r.pos++
		if at('+') || at('-') {
			r.pos++
		}
		if !digits() {
			return nil, false, errJSONNumber
		}
	}
	return r.data[start:r.pos], integer, nil
}

// stringBytes reads a string. The bytes are good until the next call.
func (r *jsonReader) stringBytes() ([]byte, error) {
	if err := r.expect('"'); err != nil {
		return nil, err
	}
	start, ascii := r.pos, true
	for i := r.pos; i < len(r.data); i++ {
		switch c := r.data[i]; {
		case c == '"':
			r.pos = i + 1
			if !ascii && !utf8.Valid(r.data[start:i]) {
				return nil, errJSONUTF8
			}
			return r.data[start:i], nil
		case c == '\\':
			return r.escapedString(start, i)
		case c < ' ':
			return nil, errJSONControl
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, errJSONEnd
}

// escapedString goes on with a string that began at start and has its first escape at i.
func (r *jsonReader) escapedString(start, i int) ([]byte, error) {
	b := append(r.scratch[:0], r.data[start:i]...)
	for i < len(r.data) {
		c := r.data[i]
		switch {
		case c == '"':
			r.pos, r.scratch = i+1, b
			if !utf8.Valid(b) {
				return nil, errJSONUTF8
			}
			return b, nil
		case c < ' ':
			return nil, errJSONControl
		case c != '\\':
			b = append(b, c)
			i++
			continue
		}
		if i+1 >= len(r.data) {
			return nil, errJSONEnd
		}
		i += 2
		switch r.data[i-1] {
		case '"', '\\', '/':
			b = append(b, r.data[i-1])
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			u, ok := hex4(r.data, i)
			if !ok {
				return nil, errJSONEscape
			}
			i += 4
			if utf16.IsSurrogate(u) {
				if i+1 >= len(r.data) || r.data[i] != '\\' || r.data[i+1] != 'u' {
					return nil, errJSONEscape
				}
				low, ok := hex4(r.data, i+2)
				if u = utf16.DecodeRune(u, low); !ok || u == utf8.RuneError {
					return nil, errJSONEscape
				}
				i += 6
			}
			b = utf8.AppendRune(b, u)
		default:
			return nil, errJSONEscape
		}
	}
	return nil, errJSONEnd
}

func hex4(data []byte, at int) (rune, bool) {
	if at+4 > len(data) {
		return 0, false
	}
	var u rune
	for _, c := range data[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

// skip reads over one value of any kind.
func (r *jsonReader) skip() error {
	switch c := r.peek(); c {
	case '"':
		_, err := r.stringBytes()
		return err
	case 't':
		return r.literal("true")
	case 'f':
		return r.literal("false")
	case 'n':
		return r.literal("null")
	case '{', '[':
		if err := r.enter(c); err != nil {
			return err
		}
		closing := c + 2 // '{' + 2 is '}', '[' + 2 is ']'
		for first := true; ; first = false {
			more, err := r.more(first, closing)
			if err != nil || !more {
				return err
			}
			if c == '{' {
				if _, err := r.key(); err != nil {
					return err
				}
			}
			if err := r.skip(); err != nil {
				return err
			}
		}
	default:
		if c == '-' || c-'0' < 10 {
			_, _, err := r.number()
			return err
		}
		return r.unexpected()
	}
}
