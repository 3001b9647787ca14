package shim

import (
	"os"

	"golang.org/x/sys/unix"
)

// logFIFO is where a shim writes its log, in the directory that it is started in.
const logFIFO = "log"

// holdLog opens the log for reading, so that opening it for writing does not wait. The reader is berth;
// if it dies before the shim has come to its log, nobody will ever read there: berth's next process
// does not know the shim, but finds its socket open, and would wait for ever for an answer.
//
// The answer gives it up, which must be before much is written: a log without a reader is an error that
// the shim does not mind, one that nobody reads fills up.
func holdLog() (release func()) {
	file, err := os.OpenFile(logFIFO, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return func() {} // it is not there for what is not to serve; else opening it for writing fails too
	}
	return func() { file.Close() }
}
