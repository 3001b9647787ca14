package wire

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/berthhq/berth/api"
)

const (
	// MaxDepth is how deep structures, lists and maps may nest in a request. AWS's own models stay
	// below 20; documents and unknown members could be anything.
	MaxDepth = 128
	// MaxDecoded bounds the memory, in bytes, of the structures and lists made from one request, which
	// could otherwise be hundreds of times the size of its body ("[{},{},{}…").
	MaxDecoded = 32 << 20
)

// Protocol is one wire protocol. Implementations are stateless and safe for concurrent use.
type Protocol interface {
	Name() api.Protocol
	// Match tells whether the request is in this protocol and meant for svc, and the name of the
	// operation it asks for, which svc may not have.
	Match(svc *api.Service, r *http.Request, body []byte) (operation string, ok bool)
	// DecodeRequest answers a value of op.NewInput's type. Its errors are api.Errors. A streaming member
	// is r.Body itself; body is not looked at then.
	DecodeRequest(op *api.Operation, r *http.Request, body []byte) (in any, err error)
	// EncodeResponse encodes a value of op.NewOutput's type; nil is an empty output.
	EncodeResponse(svc *api.Service, op *api.Operation, out any, requestID string) (*Response, error)
	// EncodeError encodes an error. svc is nil when the request names no service.
	EncodeError(svc *api.Service, e api.Error, requestID string) *Response
	// UnknownOperation is the protocol's error for an operation that svc does not have; operation is ""
	// when the request names none.
	UnknownOperation(svc *api.Service, r *http.Request, body []byte, operation string) api.Error
}

// ByName answers the implementation of a protocol; nil for those not built.
func ByName(name api.Protocol) Protocol {
	switch name {
	case api.AWSJSON10:
		return awsJSON10
	case api.AWSJSON11:
		return awsJSON11
	case api.AWSQuery:
		return awsQuery{}
	case api.RESTXML:
		return restXML{}
	}
	return nil
}

// Response is an encoded answer.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	// Stream takes Body's place when it is not nil. Write closes it.
	Stream io.ReadCloser
}

// Write sends the answer.
func (r *Response) Write(w http.ResponseWriter) error {
	h := w.Header()
	for k, v := range r.Header {
		h[k] = v
	}
	if r.Stream != nil {
		defer r.Stream.Close()
	} else if h["Content-Length"] == nil && r.Status != http.StatusNoContent && r.Status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.Itoa(len(r.Body))}
	}
	w.WriteHeader(r.Status)
	var err error
	if r.Stream != nil {
		_, err = io.Copy(w, r.Stream)
	} else if len(r.Body) > 0 {
		_, err = w.Write(r.Body)
	}
	if err != nil {
		return fmt.Errorf("writing the response: %w", err)
	}
	return nil
}

// requestIDHeader is AWS's x-amzn-RequestId as net/http spells it.
const requestIDHeader = "X-Amzn-Requestid"

func newResponse(status int, contentType, requestID string, body []byte) *Response {
	return &Response{
		Status: status,
		Header: http.Header{"Content-Type": {contentType}, requestIDHeader: {requestID}},
		Body:   body,
	}
}

// mediaType is a Content-Type without its parameters, which no AWS protocol heeds.
func mediaType(h http.Header) string {
	ct := h.Get("Content-Type")
	for i := 0; i < len(ct); i++ {
		if ct[i] == ';' || ct[i] == ' ' {
			return ct[:i]
		}
	}
	return ct
}

// inputError is what is wrong with an input, in the words the client is told: AWS's own where they are
// known, hence the capitals.
type inputError string

func (e inputError) Error() string { return string(e) }

func inputErrorf(format string, args ...any) error { return inputError(fmt.Sprintf(format, args...)) }

func errDepth() error { return inputErrorf("The request nests deeper than %d levels", MaxDepth) }
