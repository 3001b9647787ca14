package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/checksum"
	"github.com/berthhq/berth/internal/gateway/sigv4"
	"github.com/berthhq/berth/internal/wire"
)

// findREST tells whether the request is in a REST protocol, by the rule in the package's comment, and
// prepares it.
func (e *exchange) findREST() error {
	if e.r.Header.Get("X-Amz-Target") != "" || hasAction(e.r) {
		return nil
	}
	_, _, scope := sigv4.Claim(e.r)
	if scope.Service == "" && (signed(e.r) || e.r.Method == http.MethodPost && e.r.URL.Path == "/") {
		return nil
	}
	e.rest = e.restService(scope.Service)
	if e.rest == nil {
		return nil
	}
	// Known from here on, so that whatever goes wrong is said in the client's language.
	e.route = wire.Route{Service: e.rest.Descriptor, Protocol: wire.ByName(api.RESTXML)}
	if e.rest.Prepare != nil {
		e.rest.Prepare(e.r)
	}
	return nil
}

// hasAction tells whether the request names its operation as the query protocols do.
func hasAction(r *http.Request) bool {
	form := strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") && r.Method == http.MethodPost
	return form || r.URL.Query().Has("Action")
}

// signed tells whether there is anything of a signature.
func signed(r *http.Request) bool {
	q := r.URL.Query()
	return r.Header.Get("Authorization") != "" || q.Has("X-Amz-Algorithm") || q.Has("X-Amz-Signature")
}

// restService is the service of that signing name if it speaks REST; for "" the one there is.
func (g *Gateway) restService(signingName string) *Service {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, d := range g.descriptors() {
		if d.Protocols[0] == api.RESTXML && (signingName == "" || signingName == d.SigningName) {
			return g.services[d.Package]
		}
	}
	return nil
}

// authenticateREST finds out who calls, without the body, and puts in its place one that verifies itself.
func (e *exchange) authenticateREST() (err error) {
	payload := e.r.Header.Get("X-Amz-Content-Sha256")
	var chain *sigv4.Chain
	if e.cfg.Dev {
		e.principal, err = e.believe(e.r)
	} else {
		var s *sigv4.Signature
		if s, err = sigv4.Parse(e.r); err != nil {
			return err
		}
		payload = s.Payload()
		if payload == "" && !s.Presigned {
			return &api.CommonError{Code: "InvalidRequest", Message: "Missing required header for this request: x-amz-content-sha256"}
		}
		var secret string
		e.principal, secret, err = e.verify(e.r, s, e.rest.Descriptor.SigningName, func() (string, error) { return payload, nil })
		chain = s.Chain(secret)
	}
	if err != nil {
		return err
	}
	e.principal.RequestID = e.id
	return e.takeBody(payload, chain)
}

// takeBody makes the request what it would be if its body had no frame.
func (e *exchange) takeBody(payload string, chain *sigv4.Chain) error {
	e.r.Body = &paced{ReadCloser: e.r.Body, control: http.NewResponseController(e.w)}
	body, err := sigv4.NewBody(e.r, payload, chain)
	if err != nil {
		return err
	}
	length := body.Length(e.r)
	h := e.r.Header.Clone()
	if length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	var encodings []string
	for _, value := range h.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && coding != "aws-chunked" {
				encodings = append(encodings, coding)
			}
		}
	}
	h.Del("Content-Encoding")
	if encodings != nil {
		h.Set("Content-Encoding", strings.Join(encodings, ","))
	}
	e.r.Header, e.r.ContentLength, e.r.Body = h, length, body
	return nil
}

// readLate reads the body of a REST request, unless the operation streams it.
func (e *exchange) readLate() error {
	if e.rest == nil {
		return nil
	}
	if wire.Streams(e.route.Operation) {
		if e.r.ContentLength < 0 {
			return &api.CommonError{Code: "MissingContentLength", Status: http.StatusLengthRequired,
				Message: "You must provide the Content-Length HTTP header."}
		}
		return nil
	}
	promised := map[string]string{}
	if sum := e.r.Header.Get("Content-Md5"); sum != "" {
		promised["MD5"] = sum
	}
	for name := range e.r.Header {
		if algorithm := checksum.OfHeader(name); algorithm != "" {
			promised[algorithm] = e.r.Header.Get(name)
		}
	}
	verified, err := checksum.NewReader(e.r.Body, promised)
	if err != nil {
		return &api.CommonError{Code: "InvalidRequest", Message: err.Error()}
	}
	body, err := io.ReadAll(io.LimitReader(verified, e.rest.MaxBody+1))
	if int64(len(body)) > e.rest.MaxBody {
		e.w.Header().Set("Connection", "close")
		return &api.CommonError{Code: "MaxMessageLengthExceeded", Message: "Your request was too big."}
	}
	if wrong := (*checksum.Mismatch)(nil); errors.As(err, &wrong) {
		return &api.CommonError{Code: "BadDigest", Message: "The " + wrong.Algorithm + " you specified did not match the calculated checksum."}
	}
	if err != nil {
		return bodyError(err)
	}
	e.body = body
	return nil
}

// bodyError is the client's part in a body that could not be read.
func bodyError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &api.CommonError{Code: "RequestTimeout",
			Message: "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled):
		return &api.CommonError{Code: "IncompleteBody",
			Message: "You did not provide the number of bytes specified by the Content-Length HTTP header"}
	}
	return err
}

// paced gives a client bodyTimeout for each piece of a body rather than for the whole.
type paced struct {
	io.ReadCloser
	control *http.ResponseController
}

func (p *paced) Read(b []byte) (int, error) {
	// Not every writer has deadlines; where there are none there is no slow client either.
	_ = p.control.SetReadDeadline(time.Now().Add(bodyTimeout))
	n, err := p.ReadCloser.Read(b)
	if err == io.EOF {
		_ = p.control.SetReadDeadline(time.Time{})
	} else if err != nil {
		err = bodyError(err)
	}
	return n, err
}

// paceAnswer gives a client bodyTimeout to take the answer, or each piece of one that is streamed.
func (e *exchange) paceAnswer(r *wire.Response) {
	control := http.NewResponseController(e.w)
	_ = control.SetWriteDeadline(time.Now().Add(bodyTimeout)) // net/http ends it
	if r.Stream != nil {
		r.Stream = &pacedAnswer{ReadCloser: r.Stream, e: e, control: control}
	}
}

type pacedAnswer struct {
	io.ReadCloser
	e       *exchange
	control *http.ResponseController
}

func (p *pacedAnswer) Read(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(bodyTimeout))
	n, err := p.ReadCloser.Read(b)
	if err != nil && err != io.EOF { // too late to tell the client but by cutting the answer off
		p.e.cfg.Log.Error("an answer was cut off", "requestId", p.e.id, "error", err)
	}
	return n, err
}
