// Package history remembers what the state forgets: tasks that have stopped, and runs that found no
// place.
//
// An [Archiver] follows the store's watch. When a task stops it writes the task's rows, what its host
// knows beyond them and the last lines of its containers to the blob store, as one [Task]. A task's rows
// are deleted, an hour later at the earliest, only when that is durable. A [Run] is written when RunTask
// is about to answer that it found no place. Both are kept for a week.
//
// [Task.Explain] and [Run.Explain] are pure: from a record to what a person wants to know first, and then.
// They explain a task that lives as well as one from the archive, because both are the same record.
package history
