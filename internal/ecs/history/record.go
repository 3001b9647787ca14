package history

import (
	"strings"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Retention is how long records are kept, from the task's end or the run.
const Retention = 7 * 24 * time.Hour

// Of each container so much output is kept.
const (
	keptLines = 20
	keptBytes = 16 << 10
)

// Task is everything that is known of a task.
type Task struct {
	Key       store.Key         `json:"key"`
	Spec      state.Spec        `json:"spec"`
	Placement *state.Placement  `json:"placement,omitempty"`
	Hostname  string            `json:"hostname,omitempty"`
	Desired   lifecycle.Desired `json:"desired"`
	Status    lifecycle.Status  `json:"status"`
	// Extras are by container, in the order of Spec.Containers.
	Extras []Extra `json:"extras"`
	// NoOutput says why there is no output; empty: what there was is in Extras.
	NoOutput   string    `json:"noOutput,omitempty"`
	ArchivedAt time.Time `json:"archivedAt,omitzero"` // zero: these are the rows
}

// Extra is what a container's status in the rows does not have.
type Extra struct {
	Lines []Line `json:"lines,omitempty"` // the last of its output
}

// Line is a line that a container wrote.
type Line struct {
	At     time.Time `json:"at"`
	Stream string    `json:"stream"` // stdout or stderr
	Text   string    `json:"text"`
}

// FromRows puts a task's record together from its rows.
func FromRows(v store.View, key store.Key) (*Task, bool) {
	spec, ok := state.Specs.Get(v, key)
	if !ok {
		return nil, false
	}
	rec, _ := state.Record(v, key)
	t := &Task{Key: key, Spec: *spec.Value, Desired: rec.Desired, Status: rec.Status, Extras: make([]Extra, len(spec.Value.Containers))}
	if p, ok := state.Placements.Get(v, key); ok {
		place := *p.Value
		t.Placement = &place
		if h, ok := state.Hosts.Get(v, state.HostKey(place.HostID)); ok {
			t.Hostname = h.Value.Hostname
		}
	}
	t.Status.Containers = append([]lifecycle.Container(nil), t.Status.Containers...) // the row's own are shared
	return t, true
}

// record is the task's life as lifecycle has it.
func (t *Task) record() lifecycle.Record {
	facts := lifecycle.Facts{CreatedAt: t.Spec.CreatedAt, OwnInterface: t.Spec.Attached()}
	for _, c := range t.Spec.Containers {
		facts.Containers = append(facts.Containers, lifecycle.Member{Name: c.Name, Essential: c.Essential, HasHealthCheck: c.HealthCheck})
	}
	return lifecycle.Record{Facts: facts, Desired: t.Desired, Status: t.Status}
}

// container finds a container's place; -1: the task has none of that name.
func (t *Task) container(name string) int {
	for i, c := range t.Spec.Containers {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// learn takes in what the host says and the rows do not have yet.
func (t *Task) learn(st *dispatchpb.TaskStatus) {
	if st == nil {
		return
	}
	for _, c := range st.Containers {
		i := t.container(c.Name)
		if i < 0 || i >= len(t.Status.Containers) {
			continue
		}
		known := &t.Status.Containers[i]
		if known.StartedAt.IsZero() && c.StartedAt != nil {
			known.StartedAt = c.StartedAt.AsTime()
		}
		if known.FinishedAt.IsZero() && c.FinishedAt != nil {
			known.FinishedAt = c.FinishedAt.AsTime()
		}
		if c.RestartCount > known.RestartCount {
			known.RestartCount = c.RestartCount
			if c.RestartedAt != nil {
				known.RestartedAt = c.RestartedAt.AsTime()
			}
		}
		if c.HealthSince != nil && !c.HealthSince.AsTime().Before(known.HealthSince) {
			known.HealthSince, known.HealthExitCode = c.HealthSince.AsTime(), c.HealthExitCode
			known.HealthOutput = clip(strings.ToValidUTF8(c.HealthOutput, "\uFFFD"), lifecycle.ReasonLimit)
		}
	}
}

// clip keeps the end of a text.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[len(s)-n:], "")
}

// tails gathers the last lines of each container.
type tails struct {
	task *Task
	part map[string]string
}

func newTails(t *Task) *tails { return &tails{task: t, part: map[string]string{}} }

// add takes a line of output, or a part of one.
func (l *tails) add(line *dispatchpb.LogLine) {
	i := l.task.container(line.Container)
	if i < 0 {
		return
	}
	key := line.Container + "/" + line.Stream
	text := clip(l.part[key]+strings.ToValidUTF8(string(line.Text), "\uFFFD"), keptBytes)
	if line.Partial {
		l.part[key] = text
		return
	}
	delete(l.part, key)
	extra := &l.task.Extras[i]
	extra.Lines = append(extra.Lines, Line{At: line.Time.AsTime(), Stream: line.Stream, Text: text})
	size := 0
	for j := len(extra.Lines) - 1; j >= 0; j-- {
		if size += len(extra.Lines[j].Text); size > keptBytes || len(extra.Lines)-j > keptLines {
			extra.Lines = append([]Line(nil), extra.Lines[j+1:]...)
			break
		}
	}
}

// end takes what was left without a line's end.
func (l *tails) end() {
	for key := range l.part {
		container, stream, _ := strings.Cut(key, "/")
		l.add(&dispatchpb.LogLine{Container: container, Stream: stream})
	}
}

// Failed tells whether the task's end is something to look into: neither asked for, nor a job that has
// done its work.
func (t *Task) Failed() bool {
	cause, stopping := t.record().Stop()
	if !stopping {
		return false
	}
	switch cause.Code {
	case lifecycle.UserInitiated, lifecycle.ServiceSchedulerInitiated:
		return false
	case lifecycle.EssentialContainerExited:
		for i, c := range t.Status.Containers {
			if i < len(t.Spec.Containers) && t.Spec.Containers[i].Essential && (c.ExitCode == nil || *c.ExitCode != 0) {
				return true
			}
		}
		return false
	}
	return true
}
