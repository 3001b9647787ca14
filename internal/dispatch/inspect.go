package dispatch

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// ErrForgotten says that the host knows nothing of the task, any more or yet.
var ErrForgotten = errors.New("the task's host knows nothing of it")

// inspection is one question waiting for a host's answer.
type inspection struct {
	hostID string
	answer chan *dispatchpb.InspectReply // holds one
}

// Inspect asks the task's host what the task is doing this moment: its status, and what it waits for.
// The error is ErrUnknownTask for a task without a host, ErrNoHost for one whose host has no session,
// ErrForgotten when the host does not have the task, or ctx's. A host whose agent does not understand
// the question stays silent, so ctx should have an end.
func (s *Server) Inspect(ctx context.Context, taskARN string) (*dispatchpb.InspectReply, error) {
	hostID, ok := s.cfg.Assigner.HostOf(taskARN)
	if !ok {
		return nil, ErrUnknownTask
	}
	id := uuid.NewString()
	q := &inspection{hostID: hostID, answer: make(chan *dispatchpb.InspectReply, 1)}
	s.mu.Lock()
	ses := s.sessions[hostID]
	if ses != nil {
		s.inspections[id] = q
	}
	s.mu.Unlock()
	if ses == nil {
		return nil, ErrNoHost
	}
	defer func() {
		s.mu.Lock()
		delete(s.inspections, id)
		s.mu.Unlock()
	}()
	request := &dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_InspectRequest{
		InspectRequest: &dispatchpb.InspectRequest{RequestId: id, TaskArn: taskARN},
	}}
	select {
	case ses.out <- request:
	case <-ses.done:
		return nil, errHostLeft
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case r := <-q.answer:
		if !r.Found {
			return nil, ErrForgotten
		}
		return r, nil
	case <-ses.done:
		return nil, errHostLeft
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inspected hands a host's answer to who asked that host for it, if somebody still does.
func (s *Server) inspected(hostID string, r *dispatchpb.InspectReply) {
	s.mu.Lock()
	q := s.inspections[r.RequestId]
	if q != nil && q.hostID == hostID {
		delete(s.inspections, r.RequestId) // one answer a question
	} else {
		q = nil
	}
	s.mu.Unlock()
	if q != nil {
		q.answer <- r
	}
}
