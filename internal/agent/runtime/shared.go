package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/runtime/shim"
	"github.com/berthhq/berth/internal/failpoint"
)

// A task whose pidMode or ipcMode is task has a directory in the run directory with what its containers
// share: bind mounts of the namespaces, the tmpfs that is /dev/shm, and a note of the process that keeps
// the PID namespace alive. They need nothing of this process, and go with RemoveTask.
const (
	sharedPIDFile = "pid"
	sharedIPCFile = "ipc"
	sharedShmDir  = "shm"
	pauseRootDir  = "root"
	pauseNote     = "pause.json"

	// pauseCgroup lies in the task's, beside those of its containers: no container can have the name.
	pauseCgroup = ".pause"

	pauseWait = 20 * time.Second
)

func (r *Runtime) sharedRoot() string { return filepath.Join(r.config.RunDir, "shared") }

func (r *Runtime) sharedDir(task string) string { return filepath.Join(r.sharedRoot(), task) }

// sharedPaths answers what of the task's a container joins.
func (r *Runtime) sharedPaths(c agent.ContainerSpec) (sharedPaths, error) {
	dir := r.sharedDir(c.TaskID)
	p := sharedPaths{
		pid: filepath.Join(dir, sharedPIDFile), ipc: filepath.Join(dir, sharedIPCFile), shm: filepath.Join(dir, sharedShmDir),
	}
	if c.PIDMode == modeTask && !isNamespace(p.pid) || c.IPCMode == modeTask && !isNamespace(p.ipc) {
		return sharedPaths{}, fmt.Errorf("the task %s has not been prepared for containers that share namespaces", c.TaskID)
	}
	return p, nil
}

// share makes what the task's containers share, as far as it is not there.
func (r *Runtime) share(ctx context.Context, t agent.TaskSpec) error {
	if t.PIDMode != modeTask && t.IPCMode != modeTask {
		return nil
	}
	defer r.tasks.lock(t.ID)()
	dir := r.sharedDir(t.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make the directory of what a task shares: %w", err)
	}
	if t.IPCMode == modeTask {
		if err := shareIPC(dir, t.SharedMemoryMiB); err != nil {
			return fmt.Errorf("make the task's IPC namespace: %w", err)
		}
	}
	if t.PIDMode == modeTask {
		if err := r.sharePID(ctx, t.ID, dir); err != nil {
			return fmt.Errorf("make the task's PID namespace: %w", err)
		}
	}
	return nil
}

// shareIPC pins a new IPC namespace, and mounts the memory that goes with it.
func shareIPC(dir string, shmMiB int64) error {
	shm := filepath.Join(dir, sharedShmDir)
	if mounted, err := isMountPoint(shm); err != nil {
		return err
	} else if !mounted {
		if err := os.MkdirAll(shm, 0o711); err != nil {
			return err
		}
		m := mount.Mount{Type: "tmpfs", Source: "shm", Options: sharedMemoryOptions(shmMiB)}
		if err := m.Mount(shm); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, sharedIPCFile)
	if isNamespace(path) {
		return nil
	}
	made := make(chan error)
	go func() {
		// The thread has the namespace and ends with the goroutine, because it stays locked.
		goruntime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
			made <- err
			return
		}
		made <- pin(fmt.Sprintf("/proc/self/task/%d/ns/ipc", unix.Gettid()), path)
	}()
	return <-made
}

// sharePID starts the process that is the first of the task's PID namespace, and pins the namespace. A
// namespace whose first process has ended takes no others; it is made anew.
func (r *Runtime) sharePID(ctx context.Context, task, dir string) error {
	path := filepath.Join(dir, sharedPIDFile)
	if note, ok := readPause(dir); ok && note.alive() {
		if isNamespace(path) {
			return nil
		}
	}
	if err := r.endPause(ctx, dir); err != nil {
		return err
	}
	root := filepath.Join(dir, pauseRootDir)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	note, err := r.startPause(ctx, task, dir, root)
	if err != nil {
		return err
	}
	failpoint.Hit("runtime/pause/started")
	return pin(fmt.Sprintf("/proc/%d/ns/pid", note.PID), path)
}

// pause notes which process keeps a PID namespace alive: a number alone may by now be another's.
type pause struct {
	PID   int   `json:"pid"`
	Start int64 `json:"start"` // in clock ticks since the boot, as in /proc
}

func readPause(dir string) (pause, bool) {
	var p pause
	data, err := os.ReadFile(filepath.Join(dir, pauseNote))
	return p, err == nil && json.Unmarshal(data, &p) == nil && p.PID > 1
}

// alive tells whether the process is there and is the one noted.
func (p pause) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return false
	}
	state, _, _, ok := lineage(string(stat))
	start, startOK := startTicks(string(stat))
	return ok && startOK && start == p.Start && state != "Z" && state != "X"
}

// startPause starts the process and returns when it has given up everything but its place. It does
// nothing before it is noted, and ends by itself if Berth dies before that.
func (r *Runtime) startPause(ctx context.Context, task, dir, root string) (_ pause, err error) {
	gate, wait, err := os.Pipe()
	if err != nil {
		return pause{}, err
	}
	defer wait.Close()
	defer gate.Close()
	report, ready, err := os.Pipe()
	if err != nil {
		return pause{}, err
	}
	defer report.Close()
	defer ready.Close()
	cmd := exec.Command(r.programs.shim)
	cmd.Args = []string{shim.PauseName, r.config.Instance + "/" + task, root}
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{gate, ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC |
			unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
	}
	if err := cmd.Start(); err != nil {
		return pause{}, err
	}
	go cmd.Wait() // it may well outlive this process
	defer func() {
		if err != nil {
			cmd.Process.Kill()
		}
	}()
	ready.Close()
	note := pause{PID: cmd.Process.Pid}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", note.PID))
	if err != nil {
		return pause{}, err
	}
	note.Start, _ = startTicks(string(stat))
	data, err := json.Marshal(note)
	if err != nil {
		return pause{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, pauseNote), data, 0o600); err != nil {
		return pause{}, err
	}
	if err := r.cgroups.enter(r.cgroupPath(task, pauseCgroup), note.PID); err != nil {
		return pause{}, err
	}
	if _, err := wait.Write([]byte{1}); err != nil {
		return pause{}, err
	}
	report.SetReadDeadline(time.Now().Add(pauseWait))
	said, err := io.ReadAll(io.LimitReader(report, 1<<10))
	if err != nil {
		return pause{}, err
	}
	if string(said) != shim.PauseReady {
		return pause{}, fmt.Errorf("its first process failed: %s", strings.TrimSpace(string(said)))
	}
	return note, nil
}

// endPause kills the process noted, and with it all of the PID namespace, and unpins the namespace.
func (r *Runtime) endPause(ctx context.Context, dir string) error {
	if note, ok := readPause(dir); ok && note.alive() {
		// Held by its descriptor, the process cannot be another by the time of the signal.
		fd, err := unix.PidfdOpen(note.PID, 0)
		if err == nil {
			if note.alive() {
				err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			unix.Close(fd)
		}
		if err != nil && err != unix.ESRCH {
			return fmt.Errorf("end the first process of the task's PID namespace: %w", err)
		}
		ctx, cancel := context.WithTimeout(ctx, killWait)
		defer cancel()
		for note.alive() {
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("end the first process of the task's PID namespace: %w", ctx.Err())
			}
		}
	}
	if err := unpin(filepath.Join(dir, sharedPIDFile)); err != nil {
		return err
	}
	return removeIfThere(filepath.Join(dir, pauseNote))
}

// unshare removes what the task's containers shared, and kills what is left in its PID namespace.
func (r *Runtime) unshare(ctx context.Context, task string) error {
	defer r.tasks.lock(task)()
	dir := r.sharedDir(task)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := r.endPause(ctx, dir); err != nil {
		return err
	}
	if err := unpin(filepath.Join(dir, sharedIPCFile)); err != nil {
		return err
	}
	shm := filepath.Join(dir, sharedShmDir)
	if err := mount.UnmountAll(shm, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unmount the task's shared memory: %w", err)
	}
	// One by one, not all that is there: what is still mounted must stay whole.
	for _, name := range []string{sharedShmDir, pauseRootDir, ""} {
		if err := unix.Rmdir(filepath.Join(dir, name)); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove what the task shared: %w", err)
		}
	}
	return nil
}

// unshareAll does it for all tasks.
func (r *Runtime) unshareAll(ctx context.Context) error {
	entries, err := os.ReadDir(r.sharedRoot())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list what tasks share: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, r.unshare(ctx, e.Name()))
	}
	return errors.Join(errs...)
}

// pin keeps a namespace by a bind mount at path.
func pin(namespace, path string) error {
	if err := unpin(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(namespace, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s: %w", namespace, err)
	}
	return nil
}

func unpin(path string) error {
	for isNamespace(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unpin a namespace: %w", err)
		}
	}
	return removeIfThere(path)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isNamespace tells whether a namespace is pinned at path.
func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// isMountPoint tells whether something is mounted at the directory, if it is there.
func isMountPoint(path string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(path, &here); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return false, err
	}
	if err := unix.Lstat(filepath.Dir(path), &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}
