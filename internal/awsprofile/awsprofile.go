// Package awsprofile adds Berth's profile to a user's AWS configuration and takes it away again.
//
// It owns one section in each of ~/.aws/config and ~/.aws/credentials, and only if it wrote them: an
// existing profile of the name is never altered, and Remove takes away only sections that still read
// as they were written.
package awsprofile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Name is the profile's.
const Name = "berth"

// Profile is what a client needs to reach an instance.
type Profile struct {
	Endpoint        string // http://127.0.0.1:4566
	Region          string
	AccessKeyID     string
	SecretAccessKey string
}

// Home says whose files are meant.
type Home struct {
	Dir      string
	UID, GID int // owner of what is made
}

// Invoker is the home of the user who typed the command: under sudo the one who called it, not root.
func Invoker() (Home, error) {
	if name := os.Getenv("SUDO_USER"); name != "" && name != "root" && os.Geteuid() == 0 {
		u, err := user.Lookup(name)
		if err != nil {
			return Home{}, fmt.Errorf("look up the user behind sudo: %w", err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return Home{}, fmt.Errorf("user behind sudo: %w", err)
		}
		return Home{Dir: u.HomeDir, UID: uid, GID: gid}, nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return Home{}, fmt.Errorf("find home directory: %w", err)
	}
	return Home{Dir: dir, UID: os.Geteuid(), GID: os.Getegid()}, nil
}

// Result says what Add found.
type Result int

const (
	Added   Result = iota // the profile was written
	Same                  // it was there already, as Berth would write it
	Foreign               // a profile of the name was there and says something else; nothing was altered
)

func (p Profile) config() string {
	return fmt.Sprintf("[profile %s]\nregion = %s\nendpoint_url = %s\n", Name, p.Region, p.Endpoint)
}

func (p Profile) credentials() string {
	return fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", Name, p.AccessKeyID, p.SecretAccessKey)
}

// file is one of the two, with the section Berth wants in it.
type file struct {
	path, header, section string
	mode                  fs.FileMode
}

func (p Profile) files(h Home) []file {
	return []file{
		{filepath.Join(h.Dir, ".aws", "config"), "[profile " + Name + "]", p.config(), 0o600},
		{filepath.Join(h.Dir, ".aws", "credentials"), "[" + Name + "]", p.credentials(), 0o600},
	}
}

// Exists tells whether either file has a profile of the name, whoever wrote it.
func Exists(h Home) bool {
	for _, f := range (Profile{}).files(h) {
		if raw, err := os.ReadFile(f.path); err == nil {
			if start, _ := section(raw, f.header); start >= 0 {
				return true
			}
		}
	}
	return false
}

// Add writes the profile, unless either file has one of its name.
func Add(h Home, p Profile) (Result, error) {
	same := 0
	files := p.files(h)
	for _, f := range files {
		raw, err := os.ReadFile(f.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("read AWS profile: %w", err)
		}
		start, end := section(raw, f.header)
		switch {
		case start < 0:
		case string(bytes.TrimSpace(raw[start:end])) == strings.TrimSpace(f.section):
			same++
		default:
			return Foreign, nil
		}
	}
	if same == len(files) {
		return Same, nil
	}
	if err := makeDir(h); err != nil {
		return 0, err
	}
	for _, f := range files {
		if err := appendSection(h, f); err != nil {
			return 0, err
		}
	}
	return Added, nil
}

// Remove takes the profile away where it reads as p; anything else stays. Files with nothing else in
// them go with it.
func Remove(h Home, p Profile) error {
	for _, f := range p.files(h) {
		raw, err := os.ReadFile(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read AWS profile: %w", err)
		}
		start, end := section(raw, f.header)
		if start < 0 || string(bytes.TrimSpace(raw[start:end])) != strings.TrimSpace(f.section) {
			continue
		}
		rest := append(bytes.TrimRight(raw[:start:start], "\n"), '\n')
		if start == 0 || len(bytes.TrimSpace(raw[:start])) == 0 {
			rest = nil
		}
		rest = append(rest, raw[end:]...)
		if err := shrink(h, f, rest); err != nil {
			return err
		}
	}
	// The directory too, if it holds nothing any more.
	_ = os.Remove(filepath.Join(h.Dir, ".aws"))
	return nil
}

// shrink writes what is left of the file; of nothing it leaves no file, except where a link is.
func shrink(h Home, f file, rest []byte) error {
	if info, err := os.Lstat(f.path); err == nil && info.Mode().IsRegular() && len(bytes.TrimSpace(rest)) == 0 {
		if err := os.Remove(f.path); err != nil {
			return fmt.Errorf("remove AWS profile: %w", err)
		}
		return nil
	}
	return replace(h, f, rest)
}

// section finds a section from its header to the next one; -1 when there is none.
func section(raw []byte, header string) (start, end int) {
	start, pos := -1, 0
	for line := range bytes.Lines(raw) {
		trimmed := bytes.TrimSpace(line)
		switch {
		case start < 0 && normalize(trimmed) == header:
			start = pos
		case start >= 0 && len(trimmed) > 0 && trimmed[0] == '[':
			return start, pos
		}
		pos += len(line)
	}
	return start, len(raw)
}

// normalize makes "[ profile  berth ]" read "[profile berth]", as the AWS tools do.
func normalize(line []byte) string {
	if len(line) == 0 || line[0] != '[' {
		return ""
	}
	inner, _, found := strings.Cut(string(line[1:]), "]")
	if !found {
		return ""
	}
	return "[" + strings.Join(strings.Fields(strings.Trim(inner, `" `)), " ") + "]"
}

func makeDir(h Home) error {
	dir := filepath.Join(h.Dir, ".aws")
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chown(dir, h.UID, h.GID)
	}
	if err != nil {
		return fmt.Errorf("make AWS profile directory: %w", err)
	}
	return nil
}

func appendSection(h Home, f file) error {
	raw, err := os.ReadFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read AWS profile: %w", err)
	}
	if start, _ := section(raw, f.header); start >= 0 {
		return nil
	}
	if len(raw) > 0 {
		raw = append(bytes.TrimRight(raw, "\n"), "\n\n"...)
	}
	return replace(h, f, append(raw, f.section...))
}

// replace writes the file whole beside itself and renames it, so that a crash cannot lose somebody's
// credentials. A link is followed, and an existing file keeps its mode and owner.
func replace(h Home, f file, content []byte) error {
	path, mode, uid, gid := f.path, f.mode, h.UID, h.GID
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		uid, gid = owner(info, uid, gid)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".berth-*")
	if err != nil {
		return fmt.Errorf("write AWS profile: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Chown(uid, gid), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write AWS profile %s: %w", path, err)
	}
	return nil
}
