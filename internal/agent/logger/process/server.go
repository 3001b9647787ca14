package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// idleLimit is how long a process lives that has nothing to read and no agent.
const idleLimit = time.Minute

// server answers the agent's requests.
type server struct {
	loop     *loop
	build    string
	log      *slog.Logger
	listener *net.UnixListener
	conns    sync.WaitGroup

	mu       sync.Mutex
	watchers int
	open     map[net.Conn]struct{}
	idle     *time.Timer
	ended    bool
}

// listen makes the socket. The caller holds the lock, so what is at its path belongs to nobody.
func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // and its directory is 0700 before
		l.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

func (s *server) serve() {
	s.open = map[net.Conn]struct{}{}
	s.idle = time.AfterFunc(idleLimit, s.checkIdle)
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil { // out of descriptors, at worst: some will be closed
			s.log.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond) // rather than spin
			continue
		}
		if !sameUser(conn) {
			conn.Close()
			continue
		}
		s.mu.Lock()
		s.open[conn] = struct{}{}
		s.mu.Unlock()
		s.conns.Go(func() {
			s.handle(conn)
			s.mu.Lock()
			delete(s.open, conn)
			s.mu.Unlock()
			conn.Close()
		})
	}
}

// end makes serve return and the connections close.
func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if s.idle != nil {
		s.idle.Stop()
	}
	s.listener.Close()
}

// hangUp closes what connections are left, those that watch above all.
func (s *server) hangUp() {
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.conns.Wait()
}

func (s *server) handle(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 4096)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		var req Request
		if err := json.Unmarshal(line, &req); err != nil {
			return
		}
		if req.Op == OpWatch {
			s.watch(r)
			return
		}
		resp := s.answer(req)
		b, err := json.Marshal(resp)
		if err != nil {
			return
		}
		conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write(append(b, '\n')); err != nil {
			return
		}
		if req.Op == OpExit {
			s.end() // after the answer is on its way
			return
		}
	}
}

func (s *server) answer(req Request) Response {
	done := make(chan error, 1)
	switch req.Op {
	case OpHello:
		return Response{Protocol: Protocol, Build: s.build, PID: os.Getpid()}
	case OpAttach:
		rec, err := s.loop.paths.Load(req.ID)
		if err != nil {
			return Response{Error: err.Error()}
		}
		s.loop.do(func() { done <- s.loop.attach(rec) })
	case OpDetach:
		s.loop.do(func() { s.loop.detach(req.ID, func(err error) { done <- err }) })
	case OpExit:
		s.loop.do(func() { s.loop.stopped = true; done <- nil })
	default:
		return Response{Error: fmt.Sprintf("unknown operation %q", req.Op)}
	}
	var err error
	select {
	case err = <-done:
	case <-s.loop.over:
		err = ErrOver
	}
	if err != nil {
		return Response{Error: err.Error(), Over: errors.Is(err, ErrOver)}
	}
	return Response{}
}

// watch holds the connection of an agent that wants to see this process end.
func (s *server) watch(r *bufio.Reader) {
	s.mu.Lock()
	s.watchers++
	s.mu.Unlock()
	r.ReadByte()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers--
	if !s.ended {
		s.idle.Reset(idleLimit)
	}
}

func (s *server) checkIdle() {
	s.loop.do(func() {
		s.mu.Lock()
		idle := s.watchers == 0 && len(s.loop.attached) == 0
		if !idle && !s.ended {
			s.idle.Reset(idleLimit)
		}
		s.mu.Unlock()
		if idle {
			s.end() // first: an agent that comes now finds nobody and starts another
			s.loop.stopped = true
		}
	})
}

// sameUser keeps other users out, should the directory's mode ever have been changed.
func sameUser(conn *net.UnixConn) bool {
	cred, err := credentials(conn)
	return err == nil && int(cred.Uid) == os.Geteuid()
}
