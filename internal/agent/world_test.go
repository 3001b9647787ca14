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
