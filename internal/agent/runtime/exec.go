package runtime

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/failpoint"
)

const (
	// maxExecOutput is how much of an exec's output is kept: its end.
	maxExecOutput = 4 << 10
	// execStartWait bounds how long runc may take to start an exec on a busy machine.
	execStartWait = 30 * time.Second
	// execDrain is how long output is waited for after the process has ended: a child of it may hold
	// the other end open for ever.
	execDrain = 250 * time.Millisecond
	// execKillWait bounds how long killed processes may take to be gone.
	execKillWait = 10 * time.Second
)

// Exec runs a further process in a running container, as the container's user, in its working
// directory, with its environment, capabilities and filters, and without a terminal or standard input.
// It answers the process's exit code (128 and the signal's number if one ended it) and the end of what
// it wrote to both outputs. When ctx ends first, the process and what it started are killed, and the
// error is ctx's. A process that cannot be started is an error in the OCI runtime's words.
func (r *Runtime) Exec(ctx context.Context, containerID string, args []string) (int, []byte, error) {
	if err := checkName(containerID); err != nil {
		return 0, nil, err
	}
	if len(args) == 0 {
		return 0, nil, errors.New("exec: no command specified")
	}
	// The calls that change something are not cut short with ctx: half an exec would be nobody's.
	call := r.call(context.WithoutCancel(ctx))
	record, err := r.engine.containers.Get(call, containerID)
	if err != nil {
		return 0, nil, fmt.Errorf("exec: %w", err)
	}
	process, err := execProcess(record, args)
	if err != nil {
		return 0, nil, err
	}
	execID := "exec-" + strings.ToLower(rand.Text()[:16])
	path := filepath.Join(r.execDir(containerID), execID)
	// The FIFO is also the note by which a later run finds an exec that nobody waits for any more.
	out, err := newExecOutput(path)
	if err != nil {
		return 0, nil, err
	}
	e := &running{r: r, container: containerID, id: execID, path: path, out: out,
		cgroup: r.cgroupPath(record.Labels[labelTask], containerID)}
	if err := e.start(call, process); err != nil {
		out.close()
		return 0, nil, errors.Join(err, removeFile(path))
	}
	code, err := e.wait(ctx)
	if err != nil {
		e.kill()
	}
	e.finish()
	if err != nil {
		return 0, out.bytes(), err
	}
	return code, out.bytes(), nil
}

// execProcess is the container's process with other arguments.
func execProcess(record containerRecord, args []string) (*specs.Process, error) {
	var spec struct {
		Process *specs.Process `json:"process"`
	}
	if err := json.Unmarshal(record.Spec.GetValue(), &spec); err != nil || spec.Process == nil {
		return nil, fmt.Errorf("exec: read the container's OCI spec: %w", errors.Join(err, errdefs.ErrInvalidArgument))
	}
	spec.Process.Args, spec.Process.Terminal = args, false
	return spec.Process, nil
}

// execDir holds the FIFOs of a container's execs.
func (r *Runtime) execDir(containerID string) string {
	return filepath.Join(r.config.RunDir, "exec", containerID)
}

// running is an exec under way.
type running struct {
	r                   *Runtime
	container, id, path string
	cgroup              string
	out                 *execOutput
	pid                 int // on the host
	ended               bool
}

func (e *running) start(call context.Context, process *specs.Process) error {
	spec, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return fmt.Errorf("exec: encode the process: %w", err)
	}
	call, cancel := context.WithTimeout(call, execStartWait)
	defer cancel()
	_, err = e.r.engine.tasks.Exec(call, &tasks.ExecProcessRequest{
		ContainerID: e.container, ExecID: e.id, Stdout: e.path, Stderr: e.path, Spec: spec,
	})
	if err != nil {
		return fmt.Errorf("exec: %w", errgrpc.ToNative(err))
	}
	failpoint.Hit("runtime/exec/added")
	started, err := e.r.engine.tasks.Start(call, &tasks.StartRequest{ContainerID: e.container, ExecID: e.id})
	if err != nil {
		err = fmt.Errorf("exec: %w", errgrpc.ToNative(err))
		return errors.Join(err, e.forget(call))
	}
	failpoint.Hit("runtime/exec/started")
	e.pid = int(started.Pid)
	go e.out.read()
	return nil
}

// wait waits for the process's end, or ctx's, and then a moment for its output.
func (e *running) wait(ctx context.Context) (int, error) {
	exit, err := e.r.engine.tasks.Wait(e.r.call(ctx), &tasks.WaitRequest{ContainerID: e.container, ExecID: e.id})
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("exec: wait for the process: %w", errgrpc.ToNative(err))
	}
	e.ended = true
	select {
	case <-e.out.ended:
	case <-time.After(execDrain):
	}
	return int(exit.ExitStatus), nil
}

// kill kills the process with all it started, and waits until it is gone.
func (e *running) kill() {
	ctx, cancel := context.WithTimeout(e.r.call(context.Background()), execKillWait)
	defer cancel()
	if err := e.r.cgroups.killTree(ctx, e.cgroup, e.pid); err != nil {
		e.r.log.Warn("killing an exec", "container", e.container, "error", err)
	}
	// The shim knows it by another way, should it have left the cgroup.
	e.r.engine.tasks.Kill(ctx, &tasks.KillRequest{ContainerID: e.container, ExecID: e.id, Signal: uint32(unix.SIGKILL)})
	_, err := e.r.engine.tasks.Wait(ctx, &tasks.WaitRequest{ContainerID: e.container, ExecID: e.id})
	e.ended = err == nil
}

// finish has the shim forget the exec. The shim first waits until nobody holds the process's output
// open, seconds if a child of it does; then it is left to the background.
func (e *running) finish() {
	end := func(ctx context.Context) {
		if err := e.forget(ctx); err != nil && ctx.Err() == nil {
			e.r.log.Warn("removing an exec", "container", e.container, "error", err)
		}
		e.out.close()
		if err := removeFile(e.path); err != nil {
			e.r.log.Warn("removing an exec's output", "container", e.container, "error", err)
		}
	}
	select {
	case <-e.out.ended:
		ctx, cancel := context.WithTimeout(e.r.call(context.Background()), execKillWait)
		defer cancel()
		end(ctx)
	default:
		e.r.background.Go(func() {
			ctx, cancel := context.WithTimeout(e.r.call(e.r.life), 2*execKillWait)
			defer cancel()
			end(ctx)
		})
	}
}

// forget deletes the exec from its shim.
func (e *running) forget(ctx context.Context) error {
	_, err := e.r.engine.tasks.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: e.container, ExecID: e.id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("exec: delete the process: %w", err)
	}
	return nil
}

// recoverExecs ends the execs that an earlier process of ours waited for.
func (r *Runtime) recoverExecs(ctx context.Context, record containerRecord) error {
	entries, err := os.ReadDir(r.execDir(record.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the execs: %w", err)
	}
	for _, entry := range entries {
		e := &running{r: r, container: record.ID, id: entry.Name(), path: filepath.Join(r.execDir(record.ID), entry.Name()),
			cgroup: r.cgroupPath(record.Labels[labelTask], record.ID)}
		if e.out, err = openExecOutput(e.path); err != nil {
			return err
		}
		got, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: record.ID, ExecID: e.id})
		if err == nil && got.Process.Pid != 0 {
			e.pid = int(got.Process.Pid)
			e.kill()
		}
		go e.out.read()
		e.finish()
	}
	return nil
}

// execOutput keeps the end of what is written to a FIFO.
type execOutput struct {
	file  *os.File
	ended chan struct{} // closed when there are no writers any more

	mu   sync.Mutex
	tail []byte
}

func newExecOutput(path string) (*execOutput, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("exec: make the output: %w", err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("exec: make the output: %w", err)
	}
	return openExecOutput(path)
}

func openExecOutput(path string) (*execOutput, error) {
	// Non-blocking, so that opening waits for no writer and closing ends a read.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("exec: open the output: %w", err)
	}
	return &execOutput{file: f, ended: make(chan struct{})}, nil
}

// read reads on until the writers are gone or close is called, whatever is kept of it: a process must
// not wait for a reader.
func (o *execOutput) read() {
	defer close(o.ended)
	buffer := make([]byte, 8<<10)
	for {
		n, err := o.file.Read(buffer)
		o.mu.Lock()
		o.tail = append(o.tail, buffer[:n]...)
		if over := len(o.tail) - maxExecOutput; over > 0 {
			o.tail = append(o.tail[:0], o.tail[over:]...)
		}
		o.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (o *execOutput) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]byte(nil), o.tail...)
}

func (o *execOutput) close() { o.file.Close() }

// removeFile removes a file that may be gone, and its directory if it was the last in it.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unix.Rmdir(filepath.Dir(path)); err != nil && err != unix.ENOTEMPTY && err != unix.ENOENT {
		return err
	}
	return nil
}

// killTree kills a process of the cgroup at path with those it started: its descendants, and what is
// of its session, of which it is the leader, whosever child that has become. It never touches a
// process outside of the cgroup.
func (c cgroups) killTree(ctx context.Context, path string, root int) error {
	if root <= 1 {
		return nil
	}
	for {
		found, err := c.tree(path, root)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, pid := range found {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		// Once more, for what they started meanwhile.
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tree answers the living processes of the cgroup that are root, descend from it, or are of its session.
func (c cgroups) tree(path string, root int) ([]int, error) {
	pids, err := c.processes(path)
	if err != nil {
		return nil, err
	}
	type place struct{ parent, session int }
	places := map[int]place{}
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		state, parent, session, ok := lineage(string(stat))
		if ok && state != "Z" && state != "X" {
			places[pid] = place{parent, session}
		}
	}
	var out []int
	for pid, p := range places {
		in := pid == root || p.session == root
		// A parent is older than its child and the chain ends at one outside of the cgroup; the bound is
		// for a table that changed while it was read.
		for at, steps := p, 0; !in && steps < len(places); steps++ {
			in = at.parent == root
			next, ok := places[at.parent]
			if !ok {
				break
			}
			at = next
		}
		if in {
			out = append(out, pid)
		}
	}
	return out, nil
}

// lineage reads state, parent and session of /proc/pid/stat. The second field, the command, may hold
// anything.
func lineage(stat string) (state string, parent, session int, ok bool) {
	i := strings.LastIndexByte(stat, ')')
	if i < 0 {
		return "", 0, 0, false
	}
	n, err := fmt.Sscanf(stat[i+1:], " %1s %d %d %d", &state, &parent, new(int), &session)
	return state, parent, session, err == nil && n == 4
}
