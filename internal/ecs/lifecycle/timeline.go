package lifecycle

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Bounds of a timeline. Its beginning and its end say most, so what does not fit is left out in between.
const (
	timelineLimit = 100
	timelineHead  = 30  // entries at the beginning that always stay
	entryLimit    = 256 // characters of an entry's cause
)

// What an entry of a timeline says beside states, container states and healths.
const (
	TaskCreated   = "CREATED"
	StopRequested = "STOP REQUESTED"
)

// Entry is one step of a task's life.
type Entry struct {
	At        time.Time `json:"at"`
	Container string    `json:"container,omitempty"` // whose step it is; empty: the task's
	What      string    `json:"what"`                // a State, ContainerState or Health, or one of the constants above
	Cause     string    `json:"cause,omitempty"`
	By        string    `json:"by,omitempty"` // ARN of the principal that caused it
}

// Timeline is everything that is known to have happened to the task, in order.
func (r Record) Timeline() []Entry {
	all := []Entry{{At: r.Facts.CreatedAt, What: TaskCreated}}
	if d := r.Desired; d.Stop != nil {
		all = append(all, Entry{At: d.At, What: StopRequested, Cause: d.Stop.Reason, By: d.Stop.By})
	}
	all = append(all, r.Status.Timeline...)
	slices.SortStableFunc(all, func(a, b Entry) int { return a.At.Compare(b.At) })
	return all
}

// note takes down what is different from before. Containers come before the task, whose state follows
// from theirs.
func (s *Status) note(before Status, now time.Time) {
	for i, c := range s.Containers {
		was := Container{LastStatus: ContainerPending, Health: Unknown}
		if i < len(before.Containers) {
			was = before.Containers[i]
		}
		if was.LastStatus != c.LastStatus {
			s.add(c.entry(now))
		}
		if was.Health != c.Health && c.Health != Unknown {
			e := Entry{At: now, Container: c.Name, What: string(c.Health)}
			if !c.HealthSince.IsZero() {
				e.At = c.HealthSince
			}
			if c.Health == Unhealthy {
				e.Cause = c.HealthOutput
			}
			s.add(e)
		}
	}
	if s.LastStatus != before.LastStatus {
		e := Entry{At: now, What: string(s.LastStatus)}
		switch {
		case s.LastStatus == Running:
			e.At = s.StartedAt
		case s.LastStatus == Stopped:
			e.At = s.StoppedAt
		}
		if !s.LastStatus.Before(Deactivating) && before.Stop == nil && s.Stop != nil {
			e.Cause = s.Stop.Reason
		}
		s.add(e)
	}
}

// entry tells that the container came to the state it is in.
func (c *Container) entry(now time.Time) Entry {
	e := Entry{At: now, Container: c.Name, What: string(c.LastStatus)}
	switch c.LastStatus {
	case ContainerRunning:
		if !c.StartedAt.IsZero() {
			e.At = c.StartedAt
		}
	case ContainerStopped:
		if !c.FinishedAt.IsZero() {
			e.At = c.FinishedAt
		}
		if c.ExitCode != nil {
			e.Cause = "exit code " + strconv.Itoa(int(*c.ExitCode))
		}
		if c.Reason != "" {
			if e.Cause != "" {
				e.Cause += ": "
			}
			e.Cause += c.Reason
		}
	}
	return e
}

// add appends an entry and keeps the bounds.
func (s *Status) add(e Entry) {
	if utf8.RuneCountInString(e.Cause) > entryLimit {
		e.Cause = string([]rune(e.Cause)[:entryLimit-1]) + "…"
	}
	// A new slice: the one before belongs to the record before, which others hold.
	s.Timeline = append(slices.Clip(s.Timeline), e)
	if len(s.Timeline) > timelineLimit {
		s.Timeline = slices.Delete(s.Timeline, timelineHead, timelineHead+1)
		s.TimelineDropped++
	}
}
