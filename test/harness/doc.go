// Package harness runs Berth as its users do, for the end-to-end tests and the benchmark: it builds
// the binary, starts instances of it on free ports with data directories of their own, makes and
// serves images, and looks over the host for what an instance left behind.
//
// It imports nothing of Berth. What it knows is the command line, the wire, and that everything an
// instance makes on a host carries the instance's ID or lies below its data directory.
package harness

import "time"

// T is what the harness needs of a *testing.T; the benchmark brings its own.
type T interface {
	Helper()
	Name() string
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Poll asks until it gets true, and fails the test with what it was waiting for after the timeout.
// It is for states of other processes, which nothing can signal.
func Poll(t T, timeout time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		if done() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still waiting for %s", timeout, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
