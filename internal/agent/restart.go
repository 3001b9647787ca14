package agent

import (
	"slices"
	"time"
)

// exit is the end of a container's process.
type exit struct {
	Code int       `json:"code"` // -1: unknown
	At   time.Time `json:"at"`
	OOM  bool      `json:"oom,omitempty"` // it was killed for its use of memory
}

// A restart has three moments: the exit that calls for it is noted, durably; the process is run again;
// that it was is noted. A run of the agent that finds the first without the last asks the runtime which
// process there is: one that runs, or that ended later than the one noted, is the next.

// restarts says whether the restart policy of container i has it run again after an exit. As with
// Amazon's agent that is so if the task is to go on, the exit code is known and not to be ignored, and
// the process has run for the attempt period.
func (m *machine) restarts(i int, e exit) bool {
	policy := m.task.Containers[i].RestartPolicy
	if !policy.GetEnabled() || m.p.Stopping || e.Code < 0 || slices.Contains(policy.IgnoredExitCodes, int32(e.Code)) {
		return false
	}
	return e.At.Sub(m.processStart(i)) >= time.Duration(policy.AttemptPeriodSeconds)*time.Second
}

// processStart is when the container's present process began.
func (m *machine) processStart(i int) time.Time {
	c := &m.p.Containers[i]
	if !c.RestartedAt.IsZero() {
		return c.RestartedAt
	}
	return c.StartedAt
}

func (m *machine) planRestarts(want func(kind, int)) {
	for i := range m.p.Containers {
		if m.p.Containers[i].Restart != nil && !m.suspect[i] && !m.running[step{doInspect, i}] && m.saved >= m.urgent {
			want(doRestart, i)
		}
	}
}

// restarted notes that the container's process runs again.
func (m *machine) restarted(i int, at, now time.Time) {
	c := &m.p.Containers[i]
	if c.Restart == nil || c.Exited {
		return
	}
	if at.Before(c.Restart.At) { // a runtime that still tells of the first start, or says nothing
		at = now
	}
	c.Restart, c.RestartedAt = nil, at
	c.RestartCount++
	m.botched[i], m.killed[i], m.oom[i] = false, time.Time{}, false
	if c.Health != "" {
		m.setHealth(i, healthUnknown, 0, "", at, now)
	}
	m.scheduleCheck(i, now)
	m.touch(now, true)
}

// settleRestarts makes exits final that a restart was to follow, once the task is on its way down.
func (m *machine) settleRestarts(now time.Time) {
	if !m.p.Stopping {
		return
	}
	for i := range m.p.Containers {
		c := &m.p.Containers[i]
		if c.Restart != nil && m.known[i] && !m.suspect[i] && !m.running[step{doRestart, i}] && !m.running[step{doInspect, i}] {
			m.ended(i, *c.Restart, now)
		}
	}
}
