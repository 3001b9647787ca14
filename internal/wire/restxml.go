package wire

import (
	"cmp"
	"io"
	"net/http"
	"reflect"

	"github.com/berthhq/berth/api"
)

const contentAppXML = "application/xml"

// restXML is restXml: members in path, query and headers, bodies in XML or raw.
type restXML struct{}

func (restXML) Name() api.Protocol { return api.RESTXML }

func (restXML) Match(svc *api.Service, r *http.Request, _ []byte) (string, bool) {
	name := restOperation(svc, r)
	return name, name != ""
}

func (restXML) DecodeRequest(op *api.Operation, r *http.Request, body []byte) (any, error) {
	in := op.NewInput()
	v := reflect.ValueOf(in).Elem()
	if err := decodeBindings(v, op, r); err != nil {
		return nil, &api.CommonError{Code: "InvalidArgument", Message: err.Error()}
	}
	if err := decodeXMLBody(v, op, r, body); err != nil {
		return nil, &api.CommonError{Code: "MalformedXML", Message: "The XML you provided was not well-formed or did not " +
			"validate against our published schema: " + err.Error()}
	}
	return in, nil
}

func decodeXMLBody(v reflect.Value, op *api.Operation, r *http.Request, body []byte) error {
	s := op.Input
	payload := s.Member(s.Payload)
	switch {
	case payload == nil && !hasBody(s):
		return nil
	case payload == nil:
		return decodeXML(v, s, body)
	}
	f := v.Field(payload.Index)
	switch {
	case payload.Streaming:
		if r.Body != nil {
			f.Set(reflect.ValueOf(io.Reader(r.Body)))
		}
		return nil
	case len(body) == 0:
		return nil
	case payload.Shape.Kind == api.Structure:
		f.Set(reflect.New(f.Type().Elem()))
		return decodeXML(f.Elem(), payload.Shape, body)
	case payload.Shape.Kind == api.Blob:
		f.SetBytes(body)
		return nil
	}
	return setText(f, payload, string(body))
}

func hasBody(s *api.Shape) bool {
	for i := range s.Members {
		if s.Members[i].Location == api.InBody {
			return true
		}
	}
	return false
}

// Streams tells whether an operation's input is streamed: its body is not to be read beforehand.
func Streams(op *api.Operation) bool {
	m := op.Input.Member(op.Input.Payload)
	return m != nil && m.Streaming
}

const xmlHeader = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

func (restXML) EncodeResponse(svc *api.Service, op *api.Operation, out any, requestID string) (*Response, error) {
	response := &Response{Status: op.Status, Header: restHeader(requestID)}
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return response, nil
	}
	v, s := v.Elem(), op.Output
	if status := encodeBindings(response.Header, v, s); status != 0 {
		response.Status = status
	}
	if response.Status == http.StatusOK && response.Header.Get("Content-Range") != "" {
		response.Status = http.StatusPartialContent // what the header says, and no model
	}
	payload := s.Member(s.Payload)
	body := append(make([]byte, 0, 512), xmlHeader...)
	var err error
	switch {
	case payload == nil && !hasBody(s):
		return response, nil
	case payload == nil && op.Unwrapped:
		m := &s.Members[0]
		body = appendXMLStart(body, m.Wire(), svc.XMLNamespace)
		if f := v.Field(m.Index); !absent(f) {
			body = appendXMLScalar(body, f, m)
		}
		body = appendXMLEnd(body, m.Wire())
	case payload == nil:
		name := cmp.Or(s.LocationName, op.Name+"Result")
		body = appendXMLStart(body, name, svc.XMLNamespace)
		if body, err = appendXMLBody(body, v, s); err != nil {
			return nil, err
		}
		body = appendXMLEnd(body, name)
	default:
		f := v.Field(payload.Index)
		switch {
		case absent(f):
			return response, nil
		case payload.Streaming:
			response.Stream = f.Interface().(io.ReadCloser)
			return response, nil
		case payload.Shape.Kind == api.Blob:
			response.Body = f.Bytes()
			return response, nil
		case payload.Shape.Kind != api.Structure:
			response.Body = []byte(headerText(f, payload))
			return response, nil
		}
		name := cmp.Or(payload.LocationName, payload.Shape.LocationName, payload.Name)
		body = appendXMLStart(body, name, cmp.Or(payload.XMLNamespace, payload.Shape.XMLNamespace, svc.XMLNamespace))
		if body, err = appendXMLMembers(body, f.Elem(), payload.Shape); err != nil {
			return nil, err
		}
		body = appendXMLEnd(body, name)
	}
	response.Header.Set("Content-Type", contentAppXML)
	response.Body = body
	return response, nil
}

// appendXMLBody writes the members of an output that have no other place.
func appendXMLBody(b []byte, v reflect.Value, s *api.Shape) ([]byte, error) {
	for i := range s.Members {
		if s.Members[i].Location != api.InBody {
			continue
		}
		var err error
		if b, err = appendXMLMember(b, v, &s.Members[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// restHeader has the request's ID under the names that S3's clients and all others look for.
func restHeader(requestID string) http.Header {
	return http.Header{requestIDHeader: {requestID}, "X-Amz-Request-Id": {requestID}, "X-Amz-Id-2": {requestID}}
}

func (restXML) EncodeError(svc *api.Service, e api.Error, requestID string) *Response {
	response := &Response{Status: e.HTTPStatusCode(), Header: restHeader(requestID)}
	common, _ := e.(*api.CommonError)
	if common != nil {
		for name, value := range common.Header {
			response.Header.Set(name, headerSafe(value))
		}
	}
	if response.Status == http.StatusNotModified {
		return response
	}
	wrapped := svc != nil && !svc.NoErrorWrapping
	b := append(make([]byte, 0, 512), xmlHeader...)
	if wrapped {
		b = appendXMLStart(b, "ErrorResponse", svc.XMLNamespace)
	}
	b = append(b, "<Error>"...)
	if wrapped {
		fault := "Sender"
		if e.ErrorFault() == api.FaultServer {
			fault = "Receiver"
		}
		b = appendXMLElement(b, "Type", fault)
	}
	b = appendXMLElement(b, "Code", e.ErrorCode())
	b = appendXMLElement(b, "Message", e.ErrorMessage())
	if common != nil {
		for _, d := range common.Details {
			b = appendXMLElement(b, d.Name, d.Value)
		}
	}
	if !wrapped {
		b = appendXMLElement(b, "RequestId", requestID)
		b = appendXMLElement(b, "HostId", requestID)
	}
	b = appendXMLEnd(b, "Error")
	if wrapped {
		b = appendXMLElement(b, "RequestId", requestID)
		b = appendXMLEnd(b, "ErrorResponse")
	}
	response.Header.Set("Content-Type", contentAppXML)
	response.Body = b
	return response
}

func (restXML) UnknownOperation(_ *api.Service, r *http.Request, _ []byte, _ string) api.Error {
	return &api.CommonError{
		Code: "MethodNotAllowed", Status: http.StatusMethodNotAllowed,
		Message: "The specified method is not allowed against this resource.",
		Details: []api.Detail{{Name: "Method", Value: clip(r.Method, 16)}, {Name: "ResourceType", Value: "SERVICE"}},
	}
}
