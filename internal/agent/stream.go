package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

const (
	firstReconnect   = 50 * time.Millisecond
	lastReconnect    = 5 * time.Second
	welcomeTimeout   = 10 * time.Second // a server that says nothing in this time is left
	defaultHeartbeat = 5 * time.Second
	repeatAfter      = 10 * time.Second // an unacknowledged report is sent again
	maxLogRequests   = 32               // read at once
)

// connect keeps a session with a server, until ctx ends.
func (a *Agent) connect(ctx context.Context) {
	wait := firstReconnect
	for {
		welcomed, err := a.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if welcomed {
			wait = firstReconnect
		}
		// Between half and all of it, so that hosts do not come back in step.
		pause := wait/2 + rand.N(wait/2)
		a.cfg.Logger.Info("no session with the server; tasks go on", "error", err, "retry", pause)
		if !sleep(ctx, pause) {
			return
		}
		wait = min(2*wait, lastReconnect)
	}
}

// session holds one session; it says whether the server welcomed this host.
func (a *Agent) session(ctx context.Context) (welcomed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := a.cfg.Dial(ctx)
	if err != nil {
		return false, fmt.Errorf("dial the server: %w", err)
	}
	defer conn.Close()
	client := dispatchpb.NewDispatchClient(conn)
	stream, err := client.Session(ctx)
	if err != nil {
		return false, fmt.Errorf("open the session: %w", err)
	}
	if err := stream.Send(&dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_Hello{Hello: a.hello()}}); err != nil {
		return false, fmt.Errorf("introduce the host: %w", err)
	}

	var w sync.WaitGroup
	defer w.Wait()
	defer cancel()
	defer a.setConnected(false)
	logs := make(chan struct{}, maxLogRequests)
	silence := time.AfterFunc(welcomeTimeout, cancel)
	defer silence.Stop()
	for {
		msg, err := stream.Recv()
		if err != nil {
			return welcomed, fmt.Errorf("receive from the server: %w", err)
		}
		switch m := msg.Message.(type) {
		case *dispatchpb.ServerMessage_Welcome:
			if welcomed {
				continue
			}
			welcomed = true
			silence.Stop()
			a.setConnected(true)
			a.cfg.Logger.Info("session with the server", "server", m.Welcome.ServerId)
			a.outbox.again()
			w.Go(func() { defer cancel(); a.send(ctx, stream, m.Welcome) })
		case *dispatchpb.ServerMessage_Payload:
			a.payload(m.Payload)
		case *dispatchpb.ServerMessage_TaskStatusAck:
			a.acked(m.TaskStatusAck.Arn, m.TaskStatusAck.Version)
		case *dispatchpb.ServerMessage_LogRequest:
			select {
			case logs <- struct{}{}:
				w.Go(func() {
					defer func() { <-logs }()
					a.sendOutput(ctx, client, m.LogRequest)
				})
			default:
				w.Go(func() {
					a.refuseOutput(ctx, client, m.LogRequest, errors.New("too many readers of this host's output"))
				})
			}
		case *dispatchpb.ServerMessage_InspectRequest:
			a.inspect(m.InspectRequest)
		default:
			// A newer server may say more than this agent knows.
			a.cfg.Logger.Debug("message of an unknown kind from the server")
		}
	}
}

func (a *Agent) hello() *dispatchpb.Hello {
	h := &dispatchpb.Hello{}
	if a.cfg.Hello != nil {
		h = proto.Clone(a.cfg.Hello).(*dispatchpb.Hello)
	}
	h.HostId, h.BootId = a.hostID, a.cfg.BootID
	if h.Hostname == "" {
		h.Hostname = a.hostname
	}
	a.mu.Lock()
	h.LastSequence = a.sequence
	a.mu.Unlock()
	return h
}

func (a *Agent) setConnected(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connected = yes
}

// send is the only sender of a session: reports and acknowledgements as they come, heartbeats in
// between.
func (a *Agent) send(ctx context.Context, stream grpc.BidiStreamingClient[dispatchpb.AgentMessage, dispatchpb.ServerMessage], welcome *dispatchpb.Welcome) {
	every := time.Duration(welcome.HeartbeatSeconds) * time.Second
	if every <= 0 {
		every = defaultHeartbeat
	}
	heartbeat := time.NewTicker(every)
	defer heartbeat.Stop()
	repeat := time.NewTicker(repeatAfter)
	defer repeat.Stop()
	for {
		for _, msg := range a.outbox.take() {
			if err := stream.Send(msg); err != nil {
				return // the receiver learns why
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.outbox.wake:
		case <-repeat.C:
			a.outbox.again()
		case <-heartbeat.C:
			beat := &dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_Heartbeat{Heartbeat: &dispatchpb.Heartbeat{}}}
			if err := stream.Send(beat); err != nil {
				return
			}
		}
	}
}
