package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"
)

// Timeouts and bounds. The times are those of Amazon's agent.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	idleTimeout  = 30 * time.Second
	maxHeader    = 8 << 10 // bytes, with the request line
	maxPath      = 1 << 10
	// maxConns is how many connections one address may have open.
	maxConns = 128
)

// Serve answers until ctx ends: the metadata endpoints on the first listener, the introspection API on
// the second, which may be nil. It closes them.
func (s *Server) Serve(ctx context.Context, metadata, introspection net.Listener) error {
	if s.cfg.Tasks == nil || s.cfg.Usage == nil {
		return errors.New("metadata: Serve before Use")
	}
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	serve := func(ln net.Listener, h http.Handler) {
		srv := &http.Server{
			Handler: h, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
			MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			DisableGeneralOptionsHandler: true, // OPTIONS * is the handler's to refuse
		}
		stop := context.AfterFunc(ctx, func() { srv.Close() })
		wg.Go(func() {
			defer stop()
			if err := srv.Serve(newBoundedListener(ln)); !errors.Is(err, http.ErrServerClosed) {
				errs <- err
			}
		})
	}
	serve(metadata, s.MetadataHandler())
	if introspection != nil {
		serve(introspection, s.IntrospectionHandler())
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

// MetadataHandler answers at 169.254.170.2.
func (s *Server) MetadataHandler() http.Handler { return http.HandlerFunc(s.serveMetadata) }

func (s *Server) serveMetadata(w http.ResponseWriter, r *http.Request) {
	if !plain(w, r) {
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	source := sourceAddress(r)
	if !s.throttle.allow(s.asker(source, parts), time.Now()) {
		h := w.Header()
		h.Set("X-Rate-Limit-Limit", "40.00")
		h.Set("X-Rate-Limit-Duration", "1")
		h.Set("X-Rate-Limit-Request-Remote-Addr", r.RemoteAddr)
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusTooManyRequests)
		w.Write([]byte("You have reached maximum request limit."))
		return
	}
	s.route(w, r, source, parts)
}

// asker is whose requests are counted together: a task's, where the index knows it, or else an
// address's.
func (s *Server) asker(source netip.Addr, parts []string) string {
	if arn, ok := s.directory.indexed(source); ok {
		return arn
	}
	if len(parts) > 1 {
		if p, ok := s.directory.place(parts[1]); ok {
			return p.arn
		}
	}
	return source.String()
}

// plain refuses what no client of these endpoints sends, and sends a path that is not in its shortest
// form to the one that is, as Amazon's agent does.
func plain(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Host != "" || r.URL.Opaque != "" || !strings.HasPrefix(r.URL.Path, "/") || !ourHost(r.Host):
		http.NotFound(w, r)
		return false
	case len(r.RequestURI) > maxPath:
		w.WriteHeader(http.StatusRequestURITooLong)
		return false
	}
	clean := path.Clean(r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/") && clean != "/" {
		clean += "/"
	}
	if clean == r.URL.Path {
		return true
	}
	to := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusMovedPermanently)
	return false
}

// ourHost says whether a Host header names this host, as an address or as itself. A name of somebody
// else's domain is a page in a browser that was made to ask here.
func ourHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	name, err := os.Hostname()
	return err == nil && strings.EqualFold(host, name)
}

func sourceAddress(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body) // a client that has gone is its own affair
}

// boundedListener closes connections of an address that has too many, so that no container can take
// the endpoint, or Berth's descriptors, from the others.
type boundedListener struct {
	net.Listener
	mu   sync.Mutex
	open map[netip.Addr]int
}

func newBoundedListener(ln net.Listener) *boundedListener {
	return &boundedListener{Listener: ln, open: map[netip.Addr]int{}}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ap, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		addr := ap.Addr().Unmap()
		l.mu.Lock()
		full := l.open[addr] >= maxConns
		if !full {
			l.open[addr]++
		}
		l.mu.Unlock()
		if full {
			conn.Close()
			continue
		}
		return &boundedConn{Conn: conn, release: sync.OnceFunc(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.open[addr]--; l.open[addr] == 0 {
				delete(l.open, addr)
			}
		})}, nil
	}
}

type boundedConn struct {
	net.Conn
	release func()
}

func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
