// Package agent is the host's end: it turns assignments into running containers and reports what
// became of them.
//
// It owns the host's durable record of its tasks (bbolt, in the agent's directory): what was
// assigned, what was done, what was reported and acknowledged. One goroutine a task drives it
// towards its desired status through the rooms in ports.go. The server can be gone for any time:
// tasks keep running, and what happened is reported when it returns. The agent can be killed at any
// time: it starts from its record and from what the runtime says is there, and ends in the same
// place.
package agent
