package agent

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// A chunk of output holds at most this many bytes of text and this many lines.
const (
	maxChunkBytes = 64 << 10
	maxChunkLines = 512
)

// sendOutput answers a log request on a stream of its own, beside the session: however slowly it is
// read, nothing else waits.
func (a *Agent) sendOutput(ctx context.Context, client dispatchpb.DispatchClient, q *dispatchpb.LogRequest) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Output(ctx)
	if err != nil {
		a.cfg.Logger.Warn("output cannot be sent", "task", taskID(q.TaskArn), "error", err)
		return
	}
	b := &lineBatch{id: q.RequestId, ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	b.first = true // the first chunk is sent at once, even when empty
	b.signal(b.ready)

	var ends sync.WaitGroup
	ends.Go(func() { b.send(ctx, stream) })
	ends.Go(func() {
		defer cancel() // the server has it all, or its reader has left, perhaps between two lines
		stream.RecvMsg(&dispatchpb.OutputEnd{})
	})
	query := OutputQuery{TaskID: taskID(q.TaskArn), Container: q.Container, Follow: q.Follow, Tail: q.Tail}
	if q.Since != nil {
		query.Since = q.Since.AsTime()
	}
	if !taskIDPattern.MatchString(query.TaskID) {
		err = errors.New("no such task on this host")
	} else {
		err = a.cfg.Output.Read(ctx, query, func(line *dispatchpb.LogLine) error { return b.add(ctx, line) })
	}
	b.end(err)
	ends.Wait()
}

func (a *Agent) refuseOutput(ctx context.Context, client dispatchpb.DispatchClient, q *dispatchpb.LogRequest, reason error) {
	stream, err := client.Output(ctx)
	if err != nil {
		return
	}
	if stream.Send(&dispatchpb.LogChunk{RequestId: q.RequestId, Error: reason.Error()}) == nil {
		stream.CloseAndRecv()
	}
}

// detach ends the taking of a stopped container's output, and has its log driver deliver the rest.
func (a *Agent) detach(ctx context.Context, containerID string) error {
	if err := a.cfg.Output.Detach(ctx, containerID); err != nil {
		return err
	}
	return a.cfg.LogDrivers.Finish(ctx, containerID)
}

// noDrivers are LogDrivers that leave all output on the host.
type noDrivers struct{}

func (noDrivers) Start(context.Context, *dispatchpb.Task, int) error { return nil }
func (noDrivers) Finish(context.Context, string) error               { return nil }
func (noDrivers) Pending(string) bool                                { return false }
func (noDrivers) Forget(context.Context, string) error               { return nil }
func (noDrivers) Stats() LogStats                                    { return LogStats{} }

// lineBatch gathers lines while the chunk before is being sent: a slow connection gets large chunks,
// a fast one is never waited for. When it is full the reader of the spool waits.
type lineBatch struct {
	id          string
	ready, room chan struct{}

	mu    sync.Mutex
	first bool
	lines []*dispatchpb.LogLine
	bytes int
	ended bool
	err   error
}

func (*lineBatch) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (b *lineBatch) add(ctx context.Context, line *dispatchpb.LogLine) error {
	for {
		b.mu.Lock()
		if len(b.lines) == 0 || len(b.lines) < maxChunkLines && b.bytes+len(line.Text) <= maxChunkBytes {
			b.lines = append(b.lines, line)
			b.bytes += len(line.Text)
			b.mu.Unlock()
			b.signal(b.ready)
			return nil
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.room:
		}
	}
}

func (b *lineBatch) end(err error) {
	b.mu.Lock()
	b.ended, b.err = true, err
	b.mu.Unlock()
	b.signal(b.ready)
}

// take returns the next chunk, if there is one, and whether it is the last.
func (b *lineBatch) take() (c *dispatchpb.LogChunk, last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) > 0 || b.first || b.ended && b.err != nil {
		c = &dispatchpb.LogChunk{RequestId: b.id, Lines: b.lines}
		if b.ended && b.err != nil {
			c.Error = b.err.Error()
		}
	}
	b.lines, b.bytes, b.first = nil, 0, false
	b.signal(b.room)
	return c, b.ended
}

func (b *lineBatch) send(ctx context.Context, stream grpc.ClientStreamingClient[dispatchpb.LogChunk, dispatchpb.OutputEnd]) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.ready:
		}
		c, last := b.take()
		if c != nil {
			if err := stream.Send(c); err != nil {
				return // the receiving side learns why
			}
		}
		if last {
			stream.CloseSend()
			return
		}
	}
}
