// Package state is what ECS keeps: the rows, who writes each, and how rows become the API's objects.
//
// A task is four rows under one key, one a writer: Spec (orchestrator, immutable), Desired
// (orchestrator), Placement (placer, immutable) and Status (SubmitTaskStateChange). Nothing is stored
// twice: counts of a cluster and what is left on a host are computed from the tasks that are not
// stopped.
package state
