package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// temporaryMounts is where layers are mounted for the moment in which they are unpacked or read, in a
// directory for each process: containerd knows one place for the whole process, whatever the number
// of instances in it.
const temporaryMounts = "/run/berth-mounts"

var setTemporaryMounts sync.Once

// prepareTemporaryMounts makes this process's directory, and removes those of processes that were
// killed, with what they left mounted.
func prepareTemporaryMounts() error {
	own := filepath.Join(temporaryMounts, strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(own, 0o700); err != nil {
		return fmt.Errorf("make the directory of temporary mounts: %w", err)
	}
	var err error
	setTemporaryMounts.Do(func() { err = mount.SetTempMountLocation(own) })
	if err != nil {
		return fmt.Errorf("set where layers are mounted: %w", err)
	}
	entries, err := os.ReadDir(temporaryMounts)
	if err != nil {
		return fmt.Errorf("list the temporary mounts: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		dir := filepath.Join(temporaryMounts, e.Name())
		if err := unmountBelow(dir); err != nil {
			return err
		}
		if err := removeEmpty(dir); err != nil {
			return fmt.Errorf("remove a dead process's temporary mounts: %w", err)
		}
	}
	return nil
}

// removeEmpty removes a directory of empty directories. It is no RemoveAll, which would go on into
// what is still mounted.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := unix.Rmdir(filepath.Join(dir, e.Name())); err != nil && err != unix.ENOENT {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// unmountBelow unmounts everything mounted below the directory, the innermost first.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) >= 5 && strings.HasPrefix(fields[4], filepath.Clean(dir)+"/") {
			points = append(points, fields[4])
		}
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		if err := mount.UnmountAll(points[i], 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", points[i], err))
		}
	}
	return errors.Join(errs...)
}
