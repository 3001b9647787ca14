package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// schema is the version of both files. A file of a newer one is refused, never guessed at.
const schema = 1

// maxFile bounds what is read of a file; both are well below a kibibyte per key.
const maxFile = 1 << 20

// versioned is what every file begins with.
type versioned struct {
	Schema int `json:"schema"`
}

// load reads a file of secrets into v. It is fs.ErrNotExist when there is none.
func load(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s holds secrets and others can read it (mode %04o): chmod 600 it, and if it may have been read, remove it to have new keys made", path, perm)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return err
	}
	var version versioned
	if err := json.Unmarshal(data, &version); err != nil {
		return fmt.Errorf("%s is damaged: not valid JSON", path) // err would quote a secret
	}
	switch {
	case version.Schema > schema:
		return fmt.Errorf("%s was written by a newer Berth (schema %d, this one knows %d)", path, version.Schema, schema)
	case version.Schema < 1:
		return fmt.Errorf("%s is damaged: it names no schema version", path)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged: not of the expected form", path)
	}
	return nil
}

// store writes v so that the file is at every moment either the old or the new one, whole.
func store(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// loadOrMake loads the file or, if there is none, stores what fresh makes.
func loadOrMake[T any](path string, fresh func() (T, error)) (T, error) {
	var v T
	err := load(path, &v)
	if !errors.Is(err, fs.ErrNotExist) {
		return v, err
	}
	if v, err = fresh(); err != nil {
		return v, err
	}
	return v, store(path, v)
}
