// Package logger takes what containers write: the agent's Output.
//
// It has two sides. The logger process (package process) outlives Berth and moves bytes from the
// containers' FIFOs to the spool (package spool). The agent's side, [Output], makes the FIFOs and the
// records that tell the process what to read, finds the process or starts it, and reads spools, which
// needs no process at all.
//
// One process serves a Berth instance. The next Berth finds it by its socket. If that Berth is another
// build, the process hands over: it stops between two chunks and exits, and its successor reads on
// from the same FIFOs. If it dies, Output starts another at once. Meanwhile output waits in the FIFOs:
// the shim holds them open, and so does Output, in case the shim ends before the output is read.
package logger
