package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// fakeRuntime is a Runtime in memory. It outlives the agents of a test, and remembers everything
// that must never happen.
type fakeRuntime struct {
	mu         sync.Mutex
	containers map[string]*fakeContainer
	cgroups    map[string]bool
	starts     map[string]int // ever, by ID
	subs       []chan ContainerEvent
	broken     []string // invariants that did not hold

	image      func(ref string) (Image, error)
	createErr  func(id string) error
	startErr   func(id string) error
	deleteErr  func(id string) error
	delay      func(op string) time.Duration
	ignoreTerm bool
	mute       bool // no events
	pulls      int
	signals    []string // "signal id"

	restarts   map[string]int // ever, by ID
	restartErr func(id string) error
	exec       func(id string, args []string) (int, string, error)
}

type fakeContainer struct {
	spec  ContainerSpec
	state ContainerState
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{containers: map[string]*fakeContainer{}, cgroups: map[string]bool{}, starts: map[string]int{}, restarts: map[string]int{}}
}

// pause takes the time that op takes; an interrupted op did not happen.
func (f *fakeRuntime) pause(ctx context.Context, op string) error {
	f.mu.Lock()
	delay := f.delay
	f.mu.Unlock()
	if delay == nil {
		return ctx.Err()
	}
	d := delay(op)
	if d < 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	if d > 0 && !sleep(ctx, d) {
		return ctx.Err()
	}
	return ctx.Err()
}

func (f *fakeRuntime) Pull(ctx context.Context, ref string, _ PullPolicy) (Image, error) {
	if err := f.pause(ctx, "pull"); err != nil {
		return Image{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pulls++
	if f.image != nil {
		return f.image(ref)
	}
	return Image{Ref: ref, Digest: "sha256:" + ref}, nil
}

func (f *fakeRuntime) Create(ctx context.Context, c ContainerSpec) error {
	if err := f.pause(ctx, "create"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.createErr != nil {
		if err := f.createErr(c.ID); err != nil {
			return err
		}
	}
	if f.containers[c.ID] != nil {
		return nil
	}
	if !f.cgroups[c.TaskID] {
		f.broken = append(f.broken, "created before its cgroup: "+c.ID)
	}
	if f.starts[c.ID] > 0 {
		f.broken = append(f.broken, "created again after it ran: "+c.ID)
	}
	f.containers[c.ID] = &fakeContainer{spec: c, state: ContainerState{ID: c.ID, TaskID: c.TaskID, Phase: PhaseCreated}}
	return nil
}

func (f *fakeRuntime) Start(ctx context.Context, id string) (time.Time, error) {
	if err := f.pause(ctx, "start"); err != nil {
		return time.Time{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.startErr != nil {
		if err := f.startErr(id); err != nil {
			return time.Time{}, err
		}
	}
	c := f.containers[id]
	if c == nil {
		return time.Time{}, errors.New("no such container")
	}
	if c.state.Phase != PhaseCreated {
		return c.state.StartedAt, nil
	}
	f.starts[id]++
	if f.starts[id] > 1 {
		f.broken = append(f.broken, "started twice: "+id)
	}
	c.state.Phase, c.state.StartedAt = PhaseRunning, time.Now()
	return c.state.StartedAt, nil
}

func (f *fakeRuntime) Signal(ctx context.Context, id, signal string) error {
	if err := f.pause(ctx, "signal"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signals = append(f.signals, signal+" "+id)
	c := f.containers[id]
	if c == nil || c.state.Phase != PhaseRunning {
		return nil
	}
	switch {
	case signal == "SIGKILL":
		f.exitLocked(id, 137, false)
	case !f.ignoreTerm:
		f.exitLocked(id, 143, false)
	}
	return nil
}

// exit ends a container's process by itself.
func (f *fakeRuntime) exit(id string, code int, oom bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exitLocked(id, code, oom)
}

func (f *fakeRuntime) exitLocked(id string, code int, oom bool) {
	c := f.containers[id]
	if c == nil || c.state.Phase != PhaseRunning {
		return
	}
	c.state.Phase, c.state.ExitCode, c.state.FinishedAt, c.state.OOMKilled = PhaseStopped, code, time.Now(), oom
	if f.mute {
		return
	}
	for _, s := range f.subs {
		select {
		case s <- ContainerEvent{ID: id, OOM: oom}:
		default: // an event may get lost
		}
	}
}

func (f *fakeRuntime) Delete(ctx context.Context, id string) error {
	if err := f.pause(ctx, "delete"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deleteErr != nil {
		if err := f.deleteErr(id); err != nil {
			return err
		}
	}
	delete(f.containers, id)
	return nil
}

func (f *fakeRuntime) Inspect(ctx context.Context, id string) (ContainerState, bool, error) {
	if err := f.pause(ctx, "inspect"); err != nil {
		return ContainerState{}, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	if c == nil {
		return ContainerState{}, false, nil
	}
	return c.state, true, nil
}

func (f *fakeRuntime) List(context.Context) ([]ContainerState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []ContainerState
	for _, c := range f.containers {
		out = append(out, c.state)
	}
	return out, nil
}

func (f *fakeRuntime) Events(ctx context.Context) (<-chan ContainerEvent, error) {
	ch, out := make(chan ContainerEvent, 64), make(chan ContainerEvent)
	f.mu.Lock()
	f.subs = append(f.subs, ch)
	f.mu.Unlock()
	go func() {
		defer close(out)
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.subs = slices.DeleteFunc(f.subs, func(c chan ContainerEvent) bool { return c == ch })
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-ch:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}

func (f *fakeRuntime) PrepareTask(ctx context.Context, t TaskSpec) error {
	if err := f.pause(ctx, "prepare"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cgroups[t.ID] = true
	return nil
}

func (f *fakeRuntime) RemoveTask(ctx context.Context, id string) error {
	if err := f.pause(ctx, "remove"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.state.TaskID == id {
			return errors.New("cgroup is busy")
		}
	}
	delete(f.cgroups, id)
	return nil
}

func (f *fakeRuntime) Exec(ctx context.Context, id string, args []string) (int, []byte, error) {
	if err := f.pause(ctx, "exec"); err != nil {
		return 0, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c == nil || c.state.Phase != PhaseRunning {
		return 0, nil, errors.New("the container does not run")
	}
	if f.exec == nil {
		return 0, nil, nil
	}
	code, output, err := f.exec(id, args)
	return code, []byte(output), err
}

func (f *fakeRuntime) Restart(ctx context.Context, id string) (time.Time, error) {
	if err := f.pause(ctx, "restart"); err != nil {
		return time.Time{}, err
	}
	time.Sleep(time.Millisecond) // no process begins in the moment in which the one before ended
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.restartErr != nil {
		if err := f.restartErr(id); err != nil {
			return time.Time{}, err
		}
	}
	c := f.containers[id]
	if c == nil {
		return time.Time{}, errors.New("no such container")
	}
	if c.state.Phase == PhaseRunning {
		return c.state.StartedAt, nil
	}
	if c.state.Phase != PhaseStopped {
		f.broken = append(f.broken, "restarted before it was started: "+id)
	}
	f.restarts[id]++
	c.state.Phase, c.state.StartedAt, c.state.FinishedAt, c.state.ExitCode = PhaseRunning, time.Now(), time.Time{}, 0
	return c.state.StartedAt, nil
}

func (f *fakeRuntime) Usage(context.Context, string) (Usage, error) { return Usage{}, nil }

// reboot ends everything, as the kernel does.
func (f *fakeRuntime) reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.cgroups)
	for _, c := range f.containers {
		c.state.Phase, c.state.ExitCode = PhaseStopped, -1
	}
}

func (f *fakeRuntime) get(id string) (ContainerSpec, ContainerState, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		return c.spec, c.state, true
	}
	return ContainerSpec{}, ContainerState{}, false
}

// fakeNetwork is a Network in memory.
type fakeNetwork struct {
	mu    sync.Mutex
	up    map[string]bool
	err   error
	delay time.Duration
}

func (f *fakeNetwork) Setup(ctx context.Context, id string, _ *dispatchpb.NetworkInterface) (string, error) {
	if f.delay > 0 && !sleep(ctx, f.delay) {
		return "", ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return "", f.err
	}
	f.up[id] = true
	return "/run/netns/" + id, nil
}

func (f *fakeNetwork) Teardown(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.up, id)
	return nil
}

func (f *fakeNetwork) List(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.up)), nil
}

// fakeBridge is a Bridge in memory.
type fakeBridge struct {
	mu    sync.Mutex
	up    map[string]Endpoint // by task and container
	calls int
	err   error
}

func (f *fakeBridge) Connect(_ context.Context, e Endpoint) (Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.err != nil {
		return Connection{}, f.err
	}
	key := e.TaskID + "/" + e.Container
	f.up[key] = e
	c := Connection{NetNS: "/run/netns/" + key, Gateway: "172.17.0.1", MAC: "02:42:ac:11:00:02", IPv4: "172.17.0." + e.Container[len(e.Container)-1:] + "2"}
	for _, p := range e.Ports {
		b := proto.Clone(p).(*dispatchpb.PortMapping)
		b.BindIp = "0.0.0.0"
		if b.HostPort == 0 {
			b.HostPort = 32768
		}
		c.Bindings = append(c.Bindings, b)
	}
	return c, nil
}

func (f *fakeBridge) Disconnect(_ context.Context, taskID, container string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.up, taskID+"/"+container)
	return nil
}

func (f *fakeBridge) Connected(context.Context) ([]Endpoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.up)), nil
}

// fakeVolumes is a Volumes in memory.
type fakeVolumes struct {
	mu  sync.Mutex
	of  map[string]bool // tasks
	err error
}

func (f *fakeVolumes) Provide(_ context.Context, t *dispatchpb.Task) (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.of[taskID(t.Arn)] = true
	dirs := map[string]string{}
	for _, v := range t.Volumes {
		if dirs[v.Name] = v.HostPath; v.HostPath == "" {
			dirs[v.Name] = "/volumes/" + taskID(t.Arn) + "/" + v.Name
		}
	}
	return dirs, nil
}

func (f *fakeVolumes) Release(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, id)
	return nil
}

func (f *fakeVolumes) List(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.of)), nil
}

// fakeOutput is an Output in memory.
type fakeOutput struct {
	mu       sync.Mutex
	attached map[string]bool
	removed  []string
	err      error
	read     func(ctx context.Context, q OutputQuery, line func(*dispatchpb.LogLine) error) error
}

func (f *fakeOutput) Attach(_ context.Context, _, _, id string) (string, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return "", "", f.err
	}
	f.attached[id] = true
	return id + ".out", id + ".err", nil
}

func (f *fakeOutput) Detach(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attached, id)
	return nil
}

func (f *fakeOutput) Attached(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.attached)), nil
}

func (f *fakeOutput) Read(ctx context.Context, q OutputQuery, line func(*dispatchpb.LogLine) error) error {
	return f.read(ctx, q, line)
}

// pruned names the tasks whose output was removed.
func (f *fakeOutput) pruned() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.removed))
}

func (f *fakeOutput) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, id)
	return nil
}
