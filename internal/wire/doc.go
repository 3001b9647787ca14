// Package wire is AWS's wire protocols: bytes to the generated types of package api, and back.
//
// Every protocol is a [Protocol] and works from the schema alone (api.Shape), so a new service needs
// no code here, and a new protocol none elsewhere. awsJson 1.0 and 1.1, awsQuery and restXml are here;
// ec2Query, restJson and rpcv2Cbor take their places in [ByName] beside them.
//
// The way of a request: [Router.Route] finds the service, the operation and the protocol it is in;
// Protocol.DecodeRequest makes the input; [Validate], which is pure and optional, judges it against the
// model's constraints; after the call, Protocol.EncodeResponse or Protocol.EncodeError makes the answer.
//
// Decoding is strict where AWS is (a number is not a string; null is absence; what cannot be read is
// SerializationException or MalformedInput, HTTP 400) and lenient where AWS is (unknown members are
// skipped, unknown enum values carried). It is bounded: nesting by [MaxDepth], the memory of what is
// made by [MaxDecoded], whatever the input. The size of the body is the caller's to bound.
package wire
