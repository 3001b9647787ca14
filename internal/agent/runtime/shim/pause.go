package shim

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// PauseName is the name by which a binary is the first process of a task's PID namespace. Its
	// arguments name the task, for whoever lists processes, and an empty directory.
	PauseName = "berth-pause"
	// PauseReady is what it writes to descriptor 4 when its containers may come.
	PauseReady = "ready"

	// pausePath is where it finds itself after it has left the host's files.
	pausePath = "/pause"
	nobody    = 65534
)

// pauseMain keeps a PID namespace alive and reaps its orphans. Containers of the task see it as their
// process 1, some perhaps with the right to trace it, so first it rids itself of everything: through
// /proc/1 there shall be no way to the host's files (root, exe, cwd), descriptors, namespaces or
// capabilities.
func pauseMain(args []string) int {
	if len(args) == 3 && args[1] == "--" {
		return pauseForever()
	}
	if len(args) != 2 {
		return exitNotFound
	}
	unix.CloseOnExec(3)
	// What was left open to this process by who started Berth must not stay so.
	if err := unix.CloseRange(5, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		unix.Write(4, []byte(err.Error()))
		return exitNotExecutable
	}
	var noted [1]byte
	if n, err := unix.Read(3, noted[:]); n != 1 || err != nil {
		return exitNotExecutable // Berth died before it had noted this process
	}
	if err := leaveHost(args[0], args[1]); err != nil {
		unix.Write(4, []byte(err.Error()))
	}
	return exitNotExecutable
}

// leaveHost makes the directory a root that has only this program, both read-only, and runs it again
// there with no rights. It returns only if that fails.
func leaveHost(task, root string) error {
	// Capabilities and no_new_privs are a thread's own.
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part from the host's mounts: %w", err)
	}
	if err := unix.Mount("pause", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=755"); err != nil {
		return fmt.Errorf("mount an empty root: %w", err)
	}
	// The program by a mount of its own that is read-only: who opens /proc/1/exe must not be able to
	// write to the host's file by it.
	program := filepath.Join(root, pausePath)
	if err := os.WriteFile(program, nil, 0o555); err != nil {
		return fmt.Errorf("make a place for the program: %w", err)
	}
	if err := unix.Mount("/proc/self/exe", program, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the program: %w", err)
	}
	const readOnly = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", program, "", readOnly, ""); err != nil {
		return fmt.Errorf("make the program read-only: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host's root: %w", err)
	}
	if err := unix.Mount("", "/", "", readOnly, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	for capability := uintptr(0); ; capability++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) {
				break // the kernel knows no more of them
			}
			return fmt.Errorf("drop the capabilities: %w", err)
		}
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leave the groups: %w", err)
	}
	if err := syscall.Setresgid(nobody, nobody, nobody); err != nil {
		return fmt.Errorf("leave root's group: %w", err)
	}
	if err := syscall.Setresuid(nobody, nobody, nobody); err != nil {
		return fmt.Errorf("stop being root: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renounce new privileges: %w", err)
	}
	return fmt.Errorf("run again: %w", unix.Exec(pausePath, []string{PauseName, task, "--", ""}, nil))
}

// pauseForever is the rest of its life.
func pauseForever() int {
	// No signal from inside shall end it. Not even to be handled: the kernel keeps from a namespace's
	// first process what it has no handler for.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	// Nobody without CAP_SYS_PTRACE looks into it, whatever his user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return exitNotExecutable
	}
	unix.Write(4, []byte(PauseReady))
	for fd := range 5 {
		unix.Close(fd)
	}
	for {
		reap(-1)
		for s := range signals {
			if s == unix.SIGCHLD {
				break
			}
		}
	}
}
