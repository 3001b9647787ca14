package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// Serve answers on the socket until ctx ends. A socket left by a dead Berth is replaced; the caller
// holds the instance, so there is no living one.
func Serve(ctx context.Context, socket string, b Backend, log *slog.Logger) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace admin socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen on admin socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return fmt.Errorf("protect admin socket: %w", err)
	}
	srv := &http.Server{
		Handler:           handler(b),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(peerListener{l}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	return nil
}

// peerListener admits root and the user Berth runs as. The socket's mode says the same; this holds
// also where a bind mount or an inherited descriptor got around it.
type peerListener struct{ net.Listener }

func (l peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if admitted(c) {
			return c, nil
		}
		c.Close()
	}
}

func admitted(c net.Conn) bool {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid()
}

func handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		st, err := b.Status(r.Context())
		reply(w, st, err)
	})
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, r *http.Request) {
		s := newStream(w)
		err := b.StopTasks(r.Context(), "Berth was shut down", func(t string) { s.send(event{Text: t}) })
		s.end(err)
		if err == nil {
			b.Exit()
		}
	})
	mux.HandleFunc("POST /v1/exit", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, struct{}{}, nil)
		// Before the end: it closes this connection, whether the answer is out or not.
		_ = http.NewResponseController(w).Flush() // the client may be gone, and wants the end all the same
		b.Exit()
	})
	mux.HandleFunc("GET /v1/logs", func(w http.ResponseWriter, r *http.Request) {
		q, err := parseLogQuery(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s := newStream(w)
		s.end(b.Logs(r.Context(), q, func(l LogLine) error { return s.send(event{Line: &l}) }))
	})
	mux.HandleFunc("GET /v1/explain", func(w http.ResponseWriter, r *http.Request) {
		out, err := b.Explain(r.Context(), r.URL.Query().Get("of"))
		reply(w, out, err)
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		q := EventQuery{Follow: v.Get("follow") == "true"}
		if t := v.Get("since"); t != "" {
			var err error
			if q.Since, err = time.Parse(time.RFC3339Nano, t); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		s := newStream(w)
		s.end(b.Events(r.Context(), q,
			func(raw json.RawMessage) error { return s.send(event{Event: raw}) },
			func(text string) error { return s.send(event{Text: text}) }))
	})
	mux.HandleFunc("GET /v1/images", func(w http.ResponseWriter, r *http.Request) {
		images, err := b.ListImages(r.Context())
		reply(w, images, err)
	})
	mux.HandleFunc("DELETE /v1/images", func(w http.ResponseWriter, r *http.Request) {
		reply(w, struct{}{}, b.RemoveImage(r.Context(), r.URL.Query().Get("ref")))
	})
	mux.HandleFunc("POST /v1/images/import", func(w http.ResponseWriter, r *http.Request) {
		// Progress goes out while the image is still coming in.
		http.NewResponseController(w).EnableFullDuplex()
		s := newStream(w)
		names, err := b.Import(r.Context(), r.Body, func(p agent.ImageProgress) { s.send(event{Progress: &p}) })
		if err == nil {
			s.send(event{Names: names})
		}
		s.end(err)
	})
	mux.HandleFunc("POST /v1/images/pull", func(w http.ResponseWriter, r *http.Request) {
		s := newStream(w)
		img, err := b.PullImage(r.Context(), r.URL.Query().Get("ref"), func(p agent.ImageProgress) { s.send(event{Progress: &p}) })
		if err == nil {
			s.send(event{Image: &img})
		}
		s.end(err)
	})
	return mux
}

func parseLogQuery(r *http.Request) (LogQuery, error) {
	v := r.URL.Query()
	q := LogQuery{Task: v.Get("task"), Container: v.Get("container"), Follow: v.Get("follow") == "true", Tail: -1}
	var err error
	if t := v.Get("tail"); t != "" {
		q.Tail, err = strconv.ParseInt(t, 10, 64)
	}
	if t := v.Get("since"); t != "" && err == nil {
		q.Since, err = time.Parse(time.RFC3339Nano, t)
	}
	return q, err
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// errEnded is what a stream says that has ended.
var errEnded = errors.New("the answer has ended")

// flushDelay is how long an event may wait for others before it goes out: not long for a person, long
// enough that a million lines are not a million packets.
const flushDelay = 20 * time.Millisecond

// stream sends events as they come, from any goroutine.
type stream struct {
	mu    sync.Mutex
	buf   *bufio.Writer
	enc   *json.Encoder
	rc    *http.ResponseController
	timer *time.Timer // nil: nothing waits
	err   error       // of the first write that failed
}

func newStream(rw http.ResponseWriter) *stream {
	rw.Header().Set("Content-Type", "application/jsonl")
	rw.WriteHeader(http.StatusOK)
	s := &stream{buf: bufio.NewWriterSize(rw, 64<<10), rc: http.NewResponseController(rw)}
	s.enc = json.NewEncoder(s.buf)
	s.err = s.rc.Flush()
	return s
}

func (s *stream) send(e event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.enc.Encode(e)
	}
	if s.err == nil && s.timer == nil {
		s.timer = time.AfterFunc(flushDelay, s.flush)
	}
	return s.err
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	if s.err == nil {
		s.err = errors.Join(s.buf.Flush(), s.rc.Flush())
	}
}

func (s *stream) end(err error) {
	last := event{Done: true}
	if err != nil {
		last = event{Error: err.Error()}
	}
	s.send(last)
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	// A timer that has fired already finds an error instead of a writer that is no longer there.
	s.err = errors.Join(s.err, s.buf.Flush(), s.rc.Flush(), errEnded)
	s.mu.Unlock()
}
