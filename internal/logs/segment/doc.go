// Package segment keeps log events: an append-only store, compressed, searchable by time and by word,
// bounded on disk.
//
// What flows through:
//
//	Append ─► write-ahead log (one fsync for all who wait) ─► table in memory ─► Tail
//	                                                              │ SealBytes or SealAfter
//	                                                              ▼
//	                        segment: an object of blocks, sorted by group and time ─► compaction ─► retention
//
// There is one write-ahead log and one sequence of segments for all groups, not one each: a thousand
// quiet groups cost neither a file nor an fsync of their own. Within a segment every group has blocks of
// its own, in order of time, with all its streams interleaved: searches go over the streams of a group
// far more often than over one of them.
//
// An event's [ID] is its timestamp and then its number in the order of ingestion. It orders events,
// names them, and is the position from which reading goes on, in both directions and beyond the end.
//
// A block (about one MiB of messages) is skipped by its times, its streams, and a filter of its words
// and letter sequences; see [Term] for what the filter can decide. Scans load the blocks that remain in
// the order of their first event, several at once, and merge them.
//
// Crash safety: an event is acknowledged when the log is on disk. A segment names the logs or the
// segments that it replaces, so whatever a crash leaves behind twice is known as such from the
// objects alone; the catalogue in the local directory remembers what they hold and is rebuilt from them
// when it is lost. What cannot be had from objects (retention, what was dropped) is in an object too.
// Everything carries checksums. What is damaged costs itself alone, and scans report a [Gap].
//
// Memory is bounded, in this order of size: three tables of Config.SealBytes (one filling, two being sealed;
// with 200 bytes an event, a third more for what is known of them); 64 MiB of cached indexes and filters;
// for each scan two blocks of at most 2 MiB for each processor, and one for each segment that overlaps the
// moment it is at; the same for the segment that is being written; and for each Tail what it was told.
// The garbage collector doubles that, unless the process has a limit.
package segment
