package volumes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// record is volume.json: what a shared volume was made with. The first task's word counts; those that
// come later get what there is, as with Amazon's agent, whose ECS_SHARED_VOLUME_MATCH_FULL_CONFIG is
// off by default.
type record struct {
	Version    int               `json:"version"`
	CreatedAt  time.Time         `json:"createdAt"`
	Driver     string            `json:"driver"`
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

const recordVersion = 1

// usesDir holds a task's notes. No volume has its name, which has a dot.
const usesDir = ".uses"

func (v *Volumes) sharedDir(name string) string { return filepath.Join(v.dir, "shared", name) }

// shared is a Docker volume of scope shared. Its record comes last: a volume that cannot be had is not
// made.
func (v *Volumes) shared(id string, vol *dispatchpb.Volume) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir := v.sharedDir(vol.Name)
	rec, err := readRecord(dir)
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case isNew && !vol.Autoprovision:
		return "", fmt.Errorf("initialize volume: volume detection failed, volume '%s' does not exist and autoprovision is set to false: get %s: no such volume", vol.Name, vol.Name)
	case isNew:
		rec = record{Version: recordVersion, CreatedAt: time.Now().UTC(), Driver: vol.Driver, DriverOpts: vol.DriverOpts, Labels: vol.Labels}
	case err != nil:
		return "", err
	}
	opts, err := parseDriver(&dispatchpb.Volume{Name: vol.Name, Driver: rec.Driver, DriverOpts: rec.DriverOpts})
	if err != nil {
		return "", err
	}
	path, err := v.sharedPath(id, vol.Name, dir, opts)
	if err == nil && isNew {
		err = writeRecord(dir, rec)
	}
	return path, err
}

func (v *Volumes) sharedPath(id, name, dir string, opts driverOptions) (string, error) {
	if opts.bind != "" {
		return v.guard.bindDevice(opts.bind)
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make volume: %w", err)
	}
	if err := makeVolumeDir(data); err != nil || opts.tmpfs == nil {
		return data, err
	}
	// The note comes before the mount: a mount without a user would stay.
	uses := filepath.Join(v.taskDir(id), usesDir)
	if err := os.MkdirAll(uses, 0o700); err != nil {
		return "", fmt.Errorf("note the use of volume %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(uses, name), nil, 0o600); err != nil {
		return "", fmt.Errorf("note the use of volume %s: %w", name, err)
	}
	return data, opts.tmpfs.mount(data)
}

// releaseShared takes the task's notes back, and unmounts what has no user left, as Docker unmounts a
// volume with its last container.
func (v *Volumes) releaseShared(id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	uses := filepath.Join(v.taskDir(id), usesDir)
	notes, err := os.ReadDir(uses)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range notes {
		others, err := filepath.Glob(filepath.Join(v.dir, "tasks", "*", usesDir, n.Name()))
		if err != nil {
			return err
		}
		if len(others) <= 1 {
			if err := unmountBelow(v.sharedDir(n.Name())); err != nil {
				return err
			}
		}
		if err := os.Remove(filepath.Join(uses, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

func readRecord(dir string) (record, error) {
	var r record
	raw, err := os.ReadFile(filepath.Join(dir, "volume.json"))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("read volume %s: %w", filepath.Base(dir), err)
	}
	if r.Version > recordVersion {
		return r, fmt.Errorf("volume %s was made by a newer Berth", filepath.Base(dir))
	}
	return r, nil
}

// writeRecord makes a volume's record, whole or not at all.
func writeRecord(dir string, r record) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "volume.json.new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, "volume.json"))
	}
	if err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	return nil
}
