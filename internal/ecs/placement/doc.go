// Package placement decides which host takes a task, and says why each of the others does not.
//
// It is pure: no I/O, no clock, no randomness. A [Ledger] holds what hosts offer and what the tasks
// that are not stopped have reserved; [Ledger.Place] reads it and answers a [Decision]. The answer
// is a function of the ledger's content and of the request alone: neither the order in which hosts
// and tasks came in, nor what was placed and released before, changes it. So a placer that takes
// over after another died decides as the dead one would have.
//
// Capacity, ports and addresses are counted per host, because a host serves any number of clusters;
// what belongs to one cluster is only its container instance there ([Instance]): an ARN, and whether
// it is draining. A host without an instance in a cluster can still take that cluster's tasks: the
// instance is registered on first use.
//
// One function, fits, decides whether a host can take a task. Choosing and committing to a named host
// go through it, so they cannot disagree; examine asks the same of a host without stopping at the first
// refusal, and the tests hold the two together.
//
// A request without strategies goes to the best of a few hosts that fit, whatever their number. With
// strategies every host with the room is compared, so that the answer is exactly the best by the first
// strategy, then by the next.
//
// What flows through: the placer mirrors the store into a Ledger ([Ledger.SetHost],
// [Ledger.SetInstance], [Ledger.Reserve], [Ledger.Release]), plans a batch of requests with
// [Ledger.Begin], each seeing the ones before, writes the decisions in one transaction, and on
// failure calls [Batch.Undo].
package placement
