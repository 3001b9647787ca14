package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNetNS is the current thread's network namespace. It is the host's for every thread but those of
// onThread, one of which may be the process's first: then /proc/self/ns/net is not the host's.
const threadNetNS = "/proc/thread-self/ns/net"

// onThread runs f on an operating system thread of its own, which may have changed namespace after
// it. restore says how to bring the thread back; if that fails, the thread is not used again.
func onThread(f func() error, restore func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := f()
		if restore() == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with the goroutine
		done <- err
	}()
	return <-done
}

// inNetNS runs f in the network namespace ns.
func inNetNS(ns int, f func() error) error {
	own := -1
	return onThread(func() error {
		var err error
		if own, err = unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open the thread's network namespace: %w", err)
		}
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	}, func() error { return restoreNetNS(own) })
}

func restoreNetNS(own int) error {
	if own < 0 {
		return nil // it was never left
	}
	defer unix.Close(own)
	return unix.Setns(own, unix.CLONE_NEWNET)
}

// newNetNS makes a network namespace, pins it at path, and runs f in it.
func newNetNS(path string, f func() error) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o400)
	if err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	file.Close()
	own := -1
	return onThread(func() error {
		var err error
		if own, err = unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open the thread's network namespace: %w", err)
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		if err := f(); err != nil {
			return err
		}
		if err := unix.Mount(threadNetNS, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin network namespace at %s: %w", path, err)
		}
		return nil
	}, func() error { return restoreNetNS(own) })
}

// openNetNS opens the namespace at path: pinned there, or one of the magic links in /proc. Without one
// the error is os.ErrNotExist.
func openNetNS(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.NSFS_MAGIC {
		unix.Close(fd)
		return -1, fmt.Errorf("nothing is mounted at %s: %w", path, os.ErrNotExist)
	}
	return fd, nil
}

// removeNetNS unpins what is at path. The namespace ends with its last process.
func removeNetNS(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == unix.EINVAL || err == unix.ENOENT {
			break // nothing is mounted any more
		}
		if err != nil {
			return fmt.Errorf("unpin network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// openHostNetNS opens the host's namespace: the one at path or, without a path, that of the process.
func openHostNetNS(path string) (int, error) {
	if path == "" {
		path = threadNetNS
	}
	return openNetNS(path)
}
