package logger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logger/process"
	"github.com/berthhq/berth/internal/failpoint"
)

// Config says where an Output keeps things.
type Config struct {
	// RunDir is the instance's directory for what does not survive a reboot, such as
	// /run/berth/0a1b2c3d. At most 80 bytes long: it holds a socket.
	RunDir string
	// SpoolDir is the instance's directory for output. It survives reboots.
	SpoolDir string
	// Cgroup names a cgroup for the logger process, best with the instance in its name. Empty: none.
	Cgroup string
	// LimitBytes bounds what is kept of each container. 0: 64 MiB.
	LimitBytes int64
	// Command starts the logger process; its arguments are appended. Default: this binary, "logger".
	Command []string
	// Build identifies the binary: a process of another build hands over to ours. Default: the build
	// ID in the running executable.
	Build string
	// Live, if set, says whether a task may yet write output, so that following it goes on although
	// nothing is attached.
	Live   func(taskID string) bool
	Logger *slog.Logger
}

// Output implements agent.Output. Its methods may be called concurrently.
type Output struct {
	cfg   Config
	paths process.Paths
	log   *slog.Logger

	ctx    context.Context // of the watching goroutine
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	starting sync.Mutex // one start or handover at a time
	started  bool       // by us, at least once

	mu       sync.Mutex
	attached map[string]*held // by container ID
}

var _ agent.Output = (*Output)(nil)

// held is an attached container and our hold on its FIFOs.
type held struct {
	process.Record
	fds []int
}

// Open finds the instance's logger process or starts one, and has it hand over if it is of another
// build.
func Open(ctx context.Context, cfg Config) (*Output, error) {
	if len(cfg.RunDir) > 80 {
		return nil, fmt.Errorf("the run directory's path is longer than 80 bytes: %s", cfg.RunDir)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Command == nil {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this executable: %w", err)
		}
		cfg.Command = []string{self, "logger"}
	}
	if cfg.Build == "" {
		id, err := buildID()
		if err != nil {
			return nil, err
		}
		cfg.Build = id
	}
	o := &Output{cfg: cfg, paths: process.Paths{RunDir: cfg.RunDir, SpoolDir: cfg.SpoolDir}, log: cfg.Logger,
		attached: map[string]*held{}}
	if err := o.paths.Make(); err != nil {
		return nil, err
	}
	records, err := o.paths.All()
	if err != nil {
		o.log.Error("some containers' output cannot be taken", "error", err)
	}
	for _, r := range records {
		o.hold(r)
	}
	if err := o.ensure(ctx); err != nil {
		o.release()
		return nil, err
	}
	o.ctx, o.cancel = context.WithCancel(context.WithoutCancel(ctx))
	o.tasks.Go(o.watch)
	return o, nil
}

// Close lets go of the logger process, which goes on.
func (o *Output) Close() error {
	o.cancel()
	o.tasks.Wait()
	o.release()
	return nil
}

// Shutdown closes and ends the logger process; for when the instance is removed, or has nothing left
// to log. What containers write then waits in their FIFOs.
func (o *Output) Shutdown(ctx context.Context) error {
	o.Close()
	o.starting.Lock()
	defer o.starting.Unlock()
	if err := o.exit(ctx); err != nil {
		return err
	}
	if o.cfg.Cgroup != "" {
		if err := process.RemoveCgroup(o.cfg.Cgroup); err != nil {
			return fmt.Errorf("remove the logger's cgroup: %w", err)
		}
	}
	return nil
}

// hold remembers an attached container and opens its FIFOs, without reading them: as long as anyone
// has them open, what is in them stays.
func (o *Output) hold(r process.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.attached[r.ContainerID] != nil {
		return
	}
	h := &held{Record: r}
	out, err := o.paths.FIFOs(r.ContainerID)
	for _, path := range []string{out, err} {
		// Not an os.File, for which the Go runtime would wake up with every write.
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			h.fds = append(h.fds, fd)
		}
	}
	o.attached[r.ContainerID] = h
}

// letGo closes our hold on a container's FIFOs.
func (o *Output) letGo(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.attached[id]; h != nil {
		for _, fd := range h.fds {
			unix.Close(fd)
		}
		h.fds = nil
	}
}

func (o *Output) release() {
	o.mu.Lock()
	ids := make([]string, 0, len(o.attached))
	for id := range o.attached {
		ids = append(ids, id)
	}
	o.mu.Unlock()
	for _, id := range ids {
		o.letGo(id)
	}
}

// Attach implements agent.Output. Container restarts under a new ID append to the same spool.
func (o *Output) Attach(ctx context.Context, taskID, container, containerID string) (stdout, stderr string, err error) {
	for _, name := range []string{taskID, container, containerID} {
		if !process.ValidName(name) {
			return "", "", fmt.Errorf("attach the output of %q: %q cannot be part of a file name", containerID, name)
		}
	}
	r := process.Record{TaskID: taskID, Container: container, ContainerID: containerID}
	failpoint.Hit("logger/attach/before")
	if err := o.paths.Save(r); err != nil {
		return "", "", fmt.Errorf("attach the output of %s: %w", containerID, err)
	}
	failpoint.Hit("logger/attach/recorded")
	o.hold(r)
	if err := o.call(ctx, process.Request{Op: process.OpAttach, ID: containerID}); err != nil {
		return "", "", fmt.Errorf("attach the output of %s: %w", containerID, err)
	}
	failpoint.Hit("logger/attach/after")
	stdout, stderr = o.paths.FIFOs(containerID)
	return stdout, stderr, nil
}

// Detach implements agent.Output. Call it when the runtime has deleted the container: the shim has
// then closed its end and Detach returns at once. If some process still holds the other end, Detach
// waits until nothing has come for 100 ms, at most 5 s.
func (o *Output) Detach(ctx context.Context, containerID string) error {
	if !process.ValidName(containerID) {
		return fmt.Errorf("detach the output of %q: it cannot be part of a file name", containerID)
	}
	if _, err := o.paths.Load(containerID); err == nil {
		failpoint.Hit("logger/detach/before")
		// It has them open already, unless the process is new and failed to; then the failure counts.
		if err := o.call(ctx, process.Request{Op: process.OpAttach, ID: containerID}); err != nil && !o.fifosGone(containerID) {
			return fmt.Errorf("detach the output of %s: %w", containerID, err)
		}
		o.letGo(containerID)
		if err := o.call(ctx, process.Request{Op: process.OpDetach, ID: containerID}); err != nil {
			return fmt.Errorf("detach the output of %s: %w", containerID, err)
		}
		failpoint.Hit("logger/detach/drained")
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach the output of %s: %w", containerID, err)
	}
	o.letGo(containerID)
	if err := o.paths.Forget(containerID); err != nil {
		return fmt.Errorf("detach the output of %s: %w", containerID, err)
	}
	o.mu.Lock()
	delete(o.attached, containerID)
	o.mu.Unlock()
	failpoint.Hit("logger/detach/after")
	return nil
}

// fifosGone tells that a Detach before this one got as far as to remove them.
func (o *Output) fifosGone(id string) bool {
	out, err := o.paths.FIFOs(id)
	for _, path := range []string{out, err} {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// Attached implements agent.Output.
func (o *Output) Attached(context.Context) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := make([]string, 0, len(o.attached))
	for id := range o.attached {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// writing tells whether a task's output may grow.
func (o *Output) writing(taskID string) bool {
	if o.cfg.Live != nil && o.cfg.Live(taskID) {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.attached {
		if h.TaskID == taskID {
			return true
		}
	}
	return false
}

// Remove implements agent.Output.
func (o *Output) Remove(_ context.Context, taskID string) error {
	if !process.ValidName(taskID) {
		return fmt.Errorf("remove the output of task %q: it cannot be part of a file name", taskID)
	}
	o.mu.Lock()
	for _, h := range o.attached {
		if h.TaskID == taskID {
			o.mu.Unlock()
			return fmt.Errorf("remove the output of task %s: container %s is attached", taskID, h.ContainerID)
		}
	}
	o.mu.Unlock()
	failpoint.Hit("logger/remove/before")
	if err := os.RemoveAll(o.paths.Spool(taskID, "")); err != nil {
		return fmt.Errorf("remove the output of task %s: %w", taskID, err)
	}
	failpoint.Hit("logger/remove/after")
	return nil
}

// Tasks names the tasks that have a spool, for removing those nobody knows.
func (o *Output) Tasks() ([]string, error) {
	entries, err := os.ReadDir(o.cfg.SpoolDir)
	if err != nil {
		return nil, fmt.Errorf("list the spools: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// callLimit is how long a request may take before the process is looked after. A drain has 5 s, and then
// the disk its time.
const callLimit = 20 * time.Second

// call asks the process, starting it if there is none, and again if it ended in between.
func (o *Output) call(ctx context.Context, req process.Request) error {
	const tries = 5
	var err error
	for range tries {
		asking, cancel := context.WithTimeout(ctx, callLimit)
		_, err = process.Call(asking, o.paths.Socket(), req)
		cancel()
		if err == nil {
			return nil
		}
		if errors.Is(err, process.ErrFailed) || ctx.Err() != nil {
			return err
		}
		if err := o.ensure(ctx); err != nil {
			return err
		}
	}
	return err
}

// watch starts the process anew whenever it ends, until Close.
func (o *Output) watch() {
	delay := time.Duration(0)
	for {
		began := time.Now()
		process.Watch(o.ctx, o.paths.Socket())
		if o.ctx.Err() != nil {
			return
		}
		// Only one that keeps dying is made to wait.
		if time.Since(began) > 10*time.Second {
			delay = 0
		}
		select {
		case <-o.ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay+10*time.Millisecond, time.Second)
		if err := o.ensure(o.ctx); err != nil && o.ctx.Err() == nil {
			o.log.Error("no logger process: containers wait when their FIFOs are full", "error", err)
		}
	}
}
