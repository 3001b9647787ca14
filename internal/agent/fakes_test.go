package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
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

// fakeServer is a server in memory, over real gRPC. It checks that what it hears only moves forward.
type fakeServer struct {
	dispatchpb.UnimplementedDispatchServer

	mu       sync.Mutex
	sequence int64
	tasks    map[string]*dispatchpb.Task       // what the host should know
	statuses map[string]*dispatchpb.TaskStatus // the latest heard
	heard    map[string][]string               // every status, in order
	acks     []int64                           // of payloads
	hellos   []*dispatchpb.Hello
	beats    int
	sessions map[int]chan *dispatchpb.ServerMessage
	next     int
	broken   []string
	refuse   bool // sessions
	deaf     bool // does not acknowledge
	chunks   chan *dispatchpb.LogChunk
	objects  map[string]string // environment files by ARN
	asked    []*dispatchpb.EnvironmentFileRequest
	replies  map[string]*dispatchpb.InspectReply
	outputs  func(stream grpc.ClientStreamingServer[dispatchpb.LogChunk, dispatchpb.OutputEnd]) error
}

func newFakeServer() *fakeServer {
	return &fakeServer{
		tasks:    map[string]*dispatchpb.Task{},
		statuses: map[string]*dispatchpb.TaskStatus{},
		heard:    map[string][]string{},
		sessions: map[int]chan *dispatchpb.ServerMessage{},
		objects:  map[string]string{}, replies: map[string]*dispatchpb.InspectReply{},
	}
}

func (s *fakeServer) EnvironmentFile(_ context.Context, r *dispatchpb.EnvironmentFileRequest) (*dispatchpb.EnvironmentFileContent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	content, ok := s.objects[r.Arn]
	if !ok {
		return nil, status.Error(codes.NotFound, "NoSuchKey: The specified key does not exist.")
	}
	return &dispatchpb.EnvironmentFileContent{Content: []byte(content)}, nil
}

var statusOrder = []string{statusPending, statusActivating, statusRunning, statusStopping, statusDeprovisioning, statusStopped}

func (s *fakeServer) Session(stream grpc.BidiStreamingServer[dispatchpb.AgentMessage, dispatchpb.ServerMessage]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.refuse {
		s.mu.Unlock()
		return errors.New("not now")
	}
	s.hellos = append(s.hellos, first.GetHello())
	out := make(chan *dispatchpb.ServerMessage, 1024)
	id := s.next
	s.next++
	s.sessions[id] = out
	s.sequence++
	out <- &dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_Welcome{Welcome: &dispatchpb.Welcome{ServerId: "s", HeartbeatSeconds: 5}}}
	out <- payloadMessage(s.sequence, true, slices.Collect(maps.Values(s.tasks))...)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, id)
		s.mu.Unlock()
	}()

	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		defer cancel()
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			s.receive(m, out)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-out:
			if !ok {
				return errors.New("kicked")
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

func payloadMessage(sequence int64, full bool, tasks ...*dispatchpb.Task) *dispatchpb.ServerMessage {
	return &dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_Payload{
		Payload: &dispatchpb.Payload{Sequence: sequence, Full: full, Tasks: tasks},
	}}
}

func (s *fakeServer) receive(m *dispatchpb.AgentMessage, out chan *dispatchpb.ServerMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m := m.Message.(type) {
	case *dispatchpb.AgentMessage_InspectReply:
		s.replies[m.InspectReply.RequestId] = m.InspectReply
	case *dispatchpb.AgentMessage_Heartbeat:
		s.beats++
	case *dispatchpb.AgentMessage_PayloadAck:
		s.acks = append(s.acks, m.PayloadAck.Sequence)
	case *dispatchpb.AgentMessage_TaskStatus:
		st := m.TaskStatus
		if old := s.statuses[st.Arn]; old != nil {
			was, is := slices.Index(statusOrder, old.LastStatus), slices.Index(statusOrder, st.LastStatus)
			if st.Version < old.Version || is < was {
				s.broken = append(s.broken, fmt.Sprintf("%s went from %s v%d to %s v%d", st.Arn, old.LastStatus, old.Version, st.LastStatus, st.Version))
			}
			if st.Version == old.Version && !proto.Equal(st, old) {
				s.broken = append(s.broken, fmt.Sprintf("%s v%d is now %v, was %v", st.Arn, st.Version, st, old))
			}
		}
		s.statuses[st.Arn] = st
		s.heard[st.Arn] = append(s.heard[st.Arn], st.LastStatus)
		if st.LastStatus == statusStopped {
			delete(s.tasks, st.Arn)
		}
		if s.deaf {
			return
		}
		select {
		case out <- &dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_TaskStatusAck{
			TaskStatusAck: &dispatchpb.TaskStatusAck{Arn: st.Arn, Version: st.Version},
		}}:
		default:
		}
	}
}

func (s *fakeServer) Output(stream grpc.ClientStreamingServer[dispatchpb.LogChunk, dispatchpb.OutputEnd]) error {
	if s.outputs != nil {
		return s.outputs(stream)
	}
	for {
		c, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			close(s.chunks)
			return stream.SendAndClose(&dispatchpb.OutputEnd{})
		}
		if err != nil {
			return err
		}
		s.chunks <- c
	}
}

// assign states what tasks should be, to every session.
func (s *fakeServer) assign(tasks ...*dispatchpb.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence++
	for _, t := range tasks {
		s.tasks[t.Arn] = t
	}
	s.sendLocked(payloadMessage(s.sequence, false, tasks...))
}

func (s *fakeServer) stop(t *dispatchpb.Task, reason string) {
	t = cloneTask(t)
	t.DesiredStatus, t.StopReason = statusStopped, reason
	s.assign(t)
}

func (s *fakeServer) send(m *dispatchpb.ServerMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(m)
}

func (s *fakeServer) sendLocked(m *dispatchpb.ServerMessage) {
	for _, out := range s.sessions {
		out <- m
	}
}

// kick ends all sessions.
func (s *fakeServer) kick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, out := range s.sessions {
		close(out)
		delete(s.sessions, id)
	}
}

func (s *fakeServer) status(arn string) *dispatchpb.TaskStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statuses[arn]
}

// inspect asks what a task is doing.
func (s *fakeServer) inspect(id, arn string) *dispatchpb.InspectReply {
	s.send(&dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_InspectRequest{
		InspectRequest: &dispatchpb.InspectRequest{RequestId: id, TaskArn: arn},
	}})
	pass(10 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replies[id]
}

func (s *fakeServer) heartbeats() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.beats
}

// world is a host with its rooms, and a server.
type world struct {
	dir     string
	runtime *fakeRuntime
	network *fakeNetwork
	output  *fakeOutput
	bridge  *fakeBridge
	volumes *fakeVolumes
	server  *fakeServer
	lis     *bufconn.Listener
	grpc    *grpc.Server
	bootID  string
	tune    func(*Config)
	disk    disk

	agent *Agent
	stop  func()
}

func newWorld(dir string) *world {
	w := &world{
		dir: dir, runtime: newFakeRuntime(),
		network: &fakeNetwork{up: map[string]bool{}},
		output:  &fakeOutput{attached: map[string]bool{}},
		bridge:  &fakeBridge{up: map[string]Endpoint{}}, volumes: &fakeVolumes{of: map[string]bool{}},
		server: newFakeServer(), lis: bufconn.Listen(1 << 16), grpc: grpc.NewServer(), bootID: "boot-1", disk: disk{noSync: true},
	}
	dispatchpb.RegisterDispatchServer(w.grpc, w.server)
	go w.grpc.Serve(w.lis)
	return w
}

func (w *world) config() Config {
	cfg := Config{
		Dir: w.dir, Runtime: w.runtime, Network: w.network, Output: w.output,
		Processes: w.runtime, Bridge: w.bridge, Volumes: w.volumes, BootID: w.bootID,
		Hello: &dispatchpb.Hello{Hostname: "host", CpuUnits: 2048, MemoryMib: 4096},
		Dial: func(context.Context) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///bufconn",
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.lis.DialContext(ctx) }),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
	}
	if w.tune != nil {
		w.tune(&cfg)
	}
	return cfg
}

// start runs an agent on the host.
func (w *world) start() error {
	a, err := open(w.config(), w.disk)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	w.agent = a
	w.stop = func() {
		cancel()
		<-done
		a.Close()
	}
	return nil
}

func (w *world) close() {
	w.grpc.Stop()
	w.lis.Close()
}

// testTask is a task of n containers, all essential.
func testTask(name string, n int) *dispatchpb.Task {
	t := &dispatchpb.Task{
		Arn:        "arn:aws:ecs:us-east-1:123456789012:task/default/" + name,
		ClusterArn: "arn:aws:ecs:us-east-1:123456789012:cluster/default",
		Region:     "us-east-1", Family: "web", Revision: 3,
		DesiredStatus: statusRunning, LaunchType: "EC2", NetworkMode: networkNone,
	}
	for i := range n {
		t.Containers = append(t.Containers, &dispatchpb.Container{
			Name: fmt.Sprintf("c%d", i), Image: fmt.Sprintf("image%d", i), Essential: true,
		})
	}
	return t
}

// left says what a host still holds of its tasks.
func (w *world) left() string {
	n := len(w.runtime.containers) + len(w.runtime.cgroups) + len(w.network.up) + len(w.output.attached) + len(w.bridge.up) + len(w.volumes.of)
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("left: containers %v, cgroups %v, networks %v, FIFOs %v, connections %v, volumes %v",
		w.runtime.containers, w.runtime.cgroups, w.network.up, w.output.attached, w.bridge.up, w.volumes.of)
}

func bridged(t *dispatchpb.Task) *dispatchpb.Task {
	t.NetworkMode = networkBridge
	return t
}

func awsvpc(t *dispatchpb.Task) *dispatchpb.Task {
	t.NetworkMode = networkAWSVPC
	t.NetworkInterface = &dispatchpb.NetworkInterface{PrivateIpv4: "172.31.0.5", PrivateDnsName: "ip-172-31-0-5.ec2.internal"}
	return t
}
