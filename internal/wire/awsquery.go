package wire

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/berthhq/berth/api"
)

const (
	contentForm = "application/x-www-form-urlencoded"
	contentXML  = "text/xml"
)

// awsQuery is awsQuery: the operation and the input as form fields, in the body of a POST or the query
// of a GET, the answer as XML.
type awsQuery struct{}

func (awsQuery) Name() api.Protocol { return api.AWSQuery }

func (awsQuery) Match(svc *api.Service, r *http.Request, body []byte) (string, bool) {
	action, version := actionAndVersion(r, body)
	return action, action != "" && version == svc.APIVersion
}

// actionAndVersion finds the two fields every query request has.
func actionAndVersion(r *http.Request, body []byte) (action, version string) {
	eachField(r, body, func(k, v string) error {
		switch {
		case k == "Action" && action == "":
			action = v
		case k == "Version" && version == "":
			version = v
		}
		return nil
	})
	return action, version
}

// eachField calls f with every form field as it stands in the request, the body's first: whatever of a
// field is repeated, the first counts. What cannot be unescaped is an error.
func eachField(r *http.Request, body []byte, f func(key, value string) error) error {
	form := ""
	if mediaType(r.Header) == contentForm {
		form = string(body)
	}
	for _, source := range [...]string{form, r.URL.RawQuery} {
		for source != "" {
			var pair string
			pair, source, _ = strings.Cut(source, "&")
			k, v, _ := strings.Cut(pair, "=")
			k, err := url.QueryUnescape(k)
			if err != nil {
				return errQueryEscape
			}
			if v, err = url.QueryUnescape(v); err != nil {
				return errQueryEscape
			}
			if k == "" {
				continue
			}
			if err := f(k, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (awsQuery) DecodeRequest(op *api.Operation, r *http.Request, body []byte) (any, error) {
	in := op.NewInput()
	if err := decodeQuery(reflect.ValueOf(in).Elem(), op.Input, r, body); err != nil {
		return nil, &api.CommonError{Code: "MalformedInput", Message: err.Error()}
	}
	return in, nil
}

func (awsQuery) EncodeResponse(svc *api.Service, op *api.Operation, out any, requestID string) (*Response, error) {
	b := make([]byte, 0, 1024)
	b = appendXMLStart(b, op.Name+"Response", svc.XMLNamespace)
	v := reflect.ValueOf(out)
	if op.ResultWrapper != "" {
		b = appendXMLStart(b, op.ResultWrapper, "")
	}
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		var err error
		if b, err = appendXMLMembers(b, v.Elem(), op.Output); err != nil {
			return nil, err
		}
	}
	if op.ResultWrapper != "" {
		b = appendXMLEnd(b, op.ResultWrapper)
	}
	b = append(b, "<ResponseMetadata>"...)
	b = appendXMLElement(b, "RequestId", requestID)
	b = append(b, "</ResponseMetadata>"...)
	b = appendXMLEnd(b, op.Name+"Response")
	return newResponse(op.Status, contentXML, requestID, b), nil
}

func (awsQuery) EncodeError(svc *api.Service, e api.Error, requestID string) *Response {
	namespace := ""
	if svc != nil {
		namespace = svc.XMLNamespace
	}
	fault := "Sender"
	if e.ErrorFault() == api.FaultServer {
		fault = "Receiver"
	}
	b := appendXMLStart(make([]byte, 0, 512), "ErrorResponse", namespace)
	b = append(b, "<Error>"...)
	b = appendXMLElement(b, "Type", fault)
	b = appendXMLElement(b, "Code", e.ErrorCode())
	b = appendXMLElement(b, "Message", e.ErrorMessage())
	if m, ok := e.(api.ModeledError); ok {
		shape, v := m.ErrorShape(), reflect.Indirect(reflect.ValueOf(e))
		for i := range shape.Members {
			member := &shape.Members[i]
			if strings.EqualFold(member.Name, "message") {
				continue
			}
			// A member that cannot be written is left out: the error itself must arrive.
			if next, err := appendXMLMember(b, v, member); err == nil {
				b = next
			}
		}
	}
	b = append(b, "</Error>"...)
	b = appendXMLElement(b, "RequestId", requestID)
	b = appendXMLEnd(b, "ErrorResponse")
	return newResponse(e.HTTPStatusCode(), contentXML, requestID, b)
}

func (awsQuery) UnknownOperation(_ *api.Service, r *http.Request, body []byte, operation string) api.Error {
	action, version := actionAndVersion(r, body)
	if operation == "" {
		operation = action
	}
	if operation == "" {
		return &api.CommonError{Code: "MissingAction", Message: "The request is missing an action or a required parameter."}
	}
	if version == "" {
		version = "NO_VERSION_SPECIFIED"
	}
	return &api.CommonError{
		Code:    "InvalidAction",
		Message: "Could not find operation " + clip(operation, 64) + " for version " + clip(version, 32),
	}
}
