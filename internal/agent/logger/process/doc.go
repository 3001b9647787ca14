// Package process is the logger process: one for each Berth instance, which outlives Berth.
//
// It reads the FIFOs of all containers into their spools (package spool), and does nothing else. What
// it has to read is on disk, one [Record] a container in the run directory, so it can die at any
// time: started again it goes on where it was, and meanwhile what containers write waits in the
// FIFOs, which the shims hold open.
//
//	RunDir/logger/          0700
//	  lock                  held by the process as long as it lives: there is never a second one
//	  socket                how the agent talks to it
//	  log                   what it has to say, and its panics
//	  attached/ID.json      a Record
//	  fifo/ID.out  ID.err   of container ID
//
// One goroutine does all the reading ([loop]): it waits in epoll, and moves at most one chunk of each
// FIFO in turn, so that one loud container does not silence the others. The requests of the agent run
// between two chunks. So a process that is told to hand over stops at a chunk's end, and what it has
// not read is still in the FIFOs for its successor.
//
// The process imports little and keeps its heap small; it shares its binary's pages with Berth.
package process
