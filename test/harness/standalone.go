package harness

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// Standalone is a T for what is longer than a test: instances that a whole package shares, and the
// benchmark. Fatalf panics with an error that Run returns.
type Standalone struct {
	Title string

	mu       sync.Mutex
	cleanups []func()
	failures []error
}

var _ T = (*Standalone)(nil)

type fatal struct{ error }

func (s *Standalone) Helper()      {}
func (s *Standalone) Name() string { return s.Title }

// Cleanup registers what Close does, last first.
func (s *Standalone) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

// Logf writes to standard error.
func (s *Standalone) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, s.Title+": "+format+"\n", args...)
}

// Errorf notes a failure, and goes on.
func (s *Standalone) Errorf(format string, args ...any) {
	s.Logf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, fmt.Errorf(format, args...))
}

// Fatalf ends what Run runs.
func (s *Standalone) Fatalf(format string, args ...any) {
	panic(fatal{fmt.Errorf(format, args...)})
}

// Run calls f and answers what it failed with.
func (s *Standalone) Run(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(fatal)
			if !ok {
				panic(r)
			}
			err = f.error
		}
	}()
	f()
	return nil
}

// Close runs the cleanups and answers everything that failed.
func (s *Standalone) Close() error {
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		var f func()
		if n > 0 {
			f, s.cleanups = s.cleanups[n-1], s.cleanups[:n-1]
		}
		s.mu.Unlock()
		if f == nil {
			break
		}
		if err := s.Run(f); err != nil {
			s.Errorf("%v", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failures...)
}
