package logdriver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

const recordSchema = 1

// record says that a container's output is to be delivered. It is there until all of it is.
type record struct {
	Schema      int               `json:"schema"`
	TaskARN     string            `json:"taskArn"`
	Container   string            `json:"container"`
	ContainerID string            `json:"containerId"`
	Driver      string            `json:"driver"`
	Options     map[string]string `json:"options,omitempty"`
	// Facts are what the tag option and its like can show.
	Image  string            `json:"image,omitempty"`
	Name   string            `json:"name,omitempty"`   // as Docker would call the container
	Labels map[string]string `json:"labels,omitempty"` // those the options ask for
	Env    map[string]string `json:"env,omitempty"`    // likewise
	// EndedAt is when all that the container wrote was in the spool; zero: it may write more.
	EndedAt time.Time `json:"endedAt,omitzero"`
}

func (r record) taskID() string { return r.TaskARN[strings.LastIndexByte(r.TaskARN, '/')+1:] }

func (r record) check() error {
	for _, name := range []string{r.taskID(), r.Container, r.ContainerID} {
		if name == "" || name[0] == '.' || len(name) > 200 || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("%q cannot be part of a file name", name)
		}
	}
	return nil
}

// records are files in a directory, two a container: its record and its cursor.
type records struct{ dir string }

func (d records) path(id string) string   { return filepath.Join(d.dir, id+".json") }
func (d records) cursor(id string) string { return filepath.Join(d.dir, id+".cursor") }

// save replaces the record as a whole and makes it durable.
func (d records) save(r record) error {
	r.Schema = recordSchema
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replace(d.path(r.ContainerID), b, true)
}

// saveCursor replaces the cursor. It is not synced: the spool is not, either, and after a crash of the
// machine a cursor that is too far back delivers twice, never too little.
func (d records) saveCursor(id string, c spool.Cursor) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return replace(d.cursor(id), b, false)
}

func replace(path string, b []byte, sync bool) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if sync && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// load reads a record, and where to go on. A cursor that cannot be read is the beginning.
func (d records) load(id string) (record, spool.Cursor, error) {
	b, err := os.ReadFile(d.path(id))
	if err != nil {
		return record{}, spool.Cursor{}, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, spool.Cursor{}, fmt.Errorf("read the log record of %s: %w", id, err)
	}
	if r.Schema > recordSchema {
		return record{}, spool.Cursor{}, fmt.Errorf("the log record of %s has schema %d, newer than %d", id, r.Schema, recordSchema)
	}
	if err := r.check(); err != nil || r.ContainerID != id {
		return record{}, spool.Cursor{}, fmt.Errorf("the log record of %s is not valid", id)
	}
	c, err := spool.LoadCursor(d.cursor(id))
	if err != nil {
		c = spool.Cursor{}
	}
	return r, c, nil
}

// remove forgets a container; the record goes first.
func (d records) remove(id string) error {
	var errs []error
	for _, path := range []string{d.path(id), d.cursor(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// all names the containers that have records.
func (d records) all() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
