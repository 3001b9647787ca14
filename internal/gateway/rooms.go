package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/caller"
)

// roomsPrefix is where Berth's own pages are. No AWS API has such a path.
const roomsPrefix = "/_berth/"

// roomsService is the service to sign requests under /_berth/ for.
const roomsService = "berth"

// Mount serves h at a pattern of http.ServeMux below /_berth/: "POST /_berth/reset". A room is open to
// everyone who reaches the gateway unless h is [Gateway.Authenticated]. It panics on a pattern that is
// taken or not below /_berth/, as ServeMux does.
func (g *Gateway) Mount(pattern string, h http.Handler) {
	path := pattern
	if _, after, ok := strings.Cut(pattern, " "); ok {
		path = strings.TrimSpace(after)
	}
	if !strings.HasPrefix(path, roomsPrefix) {
		panic("gateway: a room at " + pattern + " is not below " + roomsPrefix)
	}
	g.rooms.Handle(pattern, h)
}

// serveRoom serves what is under /_berth/, with a request ID and a line in the audit log.
func (g *Gateway) serveRoom(w http.ResponseWriter, r *http.Request) {
	id := uuid.NewString()
	w.Header().Set("X-Amzn-Requestid", id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if g.cfg.Dev {
		if err := guard(r, g.cfg.AllowedHosts); err != nil {
			g.refuse(w, r, id, err)
			return
		}
	}
	err := func() (err error) {
		defer recovered(&err)
		g.rooms.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), roomKey{}, id)))
		return nil
	}()
	if err != nil {
		g.refuse(w, r, id, err)
	}
}

// roomKey is where the request ID of a request to a room is.
type roomKey struct{}

// refuse answers in a room, in awsJson's form of errors.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, id string, err error) {
	known := g.expose(r.Context(), id, nil, api.RESTJSON, err)
	writeJSON(w, known.HTTPStatusCode(), map[string]string{"__type": known.ErrorCode(), "message": known.ErrorMessage(), "requestId": id})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone; nobody else needs it
}

// Authenticated lets only signed requests through to next, with the principal in their context: by
// SigV4 with the service name "berth" or, in dev mode, by whoever they say they are. A body of more
// than DefaultMaxBody must be signed as UNSIGNED-PAYLOAD and is then streamed.
func (g *Gateway) Authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id, ok := r.Context().Value(roomKey{}).(string)
		if !ok {
			id = uuid.NewString()
		}
		var p caller.Principal
		seen := &statusWriter{ResponseWriter: w}
		defer func() {
			g.audit(r.Context(), entry{principal: p, id: id, room: r.Method + " " + r.URL.Path, status: seen.status,
				took: time.Since(start), remote: r.RemoteAddr})
		}()
		p, err := g.identify(r, roomsService, func() (string, error) {
			body, err := readBody(w, r, DefaultMaxBody)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			return hashOf(body), err
		})
		if err != nil {
			g.refuse(seen, r, id, err)
			return
		}
		p.RequestID = id
		next.ServeHTTP(seen, r.WithContext(caller.With(r.Context(), p)))
	})
}

// statusWriter remembers the status for the audit.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Reset answers POST /_berth/reset: it has clear remove all state of the caller's account. It belongs
// behind Authenticated, and nowhere but in dev mode.
func (g *Gateway) Reset(clear func(ctx context.Context, account string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := caller.From(r.Context())
		if err == nil && !g.cfg.Dev {
			err = &api.CommonError{Code: "AccessDeniedException", Status: http.StatusForbidden, Message: "State can be reset in dev mode only."}
		}
		if err == nil {
			err = clear(r.Context(), p.AccountID)
		}
		if err != nil {
			g.refuse(w, r, p.RequestID, err)
			return
		}
		writeJSON(w, http.StatusOK, map[string]string{"reset": p.AccountID})
	})
}

// health answers whether Berth serves, and what.
func (g *Gateway) health(w http.ResponseWriter, r *http.Request) {
	g.mu.RLock()
	ds := g.descriptors()
	g.mu.RUnlock()
	names := make([]string, len(ds))
	for i, d := range ds {
		names[i] = d.Package
	}
	status, code := "ok", http.StatusOK
	if g.cfg.Health != nil {
		if err := g.cfg.Health(r.Context()); err != nil {
			g.cfg.Log.WarnContext(r.Context(), "not healthy", "error", err)
			status, code = "unavailable", http.StatusServiceUnavailable
		}
	}
	writeJSON(w, code, map[string]any{"status": status, "services": names, "dev": g.cfg.Dev})
}
