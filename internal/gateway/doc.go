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
// A call from inside, through [Gateway.Inside], enters at authorize, as a named principal; the rest is
// the same. Errors reach clients in the form of the protocol they speak, with AWS's code, message and
// status. What is not an api.Error is a fault of ours: it is logged in full, and the client learns
// nothing but the request ID.
//
// Beside the services it serves the rooms under /_berth/: health, and what [Gateway.Mount] adds.
package gateway
