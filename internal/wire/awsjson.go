package wire

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/berthhq/berth/api"
)

const (
	contentJSON10 = "application/x-amz-json-1.0"
	contentJSON11 = "application/x-amz-json-1.1"
)

// awsJSON is awsJson 1.0 and 1.1, which differ on the wire in the content type alone: POST /, the
// operation in X-Amz-Target, input and output as one JSON object.
type awsJSON struct {
	name        api.Protocol
	contentType string
}

var (
	awsJSON10 = &awsJSON{api.AWSJSON10, contentJSON10}
	awsJSON11 = &awsJSON{api.AWSJSON11, contentJSON11}
)

func (p *awsJSON) Name() api.Protocol { return p.name }

func (p *awsJSON) Match(svc *api.Service, r *http.Request, _ []byte) (string, bool) {
	// The prefix itself may hold dots (DynamoDB's does not, Kinesis Analytics' does).
	target := r.Header.Get("X-Amz-Target")
	i := strings.LastIndexByte(target, '.')
	if i < 0 || target[:i] != svc.TargetPrefix || r.Method != http.MethodPost {
		return "", false
	}
	return target[i+1:], true
}

func (p *awsJSON) DecodeRequest(op *api.Operation, _ *http.Request, body []byte) (any, error) {
	in := op.NewInput()
	d := jsonDecoder{jsonReader: jsonReader{data: body}}
	d.skipSpace()
	if d.pos == len(body) { // an empty body is an empty input
		return in, nil
	}
	if err := d.document(reflect.ValueOf(in).Elem(), op.Input); err != nil {
		return nil, &api.CommonError{Code: "SerializationException", Message: err.Error()}
	}
	return in, nil
}

func (p *awsJSON) EncodeResponse(_ *api.Service, op *api.Operation, out any, requestID string) (*Response, error) {
	body, err := encodeJSON(op.Output, out)
	if err != nil {
		return nil, err
	}
	return newResponse(op.Status, p.contentType, requestID, body), nil
}

func (p *awsJSON) EncodeError(_ *api.Service, e api.Error, requestID string) *Response {
	b := append(make([]byte, 0, 256), `{"__type":`...)
	b = appendJSONString(b, e.ErrorCode())
	messageName := "message"
	if m, ok := e.(api.ModeledError); ok {
		shape, v := m.ErrorShape(), reflect.Indirect(reflect.ValueOf(e))
		for i := range shape.Members {
			member := &shape.Members[i]
			if strings.EqualFold(member.Name, "message") {
				messageName = member.Name
				continue
			}
			// A member that cannot be written is left out: the error itself must arrive.
			if next, err := appendJSONMember(b, v, member, false); err == nil {
				b = next
			}
		}
	}
	b = append(b, `,"`...)
	b = append(b, messageName...)
	b = append(b, `":`...)
	b = appendJSONString(b, e.ErrorMessage())
	b = append(b, '}')
	return newResponse(e.HTTPStatusCode(), p.contentType, requestID, b)
}

func (p *awsJSON) UnknownOperation(svc *api.Service, _ *http.Request, _ []byte, operation string) api.Error {
	message := "The request names no operation: X-Amz-Target is missing or of no service here."
	if operation != "" {
		message = "The service has no operation " + strings.ToValidUTF8(clip(operation, 64), "\uFFFD") + "."
	}
	return &api.CommonError{Code: "UnknownOperationException", Message: message}
}

// clip bounds what of a request is repeated in an answer.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
