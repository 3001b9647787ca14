package lifecycle

import (
	"reflect"
	"slices"
	"time"
)

// Report is all that a host knows of a task at one moment.
type Report struct {
	Version    int64 // grows with each of the host's reports on the task; from 1
	LastStatus State // empty or not a state: no news
	// Reason is why the task stops, in ECS's words ("CannotPullContainerError: …"); empty: the host
	// was told to, or an essential container exited.
	Reason     string
	Containers []ContainerReport
	Attachment AttachmentState // empty: no news

	PullStartedAt, PullStoppedAt, StartedAt, ExecutionStoppedAt, StoppedAt time.Time
}

// ContainerReport is all that a host knows of a container. Names that the task does not have, such
// as that of a helper container, are passed over.
type ContainerReport struct {
	Name        string
	RuntimeID   string
	LastStatus  ContainerState // empty or not a state: no news
	ExitCode    *int32
	Reason      string
	ImageDigest string
	Health      Health
	StartedAt   time.Time
	FinishedAt  time.Time
	Bindings    []Binding
}

// RequestStop makes a task that should run one that should stop. A task whose end is known already
// or was requested before stays as it is, and its cause too; the answer is then false.
func RequestStop(r Record, cause Cause, now time.Time) (Record, bool) {
	if r.DesiredStatus() == Stopped {
		return r, false
	}
	cause = cause.whole()
	r.Desired = Desired{Stop: &cause, At: now, Changes: r.Desired.Changes + 1}
	return r, true
}

// Apply takes in what the host says. It answers false, and an equal record, for a report that is no
// newer than what the record has; true means the record is to be written, also when nothing in it
// that clients see has changed (its version is then the same).
//
// The record moves forward only: to a later state, from unset to set. What a stopped task's record
// lacks is still taken from a newer report.
func Apply(r Record, rep Report, now time.Time) (Record, bool) {
	if rep.Version <= r.Status.Reported {
		return r, false
	}
	old := r.Status
	s := &r.Status
	s.Containers = r.Facts.containers(s.Containers)
	s.Reported = rep.Version

	setTime(&s.ConnectedAt, now)
	setTime(&s.PullStartedAt, rep.PullStartedAt)
	setTime(&s.PullStoppedAt, rep.PullStoppedAt)
	setTime(&s.StartedAt, rep.StartedAt)
	setTime(&s.ExecutionStoppedAt, rep.ExecutionStoppedAt)
	if s.Attachment != "" && s.Attachment.before(rep.Attachment) {
		s.Attachment = rep.Attachment
	}
	for _, c := range rep.Containers {
		if i := slices.IndexFunc(s.Containers, func(have Container) bool { return have.Name == c.Name }); i >= 0 {
			s.Containers[i].merge(c)
		}
	}
	if s.LastStatus.Before(rep.LastStatus) && rep.LastStatus != Deleted {
		s.LastStatus = rep.LastStatus
	}
	if s.LastStatus == Running {
		setTime(&s.StartedAt, now)
	} else if s.allRan() {
		// A short task's RUNNING may be overtaken by its end. That all its containers have exit codes
		// says that it did run; when, it said last when its images were there.
		start := s.PullStoppedAt
		for _, c := range s.Containers {
			if c.StartedAt.After(start) {
				start = c.StartedAt
			}
		}
		setTime(&s.StartedAt, start)
		setTime(&s.StartedAt, now)
	}
	if r.ending() {
		cause := r.cause(rep.Reason)
		r.end(cause, now)
	}
	if s.LastStatus == Stopped {
		setTime(&s.StoppedAt, rep.StoppedAt)
		r.close(now)
	}
	r.countChange(old, now)
	return r, true
}

// allRan tells whether every container has run to an end. One that never ran for want of another has an
// exit code, too, but never was one of the runtime's.
func (s *Status) allRan() bool {
	return len(s.Containers) > 0 && !slices.ContainsFunc(s.Containers, func(c Container) bool { return c.ExitCode == nil || c.RuntimeID == "" })
}

// Abandon stops a task on which no host will report again: its host is gone for good, or it never
// had one. A stop that was requested, or known to be under way, keeps its cause. It answers false
// for a task that has stopped.
func Abandon(r Record, cause Cause, now time.Time) (Record, bool) {
	if r.Status.LastStatus == Stopped {
		return r, false
	}
	old := r.Status
	r.Status.Containers = r.Facts.containers(r.Status.Containers)
	if known, ok := r.Stop(); ok {
		cause = known
	}
	r.end(cause, now)
	r.Status.LastStatus = Stopped
	r.close(now)
	r.countChange(old, now)
	return r, true
}

// ending tells whether what is known of the task means its end.
func (r *Record) ending() bool {
	if !r.Status.LastStatus.Before(Deactivating) {
		return true
	}
	for i, m := range r.Facts.Containers {
		if m.Essential && r.Status.Containers[i].LastStatus == ContainerStopped {
			return true
		}
	}
	return false
}

// cause derives why the task ends: as requested, if a stop was; otherwise from what the host says
// now, so that a host that learns more can say more.
func (r *Record) cause(reported string) Cause {
	if r.Desired.Stop != nil {
		return *r.Desired.Stop
	}
	reported = TrimReason(reported)
	if reported == "" && r.Status.Stop != nil {
		return *r.Status.Stop
	}
	exited := false
	firstReason := ""
	for i, m := range r.Facts.Containers {
		c := &r.Status.Containers[i]
		exited = exited || m.Essential && c.LastStatus == ContainerStopped && c.ExitCode != nil
		if firstReason == "" {
			firstReason = c.Reason
		}
	}
	switch {
	case !r.Status.StartedAt.IsZero():
		return Cause{Code: EssentialContainerExited, Reason: reported}
	case exited && (reported == "" || reported == reasons[EssentialContainerExited]):
		// It ran and was over before all containers were up.
		return Cause{Code: EssentialContainerExited, Reason: reported}
	case reported != "":
		return Cause{Code: TaskFailedToStart, Reason: reported}
	default:
		return Cause{Code: TaskFailedToStart, Reason: firstReason}
	}
}

func (r *Record) end(cause Cause, now time.Time) {
	cause = cause.whole()
	r.Status.Stop = &cause
	setTime(&r.Status.StoppingAt, r.Desired.At)
	setTime(&r.Status.StoppingAt, now)
}

// close settles what a stopped task cannot leave open.
func (r *Record) close(now time.Time) {
	s := &r.Status
	setTime(&s.StoppedAt, now)
	for i := range s.Containers {
		s.Containers[i].LastStatus = ContainerStopped
	}
	if s.Attachment != "" {
		s.Attachment = Gone
	}
}

// countChange counts a change of anything but which report it came from, and takes down what it was.
func (r *Record) countChange(old Status, now time.Time) {
	old.Reported, old.Changes = r.Status.Reported, r.Status.Changes
	if !reflect.DeepEqual(old, r.Status) {
		r.Status.Changes++
		r.Status.ChangedAt = now
		r.Status.note(old, now)
	}
}

func (c *Container) merge(rep ContainerReport) {
	if c.LastStatus.before(rep.LastStatus) {
		c.LastStatus = rep.LastStatus
	}
	if c.ExitCode == nil && rep.ExitCode != nil {
		code := *rep.ExitCode
		c.ExitCode = &code
	}
	setString(&c.RuntimeID, rep.RuntimeID)
	setString(&c.Reason, TrimReason(rep.Reason))
	setString(&c.ImageDigest, rep.ImageDigest)
	setTime(&c.StartedAt, rep.StartedAt)
	setTime(&c.FinishedAt, rep.FinishedAt)
	if rep.Health.known() {
		c.Health = rep.Health
	}
	if len(rep.Bindings) > 0 {
		c.Bindings = slices.Clone(rep.Bindings)
	}
}

// setTime and setString keep what is set already: a fact, once reported, stays.

func setTime(t *time.Time, to time.Time) {
	if t.IsZero() {
		*t = to
	}
}

func setString(s *string, to string) {
	if *s == "" {
		*s = to
	}
}
