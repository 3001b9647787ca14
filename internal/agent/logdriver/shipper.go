package logdriver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

const (
	// linger is how long a batch waits for more after its first event.
	linger = 500 * time.Millisecond
	// groupQuiet is how long an event of several lines waits for its next one.
	groupQuiet = 3 * time.Second

	pollMin = 10 * time.Millisecond
	pollMax = 400 * time.Millisecond

	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second

	// smallBatch is how much a shipper holds without a place among those that may hold a full batch.
	smallBatch = 64 << 10
)

// shipper delivers one container's output.
type shipper struct {
	d     *Drivers
	shape shape
	sink  sink
	log   *slog.Logger

	wake chan struct{} // the container has ended, or the shipper is to be forgotten
	done chan struct{} // closed when all is delivered, or nothing more will be

	mu      sync.Mutex
	rec     record
	cursor  spool.Cursor // of what is delivered
	failing error        // of the last try
	began   bool         // its goroutine runs, or has
	stop    context.CancelFunc
}

func (s *shipper) record() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

func (s *shipper) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *shipper) fail(err error) {
	s.mu.Lock()
	before := s.failing
	s.failing = err
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.Warn("output cannot be delivered; it waits in the spool", "error", err)
	case err == nil && before != nil:
		s.log.Info("output is delivered again")
	}
}

// run delivers until the container's output is at its end or ctx ends.
func (s *shipper) run(ctx context.Context) {
	defer s.sink.close()
	rec := s.record()
	dir := filepath.Join(s.d.cfg.SpoolDir, rec.taskID(), rec.Container)
	r := spool.NewReaderSize(dir, s.cursor, s.shape.line)
	defer r.Close()
	c := &collector{shape: s.shape, at: s.cursor, done: s.cursor}
	b := &outgoing{shipper: s}
	defer b.giveBack()
	wait := pollMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		ended := s.record().EndedAt // before reading: nothing comes after what is read now
		progress, full, err := s.fill(r, c, b, !ended.IsZero())
		if err != nil {
			s.fail(err)
		}
		now := time.Now()
		over := !ended.IsZero() && !full && (err == nil || now.Sub(ended) > MaxAge)
		if full || over || len(b.events) > 0 && now.Sub(b.since) >= linger {
			if !s.deliver(ctx, b) {
				return
			}
		}
		if over && len(b.events) == 0 {
			s.finished()
			return
		}
		if full || over {
			continue
		}
		if wait = min(2*wait, pollMax); progress {
			wait = pollMin
		}
		next := wait
		if len(b.events) > 0 {
			next = min(next, linger-now.Sub(b.since))
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// fill reads as much as the batch takes. full says that there is, or may be, more.
func (s *shipper) fill(r *spool.Reader, c *collector, b *outgoing, last bool) (progress, full bool, err error) {
	for {
		for len(c.events) > 0 {
			if !b.take(c.events[0]) {
				return progress, true, nil
			}
			c.events[0] = event{}
			if c.events = c.events[1:]; len(c.events) == 0 {
				c.events = nil
			}
		}
		l, err := r.Next()
		if err == nil {
			progress = true
			s.line(c, l, r.Cursor())
			continue
		}
		if !errors.Is(err, io.EOF) {
			return progress, false, err
		}
		if last {
			for _, stream := range []spool.Stream{spool.Stdout, spool.Stderr} {
				if l, ok := r.Flush(stream, true); ok {
					s.line(c, l, r.Cursor())
				}
			}
		}
		if len(c.group) > 0 && (last || time.Since(c.groupGrew) >= groupQuiet) {
			c.flush()
		}
		if len(c.events) == 0 {
			return progress, false, nil
		}
	}
}

func (s *shipper) line(c *collector, l spool.Line, after spool.Cursor) {
	if l.Lost > 0 {
		s.d.count(func(st *Stats) { st.LostBytes += l.Lost })
		s.log.Warn("output was lost before it could be delivered", "bytes", l.Lost)
	}
	c.add(l, after, time.Now())
}

// deliver sends the batch until it is taken, or refused for good; false says that ctx ended first.
func (s *shipper) deliver(ctx context.Context, b *outgoing) bool {
	if len(b.events) == 0 {
		return ctx.Err() == nil
	}
	pause := firstRetry
	for {
		refused, err := s.sink.send(ctx, b.events)
		if ctx.Err() != nil {
			return false
		}
		if ended := s.record().EndedAt; err != nil && !ended.IsZero() && time.Since(ended) > MaxAge {
			err = final{err}
		}
		if err == nil || isFinal(err) {
			s.settle(b, refused, err)
			return true
		}
		s.d.count(func(st *Stats) { st.Retries++ })
		s.fail(err)
		// Between half and all of it, so that containers do not come back in step.
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
		pause = min(2*pause, lastRetry)
	}
}

// settle moves the cursor behind the batch.
func (s *shipper) settle(b *outgoing, refused int, err error) {
	if err != nil {
		refused = len(b.events)
		s.log.Error("output was refused and is dropped", "events", refused, "error", err)
	} else if refused > 0 {
		s.log.Warn("events were refused for their time and are dropped", "events", refused)
	}
	s.d.count(func(st *Stats) {
		st.Delivered += uint64(len(b.events) - refused)
		st.Dropped += uint64(refused)
	})
	s.fail(nil)
	cursor := b.events[len(b.events)-1].after
	s.mu.Lock()
	s.cursor = cursor
	id := s.rec.ContainerID
	s.mu.Unlock()
	if err := s.d.records.saveCursor(id, cursor); err != nil {
		s.log.Warn("the place in the output cannot be saved: after a crash it is delivered again", "error", err)
	}
	b.clear()
}

// finished forgets the container: all is delivered.
func (s *shipper) finished() {
	rec := s.record()
	if err := s.d.records.remove(rec.ContainerID); err != nil {
		s.log.Warn("the log record cannot be removed", "error", err)
	}
	s.d.drop(rec.ContainerID)
	close(s.done)
}

// outgoing is the batch being filled, and its place among those that may be large.
type outgoing struct {
	batch
	shipper *shipper
	since   time.Time // when its first event was taken
	large   bool
}

func (b *outgoing) take(e event) bool {
	l := b.shipper.sink.limits()
	if !b.large && b.bytes+len(e.text) > smallBatch {
		select {
		case b.shipper.d.large <- struct{}{}:
			b.large = true
		default:
			l.bytes = min(l.bytes, smallBatch)
		}
	}
	if !b.add(e, l) {
		return false
	}
	if len(b.events) == 1 {
		b.since = time.Now()
	}
	return true
}

func (b *outgoing) clear() {
	b.reset()
	b.giveBack()
}

func (b *outgoing) giveBack() {
	if b.large {
		b.large = false
		<-b.shipper.d.large
	}
}
