package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const taskARN = "arn:aws:ecs:us-east-1:000000000000:task/demo/0123"

// rooms is everything around the server, faked.
type rooms struct {
	mu        sync.Mutex
	connected []string
	gone      chan string
	payloads  chan *dispatchpb.Payload
	reports   chan *dispatchpb.TaskStatus
	reportErr error
}

func (r *rooms) HostConnected(_ context.Context, h *dispatchpb.Hello) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected = append(r.connected, h.HostId)
	return nil
}
func (r *rooms) HostDisconnected(_ context.Context, id string)            { r.gone <- id }
func (r *rooms) Assignments(context.Context, string) (Assignments, error) { return r, nil }
func (r *rooms) HostOf(arn string) (string, bool)                         { return "h1", arn == taskARN }
func (r *rooms) Close()                                                   {}
func (r *rooms) Report(_ context.Context, _ string, s *dispatchpb.TaskStatus) error {
	r.mu.Lock()
	err := r.reportErr
	r.mu.Unlock()
	r.reports <- s
	return err
}
func (r *rooms) Next(ctx context.Context) (*dispatchpb.Payload, error) {
	select {
	case p := <-r.payloads:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start serves and returns a client.
func start(t *testing.T) (*rooms, *Server, dispatchpb.DispatchClient) {
	t.Helper()
	r := &rooms{gone: make(chan string, 8), payloads: make(chan *dispatchpb.Payload, 8), reports: make(chan *dispatchpb.TaskStatus, 8)}
	s := New(Config{ServerID: "s1", Assigner: r, Reporter: r, Logger: slog.New(slog.DiscardHandler)})
	l := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	dispatchpb.RegisterDispatchServer(srv, s)
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:bufnet", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop(); <-served })
	return r, s, dispatchpb.NewDispatchClient(conn)
}

type agentEnd = grpc.BidiStreamingClient[dispatchpb.AgentMessage, dispatchpb.ServerMessage]

// greet opens a session and says hello.
func greet(t *testing.T, c dispatchpb.DispatchClient, host string) agentEnd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := c.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_Hello{Hello: &dispatchpb.Hello{HostId: host}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetWelcome().GetServerId() != "s1" {
		t.Fatalf("first answer = %v, %v; want Welcome", m, err)
	}
	return stream
}

func sendStatus(t *testing.T, s agentEnd, version int64) {
	t.Helper()
	err := s.Send(&dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_TaskStatus{
		TaskStatus: &dispatchpb.TaskStatus{Arn: taskARN, Version: version, LastStatus: "RUNNING"}}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSessionCarriesPayloadsAndStatuses(t *testing.T) {
	t.Parallel()
	r, s, c := start(t)
	stream := greet(t, c, "h1")
	if !s.Connected("h1") {
		t.Error("not connected after Welcome")
	}
	r.payloads <- &dispatchpb.Payload{Sequence: 7, Full: true}
	if m, err := stream.Recv(); err != nil || m.GetPayload().GetSequence() != 7 {
		t.Fatalf("got %v, %v; want the payload", m, err)
	}
	sendStatus(t, stream, 3)
	if m, err := stream.Recv(); err != nil || m.GetTaskStatusAck().GetVersion() != 3 {
		t.Fatalf("got %v, %v; want the acknowledgment", m, err)
	}
	stream.CloseSend()
	if id := <-r.gone; id != "h1" {
		t.Errorf("disconnected: %s", id)
	}
}

func TestUndurableStatusIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	r, _, c := start(t)
	stream := greet(t, c, "h1")
	r.mu.Lock()
	r.reportErr = errors.New("the store is away")
	r.mu.Unlock()
	sendStatus(t, stream, 1)
	<-r.reports
	r.mu.Lock()
	r.reportErr = fmt.Errorf("gone: %w", ErrUnknownTask)
	r.mu.Unlock()
	sendStatus(t, stream, 2)
	if m, err := stream.Recv(); err != nil || m.GetTaskStatusAck().GetVersion() != 2 {
		t.Fatalf("got %v, %v; want an acknowledgment of version 2 alone", m, err)
	}
}

func TestSecondSessionEndsTheFirst(t *testing.T) {
	t.Parallel()
	r, s, c := start(t)
	first := greet(t, c, "h1")
	second := greet(t, c, "h1")
	if _, err := first.Recv(); err == nil {
		t.Error("the first session goes on")
	}
	if !s.Connected("h1") {
		t.Error("the end of the first session took the second one's place")
	}
	second.CloseSend()
	if id := <-r.gone; id != "h1" || len(r.gone) != 0 {
		t.Errorf("disconnected: %s, and %d more", id, len(r.gone))
	}
}

func TestHelloComesFirst(t *testing.T) {
	t.Parallel()
	_, _, c := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stream, err := c.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_Heartbeat{}})
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("answer: %v; want InvalidArgument", err)
	}
}

func TestOpenLogs(t *testing.T) {
	t.Parallel()
	_, s, c := start(t)
	stream := greet(t, c, "h1")
	go func() {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		out, err := c.Output(context.Background())
		if err != nil {
			return
		}
		id := m.GetLogRequest().GetRequestId()
		for i := range 3 {
			out.Send(&dispatchpb.LogChunk{RequestId: id, Lines: []*dispatchpb.LogLine{{Text: []byte{byte('a' + i)}}}})
		}
		out.CloseAndRecv()
	}()
	got := ""
	err := s.OpenLogs(t.Context(), &dispatchpb.LogRequest{TaskArn: taskARN}, func(l *dispatchpb.LogLine) error {
		got += string(l.Text)
		return nil
	})
	if err != nil || got != "abc" {
		t.Errorf("OpenLogs = %q, %v; want abc", got, err)
	}
}

func TestOpenLogsEndsWithTheSession(t *testing.T) {
	t.Parallel()
	_, s, c := start(t)
	stream := greet(t, c, "h1")
	go func() {
		stream.Recv()
		stream.CloseSend()
	}()
	err := s.OpenLogs(t.Context(), &dispatchpb.LogRequest{TaskArn: taskARN}, func(*dispatchpb.LogLine) error { return nil })
	if !errors.Is(err, errHostLeft) {
		t.Errorf("OpenLogs: %v; want %v", err, errHostLeft)
	}
	if err := s.OpenLogs(t.Context(), &dispatchpb.LogRequest{TaskArn: taskARN}, nil); !errors.Is(err, ErrNoHost) && !errors.Is(err, errHostLeft) {
		t.Errorf("OpenLogs without a host: %v", err)
	}
	if err := s.OpenLogs(t.Context(), &dispatchpb.LogRequest{TaskArn: "arn:other"}, nil); !errors.Is(err, ErrUnknownTask) {
		t.Errorf("OpenLogs of an unknown task: %v", err)
	}
}
