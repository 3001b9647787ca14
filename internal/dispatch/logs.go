package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

var (
	errHostLeft = errors.New("the host disconnected")
	// ErrNoHost is returned by OpenLogs for a task whose host has no session.
	ErrNoHost = errors.New("the task's host is not connected")
)

// logRequest is one reader waiting for what a host sends.
type logRequest struct {
	chunks chan *dispatchpb.LogChunk // closed at the answer's end; unbuffered, so that the reader sets the pace
	gone   chan struct{}             // closed when the reader has left
}

// OpenLogs asks the task's host for output and calls line for each line, in order, until the host
// says it is the end, ctx ends or line fails. A slow line slows only this request.
func (s *Server) OpenLogs(ctx context.Context, req *dispatchpb.LogRequest, line func(*dispatchpb.LogLine) error) error {
	hostID, ok := s.cfg.Assigner.HostOf(req.TaskArn)
	if !ok {
		return ErrUnknownTask
	}
	req.RequestId = uuid.NewString()
	lr := &logRequest{chunks: make(chan *dispatchpb.LogChunk), gone: make(chan struct{})}
	s.mu.Lock()
	ses := s.sessions[hostID]
	if ses != nil {
		s.logs[req.RequestId] = lr
	}
	s.mu.Unlock()
	if ses == nil {
		return ErrNoHost
	}
	defer func() {
		s.mu.Lock()
		delete(s.logs, req.RequestId)
		s.mu.Unlock()
		close(lr.gone)
	}()
	ses.send(&dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_LogRequest{LogRequest: req}})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ses.done:
			return errHostLeft
		case c, ok := <-lr.chunks:
			if !ok {
				return nil
			}
			for _, l := range c.Lines {
				if err := line(l); err != nil {
					return err
				}
			}
			if c.Error != "" {
				return fmt.Errorf("read output on host %s: %s", hostID, c.Error)
			}
		}
	}
}

// Output implements the Dispatch service: it pairs a host's stream with the reader that asked for it.
func (s *Server) Output(stream grpc.ClientStreamingServer[dispatchpb.LogChunk, dispatchpb.OutputEnd]) error {
	var lr *logRequest
	for {
		c, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if lr != nil {
				close(lr.chunks)
			}
			return stream.SendAndClose(&dispatchpb.OutputEnd{})
		}
		if err != nil {
			if lr != nil {
				lr.send(&dispatchpb.LogChunk{Error: "the output stream broke off: " + err.Error()})
				close(lr.chunks)
			}
			return err
		}
		if lr == nil {
			s.mu.Lock()
			lr = s.logs[c.RequestId]
			delete(s.logs, c.RequestId) // one answer a request
			s.mu.Unlock()
			if lr == nil {
				return status.Error(codes.Canceled, "nobody waits for this output")
			}
		}
		if !lr.send(c) {
			return status.Error(codes.Canceled, "the reader has left")
		}
	}
}

// send hands the reader a chunk; false says that it has left.
func (lr *logRequest) send(c *dispatchpb.LogChunk) bool {
	select {
	case lr.chunks <- c:
		return true
	case <-lr.gone:
		return false
	}
}
