package agent

import (
	"fmt"
	"time"
)

// judge finds out which of the containers that depend on others may begin, and which never will.
func (m *machine) judge(now time.Time) {
	if !m.allKnown() {
		return
	}
	for again := true; again && !m.p.Stopping; {
		again = false // until one gives up: others may have waited for it
		for i := range m.p.Containers {
			c := &m.p.Containers[i]
			if c.Started || c.Exited || m.unblocked(i) {
				continue
			}
			switch o := m.graph.outlook(i, m.standing, now); {
			case o.ready:
				c.Unblocked = true
				m.touch(now, false)
			case o.never != "":
				m.blocked(i, o, now)
				again = true
			}
		}
	}
}

// unblocked says whether what container i depends on was met. Once it was, it does not matter any more.
func (m *machine) unblocked(i int) bool {
	return len(m.graph.needs[i]) == 0 || m.p.Containers[i].Unblocked
}

// standing is how container i stands for those that depend on it. A container between an exit and a
// restart has not ended.
func (m *machine) standing(i int) standing {
	c := &m.p.Containers[i]
	return standing{
		created: m.created[i] || !c.CreatedAt.IsZero(), started: c.Started, startedAt: c.StartedAt,
		ended: c.Exited, exitCode: c.ExitCode, health: c.Health,
		startTimeout: time.Duration(m.task.Containers[i].StartTimeoutSeconds) * time.Second,
	}
}

// exitBlocked is what Amazon's agent gives as the exit code of a container that it could never start for
// want of another: that of SIGTERM.
const exitBlocked = 143

// blocked ends a container that will never be started.
func (m *machine) blocked(i int, o outlook, now time.Time) {
	verb := "failed to resolve "
	if o.never == neverTimedOut {
		verb = ""
	}
	reason := fmt.Sprintf("CannotStartContainerError: dependency graph: %scontainer ordering dependency [%s] for target [%s] %s",
		verb, m.describe(o.on.on), m.describe(i), o.never)
	m.p.Containers[i].Reason = reason
	m.ended(i, exit{Code: exitBlocked, At: now}, now)
	if m.task.Containers[i].Essential {
		m.stop(reason, now)
	}
}

// describe is a container in the way Amazon's agent prints one in its errors.
func (m *machine) describe(i int) string {
	c, cp := m.task.Containers[i], &m.p.Containers[i]
	known, desired, code := "NONE", "RUNNING", ""
	switch {
	case cp.Exited:
		known, desired = "STOPPED", "STOPPED"
		if cp.ExitCode >= 0 {
			code = fmt.Sprintf(" - Exit: %d", cp.ExitCode)
		}
	case cp.Started:
		known = "RUNNING"
	case !cp.CreatedAt.IsZero():
		known = "CREATED"
	case cp.Image != nil:
		known = "PULLED"
	}
	return fmt.Sprintf("%s(%s) (%s->%s)%s", c.Name, c.Image, known, desired, code)
}

// planLaunch brings up what is not up, each container as far as its own dependencies allow.
func (m *machine) planLaunch(want func(kind, int), at func(time.Time)) {
	p := m.p
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Exited {
			if !c.Started && m.begun(doCreate, i) && m.saved >= m.urgent {
				want(doDelete, i) // it was given up; whatever there is of it does not stay
			}
			continue
		}
		if c.Image == nil && m.pulls(i) {
			want(doPull, i)
		}
		if !c.Started || m.resumed {
			want(doAttach, i) // of a container that runs: in case the logger does not know it any more
		}
		if m.connects() && (!c.Started && m.unblocked(i) || c.Started && m.resumed) {
			want(doConnect, i) // of a container that runs: so that its ports are held
		}
		if m.wantsVariables(i) {
			want(doEnvironment, i)
		}
	}
	if !p.StartedAt.IsZero() {
		return
	}
	want(doPrepare, theTask)
	if m.hasInterface() {
		want(doNetwork, theTask)
	}
	if len(m.task.Volumes) > 0 {
		want(doVolumes, theTask)
	}
	for i := range p.Containers {
		if !m.p.Containers[i].Started && !m.p.Containers[i].Exited && !m.unblocked(i) {
			if o := m.graph.outlook(i, m.standing, time.Time{}); !o.until.IsZero() {
				at(o.until)
			}
		}
		if !m.launchable(i) {
			continue
		}
		// Only now: a slow pull, or a long wait for another container, holds up no other task's launch.
		if want(doAdmit, theTask); !m.done[step{doAdmit, theTask}] {
			return
		}
		switch {
		case !m.created[i]:
			want(doCreate, i)
		case m.saved > 0: // nothing starts that a crash would make the host forget
			want(doStart, i)
		}
	}
}

// launchable says whether everything is there for container i to be created and started.
func (m *machine) launchable(i int) bool {
	c := &m.p.Containers[i]
	if c.Started || c.Exited || c.Image == nil || !m.unblocked(i) {
		return false
	}
	return m.done[step{doPrepare, theTask}] && m.done[step{doAttach, i}] &&
		(!m.hasInterface() || m.done[step{doNetwork, theTask}]) &&
		(len(m.task.Volumes) == 0 || m.done[step{doVolumes, theTask}]) &&
		(!m.connects() || m.done[step{doConnect, i}]) &&
		(!m.wantsVariables(i) || m.done[step{doEnvironment, i}])
}

// holdsPlace says whether the task needs its place among the launches under way on the host. One that
// waits for a container to complete, or for an image, does not.
func (m *machine) holdsPlace() bool {
	for s := range m.running {
		if s.kind == doAdmit || s.kind == doCreate || s.kind == doStart {
			return true
		}
	}
	if m.p.Stopping || !m.p.StartedAt.IsZero() {
		return false
	}
	for i := range m.p.Containers {
		if m.launchable(i) {
			return true
		}
	}
	return false
}

// releasePlace takes the place back: the next container that is launchable asks for one again.
func (m *machine) releasePlace() { delete(m.done, step{doAdmit, theTask}) }

// pulls says whether container i pulls its image now, rather than an earlier one with the same.
func (m *machine) pulls(i int) bool {
	may := func(k int) bool {
		return !m.p.Containers[k].Exited && (m.p.Containers[k].Started || m.pullUpfront || m.unblocked(k))
	}
	if !may(i) {
		return false
	}
	for k := range i {
		if m.task.Containers[k].Image == m.task.Containers[i].Image && m.p.Containers[k].Image == nil && may(k) {
			return false
		}
	}
	return true
}

// wantsVariables says whether the environment files of container i are needed: for itself, or for those
// that are linked to it and yet to start.
func (m *machine) wantsVariables(i int) bool {
	if len(m.task.Containers[i].EnvironmentFiles) == 0 {
		return false
	}
	if c := &m.p.Containers[i]; !c.Started {
		return !c.Exited && m.unblocked(i)
	}
	for _, u := range m.graph.users[i] {
		if c := &m.p.Containers[u]; !c.Started && !c.Exited && len(m.task.Containers[u].Links) > 0 {
			return true
		}
	}
	return false
}

// hasInterface says whether the task has one namespace for all of its containers, with an interface.
func (m *machine) hasInterface() bool { return m.task.NetworkMode == networkAWSVPC }

// connects says whether each container has a namespace of its own, on the host's bridge.
func (m *machine) connects() bool { return m.task.NetworkMode == networkBridge }
