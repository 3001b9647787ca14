package shim

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// slow is a task service whose calls last until the test has seen their contexts.
type slow struct {
	taskapi.TTRPCTaskService
	starting, waiting chan context.Context
	release           chan struct{}
}

func (s *slow) Start(ctx context.Context, _ *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	s.starting <- ctx
	<-s.release
	return &taskapi.StartResponse{}, nil
}

func (s *slow) Wait(ctx context.Context, _ *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	s.waiting <- ctx
	<-s.release
	return &taskapi.WaitResponse{}, nil
}

func TestStartOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	s := &slow{starting: make(chan context.Context, 1), waiting: make(chan context.Context, 1), release: make(chan struct{})}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	if err := newUninterrupted(s, "").RegisterTTRPC(server); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(context.Background(), l)
	defer server.Close()
	defer close(s.release)

	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := taskapi.NewTTRPCTaskClient(ttrpc.NewClient(conn))
	go client.Start(context.Background(), &taskapi.StartRequest{ID: "a"})
	go client.Wait(context.Background(), &taskapi.WaitRequest{ID: "a"})
	starting, waiting := <-s.starting, <-s.waiting
	conn.Close() // as when berth is killed

	// That the server has noticed shows in the call that is only a question.
	select {
	case <-waiting.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not notice that its client is gone")
	}
	if err := starting.Err(); err != nil {
		t.Errorf("the start was given up with its caller: %v", err)
	}
}
