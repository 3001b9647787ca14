package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
)

// Explanation is why a task is as it is, or why a run found no place: what a person wants to know, in
// order.
type Explanation struct {
	Kind       string    `json:"kind"` // task or run
	ID         string    `json:"id"`
	ARN        string    `json:"arn,omitempty"`
	Cluster    string    `json:"cluster"`
	Definition string    `json:"definition"` // family:revision
	LaunchType string    `json:"launchType"`
	Host       string    `json:"host,omitempty"`
	State      string    `json:"state"` // lastStatus, or NOT PLACED
	Desired    string    `json:"desired,omitempty"`
	Code       string    `json:"stopCode,omitempty"`
	Reason     string    `json:"stoppedReason,omitempty"` // as DescribeTasks has it
	At         time.Time `json:"at"`                      // since when it is in that state
	Why        string    `json:"why"`                     // one plain sentence
	Hints      []string  `json:"hints,omitempty"`         // what to do about it

	Waiting    []Waiting       `json:"waiting,omitempty"`
	Timeline   []Step          `json:"timeline,omitempty"`
	LeftOut    int             `json:"leftOut,omitempty"` // steps in the middle of the timeline that were not kept
	Containers []ContainerFate `json:"containers,omitempty"`
	Notes      []string        `json:"notes,omitempty"` // about the explanation itself

	Needs    string    `json:"needs,omitempty"`    // of a run: what each task asks of a host
	Verdicts []Verdict `json:"verdicts,omitempty"` // of a run: nearest host first
}

// Waiting is something that a task waits for.
type Waiting struct {
	Container string    `json:"container,omitempty"` // empty: the task
	For       string    `json:"for"`
	Since     time.Time `json:"since,omitzero"`
	Deadline  time.Time `json:"deadline,omitzero"` // zero: there is none
	Then      string    `json:"then,omitempty"`    // what happens at the deadline
}

// Step is an entry of a timeline.
type Step struct {
	At        time.Time     `json:"at"`
	After     time.Duration `json:"afterNanoseconds"` // the step before
	Container string        `json:"container,omitempty"`
	What      string        `json:"what"`
	Cause     string        `json:"cause,omitempty"`
	By        string        `json:"by,omitempty"`
}

// ContainerFate is what became of a container.
type ContainerFate struct {
	Name         string        `json:"name"`
	Image        string        `json:"image"`
	Digest       string        `json:"digest,omitempty"`
	Essential    bool          `json:"essential"`
	Status       string        `json:"status"`
	ExitCode     *int32        `json:"exitCode,omitempty"`
	ExitMeaning  string        `json:"exitMeaning,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	OutOfMemory  bool          `json:"outOfMemory,omitempty"`
	Restarts     int64         `json:"restarts,omitempty"`
	Ran          time.Duration `json:"ranNanoseconds,omitempty"` // so far, or until its end
	Health       string        `json:"health,omitempty"`         // empty: it has no check
	HealthOutput string        `json:"healthOutput,omitempty"`
	Output       []Line        `json:"output,omitempty"`
}

// Live is what is known of a task beyond its record, because it still lives.
type Live struct {
	Waiting []Waiting
	Problem string // why its host could not be asked; empty: it was
}

// Explain explains a task at a moment. Live is nil for one from the archive.
func (t *Task) Explain(live *Live, now time.Time) Explanation {
	rec := t.record()
	st := &t.Status
	e := Explanation{
		Kind: "task", ID: t.Spec.ID, ARN: t.Spec.ARN, Cluster: t.Spec.Cluster,
		Definition: fmt.Sprintf("%s:%d", t.Spec.Family, t.Spec.Revision), LaunchType: string(t.Spec.LaunchType),
		Host: t.Hostname, State: string(st.LastStatus), Desired: string(rec.DesiredStatus()), LeftOut: st.TimelineDropped,
	}
	if e.Host == "" && t.Placement != nil {
		e.Host = t.Placement.HostID
	}
	if cause, ok := rec.Stop(); ok {
		e.Code, e.Reason = string(cause.Code), cause.Reason
	}
	if live != nil {
		e.Waiting = live.Waiting
		if live.Problem != "" {
			e.Notes = append(e.Notes, "what the task does this moment is not known: "+live.Problem)
		}
	}
	e.Timeline = t.steps()
	for i, c := range t.Spec.Containers {
		if i < len(st.Containers) {
			e.Containers = append(e.Containers, t.fate(i, c.HealthCheck, now))
		}
	}
	e.At = t.since()
	e.Why = t.why(&e, now)
	e.Hints = t.hints()
	if t.NoOutput != "" {
		e.Notes = append(e.Notes, "no output: "+t.NoOutput)
	}
	return e
}

// since is when the task came to its state.
func (t *Task) since() time.Time {
	at := t.Spec.CreatedAt
	for _, s := range t.Status.Timeline {
		if s.Container == "" && s.What == string(t.Status.LastStatus) {
			at = s.At
		}
	}
	if t.Status.LastStatus == lifecycle.Stopped {
		return t.Status.StoppedAt
	}
	return at
}

func (t *Task) fate(i int, checked bool, now time.Time) ContainerFate {
	spec, c, x := t.Spec.Containers[i], t.Status.Containers[i], t.Extras[i]
	f := ContainerFate{
		Name: spec.Name, Image: spec.Image, Digest: c.ImageDigest, Essential: spec.Essential, Status: string(c.LastStatus),
		ExitCode: c.ExitCode, Reason: c.Reason, Restarts: c.RestartCount, Output: x.Lines,
		OutOfMemory: strings.HasPrefix(c.Reason, "OutOfMemoryError"),
	}
	if c.ExitCode != nil {
		f.ExitMeaning = exitMeaning(*c.ExitCode)
	}
	start, end := t.ran(i)
	switch {
	case start.IsZero():
	case !end.IsZero():
		f.Ran = max(end.Sub(start), 0)
	case c.LastStatus == lifecycle.ContainerRunning:
		f.Ran = max(now.Sub(start), 0)
	}
	if checked && (c.Health != lifecycle.Unknown || c.LastStatus == lifecycle.ContainerRunning) {
		f.Health = string(c.Health)
		if c.Health == lifecycle.Unhealthy {
			f.HealthOutput = c.HealthOutput
		}
	}
	return f
}

// ran is from when to when a container ran, as far as it is known.
func (t *Task) ran(i int) (start, end time.Time) {
	c := t.Status.Containers[i]
	start, end = c.StartedAt, c.FinishedAt
	for _, s := range t.Status.Timeline {
		if s.Container != c.Name {
			continue
		}
		switch {
		case s.What == string(lifecycle.ContainerRunning) && start.IsZero():
			start = s.At
		case s.What == string(lifecycle.ContainerStopped) && end.IsZero():
			end = s.At
		}
	}
	if x := c.RestartedAt; x.After(start) && (end.IsZero() || x.Before(end)) {
		start = x
	}
	if c.LastStatus != lifecycle.ContainerStopped {
		end = time.Time{}
	}
	if start.IsZero() && c.ExitCode != nil {
		start = t.Status.StartedAt
	}
	if end.IsZero() && c.ExitCode != nil {
		end = t.Status.ExecutionStoppedAt
	}
	return start, end
}

// steps is the timeline with what the rows tell beside it.
func (t *Task) steps() []Step {
	entries := t.record().Timeline()
	entries[0].By = t.Spec.CreatedBy
	if t.Placement != nil {
		host := cmp.Or(t.Hostname, t.Placement.HostID)
		entries[0].Cause = "placed on host " + host
		if !t.Status.ConnectedAt.IsZero() {
			entries = append(entries, lifecycle.Entry{At: t.Status.ConnectedAt, What: "ACCEPTED", Cause: "by host " + host})
		}
	}
	if at := t.Status.PullStartedAt; !at.IsZero() {
		entries = append(entries, lifecycle.Entry{At: at, What: "PULL STARTED"})
		if end := t.Status.PullStoppedAt; !end.IsZero() {
			entries = append(entries, lifecycle.Entry{At: end, What: "PULL FINISHED", Cause: "took " + Duration(end.Sub(at))})
		}
	}
	slices.SortStableFunc(entries, func(a, b lifecycle.Entry) int { return a.At.Compare(b.At) })
	steps := make([]Step, len(entries))
	for i, e := range entries {
		steps[i] = Step{At: e.At, Container: e.Container, What: e.What, Cause: e.Cause, By: e.By}
		if i > 0 {
			steps[i].After = e.At.Sub(entries[i-1].At)
		}
	}
	return steps
}

// Duration is a time span for people: as precise as it matters.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Millisecond:
		return "0 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 10*time.Minute:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 100*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 10*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
