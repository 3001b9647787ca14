package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// recordSchema is the version of Record on disk.
const recordSchema = 1

// Record says that a container's FIFOs are to be read. It is in the run directory, which is empty
// after a reboot, as are the FIFOs: it need not be synced.
type Record struct {
	Schema      int    `json:"schema"`
	TaskID      string `json:"taskId"`
	Container   string `json:"container"`
	ContainerID string `json:"containerId"`
}

// Paths are the places that agent and logger share.
type Paths struct {
	RunDir   string // short, for the socket's sake; on a file system that a reboot empties
	SpoolDir string
}

func (p Paths) dir() string      { return filepath.Join(p.RunDir, "logger") }
func (p Paths) Socket() string   { return filepath.Join(p.dir(), "socket") }
func (p Paths) Lock() string     { return filepath.Join(p.dir(), "lock") }
func (p Paths) Log() string      { return filepath.Join(p.dir(), "log") }
func (p Paths) attached() string { return filepath.Join(p.dir(), "attached") }
func (p Paths) record(id string) string {
	return filepath.Join(p.attached(), id+".json")
}

// FIFOs returns the paths of a container's FIFOs.
func (p Paths) FIFOs(id string) (stdout, stderr string) {
	base := filepath.Join(p.dir(), "fifo", id)
	return base + ".out", base + ".err"
}

// Spool returns the directory of a container's spool; without a container, that of the whole task.
func (p Paths) Spool(taskID, container string) string {
	return filepath.Join(p.SpoolDir, taskID, container)
}

// Make makes the directories.
func (p Paths) Make() error {
	for _, dir := range []string{p.SpoolDir, p.dir(), p.attached(), filepath.Join(p.dir(), "fifo")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the logger's directory: %w", err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("make the logger's directory: %w", err)
		}
	}
	return nil
}

// ValidName says whether s can be part of a file name: an identifier of a task or container.
func ValidName(s string) bool {
	if s == "" || len(s) > 200 || s[0] == '.' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}) < 0
}

// Save makes the FIFOs and the record of r, in this order. Both may be there already.
func (p Paths) Save(r Record) error {
	out, err := p.FIFOs(r.ContainerID)
	for _, path := range []string{out, err} {
		if err := unix.Mkfifo(path, 0o600); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make FIFO %s: %w", path, err)
		}
	}
	if old, err := p.Load(r.ContainerID); err == nil {
		r.Schema = old.Schema
		if old != r {
			return fmt.Errorf("container %s is attached as %s of task %s", r.ContainerID, old.Container, old.TaskID)
		}
		return nil
	}
	r.Schema = recordSchema
	b, e := json.Marshal(r)
	if e != nil {
		return e
	}
	tmp := p.record(r.ContainerID) + ".new"
	if e := os.WriteFile(tmp, b, 0o600); e != nil {
		return fmt.Errorf("write the logger's record: %w", e)
	}
	if e := os.Rename(tmp, p.record(r.ContainerID)); e != nil {
		return fmt.Errorf("write the logger's record: %w", e)
	}
	return nil
}

// Load reads the record of a container; os.ErrNotExist if it is not attached.
func (p Paths) Load(id string) (Record, error) {
	b, err := os.ReadFile(p.record(id))
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("logger's record of %s: %w", id, err)
	}
	if r.Schema > recordSchema {
		return Record{}, fmt.Errorf("logger's record of %s has schema %d, newer than %d", id, r.Schema, recordSchema)
	}
	if r.ContainerID != id || !ValidName(r.TaskID) || !ValidName(r.Container) {
		return Record{}, fmt.Errorf("logger's record of %s is not valid", id)
	}
	return r, nil
}

// Forget removes the FIFOs and then the record: as long as there is a record, there is work to do.
func (p Paths) Forget(id string) error {
	out, err := p.FIFOs(id)
	var errs []error
	for _, path := range []string{out, err, p.record(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// All reads all records. Those that cannot be read are in the error, joined.
func (p Paths) All() ([]Record, error) {
	entries, err := os.ReadDir(p.attached())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Record
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		r, err := p.Load(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			all = append(all, r)
		}
	}
	return all, errors.Join(errs...)
}
