package agent

import "time"

// planStop tells the containers to stop, each after those that depend on it, and kills those that do not
// listen.
func (m *machine) planStop(now time.Time, want func(kind, int), at func(time.Time)) {
	for i := range m.p.Containers {
		c := &m.p.Containers[i]
		if !c.Started || c.Exited || c.Restart != nil || !m.known[i] {
			continue
		}
		switch deadline := c.SignaledAt.Add(m.patience(i)); {
		case c.SignaledAt.IsZero():
			if m.task.Kill || m.graph.mayStop(i, m.down) {
				want(doSignal, i)
			}
		case now.Before(deadline):
			at(deadline)
		case m.killed[i].IsZero() || !now.Before(m.killed[i].Add(killPatience)):
			want(doKill, i)
		default:
			at(m.killed[i].Add(killPatience))
		}
	}
}

// down says whether nothing of a container runs, or will, in a task that stops.
func (m *machine) down(i int) bool {
	c := &m.p.Containers[i]
	if c.Exited {
		return true
	}
	return !c.Started && m.known[i] && !m.running[step{doCreate, i}] && !m.running[step{doStart, i}]
}

// patience is how long a container may take to stop before it is killed.
func (m *machine) patience(i int) time.Duration {
	if m.task.Kill {
		return 0
	}
	if s := m.task.Containers[i].StopTimeoutSeconds; s > 0 {
		return time.Duration(s) * time.Second
	}
	return m.stopTimeout
}

// begun says whether a step may have left something behind, in this run of the agent or an earlier.
func (m *machine) begun(k kind, i int) bool {
	s := step{k, i}
	return m.resumed || m.done[s] || m.failed[s].tries > 0
}

// planClearing undoes what was made, once it is durable that no container runs and how each ended.
func (m *machine) planClearing(want func(kind, int), at func(time.Time)) {
	if m.saved < m.urgent {
		return // exit codes are durable before their source is deleted
	}
	at(m.clearingAt.Add(clearTimeout))
	for s, after := range m.clearing {
		ready := true
		for _, a := range after {
			ready = ready && (m.done[a] || a.kind == doDelete && !m.begun(doCreate, a.container))
		}
		if ready {
			want(s.kind, s.container)
		}
	}
}

// clearing lists what must be undone, each with what must be undone before it.
func (m *machine) clearing(yield func(s step, after []step) bool) {
	deletes := make([]step, 0, len(m.task.Containers))
	for i := range m.task.Containers {
		remove := step{doDelete, i}
		if m.begun(doCreate, i) {
			deletes = append(deletes, remove)
			if !yield(remove, nil) {
				return
			}
		}
		// The shim holds the FIFOs open until the container is deleted, so the output's end is seen
		// only then.
		if m.begun(doAttach, i) && !yield(step{doDetach, i}, []step{remove}) {
			return
		}
	}
	for i := range m.task.Containers {
		if m.connects() && m.begun(doConnect, i) && !yield(step{doDisconnect, i}, []step{{doDelete, i}}) {
			return
		}
	}
	if m.hasInterface() && m.begun(doNetwork, theTask) && !yield(step{doTeardown, theTask}, deletes) {
		return
	}
	if m.providesVolumes() && !yield(step{doRelease, theTask}, deletes) {
		return
	}
	if m.begun(doPrepare, theTask) && yield(step{doRemove, theTask}, deletes) {
		yield(step{doFiles, theTask}, []step{{doRemove, theTask}})
	}
}

// providesVolumes says whether the task may have volumes: its own, or those that its images want.
func (m *machine) providesVolumes() bool {
	if len(m.task.Volumes) > 0 && m.begun(doVolumes, theTask) {
		return true
	}
	for i := range m.p.Containers {
		if img := m.p.Containers[i].Image; img != nil && len(img.Volumes) > 0 && m.begun(doCreate, i) {
			return true
		}
	}
	return false
}

// cleared says whether the clearing has come to its end. No container runs by then. Should a room
// keep failing for clearTimeout, the task stops all the same, and what is left is for the sweep.
func (m *machine) cleared(now time.Time) bool {
	late := now.Sub(m.clearingAt) >= clearTimeout
	for s := range m.clearing {
		if !m.done[s] && (!late || m.running[s]) {
			return false
		}
	}
	return true
}
