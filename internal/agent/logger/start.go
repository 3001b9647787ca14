package logger

import (
	"bufio"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent/logger/process"
)

// Main runs the logger process. It is what the binary does under the name "berth-logger" or with the
// first argument "logger"; args are those behind.
func Main(args []string) int { return process.Main(args) }

// startLimit bounds how long a logger process may take to start, handover included.
const startLimit = 20 * time.Second

// helloLimit is how long a process may take to say who it is.
const helloLimit = 3 * time.Second

// ensure returns when there is a logger process of our build.
func (o *Output) ensure(ctx context.Context) error {
	o.starting.Lock()
	defer o.starting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for try := 1; ; try++ {
		hello, err := o.hello(ctx)
		if err == nil && hello.Protocol == process.Protocol && hello.Build == o.cfg.Build {
			return nil
		}
		if err == nil {
			o.log.Info("the logger process is of another build and hands over", "pid", hello.PID)
			if err := o.exit(ctx); err != nil {
				return err
			}
		}
		if err = o.start(ctx); err == nil {
			return nil
		}
		// One that a Berth before us started may have been faster to the lock than ours: ask it.
		if try == 3 || ctx.Err() != nil {
			return err
		}
	}
}

// errNone is the error of hello when no process is there.
var errNone = errors.New("there is no logger process")

// hello asks the process who it is. It answers whatever its disk does; one that does not is stopped or
// broken, and is killed.
func (o *Output) hello(ctx context.Context) (process.Response, error) {
	asking, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	hello, err := process.Call(asking, o.paths.Socket(), process.Request{Op: process.OpHello})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return hello, errNone
	}
	if err == nil || ctx.Err() != nil || asking.Err() == nil {
		return hello, err
	}
	pid, err := process.Peer(o.paths.Socket())
	if err != nil {
		return hello, errNone
	}
	o.log.Warn("the logger process does not answer and is killed", "pid", pid)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return hello, errNone
	}
	defer unix.Close(fd)
	unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if err := awaitEnd(ctx, fd); err != nil {
		return hello, fmt.Errorf("the logger process, %d, does not end: %w", pid, err)
	}
	return hello, errNone
}

// exit has the process end, if there is one, and waits until it has.
func (o *Output) exit(ctx context.Context) error {
	hello, err := o.hello(ctx)
	if errors.Is(err, errNone) {
		return nil // the lock tells the rest
	}
	if err != nil {
		return fmt.Errorf("the logger process does not answer: %w", err)
	}
	pid, err := unix.PidfdOpen(hello.PID, 0)
	if err == nil {
		defer unix.Close(pid)
		// However it answers: what counts is that it ends.
		process.Call(ctx, o.paths.Socket(), process.Request{Op: process.OpExit})
		err = awaitEnd(ctx, pid)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("the logger process, %d, does not end: %w", hello.PID, err)
	}
	return nil
}

// awaitEnd returns when a process has ended, be it reaped or not.
func awaitEnd(ctx context.Context, pidfd int) error {
	for {
		const step = 20 // ms: how late we are to see that ctx is done
		p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, step)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// start runs a logger process in a session of its own and waits until it is ready.
func (o *Output) start(ctx context.Context) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the logger process: %w", err)
	}
	defer ready.Close()
	logFile, err := openLog(o.paths.Log())
	if err != nil {
		theirs.Close()
		return fmt.Errorf("start the logger process: %w", err)
	}
	defer logFile.Close()
	args := append(o.cfg.Command[1:len(o.cfg.Command):len(o.cfg.Command)],
		"-run-dir", o.cfg.RunDir, "-spool-dir", o.cfg.SpoolDir,
		"-limit", strconv.FormatInt(o.cfg.LimitBytes, 10), "-build", o.cfg.Build, "-cgroup", o.cfg.Cgroup)
	cmd := exec.Command(o.cfg.Command[0], args...)
	cmd.Env = append(failpointEnv(os.Environ(), !o.started), "GOMAXPROCS=1", "GOGC=25", "GOMEMLIMIT=32MiB")
	o.started = true
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the logger process: %w", err)
	}
	go cmd.Wait() // it ends when the process does; we do not wait for either
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// Whatever ends the line early, what came of it tells.
	line, _ := bufio.NewReader(io.LimitReader(ready, 4096)).ReadString('\n')
	switch {
	case line == "ready\n":
		o.log.Info("logger process started", "pid", cmd.Process.Pid)
		return nil
	}
	cmd.Process.Kill() // nobody would know of it, and being killed costs it nothing
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("start the logger process: %w", ctx.Err())
	case line == "":
		return fmt.Errorf("start the logger process: it ended at once; see %s", o.paths.Log())
	}
	return fmt.Errorf("start the logger process: %s", strings.TrimSpace(line))
}

// openLog opens the process's own log, which begins anew when it has grown.
func openLog(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > 1<<20 {
		os.Rename(path, path+".old")
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// failpointEnv picks what tests tell package failpoint; the process needs nothing else of ours. Only
// the first process is to die: its successors would all die at the same place.
func failpointEnv(env []string, first bool) []string {
	var keep []string
	for _, e := range env {
		if strings.HasPrefix(e, "BERTH_FAILPOINT_LOG=") || first && strings.HasPrefix(e, "BERTH_FAILPOINT=") {
			keep = append(keep, e)
		}
	}
	return keep
}

// buildID identifies the content of the running executable.
func buildID() (string, error) {
	const self = "/proc/self/exe" // the file that runs, even if another has taken its path
	if f, err := elf.Open(self); err == nil {
		defer f.Close()
		if s := f.Section(".note.go.buildid"); s != nil {
			if note, err := s.Data(); err == nil && len(note) > 16 {
				sum := sha256.Sum256(note)
				return hex.EncodeToString(sum[:16]), nil
			}
		}
	}
	f, err := os.Open(self)
	if err != nil {
		return "", fmt.Errorf("identify this executable: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("identify this executable: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
