package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/sigv4"
	"github.com/berthhq/berth/internal/wire"
)

// bodyTimeout is how long a client may take to send a request's body, and again to take the answer.
const bodyTimeout = 30 * time.Second

// exchange is one request from the network and what became of it so far.
type exchange struct {
	*Gateway
	w http.ResponseWriter
	r *http.Request

	id        string
	rest      *Service // of a request in a REST protocol, whose body is read late or streamed
	body      []byte
	route     wire.Route
	principal caller.Principal
	in, out   any
}

// steps are what a request goes through, up to its answer.
var steps = []func(*exchange) error{
	(*exchange).guard,
	(*exchange).findREST,
	(*exchange).readBody,
	(*exchange).findRoute,
	(*exchange).authenticate,
	(*exchange).readLate,
	(*exchange).decode,
	(*exchange).call,
}

// ServeHTTP serves the services, and the rooms under /_berth/.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, roomsPrefix) {
		g.serveRoom(w, r)
		return
	}
	start := time.Now()
	e := &exchange{Gateway: g, w: w, r: r, id: uuid.NewString(), route: wire.Route{Protocol: fallback(r)}}
	response, err := e.answer()
	e.paceAnswer(response)
	// Written first, so that the client does not wait for the log.
	if sent := response.Write(w); sent != nil && err == nil {
		err = context.Canceled
	}
	line := entry{
		principal: e.principal, id: e.id, service: e.route.Service, op: e.route.Operation,
		status: response.Status, err: err, took: time.Since(start), remote: r.RemoteAddr,
	}
	if e.principal.ARN == "" {
		line.claimed, _, _ = sigv4.Claim(r)
	}
	g.audit(r.Context(), line)
}

// answer takes the steps and encodes what comes of them. The error is only for the audit.
func (e *exchange) answer() (*wire.Response, error) {
	response, err := e.take(steps)
	if err == nil {
		return response, nil
	}
	known := e.expose(e.r.Context(), e.id, e.route.Service, e.route.Protocol.Name(), err)
	return e.route.Protocol.EncodeError(e.route.Service, known, e.id), known
}

// take takes the steps until one fails, and encodes the output. A panic is a failure.
func (e *exchange) take(steps []func(*exchange) error) (_ *wire.Response, err error) {
	defer recovered(&err)
	for _, step := range steps {
		if err := step(e); err != nil {
			return nil, err
		}
	}
	return e.route.Protocol.EncodeResponse(e.route.Service, e.route.Operation, e.out, e.id)
}

// guard keeps browsers out of dev mode.
func (e *exchange) guard() error {
	if !e.cfg.Dev {
		return nil
	}
	return guard(e.r, e.cfg.AllowedHosts)
}

// readBody reads the body, and never more of it than any service takes.
func (e *exchange) readBody() error {
	if e.rest != nil {
		return nil
	}
	_, limit := e.routing()
	body, err := readBody(e.w, e.r, limit)
	e.body = body
	return err
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than read what is refused
		return nil, tooLarge(r)
	}
	// Not every writer has deadlines; where there are none there is no slow client either.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return nil, tooLarge(r)
	}
	if err != nil {
		return nil, &api.CommonError{Code: "RequestTimeoutException", Status: http.StatusRequestTimeout, Fault: api.FaultClient,
			Message: "The request's body could not be read."}
	}
	return body, nil
}

// findRoute finds what is asked for. The scope of the signature decides between services; a scope
// that names another one than the request does is for the verifier to refuse, in the words of the
// service that was meant.
func (e *exchange) findRoute() error {
	router, _ := e.routing()
	if e.rest != nil {
		route, err := router.Route(e.r, nil, e.rest.Descriptor.SigningName)
		e.route = route
		return err
	}
	_, _, scope := sigv4.Claim(e.r)
	route, err := router.Route(e.r, e.body, scope.Service)
	if err != nil && scope.Service != "" {
		if other, otherErr := router.Route(e.r, e.body, ""); otherErr == nil || route.Service == nil {
			route, err = other, otherErr
		}
	}
	e.route = route
	if err == nil && int64(len(e.body)) > e.service(route.Service.Package).MaxBody {
		err = tooLarge(e.r)
	}
	return err
}

// authenticate finds out who calls.
func (e *exchange) authenticate() (err error) {
	if e.rest != nil {
		return e.authenticateREST()
	}
	if e.route.Operation.Unsigned && e.r.Header.Get("Authorization") == "" && !e.r.URL.Query().Has("X-Amz-Algorithm") {
		e.principal = caller.Principal{Kind: caller.Anonymous, AccountID: e.cfg.Account, Region: e.cfg.Region}
	} else if e.principal, err = e.identify(e.r, e.route.Service.SigningName, func() (string, error) { return hashOf(e.body), nil }); err != nil {
		return err
	}
	e.principal.RequestID = e.id
	return nil
}

// identify tells who signed r for a service, or, in dev mode, who says so. bodyHash is called when the
// signature covers the body.
func (g *Gateway) identify(r *http.Request, signingName string, bodyHash func() (string, error)) (caller.Principal, error) {
	if g.cfg.Dev {
		return g.believe(r)
	}
	s, err := sigv4.Parse(r)
	if err != nil {
		return caller.Principal{}, err
	}
	p, _, err := g.verify(r, s, signingName, bodyHash)
	return p, err
}

// verify tells who made a signature, and the secret it was made with.
func (g *Gateway) verify(r *http.Request, s *sigv4.Signature, signingName string, bodyHash func() (string, error)) (caller.Principal, string, error) {
	secret, p, err := g.cfg.Credentials.Lookup(r.Context(), s.AccessKeyID, s.SessionToken)
	if err != nil {
		return caller.Principal{}, "", err
	}
	hash := ""
	if s.CoversBody() {
		if hash, err = bodyHash(); err != nil {
			return caller.Principal{}, "", err
		}
	}
	if err := g.verifier.Verify(r, s, secret, signingName, hash); err != nil {
		return caller.Principal{}, "", err
	}
	if p.Region = s.Scope.Region; p.Region == "" { // of signature version 2, which knows no regions
		p.Region = g.cfg.Region
	}
	return p, secret, nil
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func (e *exchange) decode() (err error) {
	e.in, err = e.route.Protocol.DecodeRequest(e.route.Operation, e.r, e.body)
	return err
}

func (e *exchange) call() (err error) {
	ctx := caller.With(e.r.Context(), e.principal)
	e.out, err = e.perform(ctx, e.principal, e.service(e.route.Service.Package), e.route.Operation, e.in)
	return err
}

// perform is the part of a call that is the same wherever it comes from.
func (g *Gateway) perform(ctx context.Context, p caller.Principal, s *Service, op *api.Operation, in any) (out any, err error) {
	defer recovered(&err)
	if err := g.cfg.Authorizer.Authorize(ctx, Call{p, s.Descriptor, op, in}); err != nil {
		return nil, err
	}
	if vs := wire.Validate(op.Input, in); len(vs) > 0 {
		if err := s.Invalid(op, vs); err != nil {
			return nil, err
		}
	}
	return op.Invoke(ctx, s.Implementation, in)
}

// panicked is a panic as an error.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return "panic" }

// recovered turns a panic into an error, except for the one by which a handler aborts a connection.
func recovered(err *error) {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler {
			panic(v)
		}
		*err = &panicked{v, debug.Stack()}
	}
}
