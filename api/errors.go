package api

import (
	"errors"
	"fmt"
)

// Fault says whose fault an error is. SDKs retry the server's and not the client's.
type Fault uint8

const (
	FaultClient Fault = iota + 1
	FaultServer
)

// Error is an error that has a form on the wire. Every error a service means for its caller is one;
// anything else is a bug or an outage, and reaches the caller as an internal failure without its text.
type Error interface {
	error
	ErrorCode() string    // what clients match: "ClusterNotFoundException"
	ErrorMessage() string // for people
	HTTPStatusCode() int
	ErrorFault() Fault
}

// ModeledError is an Error of the service's model; its further members go on the wire by the schema.
// Generated errors are of this kind.
type ModeledError interface {
	Error
	ErrorShape() *Shape
}

// CommonError is an error that no model lists: those every AWS service answers with
// (UnrecognizedClientException, SerializationException, …).
type CommonError struct {
	Code    string
	Message string
	Status  int   // 0: 400
	Fault   Fault // 0: from the status

	// Details are further elements of the error in XML, Header what the answer's headers say beside it.
	Details []Detail
	Header  map[string]string
}

// Detail is one element of an error beside code and message.
type Detail struct{ Name, Value string }

func (e *CommonError) Error() string        { return e.Code + ": " + e.Message }
func (e *CommonError) ErrorCode() string    { return e.Code }
func (e *CommonError) ErrorMessage() string { return e.Message }

func (e *CommonError) HTTPStatusCode() int {
	if e.Status == 0 {
		return 400
	}
	return e.Status
}

func (e *CommonError) ErrorFault() Fault {
	switch {
	case e.Fault != 0:
		return e.Fault
	case e.Status >= 500:
		return FaultServer
	}
	return FaultClient
}

// AsError finds the Error in err's chain. Without one, err is none of the caller's business and the
// answer is AWS's InternalFailure, HTTP 500; known tells the two apart so that the caller can log err.
func AsError(err error) (e Error, known bool) {
	if errors.As(err, &e) {
		return e, true
	}
	return &CommonError{
		Code:    "InternalFailure",
		Message: "The request processing has failed because of an unknown error, exception or failure.",
		Status:  500,
		Fault:   FaultServer,
	}, false
}

// CodeUnimplemented is the code of the error for an operation that is routed but not built.
const CodeUnimplemented = "UnsupportedOperationException"

// ErrUnimplemented answers the error for an operation that Berth routes but has not built. Every
// method of a generated Unimplemented answers it.
//
// It is HTTP 400 with the client at fault, not 501: SDKs differ in what they make of a 501 (the
// JavaScript and Ruby ones retry every 5xx, with backoff, and the user waits half a minute for a plain
// "no"), while none retries a 400 whose code is not of throttling or clock skew. The code is the one
// AWS itself uses where an operation exists but not here; SDKs surface it as a generic API error with
// code and message intact, and tools that can do without an optional operation know it.
func ErrUnimplemented(op *Operation) error {
	return &CommonError{
		Code: CodeUnimplemented,
		Message: fmt.Sprintf("Berth does not implement %s:%s yet. What it implements: "+
			"https://github.com/berthhq/berth/blob/main/docs/compatibility.md#%s", op.Service, op.Name, op.Service),
		Status: 400,
		Fault:  FaultClient,
	}
}
