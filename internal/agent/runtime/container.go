package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/signal"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/failpoint"
)

type containerRecord = containers.Container

// Labels of a container's record.
const (
	labelTask       = "berth/task"
	labelDigest     = "berth/image-digest"
	labelGeneration = "berth/generation" // of the run directory it was created in
	labelExit       = "berth/exit"       // code and time, when its shim was lost
	labelStreams    = "berth/streams"    // where its standard streams go, for a restart
	labelPIDMode    = "berth/pid-mode"   // if it has no PID namespace of its own
	labelRoot       = "containerd.io/gc.root"
)

// annotationLabel precedes Docker labels in the OCI annotations, so that none can pass for one that
// the runtime reads.
const annotationLabel = "berth.label/"

// Create makes the container without starting it. An existing container of that ID is no error.
func (r *Runtime) Create(ctx context.Context, c agent.ContainerSpec) (err error) {
	if err := checkName(c.ID); err != nil {
		return err
	}
	if err := checkName(c.TaskID); err != nil {
		return err
	}
	defer r.keys.lock(c.ID)()
	ctx = r.call(ctx)

	if exists, err := r.exists(ctx, c.ID); err != nil || exists {
		return err
	}
	image, err := r.unpacked(ctx, c.Image)
	if err != nil {
		return err
	}
	failpoint.Hit("runtime/snapshot/before")
	mounts, err := r.engine.snapshots.Prepare(ctx, c.ID, image.chain, snapshots.WithLabels(map[string]string{
		// Removed by name, with the container; no collection shall take it before the container is
		// recorded.
		labelRoot: "true",
	}))
	failpoint.Hit("runtime/snapshot/after")
	if err != nil {
		return fmt.Errorf("prepare the container's file system: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discard(context.WithoutCancel(ctx), c.ID, c.TaskID))
		}
	}()
	record, err := r.record(ctx, c, image, mounts)
	if err != nil {
		return err
	}
	failpoint.Hit("runtime/container/before")
	_, err = r.engine.containers.Create(ctx, record)
	failpoint.Hit("runtime/container/after")
	if err != nil {
		return fmt.Errorf("record the container: %w", err)
	}
	return r.createTask(ctx, record, mounts)
}

// exists tells whether the container is there in any state. What an interrupted Create left of it is
// removed.
func (r *Runtime) exists(ctx context.Context, id string) (bool, error) {
	record, err := r.engine.containers.Get(ctx, id)
	if errdefs.IsNotFound(err) {
		// A snapshot without a record is such a rest too.
		if err := r.removeSnapshot(ctx, id); err != nil {
			return false, err
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the container: %w", err)
	}
	state, err := r.state(ctx, record)
	if err != nil {
		return false, err
	}
	if !state.unfinished {
		return true, nil
	}
	return false, r.discard(ctx, id, record.Labels[labelTask])
}

// record makes the container's record with its OCI spec.
func (r *Runtime) record(ctx context.Context, c agent.ContainerSpec, image storedImage, mounts []mount.Mount) (containerRecord, error) {
	in := specInput{
		container: c, image: image.config, cgroup: r.cgroupPath(c.TaskID, c.ID), init: r.programs.shim, host: r.host,
	}
	found, err := r.rootfsOf(ctx, in, image, mounts)
	if err != nil {
		return containerRecord{}, err
	}
	name := c.Container.GetUser()
	if name == "" {
		name = image.config.User
	}
	if in.user, err = found.accounts.resolveUser(name); err != nil {
		return containerRecord{}, err
	}
	in.otherABIs = found.other
	if in.devices, err = devices(c.Container, r.host.hidden); err != nil {
		return containerRecord{}, err
	}
	if in.shared, err = r.sharedPaths(c); err != nil {
		return containerRecord{}, err
	}
	in.host.swapLimit, in.host.swappiness = r.cgroups.swap()
	if c.Container.MaxSwapMib != nil && !in.host.swapLimit {
		r.log.Warn("the kernel does not support swap limit capabilities or the cgroup is not mounted: memory limited without swap",
			"container", c.ID)
	}
	if c.Hostname == "" {
		c.Hostname = c.ID[:min(len(c.ID), 12)]
		if c.HostNetwork {
			if c.Hostname, err = os.Hostname(); err != nil {
				return containerRecord{}, fmt.Errorf("read the host's name: %w", err)
			}
		}
	}
	in.container = c
	spec, err := buildSpec(in)
	if err != nil {
		return containerRecord{}, err
	}
	if err := r.giveGPUs(spec, c.Container.GpuIds); err != nil {
		return containerRecord{}, err
	}
	if err := loadApparmorProfile(spec.Process.ApparmorProfile); err != nil {
		return containerRecord{}, err
	}
	if err := r.fillVolumes(ctx, c, mounts); err != nil {
		return containerRecord{}, err
	}
	for name, value := range c.Labels {
		spec.Annotations[annotationLabel+name] = value
	}
	encoded, err := typeurl.MarshalAny(spec)
	if err != nil {
		return containerRecord{}, fmt.Errorf("encode the container's OCI spec: %w", err)
	}
	streams, err := json.Marshal(streamsOf(c))
	if err != nil {
		return containerRecord{}, fmt.Errorf("encode where the container's streams go: %w", err)
	}
	runcOptions, err := typeurl.MarshalAny(&options.Options{
		BinaryName: r.programs.runc,
		Root:       filepath.Join(r.config.RunDir, "runc"),
	})
	if err != nil {
		return containerRecord{}, fmt.Errorf("encode runc's options: %w", err)
	}
	record := containerRecord{
		ID:          c.ID,
		Image:       c.Image.Ref,
		Snapshotter: snapshotter,
		SnapshotKey: c.ID,
		Spec:        encoded,
		Runtime:     containers.RuntimeInfo{Name: r.programs.shim, Options: runcOptions},
		Labels: map[string]string{
			labelTask:       c.TaskID,
			labelDigest:     c.Image.Digest,
			labelGeneration: r.generation,
			labelStreams:    string(streams),
		},
	}
	if c.PIDMode != "" {
		record.Labels[labelPIDMode] = c.PIDMode
	}
	return record, nil
}

// rootfsOf answers what the container's spec needs of its image's files, out of memory if it can.
func (r *Runtime) rootfsOf(ctx context.Context, in specInput, image storedImage, mounts []mount.Mount) (rootfs, error) {
	c := in.container.Container
	if c == nil {
		return rootfs{}, errors.New("the container has no definition")
	}
	args, err := arguments(c, image.config)
	if err != nil {
		return rootfs{}, err
	}
	key := rootfsKey{chain: image.chain, program: args[0], cwd: cmp.Or(c.WorkingDirectory, image.config.WorkingDir)}
	for _, v := range environment(in) {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			key.path = path
		}
	}
	found, ok := r.rootfs.get(key)
	if !ok {
		if found, err = readRootfs(ctx, mounts, key); err != nil {
			return rootfs{}, err
		}
		r.rootfs.put(key, found)
	}
	// An image that does not say what it is for is taken for this machine's, as containerd takes it.
	found.other = found.other || image.architecture != "" && image.architecture != goruntime.GOARCH
	return found, nil
}

// streams is where a container's standard streams go. It is kept with the record, because a restart
// needs it again.
type streams struct {
	Stdout   string `json:"stdout,omitempty"`
	Stderr   string `json:"stderr,omitempty"`
	Stdin    bool   `json:"stdin,omitempty"` // one that stays open and silent
	Terminal bool   `json:"terminal,omitempty"`
}

func streamsOf(c agent.ContainerSpec) streams {
	s := streams{Stdout: c.Stdout, Stderr: c.Stderr, Stdin: c.Container.Interactive, Terminal: c.Container.PseudoTerminal}
	if s.Terminal {
		s.Stderr = ""
	}
	return s
}

// createTask has the task's shim, started if it is the task's first container, create the process.
func (r *Runtime) createTask(ctx context.Context, record containerRecord, mounts []mount.Mount) error {
	var s streams
	if err := json.Unmarshal([]byte(record.Labels[labelStreams]), &s); err != nil {
		return fmt.Errorf("read where the container's streams go: %w", err)
	}
	request := &tasks.CreateTaskRequest{
		ContainerID: record.ID, Stdout: s.Stdout, Stderr: s.Stderr, Terminal: s.Terminal,
	}
	if s.Stdin {
		// A standard input that stays open and silent, as docker run -i gives to an absent client: the
		// shim waits for a writer that never comes.
		request.Stdin = r.stdinPath(record.ID)
		if err := os.MkdirAll(filepath.Dir(request.Stdin), 0o700); err != nil {
			return fmt.Errorf("make the standard input: %w", err)
		}
		if err := unix.Mkfifo(request.Stdin, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the standard input: %w", err)
		}
	}
	// The shim takes either no output at all, or a place for each.
	if request.Stdin+request.Stdout+request.Stderr != "" && !request.Terminal {
		request.Stdout = cmp.Or(request.Stdout, os.DevNull)
		request.Stderr = cmp.Or(request.Stderr, os.DevNull)
	}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{
			Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options,
		})
	}
	// The shim opens each FIFO for writing and then also for reading, so that no reader ever being
	// there harms nobody; but the first open waits for a reader, which is us until the shim has both.
	for _, path := range []string{request.Stdout, request.Stderr} {
		if path == "" || path == os.DevNull {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open the container's output: %w", err)
		}
		defer f.Close()
	}
	defer r.lockShim(record.Labels[labelTask])()
	failpoint.Hit("runtime/create/before")
	_, err := r.engine.tasks.Create(ctx, request)
	failpoint.Hit("runtime/create/after")
	if err != nil {
		// containerd's words for a context that has ended are not the context's error.
		if ended := ctx.Err(); ended != nil {
			return fmt.Errorf("failed to create task for container: %w", ended)
		}
		return fmt.Errorf("failed to create task for container: %w", errgrpc.ToNative(err))
	}
	r.noteCreated(record.ID)
	return nil
}

// lockShim takes the lock for a creation in the task's shim: alone if the shim must be started first.
// Two who start it at a time can end with one shim too many.
func (r *Runtime) lockShim(task string) (unlock func()) {
	unlock = r.shims.share(task)
	conn, err := net.Dial("unix", r.shimSocket(task))
	if err == nil {
		conn.Close()
		return unlock
	}
	unlock()
	return r.shims.lock(task)
}

// shimSocket is where containerd lets a task's shim listen.
func (r *Runtime) shimSocket(task string) string {
	address, err := shim.CreateSocketAddress(inNamespace(context.Background()), socketsDir(r.config.RunDir), grpcAddress(r.config.RunDir), task, false)
	if err != nil {
		return "" // only without a namespace
	}
	return strings.TrimPrefix(address, "unix://")
}

func (r *Runtime) stdinPath(id string) string { return filepath.Join(r.config.RunDir, "stdin", id) }

// Start runs a created container's process. One that was started before is no error.
func (r *Runtime) Start(ctx context.Context, id string) (time.Time, error) {
	defer r.keys.lock(id)()
	return r.start(r.call(ctx), id)
}

func (r *Runtime) start(ctx context.Context, id string) (time.Time, error) {
	if err := r.forgetExit(ctx, id); err != nil {
		return time.Time{}, err
	}
	// Before the call, so that no exit is earlier than its start.
	at := time.Now()
	failpoint.Hit("runtime/start/before")
	_, err := r.engine.tasks.Start(ctx, &tasks.StartRequest{ContainerID: id})
	failpoint.Hit("runtime/start/after")
	if err == nil {
		r.mu.Lock()
		r.started[id] = at
		r.mu.Unlock()
		return at, nil
	}
	err = errgrpc.ToNative(err)
	// Starting twice fails; whether it is running is what counts.
	if state, ok, inspectErr := r.Inspect(ctx, id); inspectErr == nil && ok && state.Phase != agent.PhaseCreated {
		return state.StartedAt, nil
	}
	return time.Time{}, fmt.Errorf("start the container: %w", err)
}

// Signal sends a signal, "SIGTERM", "TERM" or "15", to the container's first process.
func (r *Runtime) Signal(ctx context.Context, id, name string) error {
	number, err := signal.ParseSignal(name)
	if err != nil {
		return fmt.Errorf("signal the container: %w", err)
	}
	ctx = r.call(ctx)
	bounded := ctx
	if number == unix.SIGKILL {
		r.noteKill(ctx, id)
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, r.killWait)
		defer cancel()
	}
	failpoint.Hit("runtime/signal/before")
	_, err = r.engine.tasks.Kill(bounded, &tasks.KillRequest{ContainerID: id, Signal: uint32(number)})
	failpoint.Hit("runtime/signal/after")
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if bounded.Err() != nil && ctx.Err() == nil {
		if record, recordErr := r.engine.containers.Get(ctx, id); recordErr == nil {
			if ended, err := r.endIfHung(ctx, id, record.Labels[labelTask]); ended || err != nil {
				return err
			}
		}
	}
	// runc's word for a process that has ended is an error of many spellings; ask for the state.
	if state, ok, inspectErr := r.Inspect(ctx, id); inspectErr == nil && (!ok || state.Phase == agent.PhaseStopped) {
		return nil
	}
	return fmt.Errorf("signal the container: %w", err)
}

// noteKill remembers how many OOM kills there were before our own SIGKILL, whose exit code is the
// same.
func (r *Runtime) noteKill(ctx context.Context, id string) {
	record, err := r.engine.containers.Get(ctx, id)
	if err != nil {
		return
	}
	n := r.cgroups.oomKills(r.cgroupPath(record.Labels[labelTask], id))
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.kills[id]; !ok {
		r.kills[id] = n
	}
}

// Delete removes the container, killing it first if need be. An unknown one is no error.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	if err := checkName(id); err != nil {
		return err
	}
	defer r.keys.lock(id)()
	ctx = r.call(ctx)
	task := ""
	if record, err := r.engine.containers.Get(ctx, id); err == nil {
		task = record.Labels[labelTask]
	} else if !errdefs.IsNotFound(err) {
		return fmt.Errorf("look for the container: %w", err)
	}
	return r.discard(ctx, id, task)
}

// discard removes whatever there is of a container. The record goes last of what names it, so that
// an interrupted removal is found again.
func (r *Runtime) discard(ctx context.Context, id, task string) error {
	if err := r.deleteTask(ctx, id, task); err != nil {
		return err
	}
	if err := os.Remove(r.stdinPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the container's standard input: %w", err)
	}
	if err := os.RemoveAll(r.execDir(id)); err != nil {
		return fmt.Errorf("remove what execs left: %w", err)
	}
	if task != "" {
		if err := r.cgroups.remove(ctx, r.cgroupPath(task, id)); err != nil {
			return err
		}
	}
	if err := r.removeSnapshot(ctx, id); err != nil {
		return err
	}
	failpoint.Hit("runtime/uncontainer/before")
	err := r.engine.containers.Delete(ctx, id)
	failpoint.Hit("runtime/uncontainer/after")
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the container's record: %w", err)
	}
	r.mu.Lock()
	delete(r.started, id)
	delete(r.kills, id)
	delete(r.created, id)
	delete(r.usage, id)
	r.mu.Unlock()
	r.watcher.forget(id)
	return nil
}

func (r *Runtime) removeSnapshot(ctx context.Context, id string) error {
	failpoint.Hit("runtime/unsnapshot/before")
	err := r.engine.snapshots.Remove(ctx, id)
	failpoint.Hit("runtime/unsnapshot/after")
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the container's file system: %w", err)
	}
	return nil
}

// deleteTask ends the container's process and takes it from its shim, which ends with its last one.
func (r *Runtime) deleteTask(ctx context.Context, id, task string) error {
	got, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	err = errgrpc.ToNative(err)
	if !errdefs.IsNotFound(err) && (err != nil || got.Process.Status != tasktypes.Status_STOPPED) {
		if err := r.killTask(ctx, id, task); err != nil {
			return err
		}
	}
	if task != "" {
		if err := r.cgroups.killLeft(r.cgroupPath(task, id)); err != nil {
			return err
		}
	}
	defer r.shims.lock(task)()
	for attempt := 1; ; attempt++ {
		failpoint.Hit("runtime/delete/before")
		// Also when there is none: its shim may be there, without it, from a deletion cut short.
		_, err = r.engine.tasks.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		failpoint.Hit("runtime/delete/after")
		if err = errgrpc.ToNative(err); err == nil {
			return nil
		}
		if errdefs.IsNotFound(err) {
			return r.endLostShim(ctx, id, task)
		}
		// The shim may end in the middle, on its own account; then there is nothing to delete.
		if attempt == 3 || ctx.Err() != nil {
			return fmt.Errorf("delete the container's process: %w", err)
		}
	}
}

// killWait bounds how long a killed container may take to be gone: the kernel does not wait for
// anything but a hung disk.
const killWait = 15 * time.Second

// killTask kills all processes of the container and returns when the first is reaped. If the shim does
// not even answer, it is killed too, with all it has.
func (r *Runtime) killTask(ctx context.Context, id, task string) error {
	bounded, cancel := context.WithTimeout(ctx, r.killWait)
	defer cancel()
	_, killErr := r.engine.tasks.Kill(bounded, &tasks.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
	_, err := r.engine.tasks.Wait(bounded, &tasks.WaitRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if bounded.Err() != nil && ctx.Err() == nil {
		if ended, err := r.endIfHung(ctx, id, task); ended || err != nil {
			return err
		}
	}
	return fmt.Errorf("kill the container: %w", errors.Join(errgrpc.ToNative(killErr), err))
}

// Inspect tells a container's state.
func (r *Runtime) Inspect(ctx context.Context, id string) (agent.ContainerState, bool, error) {
	ctx = r.call(ctx)
	record, err := r.engine.containers.Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return agent.ContainerState{}, false, nil
	}
	if err != nil {
		return agent.ContainerState{}, false, fmt.Errorf("look for the container: %w", err)
	}
	state, err := r.state(ctx, record)
	if err != nil || state.unfinished {
		return agent.ContainerState{}, false, err
	}
	return state.ContainerState, true, nil
}

// foundState is a container's state; lost is one that no shim knows, and unfinished a lost one whose
// Create was interrupted.
type foundState struct {
	agent.ContainerState
	lost, unfinished bool
}

func (r *Runtime) state(ctx context.Context, record containerRecord) (foundState, error) {
	s := agent.ContainerState{ID: record.ID, TaskID: record.Labels[labelTask]}
	response, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: record.ID})
	err = errgrpc.ToNative(err)
	switch {
	case errdefs.IsNotFound(err):
		return r.lostState(ctx, record, s)
	case err != nil:
		return foundState{}, fmt.Errorf("ask the shim for the container's state: %w", err)
	}
	r.mu.Lock()
	s.StartedAt = r.started[record.ID]
	kills, killed := r.kills[record.ID]
	r.mu.Unlock()
	p := response.Process
	switch p.Status {
	case tasktypes.Status_CREATED:
		s.Phase = agent.PhaseCreated
	case tasktypes.Status_STOPPED:
		s.Phase = agent.PhaseStopped
		s.ExitCode = int(p.ExitStatus)
		s.FinishedAt = p.ExitedAt.AsTime()
		if p.ExitStatus == 128+uint32(unix.SIGKILL) {
			n := r.cgroups.oomKills(r.cgroupPath(s.TaskID, s.ID))
			s.OOMKilled = n > 0 && (!killed || n > kills)
		}
	default: // running, paused, pausing
		s.Phase = agent.PhaseRunning
		if s.StartedAt.IsZero() {
			// Started by an earlier process of ours; runc made this one shortly before.
			s.StartedAt, _ = processStart(p.Pid)
		}
	}
	return foundState{ContainerState: s}, nil
}

// lostState is the state of a container that no shim knows.
func (r *Runtime) lostState(ctx context.Context, record containerRecord, s agent.ContainerState) (foundState, error) {
	s.Phase, s.ExitCode = agent.PhaseStopped, -1
	if code, at, ok := parseExit(record.Labels[labelExit]); ok {
		s.ExitCode, s.FinishedAt = code, at
		return foundState{ContainerState: s, lost: true}, nil
	}
	if record.Labels[labelGeneration] != r.generation {
		return foundState{ContainerState: s, lost: true}, nil
	}
	if !r.wasCreated(record.ID) {
		return foundState{ContainerState: s, lost: true, unfinished: true}, nil
	}
	// Its shim was lost. containerd kills what the shim left and tells the exit before it forgets the
	// container, so the event is on its way.
	if exit, ok := r.watcher.await(ctx, record.ID, lostExitWait); ok {
		s.ExitCode, s.FinishedAt = exit.code, exit.at
	}
	if err := r.recordExit(ctx, record, s.ExitCode, s.FinishedAt); err != nil {
		return foundState{}, err
	}
	return foundState{ContainerState: s, lost: true}, nil
}

// lostExitWait is how long the exit of a container whose shim is gone is waited for.
const lostExitWait = 2 * time.Second

// recordExit keeps the exit of a container whose shim is lost.
func (r *Runtime) recordExit(ctx context.Context, record containerRecord, code int, at time.Time) error {
	record.Labels[labelExit] = formatExit(code, at)
	_, err := r.engine.containers.Update(ctx, record, "labels."+labelExit)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("record the container's exit: %w", err)
	}
	return nil
}

// wasCreated tells whether this process has seen the container with a shim.
func (r *Runtime) wasCreated(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.created[id]
}

func (r *Runtime) noteCreated(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.created[id] = true
}

func formatExit(code int, at time.Time) string {
	return strconv.Itoa(code) + " " + at.UTC().Format(time.RFC3339Nano)
}

func parseExit(s string) (code int, at time.Time, ok bool) {
	left, right, found := strings.Cut(s, " ")
	code, err := strconv.Atoi(left)
	if err != nil || !found {
		return 0, time.Time{}, false
	}
	at, err = time.Parse(time.RFC3339Nano, right)
	return code, at, err == nil
}

// List names all containers of this instance.
func (r *Runtime) List(ctx context.Context) ([]agent.ContainerState, error) {
	ctx = r.call(ctx)
	records, err := r.engine.containers.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the containers: %w", err)
	}
	states := make([]agent.ContainerState, len(records))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, record := range records {
		group.Go(func() error {
			state, err := r.state(ctx, record)
			states[i] = state.ContainerState
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return states, nil
}

// noteExit keeps an exit for the case that its shim is gone when it is asked for.
func (r *Runtime) noteExit(e *eventstypes.TaskExit) {
	r.watcher.note(e.ContainerID, exit{code: int(e.ExitStatus), at: e.ExitedAt.AsTime()})
}

// sweep kills what a container that has stopped leaves in a PID namespace that is not its own. The
// shim does that too, but not if the first process ended while it was being started.
func (r *Runtime) sweep(id string) {
	select {
	case <-r.opened:
	case <-r.life.Done():
		return
	}
	ctx := r.call(r.life)
	record, err := r.engine.containers.Get(ctx, id)
	if err != nil || record.Labels[labelPIDMode] == "" {
		return
	}
	// Alone with the container: no restart may come between the question and the deed.
	defer r.keys.lock(id)()
	got, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil || got.Process.Status != tasktypes.Status_STOPPED {
		return
	}
	if err := r.cgroups.killLeft(r.cgroupPath(record.Labels[labelTask], id)); err != nil {
		r.log.Warn("killing what a container left", "container", id, "error", err)
	}
}

// Events delivers exits and OOM kills until ctx ends.
func (r *Runtime) Events(ctx context.Context) (<-chan agent.ContainerEvent, error) {
	return r.watcher.subscribe(ctx), nil
}

// processStart answers when a process was started, from /proc.
func processStart(pid uint32) (time.Time, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, false
	}
	ticks, ok := startTicks(string(stat))
	if !ok {
		return time.Time{}, false
	}
	var boot, wall unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_REALTIME, &wall) != nil {
		return time.Time{}, false
	}
	// USER_HZ is 100 on every Linux architecture that Go supports.
	age := time.Duration(boot.Nano()) - time.Duration(ticks)*10*time.Millisecond
	return time.Unix(0, wall.Nano()).Add(-age), true
}

// startTicks reads field 22 of /proc/pid/stat. The second field, the command, may hold anything.
func startTicks(stat string) (int64, bool) {
	i := strings.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	fields := strings.Fields(stat[i+1:])
	if len(fields) < 20 {
		return 0, false
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	return ticks, err == nil
}
