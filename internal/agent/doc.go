// Package agent is the host's end: it turns assignments into running containers and reports what
// became of them.
//
// It owns the host's durable record of its tasks (bbolt, in the agent's directory): what was
// assigned, what was done, what was reported and acknowledged. One goroutine a task drives it
// towards its desired status through the rooms in ports.go. The server can be gone for any time:
// tasks keep running, and what happened is reported when it returns. The agent can be killed at any
// time: it starts from its record and from what the runtime says is there, and ends in the same
// place.
//
// # What flows through
//
//	Payload ─► assignment ─► machine: advance, plan ─► steps ─► rooms
//	              │               ▲                      │
//	              ▼               └────── results ◄──────┘
//	           journal ◄── progress (machine.handOver)
//	              └─► durable ─► outbox ─► TaskStatus, until acknowledged
//
// The machine decides and does nothing: machine.go has its state and what follows from each result,
// graph.go who waits for whom, launch.go, health.go, restart.go and stop.go what is to be done next,
// fail.go what a failure means, waiting.go what a task waits for. task.go and steps.go do and decide
// nothing. What a machine
// knows of a task beyond its progress is lost in a crash without harm, since every step may be
// repeated and everything made has a name that follows from the assignment.
//
// # Containers of a task
//
// Each container is brought up as soon as what it depends on is met, beside the others; from the pull
// on it waits, as with Amazon's agent. When the task ends each is told to stop after those that depend
// on it. What is not essential may fail, or exit, alone. A restart policy hides an exit: it is noted,
// durably, then the process is run again, then that is noted, and whichever comes last before a crash,
// the next run of the agent finds out from the runtime how far it went. Health checks run in the
// containers; only a change of health is reported.
//
// # What is durable before what
//
//   - the assignment, before PayloadAck and before the first container starts; pulls, the network and
//     creation do not wait for it;
//   - a report, before it is sent;
//   - the decision to stop and every exit code, before anything is deleted;
//   - an exit that a restart is to follow, before the restart.
//
// A launch makes two commits, the assignment's and that of RUNNING, and waits for neither in
// practice: creating a container takes longer than the first, and nothing follows the second. What is
// worth no commit of its own (image digests, the pull's times, acknowledgements) goes with the next,
// or after a second.
//
// # Status
//
// ACTIVATING from the assignment on, RUNNING once every container has started, or failed without being
// essential, STOPPING once there is
// a cause, DEPROVISIONING once every container has stopped, STOPPED once nothing is left but output.
// A stopped and acknowledged task leaves a tombstone for Config.Retention: it never runs again.
package agent
