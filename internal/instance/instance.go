// Package instance owns a Berth's place on the host: its data directory, its run directory and the
// name that everything it makes carries.
//
// Several instances share a host. What keeps them apart is the instance's ID, eight hexadecimal
// digits made once and kept in the data directory: network interfaces, nftables tables, cgroups and
// the run directory are named after it. One process at a time holds an instance, by a lock.
package instance

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// formatVersion is of the data directory's layout. A directory with a greater one is refused.
const formatVersion = 1

// runRoot holds what does not survive a reboot. It is short because the paths of unix sockets are
// limited to 108 bytes.
const runRoot = "/run/berth"

var (
	// ErrHeld says that another process holds the instance.
	ErrHeld = errors.New("another berth is using this data directory")
	// ErrNewer says that the data directory was written by a newer Berth.
	ErrNewer = errors.New("the data directory was written by a newer berth")
	// ErrNone says that there is no instance in the directory.
	ErrNone = errors.New("no berth has used this data directory")
)

// record is the instance's file in the data directory.
type record struct {
	Version   int       `json:"version"`
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	// These are of the last start: what other commands and reset need to know.
	Listen  string `json:"listen,omitempty"`
	Dev     bool   `json:"dev,omitempty"`
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
	// Profiles were added since the first start.
	Profiles []Profile `json:"awsProfiles,omitempty"`
}

// Instance is an instance's place. Its directories exist, with access for the owner alone.
type Instance struct {
	ID      string
	DataDir string
	RunDir  string

	rec  record
	lock *os.File
}

// Settings are what a start remembers for the commands that come after it.
type Settings struct {
	Listen  string
	Dev     bool
	Account string
	Region  string
}

// Profile is an AWS profile that the instance has added, as it was written.
type Profile struct {
	Home     string `json:"home"` // the directory above .aws
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
}

// Hold opens the instance in dataDir, making it on first use, and holds it until Release. It fails
// with ErrHeld while another process does and with ErrNewer for data of a newer Berth.
func Hold(dataDir string) (*Instance, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory %q: %w", dataDir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrHeld, dir)
		}
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	in := &Instance{DataDir: dir, lock: lock}
	err = in.load()
	if errors.Is(err, fs.ErrNotExist) {
		err = in.create()
	}
	if err == nil {
		err = os.MkdirAll(in.RunDir, 0o700)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return in, nil
}

// Peek reads the instance in dataDir without holding it: for the commands that speak to a running
// Berth. It fails with ErrNone when there is none.
func Peek(dataDir string) (*Instance, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory %q: %w", dataDir, err)
	}
	in := &Instance{DataDir: dir}
	if err := in.load(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNone, dir)
		}
		return nil, err
	}
	return in, nil
}

// Release lets the instance go.
func (in *Instance) Release() {
	if in.lock != nil {
		in.lock.Close()
		in.lock = nil
	}
}

// Settings tells how the instance was last started.
func (in *Instance) Settings() Settings {
	return Settings{Listen: in.rec.Listen, Dev: in.rec.Dev, Account: in.rec.Account, Region: in.rec.Region}
}

// Remember keeps the settings of this start.
func (in *Instance) Remember(s Settings) error {
	in.rec.Listen, in.rec.Dev, in.rec.Account, in.rec.Region = s.Listen, s.Dev, s.Account, s.Region
	return in.save()
}

// Profiles tells which AWS profiles the instance has added, so that a reset finds them whoever calls it.
func (in *Instance) Profiles() []Profile { return slices.Clone(in.rec.Profiles) }

// RememberProfile keeps that a profile was added.
func (in *Instance) RememberProfile(p Profile) error {
	if slices.Contains(in.rec.Profiles, p) {
		return nil
	}
	in.rec.Profiles = append(in.rec.Profiles, p)
	return in.save()
}

// Path returns a path inside the data directory.
func (in *Instance) Path(elem ...string) string {
	return filepath.Join(append([]string{in.DataDir}, elem...)...)
}

// Run returns a path inside the run directory.
func (in *Instance) Run(elem ...string) string {
	return filepath.Join(append([]string{in.RunDir}, elem...)...)
}

// AdminSocket is where the running Berth answers the commands of its own command line.
func (in *Instance) AdminSocket() string { return in.Run("admin.sock") }

// Remove deletes both directories. Everything in them must have been unmounted and stopped before.
func (in *Instance) Remove() error {
	err := errors.Join(os.RemoveAll(in.RunDir), os.RemoveAll(in.DataDir))
	in.Release()
	return err
}

func (in *Instance) file() string { return filepath.Join(in.DataDir, "instance.json") }

func (in *Instance) load() error {
	raw, err := os.ReadFile(in.file())
	if err != nil {
		return fmt.Errorf("read instance: %w", err)
	}
	if err := json.Unmarshal(raw, &in.rec); err != nil {
		return fmt.Errorf("read instance %s: %w", in.file(), err)
	}
	if in.rec.Version > formatVersion {
		return fmt.Errorf("%w: %s has format %d, this berth knows up to %d",
			ErrNewer, in.DataDir, in.rec.Version, formatVersion)
	}
	in.ID, in.RunDir = in.rec.ID, filepath.Join(runRoot, in.rec.ID)
	return nil
}

func (in *Instance) create() error {
	id := make([]byte, 4)
	rand.Read(id)
	in.rec = record{Version: formatVersion, ID: hex.EncodeToString(id), CreatedAt: time.Now().UTC()}
	in.ID, in.RunDir = in.rec.ID, filepath.Join(runRoot, in.rec.ID)
	return in.save()
}

func (in *Instance) save() error {
	raw, err := json.MarshalIndent(in.rec, "", "  ")
	if err != nil {
		return fmt.Errorf("encode instance: %w", err)
	}
	return WriteFile(in.file(), append(raw, '\n'), 0o600)
}

// WriteFile replaces a file so that a crash leaves the old one or the new one, whole.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
