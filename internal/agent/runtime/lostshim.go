package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	gorunc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// A shim ends with its last container. Two kinds do not: one whose Berth died before it had written down
// that it started it, or while it was making a container, which the next Berth finds only by its
// socket; and one that hangs. Both are known by who listens on the task's socket, and are killed: as
// nobody knows what they hold, nobody can use it.

// endLostShim ends the task's shim if containerd does not know any container of it there, and removes
// what it may have made of the container. The caller has the task's shim for itself.
func (r *Runtime) endLostShim(ctx context.Context, id, task string) error {
	if task == "" {
		return nil
	}
	if _, err := os.Lstat(r.shimSocket(task)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	records, err := r.engine.containers.List(ctx, fmt.Sprintf("labels.%q==%q", labelTask, task))
	if err != nil {
		return fmt.Errorf("list the task's containers: %w", err)
	}
	for _, record := range records {
		_, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: record.ID})
		if !errdefs.IsNotFound(errgrpc.ToNative(err)) {
			return nil
		}
	}
	if err := endListeners(ctx, r.config.RuntimeDir, r.shimSocket(task)); err != nil {
		return err
	}
	return r.removeMade(ctx, id, task)
}

// removeMade removes a container that runc has made for a shim which has ended since.
func (r *Runtime) removeMade(ctx context.Context, id, task string) error {
	root := filepath.Join(r.config.RunDir, "runc", namespace)
	if _, err := os.Lstat(filepath.Join(root, id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := r.cgroups.kill(r.cgroupPath(task, id)); err != nil {
		return err
	}
	runc := gorunc.Runc{Command: r.programs.runc, Root: root}
	if err := runc.Delete(ctx, id, &gorunc.DeleteOpts{Force: true}); err != nil {
		return fmt.Errorf("remove what a lost shim made of the container: %w", err)
	}
	return nil
}

// endIfHung ends the task's shim, with all it has, if it does not answer for the container, and returns
// when containerd has taken note, which is that it has killed and removed the container.
func (r *Runtime) endIfHung(ctx context.Context, id, task string) (ended bool, err error) {
	if task == "" {
		return false, nil
	}
	// containerd gives a shim two seconds to tell a state.
	if _, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id}); err == nil {
		return false, nil
	}
	r.log.Warn("a shim does not answer and is killed with its containers", "task", task, "container", id)
	if err := endListeners(ctx, r.config.RuntimeDir, r.shimSocket(task)); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	for {
		_, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
		if errdefs.IsNotFound(errgrpc.ToNative(err)) {
			return true, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return false, fmt.Errorf("wait for the end of a shim that hung: %w", ctx.Err())
		}
	}
}

// endShim ends the task's shim, whatever it has.
func (r *Runtime) endShim(ctx context.Context, task string) error {
	socket := r.shimSocket(task)
	if _, err := os.Lstat(socket); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	defer r.shims.lock(task)()
	return endListeners(ctx, r.config.RuntimeDir, socket)
}

// endAllShims ends the instance's shims.
func (r *Runtime) endAllShims(ctx context.Context) error {
	entries, err := os.ReadDir(socketsDir(r.config.RunDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list the shims' sockets: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, endListeners(ctx, r.config.RuntimeDir, filepath.Join(socketsDir(r.config.RunDir), e.Name())))
	}
	return errors.Join(errs...)
}

// endListeners kills the processes of programs below base that listen on the socket, waits for their
// end, and removes the socket.
func endListeners(ctx context.Context, base, socket string) error {
	if socket == "" {
		return nil
	}
	if real, err := filepath.EvalSymlinks(base); err == nil {
		base = real // as in /proc/*/exe
	}
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	for {
		found, err := killListeners(base, socket)
		if err != nil {
			return fmt.Errorf("kill the shim that listens on %s: %w", socket, err)
		}
		if !found {
			return removeIfThere(socket)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("kill the shim that listens on %s: %w", socket, ctx.Err())
		}
	}
}

// killListeners kills the processes of programs below base that have the listening socket open, and
// tells whether there is one.
func killListeners(base, socket string) (found bool, err error) {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false, err
	}
	inodes := listeningInodes(string(table), socket)
	if len(inodes) == 0 {
		return false, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !hasOpen(pid, base, inodes) {
			continue
		}
		found = true
		// Held by its descriptor, the process cannot be another by the time of the signal.
		fd, err := unix.PidfdOpen(pid, 0)
		if err == nil {
			if hasOpen(pid, base, inodes) {
				err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			unix.Close(fd)
		}
		if err != nil && err != unix.ESRCH {
			return true, err
		}
	}
	return found, nil
}

// hasOpen tells whether the process is of a program below base and has one of the files open.
func hasOpen(pid int, base string, files map[string]bool) bool {
	dir := fmt.Sprintf("/proc/%d", pid)
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err != nil || !strings.HasPrefix(exe, base+"/") {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false // it has ended
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, "fd", e.Name())); err == nil && files[target] {
			return true
		}
	}
	return false
}

// listeningInodes reads /proc/net/unix: the sockets bound to the path that listen, named as a file
// descriptor's link names them. Those of connections have the same path.
func listeningInodes(table, path string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(table) {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(line)
		if len(fields) != 8 || fields[7] != path {
			continue
		}
		const acceptsConnections = 1 << 16
		if flags, err := strconv.ParseUint(fields[3], 16, 64); err == nil && flags&acceptsConnections != 0 {
			out["socket:["+fields[6]+"]"] = true
		}
	}
	return out
}
