package agent

import (
	"testing"
	"time"
)

// A task that ended while Berth was dead ended when it did, not when Berth came back to see it.
func TestExecutionStoppedWhenTheEssentialContainerDid(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	m := newMachine(testTask("a", 2), nil, false)
	drive(m, &now)
	ended := now.Add(time.Minute)
	now = now.Add(time.Hour)
	m.exited(0, ContainerState{Phase: PhaseStopped, ExitCode: 7, FinishedAt: ended}, now)
	m.advance(now)
	if !m.p.ExecutionStoppedAt.Equal(ended) {
		t.Errorf("executionStoppedAt = %v, want %v", m.p.ExecutionStoppedAt, ended)
	}
}

// A reset does not wait for containers that will not stop.
func TestKillLeavesNoTimeToStop(t *testing.T) {
	t.Parallel()
	task := testTask("a", 1)
	task.Containers[0].StopTimeoutSeconds = 120
	m := newMachine(task, nil, false)
	if got := m.patience(0); got != 2*time.Minute {
		t.Errorf("patience %v", got)
	}
	stop := cloneTask(task)
	stop.DesiredStatus, stop.Kill = statusStopped, true
	m.assign(stop)
	if got := m.patience(0); got != 0 {
		t.Errorf("patience %v after the order to kill", got)
	}
}
