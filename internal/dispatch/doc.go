// Package dispatch is the server's end of the hosts' streams.
//
// It owns the connected sessions and nothing durable. Downwards it carries payloads, which it asks
// of an Assigner; upwards it turns a host's status into SubmitTaskStateChange, called through the
// same generated interface and the same door as an outside client, as the principal of that host. A
// status is acknowledged to the host only after the call has returned, that is, after it is durable.
//
// A log request rides on the same stream: OpenLogs asks the host that has the task and delivers what
// it sends.
package dispatch
