// Package lifecycle is a task's state machine: which states it goes through, what moves it, and what
// is recorded of why.
//
//	PROVISIONING → PENDING → ACTIVATING → RUNNING → DEACTIVATING → STOPPING → DEPROVISIONING → STOPPED → DELETED
//
// It is pure: functions from a [Record] to the next one, with the time as an argument. A task only
// moves forward; states may be skipped, because what the host reports is where the task is, not how
// it got there. Every way to a stop takes a [Cause], so a stopped task always has a stop code and a
// reason.
//
// A record has two halves with one writer each. [Desired] is the orchestrator's, moved by
// [RequestStop]; [Status] is the host's, moved by [Apply] as its reports arrive. The first to know of
// a stop says why: a stop that is requested of a task already dying of its own keeps the task's
// cause, and the exits that follow a requested stop keep the request's. Each half must therefore be
// written on condition that the other is still what was read.
//
// Reports are cumulative and numbered by the host, so a report that is repeated, late or out of
// order changes nothing, and a lost one is made good by the next.
package lifecycle
