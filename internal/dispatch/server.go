package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// heartbeatInterval is how often a host shows that it is there, and missedHeartbeats how many of
// them it may miss before its session is ended.
const (
	heartbeatInterval = 5 * time.Second
	missedHeartbeats  = 4
)

// Assigner says what each host should run and takes note of which hosts there are. The ECS
// orchestrator implements it.
type Assigner interface {
	// HostConnected makes the host's facts durable; it is called before anything else of a session.
	HostConnected(ctx context.Context, hello *dispatchpb.Hello) error
	// HostDisconnected says that the session which HostConnected began is over.
	HostDisconnected(ctx context.Context, hostID string)
	// Assignments starts a stream of payloads for one host, the first of them full.
	Assignments(ctx context.Context, hostID string) (Assignments, error)
	// HostOf names the host a task was placed on.
	HostOf(taskARN string) (hostID string, ok bool)
}

// Assignments is a stream of payloads. Next blocks until there is one.
type Assignments interface {
	Next(ctx context.Context) (*dispatchpb.Payload, error)
	Close()
}

// Config is what a Server needs.
type Config struct {
	ServerID string
	Assigner Assigner
	Reporter Reporter
	ECS      ecs.API // for what hosts ask on behalf of their tasks; nil: they cannot ask
	Logger   *slog.Logger
	// S3 is where the environment files of tasks are.
	S3 s3.API
	// Logs is where awslogs puts what containers write.
	Logs logs.API
}

// Server serves the Dispatch service.
type Server struct {
	dispatchpb.UnimplementedDispatchServer
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session    // by host
	logs     map[string]*logRequest // by request, until the host answers
	// inspections by request, likewise
	inspections map[string]*inspection
	logTargets  logTargets
}

// New returns a server; register it with dispatchpb.RegisterDispatchServer.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, sessions: map[string]*session{}, logs: map[string]*logRequest{}, inspections: map[string]*inspection{}}
}

// session is one host's stream. Only its own goroutines send and receive.
type session struct {
	hostID string
	out    chan *dispatchpb.ServerMessage
	done   <-chan struct{}
	cancel context.CancelFunc
}

// send queues a message, and gives up when the session is over.
func (s *session) send(m *dispatchpb.ServerMessage) bool {
	select {
	case s.out <- m:
		return true
	case <-s.done:
		return false
	}
}

// Session implements the Dispatch service.
func (s *Server) Session(stream grpc.BidiStreamingServer[dispatchpb.AgentMessage, dispatchpb.ServerMessage]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil || hello.HostId == "" {
		return status.Error(codes.InvalidArgument, "the first message of a session is Hello, with the host's ID")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	if err := s.cfg.Assigner.HostConnected(ctx, hello); err != nil {
		return status.Errorf(codes.Unavailable, "register host %s: %v", hello.HostId, err)
	}
	ses := &session{
		hostID: hello.HostId,
		out:    make(chan *dispatchpb.ServerMessage, 64),
		done:   ctx.Done(),
		cancel: cancel,
	}
	s.enter(ses)
	defer s.leave(ses)
	log := s.cfg.Logger.With("host", hello.HostId, "hostname", hello.Hostname)
	log.Info("host connected", "version", hello.AgentVersion)

	ses.out <- &dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_Welcome{Welcome: &dispatchpb.Welcome{
		ServerId: s.cfg.ServerID, HeartbeatSeconds: int64(heartbeatInterval / time.Second),
	}}}

	// Three loops, ended together: the first that returns says why the session is over. The receiving
	// one can be ended only by returning from this function, so it is not waited for here.
	ended := make(chan error, 3)
	var own sync.WaitGroup
	own.Go(func() { ended <- s.sendLoop(ctx, stream, ses) })
	own.Go(func() { ended <- s.assignLoop(ctx, ses) })
	go func() { ended <- s.receiveLoop(ctx, stream, ses) }()
	err = <-ended
	cancel()
	own.Wait()
	log.Info("host disconnected", "cause", err)
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// enter makes ses the host's session. An older one of the same host is a connection that died
// without telling, so it is ended.
func (s *Server) enter(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.sessions[ses.hostID]; old != nil {
		old.cancel()
	}
	s.sessions[ses.hostID] = ses
}

func (s *Server) leave(ses *session) {
	s.mu.Lock()
	last := s.sessions[ses.hostID] == ses
	if last {
		delete(s.sessions, ses.hostID)
	}
	s.mu.Unlock()
	if last {
		s.cfg.Assigner.HostDisconnected(context.Background(), ses.hostID)
	}
}

func (s *Server) sendLoop(ctx context.Context, stream grpc.BidiStreamingServer[dispatchpb.AgentMessage, dispatchpb.ServerMessage], ses *session) error {
	for {
		select {
		case m := <-ses.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) assignLoop(ctx context.Context, ses *session) error {
	assignments, err := s.cfg.Assigner.Assignments(ctx, ses.hostID)
	if err != nil {
		return fmt.Errorf("assignments of host %s: %w", ses.hostID, err)
	}
	defer assignments.Close()
	for {
		p, err := assignments.Next(ctx)
		if err != nil {
			return err
		}
		ses.send(&dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_Payload{Payload: p}})
	}
}

func (s *Server) receiveLoop(ctx context.Context, stream grpc.BidiStreamingServer[dispatchpb.AgentMessage, dispatchpb.ServerMessage], ses *session) error {
	silence := time.AfterFunc(missedHeartbeats*heartbeatInterval, ses.cancel)
	defer silence.Stop()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		silence.Reset(missedHeartbeats * heartbeatInterval)
		switch m := m.Message.(type) {
		case *dispatchpb.AgentMessage_TaskStatus:
			s.report(ctx, ses, m.TaskStatus)
		case *dispatchpb.AgentMessage_InspectReply:
			s.inspected(ses.hostID, m.InspectReply)
		case *dispatchpb.AgentMessage_Heartbeat, *dispatchpb.AgentMessage_PayloadAck:
		default:
			// A newer agent may say more than this server knows.
			s.cfg.Logger.Debug("message of an unknown kind", "host", ses.hostID)
		}
	}
}

// report hands a status on and acknowledges it. What could not be made durable is not acknowledged;
// the host sends it again.
func (s *Server) report(ctx context.Context, ses *session, st *dispatchpb.TaskStatus) {
	err := s.cfg.Reporter.Report(ctx, ses.hostID, st)
	if err != nil && !errors.Is(err, ErrUnknownTask) {
		s.cfg.Logger.Warn("status of a task was not recorded; the host will repeat it",
			"host", ses.hostID, "task", st.Arn, "status", st.LastStatus, "error", err)
		return
	}
	ses.send(&dispatchpb.ServerMessage{Message: &dispatchpb.ServerMessage_TaskStatusAck{
		TaskStatusAck: &dispatchpb.TaskStatusAck{Arn: st.Arn, Version: st.Version},
	}})
}

// Connected tells whether a host has a session now.
func (s *Server) Connected(hostID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[hostID] != nil
}
