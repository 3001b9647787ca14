package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitPath is where a container with an init process finds it, as in Docker.
const InitPath = "/sbin/docker-init"

// Exit codes of a shell that cannot run a command.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// initMain is the first process of a container that asked for an init: it runs the command that
// follows "--", passes signals on to it, reaps orphans, and ends as the command does.
func initMain(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "docker-init: no command")
		return exitNotFound
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "docker-init: %v\n", err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return exitNotFound
		}
		return exitNotExecutable
	}
	// Before the child starts, so that no signal falls between.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	attributes := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		// The terminal's signals are the command's.
		attributes.Sys.Foreground, attributes.Sys.Ctty = true, 0
	}
	child, err := syscall.ForkExec(path, args, attributes)
	if err != nil {
		fmt.Fprintf(os.Stderr, "docker-init: %s: %v\n", path, err)
		return exitNotExecutable
	}
	for s := range signals {
		number, ok := s.(syscall.Signal)
		switch {
		case !ok || number == unix.SIGURG || number == unix.SIGPIPE || number == unix.SIGTTIN || number == unix.SIGTTOU:
			// The Go runtime's own, and what concerns only this process.
		case number == unix.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		default:
			syscall.Kill(child, number)
		}
	}
	return exitNotExecutable
}

// reap takes all processes that have ended, and tells whether the child was among them.
func reap(child int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == child && (status.Exited() || status.Signaled()) {
			ended = true
			if code = status.ExitStatus(); status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
