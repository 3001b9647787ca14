// Package spool keeps what containers write, on disk and bounded.
//
// Each container of a task has a directory of append-only segments. A segment is a header followed
// by chunks: what was taken from one stream at one moment, as the bytes came. A [Writer] moves bytes
// from a pipe into the segment with splice(2), so they are either still in the pipe or already in
// the file and a process that is killed loses none and doubles none:
//
//	write the chunk's header, marked open → splice the data behind it → write the header again, final
//
// Killed in between, the next Writer finds an open chunk at the end and closes it. Because bytes are
// stored as they came, the writer keeps no state of its own; lines are made by the [Reader].
//
// Every chunk knows its position: how many bytes the container wrote before it, counting those that
// were lost. A jump in the positions is therefore a loss, whatever its cause (the oldest segment was
// dropped, the disk was full, a chunk is corrupt), and readers are told how much. A [Cursor] is
// positions too.
//
// Chunks carry a CRC and their segment's random salt: a damaged one costs itself alone, and a
// container cannot write bytes that would be taken for a chunk.
//
// Durability: written data is in the page cache at once, which outlives any process. Segments are
// synced when they are full and when their container is done, not for each chunk: only a crash of the
// whole machine loses what is not synced, and that ends the containers too. A segment belongs to one
// boot; what a crashed machine left half written at its end is cut.
package spool
