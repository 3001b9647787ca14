package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func logRequest(id, arn string) *dispatchpb.ServerMessage {
	return &dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_LogRequest{
		LogRequest: &dispatchpb.LogRequest{RequestId: id, TaskArn: arn, Follow: true, Tail: -1},
	}}
}

func TestOutputIsSent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const lines = 5000
		w.server.chunks = make(chan *dispatchpb.LogChunk)
		w.output.read = func(_ context.Context, q OutputQuery, line func(*dispatchpb.LogLine) error) error {
			if q.TaskID != "a1" || !q.Follow || q.Tail != -1 {
				return fmt.Errorf("asked for %+v", q)
			}
			time.Sleep(time.Second)
			for i := range lines {
				if err := line(&dispatchpb.LogLine{Text: fmt.Appendf(nil, "line %d", i)}); err != nil {
					return err
				}
			}
			return errors.New("that is all")
		}
		pass(time.Second)
		w.server.send(logRequest("r1", "arn:x/a1"))
		first := <-w.server.chunks
		if first.RequestId != "r1" || len(first.Lines) != 0 {
			t.Fatalf("first chunk %v", first)
		}
		n, failure := 0, ""
		for c := range w.server.chunks {
			if len(c.Lines) > maxChunkLines {
				t.Fatalf("a chunk of %d lines", len(c.Lines))
			}
			for _, l := range c.Lines {
				if want := fmt.Sprintf("line %d", n); string(l.Text) != want {
					t.Fatalf("%q instead of %q", l.Text, want)
				}
				n++
			}
			failure = c.Error
		}
		if n != lines || failure != "that is all" {
			t.Fatalf("%d lines, error %q", n, failure)
		}
	})
}

// A reader that does not read holds up neither status nor heartbeats.
func TestSlowReaderHoldsUpNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.server.outputs = func(stream grpc.ClientStreamingServer[dispatchpb.LogChunk, dispatchpb.OutputEnd]) error {
			<-stream.Context().Done()
			return nil
		}
		w.output.read = func(ctx context.Context, _ OutputQuery, line func(*dispatchpb.LogLine) error) error {
			for {
				if err := line(&dispatchpb.LogLine{Text: make([]byte, 16<<10)}); err != nil {
					return err
				}
			}
		}
		pass(time.Second)
		w.server.send(logRequest("r1", "arn:x/a1"))
		pass(time.Second)
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
		beats := w.server.heartbeats()
		pass(20 * time.Second)
		if n := w.server.heartbeats() - beats; n != 4 {
			t.Fatalf("%d heartbeats in 20 s", n)
		}
	})
}

// A reader that leaves ends the reading, also while there is nothing to read.
func TestReaderLeaves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.server.outputs = func(stream grpc.ClientStreamingServer[dispatchpb.LogChunk, dispatchpb.OutputEnd]) error {
			stream.Recv()
			return errors.New("the reader has left")
		}
		ended := make(chan error, 1)
		w.output.read = func(ctx context.Context, _ OutputQuery, _ func(*dispatchpb.LogLine) error) error {
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		}
		pass(time.Second)
		w.server.send(logRequest("r1", "arn:x/a1"))
		pass(time.Second)
		select {
		case <-ended:
		default:
			t.Fatal("the output is still being followed")
		}
	})
}

func TestTooManyReaders(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refused := make(chan string, 1)
		w.server.outputs = func(stream grpc.ClientStreamingServer[dispatchpb.LogChunk, dispatchpb.OutputEnd]) error {
			c, err := stream.Recv()
			if err == nil && c.Error != "" {
				refused <- c.Error
				return stream.SendAndClose(&dispatchpb.OutputEnd{})
			}
			<-stream.Context().Done()
			return nil
		}
		w.output.read = func(ctx context.Context, _ OutputQuery, _ func(*dispatchpb.LogLine) error) error {
			<-ctx.Done()
			return ctx.Err()
		}
		pass(time.Second)
		for i := range maxLogRequests {
			w.server.send(logRequest(fmt.Sprint(i), "arn:x/a1"))
		}
		pass(time.Second)
		w.server.send(logRequest("one more", "arn:x/a1"))
		pass(time.Second)
		select {
		case <-refused:
		default:
			t.Fatal("the last reader was not refused")
		}
	})
}
