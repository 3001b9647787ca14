// Package orchestrator makes ECS's decisions happen.
//
// It owns the elected placer, through which every task is created; the order to stop; the hosts and
// their container instances; and the payloads that say what each host should run. Handlers call it
// with validated requests; dispatch calls it with hosts. It decides nothing itself: where a task goes
// is placement's answer, what a status means is lifecycle's.
//
// Two loops read the store's watch: the placer keeps its ledger from it, the hub finds out which
// host's payload changed. Both start from a snapshot and end in the same place whatever they missed.
package orchestrator
