// Package api holds the vocabulary every AWS service of Berth is described in, and, in one generated
// package per service below it, AWS's wire contract itself.
//
// The source is the public API models (botocore's JSON, Apache-2.0), trimmed into models/ to the
// operations served with the prose removed. From a model the generator in gen/ writes
//
//	types.go    Go types: inputs, outputs, structures, enums
//	service.go  the API interface, the embeddable Unimplemented, the in-process Client
//	errors.go   the service's typed errors
//	shapes.go   the schema: static data that the protocols in internal/wire work from
//
// A request flows like this: a protocol finds the [Operation] in the [Service] descriptor, decodes the
// body into what Operation.NewInput makes, Operation.Invoke calls the implementation, and the protocol
// encodes what comes back, be it an output or an [Error]. A call inside the process takes the same way
// through an [Invoker], without the bytes.
//
// Conventions of the generated types, the same for every service:
//
//   - A scalar is a pointer (*string, *int32, *int64, *float64, *bool, *time.Time); nil is absent.
//     A blob is a []byte, nil is absent; one that is streamed is an io.Reader, in an output an
//     io.ReadCloser, which is the receiver's to close.
//   - An enum is a string type of its own, by value; "" is absent. Values the model does not know are
//     carried, not refused: whether they are allowed is for the service to say.
//   - A list is a slice of values and a map a map[string]V; nil is absent, empty is empty, and both
//     protocols and encoding/json keep the difference.
//   - A nested structure is a pointer. A document is a [Document].
//   - An operation's input and output are <Operation>Input and <Operation>Output, whatever the model
//     calls them.
//
// The schema is static data: importing a service costs no work at start.
package api

//go:generate go run ./gen
