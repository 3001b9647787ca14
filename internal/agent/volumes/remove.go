package volumes

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// isMountPoint says whether something is mounted on path itself.
func isMountPoint(path string) (bool, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	fd, err := openHere(dir, filepath.Base(path), unix.O_PATH)
	switch err {
	case nil:
		unix.Close(fd)
		return false, nil
	case unix.EXDEV:
		return true, nil
	}
	return false, &os.PathError{Op: "open", Path: path, Err: err}
}

// openHere opens an entry of a directory, unless it is a link (ELOOP) or a mount point (EXDEV).
func openHere(dir int, name string, flags uint64) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// unmountBelow unmounts what is mounted in a directory, whoever did it, the last first. What is in use
// goes when its last user does.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	for _, m := range slices.Backward(mounts) {
		// EINVAL: it went with the one above it.
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return &os.PathError{Op: "unmount", Path: m.Mountpoint, Err: err}
		}
	}
	return nil
}

// removeTree removes a directory with all that is in it. It follows no link, crosses no mount, and
// needs neither memory nor descriptors for the depth of a tree, which is a container's to choose: a
// directory that is not empty is moved to the top, and emptied there.
func removeTree(ctx context.Context, path string) error {
	top, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(top)
	r := remover{top: top}
	for {
		full, err := r.empty(ctx, top)
		if err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		if len(full) == 0 {
			break
		}
		for _, name := range full {
			if err := r.remove(ctx, name); err != nil {
				return fmt.Errorf("remove %s: %w", filepath.Join(path, name), err)
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// remover empties the directory top.
type remover struct {
	top   int
	moved int // directories that were given a place in top
}

// remove removes a directory in top, and moves what cannot be removed yet into top.
func (r *remover) remove(ctx context.Context, name string) error {
	fd, err := openHere(r.top, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	full, err := r.empty(ctx, fd)
	if err != nil {
		return err
	}
	for _, n := range full {
		if err := r.moveUp(fd, n); err != nil {
			return fmt.Errorf("move %q: %w", n, err)
		}
	}
	// ENOTEMPTY: something came in meanwhile. The next round sees it.
	if err := unix.Unlinkat(r.top, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOTEMPTY {
		return err
	}
	return nil
}

// empty removes what is in a directory, but for the directories that are not empty themselves: it
// answers their names.
func (r *remover) empty(ctx context.Context, fd int) (full []string, err error) {
	read, err := openHere(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY) // with a position of its own
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(read), "")
	defer dir.Close()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := dir.Readdirnames(1024)
		if err == io.EOF {
			return full, nil
		}
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			err := unix.Unlinkat(fd, n, 0)
			if err == unix.EISDIR {
				err = unix.Unlinkat(fd, n, unix.AT_REMOVEDIR)
			}
			switch err {
			case nil, unix.ENOENT:
			case unix.ENOTEMPTY, unix.EEXIST:
				full = append(full, n)
			default:
				return nil, fmt.Errorf("%q: %w", n, err)
			}
		}
	}
}

// moveUp gives a directory a place in top.
func (r *remover) moveUp(fd int, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(fd, name, r.top, ".remove-"+strconv.Itoa(r.moved), unix.RENAME_NOREPLACE)
		if err != unix.EEXIST {
			return err
		}
	}
}
