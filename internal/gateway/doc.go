// Package gateway is the front door: every call to a service passes here, from the network or from
// another part of Berth, and leaves a line in the audit log.
//
// A request from the network goes through these steps in this order, each a small function, the first
// error ending it:
//
//	request ID → guard (dev mode: browsers kept out) → body, bounded → route: service, operation,
//	protocol (package wire) → authenticate (package sigv4; or, in dev mode, believe) → decode →
//	authorize → validate → call → encode → audit
//
// A request in a REST protocol differs in its body: what it asks for is in the method, path and query, so
// that it is routed and authenticated before its body is read, and an operation that streams is given the
// body itself. Its hash, or the signatures of its chunks, are then verified while it is read. Such a
// request is told from the others by this rule: it has no X-Amz-Target header and no Action, in the query
// or as a form; and its credential scope names a service that speaks such a protocol, or it carries no
// signature at all and is anything but a POST to "/". S3 is the only such service.
//
// A call from inside, through [Gateway.Inside], enters at authorize, as a named principal; the rest is
// the same. Errors reach clients in the form of the protocol they speak, with AWS's code, message and
// status. What is not an api.Error is a fault of ours: it is logged in full, and the client learns
// nothing but the request ID.
//
// Beside the services it serves the rooms under /_berth/: health, and what [Gateway.Mount] adds.
package gateway
