package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/failpoint"
)

// ErrNoSpace says that the volume is full, or a quota on it. What was there is as it was.
var ErrNoSpace = errors.New("no space left for objects")

const (
	objectsDir = "objects"
	tempDir    = "tmp" // on the same volume, for a rename
	lockFile   = "lock"
)

// Dir is a Store in a directory of a local file system: a file for each object, a directory for each
// prefix. One process at a time has it open.
//
// Memory is bounded by the number of calls under way, not by the size or number of objects; a listing
// reads a directory once for each listChunk names in it. An object whose file is damaged is listed with
// its key and time alone, so that it can be found and deleted; Get and Stat answer ErrCorrupt.
type Dir struct {
	root *os.Root
	lock *os.File
	log  *slog.Logger
	// hit marks the places to die at; tests of crashes put their own.
	hit func(string)

	// shape is held for reading while a name is made, for writing while a directory is made or removed.
	shape sync.RWMutex
}

var _ Store = (*Dir)(nil)

// OpenDir opens a store in dir, which is made if it is not there. What a crash left half-written is
// removed. It fails when another process has the store open.
func OpenDir(dir string, log *slog.Logger) (_ *Dir, err error) {
	defer func() { err = wrap(err, "open bulk storage", dir) }()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, log: log, hit: failpoint.Hit}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.lock, err = root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := exclusive(d.lock); err != nil {
		return nil, err
	}
	if err := root.RemoveAll(tempDir); err != nil {
		return nil, err
	}
	for _, name := range []string{tempDir, objectsDir} {
		if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	// A process that was killed may have made names that its machine has not written yet. Puts rely on
	// the directories they find.
	if err := unix.Syncfs(int(d.lock.Fd())); err != nil {
		return nil, fmt.Errorf("write out what is there: %w", err)
	}
	return d, nil
}

// exclusive takes the lock. It is tried for a moment: a process that has ended can have left a child
// that was not yet what it was to become.
func exclusive(lock *os.File) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another process has it open: %w", err)
		}
	}
}

// Close lets another process open the store. Calls under way may fail; readers are theirs to close.
func (d *Dir) Close() error {
	var err error
	if d.lock != nil {
		err = d.lock.Close()
	}
	return errors.Join(err, d.root.Close())
}

// Put is as Store says. When the volume is full the error is ErrNoSpace.
func (d *Dir) Put(ctx context.Context, key string, r io.Reader, o PutOptions) (_ Info, err error) {
	defer func() {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		err = wrap(err, "put object", key)
	}()
	if err := errors.Join(checkKey(key), o.check()); err != nil {
		return Info{}, err
	}
	dir, name := objectPath(key)
	if o.IfNoneMatch {
		if _, err := d.root.Lstat(path.Join(dir, name)); err == nil {
			return Info{}, ErrExists
		}
	}
	temp := path.Join(tempDir, rand.Text())
	f, err := d.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil || o.IfNoneMatch { // a link leaves the temporary name
			if gone := d.root.Remove(temp); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
				d.log.Warn("A temporary file of bulk storage stays until the next start.", "file", temp, "error", gone)
			}
		}
	}()
	info, err := writeObject(ctx, f, key, r, o)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Info{}, err
	}
	d.hit("blob/put/before")
	parent, err := d.place(temp, dir, name, o.IfNoneMatch)
	if err != nil {
		return Info{}, err
	}
	defer parent.Close()
	d.hit("blob/put/after")
	if err := parent.Sync(); err != nil {
		return Info{}, err
	}
	return info, nil
}

// place gives a temporary file its name, and answers the directory to be synced.
func (d *Dir) place(temp, dir, name string, exclusive bool) (parent *os.File, err error) {
	d.shape.RLock()
	parent, err = d.root.Open(dir)
	if err == nil {
		err = d.rename(temp, path.Join(dir, name), exclusive)
	}
	d.shape.RUnlock()
	if parent == nil && errors.Is(err, fs.ErrNotExist) {
		d.shape.Lock()
		if parent, err = d.mkdirAll(dir); err == nil {
			err = d.rename(temp, path.Join(dir, name), exclusive)
		}
		d.shape.Unlock()
	}
	if err != nil {
		if parent != nil {
			parent.Close()
		}
		return nil, err
	}
	return parent, nil
}

func (d *Dir) rename(temp, to string, exclusive bool) error {
	if !exclusive {
		return d.root.Rename(temp, to)
	}
	if err := d.root.Link(temp, to); errors.Is(err, fs.ErrExist) {
		return ErrExists
	} else if err != nil {
		return err
	}
	return nil
}

// mkdirAll makes a directory and those above it that are missing, each durable before it can be found,
// and opens it.
func (d *Dir) mkdirAll(dir string) (*os.File, error) {
	f, err := d.root.Open(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	above, err := d.mkdirAll(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	if err := d.root.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := above.Sync(); err != nil {
		// Nobody may rely on it.
		return nil, errors.Join(err, d.root.Remove(dir))
	}
	return d.root.Open(dir)
}

// objectPath answers where the store has a key's object.
func objectPath(key string) (dir, name string) {
	dir, name = keyPath(key)
	return path.Join(objectsDir, dir), name
}

// Get is as Store says.
func (d *Dir) Get(_ context.Context, key string) (Reader, error) {
	f, info, err := d.open(key)
	if err != nil {
		return nil, err
	}
	return &reader{f: f, info: info}, nil
}

// Stat is as Store says.
func (d *Dir) Stat(_ context.Context, key string) (Info, error) {
	f, info, err := d.open(key)
	if err != nil {
		return Info{}, err
	}
	f.Close()
	return info, nil
}

func (d *Dir) open(key string) (*os.File, Info, error) {
	if err := checkKey(key); err != nil {
		return nil, Info{}, wrap(err, "open object", key)
	}
	f, err := d.root.Open(path.Join(objectPath(key)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Info{}, wrap(ErrNotFound, "open object", key)
	}
	if err != nil {
		return nil, Info{}, wrap(err, "open object", key)
	}
	info, err := readInfo(f, key)
	if err != nil {
		f.Close()
		return nil, Info{}, wrap(err, "open object", key)
	}
	return f, info, nil
}

// Delete is as Store says. When it returns, the object stays away after a crash.
func (d *Dir) Delete(_ context.Context, key string) (err error) {
	defer func() { err = wrap(err, "delete object", key) }()
	if err := checkKey(key); err != nil {
		return err
	}
	dir, name := objectPath(key)
	parent, err := d.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	d.hit("blob/delete/before")
	if err := d.root.Remove(path.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	d.hit("blob/delete/after")
	if err := parent.Sync(); err != nil {
		return err
	}
	d.prune(parent, dir)
	return nil
}

// prune removes a directory, and those above it, as long as they are empty.
func (d *Dir) prune(parent *os.File, dir string) {
	if !empty(parent) { // looked at without the lock: most directories are not
		return
	}
	d.shape.Lock()
	defer d.shape.Unlock()
	for ; strings.HasPrefix(dir, objectsDir+"/"); dir = path.Dir(dir) {
		if err := d.root.Remove(dir); err != nil {
			return // not empty, or pruned by another
		}
	}
}

func empty(dir *os.File) bool {
	names, err := dir.Readdirnames(1)
	return len(names) == 0 && (err == nil || err == io.EOF)
}
