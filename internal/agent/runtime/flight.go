package runtime

import (
	"context"
	"sync"

	"github.com/berthhq/berth/internal/agent"
)

// flights joins callers that want the same pull at the same time. The work goes on as long as one of
// them waits.
type flights struct {
	mu     sync.Mutex
	flying map[string]*flight
}

type flight struct {
	done    chan struct{}
	image   agent.Image
	err     error
	cancel  context.CancelFunc
	waiters int

	mu       sync.Mutex
	progress []func(agent.ImageProgress)
}

func (f *flight) report(p agent.ImageProgress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, report := range f.progress {
		report(p)
	}
}

// do answers the result of work for key, which it starts unless it is under way. After it has
// returned, progress is not called again.
func (s *flights) do(ctx context.Context, key string, progress func(agent.ImageProgress),
	work func(context.Context, func(agent.ImageProgress)) (agent.Image, error)) (agent.Image, error) {
	s.mu.Lock()
	f, ok := s.flying[key]
	if !ok {
		workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel}
		if s.flying == nil {
			s.flying = map[string]*flight{}
		}
		s.flying[key] = f
		go func() {
			image, err := work(workCtx, f.report)
			s.mu.Lock()
			f.image, f.err = image, err
			if s.flying[key] == f {
				delete(s.flying, key)
			}
			s.mu.Unlock()
			cancel()
			close(f.done)
		}()
	}
	f.waiters++
	s.mu.Unlock()

	slot := -1
	if progress != nil {
		f.mu.Lock()
		slot = len(f.progress)
		f.progress = append(f.progress, progress)
		f.mu.Unlock()
	}
	defer func() {
		if slot >= 0 {
			f.mu.Lock()
			f.progress[slot] = func(agent.ImageProgress) {}
			f.mu.Unlock()
		}
	}()
	select {
	case <-f.done:
		return f.image, f.err
	case <-ctx.Done():
		s.mu.Lock()
		if f.waiters--; f.waiters == 0 {
			// Nobody may join what is being given up.
			if s.flying[key] == f {
				delete(s.flying, key)
			}
			f.cancel()
		}
		s.mu.Unlock()
		return agent.Image{}, ctx.Err()
	}
}
