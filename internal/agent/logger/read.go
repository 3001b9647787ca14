package logger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logger/process"
	"github.com/berthhq/berth/internal/agent/logger/spool"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

const (
	pollMin = 10 * time.Millisecond
	pollMax = 200 * time.Millisecond
	// partAfter is how long the reader waits for a line's end before it shows what there is of it.
	partAfter = 50 * time.Millisecond
)

// Read implements agent.Output: all containers' lines merged by time. News of lost output come as
// lines of stderr that begin with "[berth: ". It needs no logger process.
func (o *Output) Read(ctx context.Context, q agent.OutputQuery, line func(*dispatchpb.LogLine) error) error {
	if !process.ValidName(q.TaskID) || q.Container != "" && !process.ValidName(q.Container) {
		return fmt.Errorf("read the output of %q: it cannot be a name", q.TaskID)
	}
	writing := func() bool { return o.writing(q.TaskID) }
	if err := Read(ctx, o.paths.Spool(q.TaskID, ""), q, writing, line); err != nil {
		return fmt.Errorf("read the output of task %s: %w", q.TaskID, err)
	}
	return nil
}

// Read delivers the output in a task's spool directory. writing says whether it may grow; following
// ends when it may not. The error of line ends Read and is returned as it is.
func Read(ctx context.Context, dir string, q agent.OutputQuery, writing func() bool, line func(*dispatchpb.LogLine) error) error {
	m := merger{dir: dir, q: q, sources: map[string]*source{}}
	defer m.close()
	wait := pollMin
	for {
		done := !writing() // before reading: nothing comes after what is read now
		if err := m.discover(); err != nil {
			return err
		}
		n, err := m.drain(ctx, line)
		if err != nil {
			return err
		}
		if done || !q.Follow {
			_, err := m.flush(done, 0, line)
			return err
		}
		flushed, err := m.flush(false, partAfter, line)
		if err != nil {
			return err
		}
		wait = min(2*wait, pollMax)
		if n+flushed > 0 || m.begun() {
			wait = pollMin
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// merger reads several containers at once.
type merger struct {
	dir     string
	q       agent.OutputQuery
	sources map[string]*source
	late    bool // the first discovery is over: what appears now is read from its beginning
}

type source struct {
	name     string
	r        *spool.Reader
	next     *spool.Line // read, not delivered
	progress uint64      // of r, when it last changed
	moved    time.Time   // and the time of that
}

// discover finds containers that have come to have a spool.
func (m *merger) discover() error {
	var names []string
	if m.q.Container != "" {
		names = []string{m.q.Container}
	} else {
		entries, err := os.ReadDir(m.dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	for _, name := range names {
		if m.sources[name] != nil {
			continue
		}
		dir := filepath.Join(m.dir, name)
		var c spool.Cursor
		var err error
		switch {
		case m.late:
		case m.q.Tail >= 0:
			c, err = spool.TailCursor(dir, int(min(m.q.Tail, 1<<20)))
		case !m.q.Since.IsZero():
			c, err = spool.SinceCursor(dir, m.q.Since)
		}
		if err != nil {
			return err
		}
		m.sources[name] = &source{name: name, r: spool.NewReader(dir, c)}
	}
	m.late = true
	return nil
}

// drain delivers, oldest first, what there is.
func (m *merger) drain(ctx context.Context, line func(*dispatchpb.LogLine) error) (n int, err error) {
	for {
		var first *source
		for _, s := range m.sources {
			if s.next == nil {
				l, err := s.r.Next()
				if err == io.EOF {
					continue
				}
				if err != nil {
					return n, fmt.Errorf("container %s: %w", s.name, err)
				}
				s.next = &l
			}
			if first == nil || s.next.Time.Before(first.next.Time) ||
				s.next.Time.Equal(first.next.Time) && s.name < first.name {
				first = s
			}
		}
		if first == nil {
			return n, nil
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		l := first.next
		first.next = nil
		n++
		if err := m.deliver(first, *l, line); err != nil {
			return n, err
		}
	}
}

// flush delivers begun lines that have not grown for a time; as whole ones if no more can come.
func (m *merger) flush(done bool, after time.Duration, line func(*dispatchpb.LogLine) error) (n int, err error) {
	for _, s := range m.sources {
		if c := s.r.Progress(); c != s.progress {
			s.progress, s.moved = c, time.Now()
		}
		if after > 0 && time.Since(s.moved) < after {
			continue
		}
		for _, stream := range []spool.Stream{spool.Stdout, spool.Stderr} {
			l, ok := s.r.Flush(stream, done)
			if !ok {
				continue
			}
			n++
			if err := m.deliver(s, l, line); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// begun tells whether some line waits for its end.
func (m *merger) begun() bool {
	for _, s := range m.sources {
		if s.r.Begun() {
			return true
		}
	}
	return false
}

func (m *merger) deliver(s *source, l spool.Line, line func(*dispatchpb.LogLine) error) error {
	if l.Time.Before(m.q.Since) {
		return nil
	}
	return line(&dispatchpb.LogLine{
		Time:      timestamppb.New(l.Time),
		Container: s.name,
		Stream:    l.Stream.String(),
		Text:      l.Text,
		Partial:   l.Partial,
	})
}

func (m *merger) close() {
	for _, s := range m.sources {
		s.r.Close()
	}
}
