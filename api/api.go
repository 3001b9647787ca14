package api

import (
	"context"
	"encoding/json"
	"sort"
)

// Protocol names a wire protocol, spelled as Smithy does.
type Protocol string

const (
	AWSJSON10 Protocol = "awsJson1_0"
	AWSJSON11 Protocol = "awsJson1_1"
	AWSQuery  Protocol = "awsQuery"
	EC2Query  Protocol = "ec2Query"
	RESTJSON  Protocol = "restJson1"
	RESTXML   Protocol = "restXml"
	RPCv2CBOR Protocol = "rpcv2Cbor"
)

// Service describes one AWS service: all that a gateway needs to know of it.
type Service struct {
	ID             string // the model's service ID: "ECS"
	Package        string // the Go package, and the service's name inside Berth: "ecs"
	SigningName    string // the service in a SigV4 credential scope, and the prefix of its IAM actions
	EndpointPrefix string // the host name's first label: "ecs"
	FullName       string // "Amazon EC2 Container Service"
	APIVersion     string // "2014-11-13"
	Protocols      []Protocol
	TargetPrefix   string // awsJson: what precedes the operation in X-Amz-Target
	XMLNamespace   string // query and XML protocols: the namespace of the answer
	// NoErrorWrapping: restXml, an error is <Error> itself and not inside <ErrorResponse>.
	NoErrorWrapping bool
	Operations      []*Operation // sorted by name
	Errors          []*Shape     // every modelled error, sorted by code
}

// Operation finds an operation by its name; nil if the service has none of that name.
func (s *Service) Operation(name string) *Operation {
	i := sort.Search(len(s.Operations), func(i int) bool { return s.Operations[i].Name >= name })
	if i < len(s.Operations) && s.Operations[i].Name == name {
		return s.Operations[i]
	}
	return nil
}

// Operation describes one operation of a service.
type Operation struct {
	Name          string
	Service       string // the Package of the Service it belongs to
	Method        string // HTTP method
	URI           string // HTTP URI template
	Status        int    // HTTP status of success
	Input         *Shape
	Output        *Shape
	ResultWrapper string // awsQuery: the element around the output
	Unwrapped     bool   // restXml: the output's only member is the root element
	Errors        []*Shape
	ReadOnly      bool
	Idempotent    bool
	// Unsigned operations are called without credentials (sts:AssumeRoleWithWebIdentity).
	Unsigned bool

	// NewInput and NewOutput make an empty input and output: *RunTaskInput, *RunTaskOutput.
	NewInput  func() any
	NewOutput func() any
	// Invoke calls the operation on impl, which must implement the package's API interface; in is
	// of NewInput's type. out is of NewOutput's type and means nothing when err is not nil.
	Invoke func(ctx context.Context, impl, in any) (out any, err error)
}

// Invoker calls an operation. The gateway is one: it authorizes, validates and audits a call from
// inside the process as it does one from the network. The generated Clients sit on it.
type Invoker interface {
	// Invoke answers a value of op.NewOutput's type.
	Invoke(ctx context.Context, op *Operation, in any) (out any, err error)
}

// Call invokes op and asserts the output's type. It is what the generated Clients are made of.
func Call[Out any](ctx context.Context, inv Invoker, op *Operation, in any) (*Out, error) {
	out, err := inv.Invoke(ctx, op, in)
	if err != nil {
		return nil, err
	}
	return out.(*Out), nil
}

// Document is a value of any JSON type, as the caller wrote it, compacted; nil is absent.
type Document = json.RawMessage

// Ptr answers a pointer to a copy of v, for the generated types' scalars.
func Ptr[T any](v T) *T { return &v }

// Value answers what p points at, or the zero value for nil.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
