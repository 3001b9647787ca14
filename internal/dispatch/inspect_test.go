package dispatch

import (
	"context"
	"errors"
	"testing"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// question waits for the server's question.
func question(t *testing.T, s agentEnd) *dispatchpb.InspectRequest {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if q := m.GetInspectRequest(); q != nil {
			return q
		}
	}
}

func answer(t *testing.T, s agentEnd, r *dispatchpb.InspectReply) {
	t.Helper()
	if err := s.Send(&dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_InspectReply{InspectReply: r}}); err != nil {
		t.Fatal(err)
	}
}

type inspectResult struct {
	reply *dispatchpb.InspectReply
	err   error
}

func inspect(ctx context.Context, s *Server) chan inspectResult {
	got := make(chan inspectResult, 1)
	go func() {
		r, err := s.Inspect(ctx, taskARN)
		got <- inspectResult{r, err}
	}()
	return got
}

func TestInspectAsksTheTasksHost(t *testing.T) {
	t.Parallel()
	_, s, c := start(t)
	if _, err := s.Inspect(t.Context(), taskARN); !errors.Is(err, ErrNoHost) {
		t.Errorf("without a session: %v, want ErrNoHost", err)
	}
	if _, err := s.Inspect(t.Context(), taskARN+"4"); !errors.Is(err, ErrUnknownTask) {
		t.Errorf("a task without a host: %v, want ErrUnknownTask", err)
	}
	host, other := greet(t, c, "h1"), greet(t, c, "h2")
	got := inspect(t.Context(), s)
	q := question(t, host)
	if q.TaskArn != taskARN {
		t.Errorf("asked for %s", q.TaskArn)
	}
	// Another host cannot answer for this one, and an answer to nothing is no harm.
	answer(t, other, &dispatchpb.InspectReply{RequestId: q.RequestId, Found: true})
	answer(t, host, &dispatchpb.InspectReply{RequestId: "unasked", Found: true})
	answer(t, host, &dispatchpb.InspectReply{RequestId: q.RequestId, Found: true, Waiting: []*dispatchpb.Waiting{{Reason: "pulling image web:1"}}})
	if r := <-got; r.err != nil || len(r.reply.Waiting) != 1 {
		t.Errorf("answer %v, %v", r.reply, r.err)
	}
	got = inspect(t.Context(), s)
	answer(t, host, &dispatchpb.InspectReply{RequestId: question(t, host).RequestId})
	if r := <-got; !errors.Is(r.err, ErrForgotten) {
		t.Errorf("not found: %v, want ErrForgotten", r.err)
	}
}

func TestInspectEnds(t *testing.T) {
	t.Parallel()
	r, s, c := start(t)
	host := greet(t, c, "h1")
	ctx, cancel := context.WithCancel(t.Context())
	got := inspect(ctx, s)
	question(t, host)
	cancel()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", r.err)
	}
	got = inspect(t.Context(), s)
	question(t, host)
	host.CloseSend()
	if r := <-got; !errors.Is(r.err, errHostLeft) {
		t.Errorf("error %v, want that the host left", r.err)
	}
	<-r.gone
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inspections) > 0 {
		t.Errorf("%d questions are kept", len(s.inspections))
	}
}
