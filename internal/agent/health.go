package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// startInterval is how often Docker looks at a container in its start period that was never healthy.
const startInterval = 5 * time.Second

// maxHealthOutput bounds what is kept of a check's output, in bytes; its end is kept.
const maxHealthOutput = 1024

// healthRun is what is known of a container's checks beyond their durable outcome.
type healthRun struct {
	next     time.Time // check
	streak   int       // failures in a row that count
	exitCode int       // of the last check
	output   string
	at       time.Time
}

// healthCommand is what a check runs; nil: there is no check. As in Docker a list that begins with
// neither CMD nor CMD-SHELL is none.
func healthCommand(c *dispatchpb.Container) []string {
	switch command := c.GetHealthCheck().GetCommand(); {
	case len(command) < 2:
		return nil
	case command[0] == "CMD":
		return command[1:]
	case command[0] == "CMD-SHELL":
		return []string{"/bin/sh", "-c", command[1]}
	default:
		return nil
	}
}

// scheduleCheck sets when a container that runs is first looked at: one interval after its process began.
// If that is past, as after a restart of the agent, it goes on in the same rhythm: that keeps apart the
// checks of a host's many containers.
func (m *machine) scheduleCheck(i int, now time.Time) {
	c := &m.p.Containers[i]
	if !c.Started || c.Exited || healthCommand(m.task.Containers[i]) == nil {
		return
	}
	if c.Health == "" {
		c.Health, c.HealthSince = healthUnknown, c.StartedAt
	}
	began := m.processStart(i)
	next := began.Add(m.checkInterval(i, began))
	if late := now.Sub(next); late > 0 {
		every := max(m.checkInterval(i, now), time.Second)
		next = next.Add((late + every - 1).Truncate(every))
	}
	m.health[i] = healthRun{next: next}
}

// checkInterval is how long after a moment a container is looked at again.
func (m *machine) checkInterval(i int, after time.Time) time.Duration {
	every := time.Duration(m.task.Containers[i].HealthCheck.IntervalSeconds) * time.Second
	if m.inStartPeriod(i, after) {
		return min(every, startInterval)
	}
	return every
}

// inStartPeriod says whether a failure does not count: the container was not healthy yet, and may take
// longer to be.
func (m *machine) inStartPeriod(i int, at time.Time) bool {
	period := time.Duration(m.task.Containers[i].HealthCheck.StartPeriodSeconds) * time.Second
	return m.p.Containers[i].Health == healthUnknown && at.Before(m.processStart(i).Add(period))
}

func (m *machine) planChecks(now time.Time, want func(kind, int), at func(time.Time)) {
	for i := range m.p.Containers {
		if c := &m.p.Containers[i]; !c.Started || c.Exited || c.Restart != nil {
			continue
		}
		switch next := m.health[i].next; {
		case next.IsZero():
		case now.Before(next):
			at(next)
		default:
			want(doCheck, i)
		}
	}
}

// checked takes the outcome of a check. The rules are Docker's: one success is health, retries failures
// in a row are the lack of it, and in between the container is what it was.
func (m *machine) checked(i int, r result, now time.Time) {
	c, h := &m.p.Containers[i], &m.health[i]
	if c.Exited || c.Restart != nil || c.RestartCount != r.restarts {
		return // it was of a process that is gone
	}
	h.next = now.Add(m.checkInterval(i, now))
	if m.p.Stopping || errors.Is(r.err, context.Canceled) {
		return
	}
	check := m.task.Containers[i].HealthCheck
	h.exitCode, h.output, h.at = r.exitCode, tail(r.output), now
	switch {
	case timedOut(r.err):
		h.exitCode = -1
		h.output = fmt.Sprintf("Health check exceeded timeout (%s)", time.Duration(check.TimeoutSeconds)*time.Second)
	case r.err != nil:
		h.exitCode, h.output = -1, r.err.Error()
	}
	if h.exitCode == 0 {
		h.streak = 0
		m.setHealth(i, healthHealthy, 0, h.output, now, now)
		h.next = now.Add(m.checkInterval(i, now)) // it may have ended the start period
		return
	}
	if m.inStartPeriod(i, now) {
		return
	}
	if h.streak++; int64(h.streak) >= max(check.Retries, 1) {
		m.setHealth(i, healthUnhealthy, h.exitCode, h.output, now, now)
	}
}

// setHealth notes a change of health. What leaves it as it was is not kept: a report for each check would
// be one for nothing.
func (m *machine) setHealth(i int, health string, exitCode int, output string, since, now time.Time) {
	c := &m.p.Containers[i]
	if c.Health == health {
		return
	}
	c.Health, c.HealthSince, c.HealthExitCode, c.HealthOutput = health, since, exitCode, output
	m.touch(now, false)
}

// tail is the end of a check's output, as text.
func tail(output []byte) string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(output), "\uFFFD"))
	if len(s) > maxHealthOutput {
		s = s[len(s)-maxHealthOutput:]
		for len(s) > 0 && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return s
}
