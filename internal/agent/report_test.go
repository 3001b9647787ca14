package agent

import (
	"testing"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// In mode bridge a task has an interface and an address, and no attachment that clients would see.
func TestBridgeTaskHasAnInterfaceAndNoAttachment(t *testing.T) {
	t.Parallel()
	task := &dispatchpb.Task{
		NetworkMode:      networkBridge,
		NetworkInterface: &dispatchpb.NetworkInterface{PrivateIpv4: "172.31.0.9", PrivateDnsName: "ip-172-31-0-9.ec2.internal"},
		Containers:       []*dispatchpb.Container{{Name: "app"}},
	}
	if !hasInterface(task) {
		t.Error("no interface")
	}
	st := report(task, &progress{Containers: make([]containerProgress, 1), Networked: true})
	if st.AttachmentStatus != "" || st.AttachmentId != "" {
		t.Errorf("attachment %q is %q", st.AttachmentId, st.AttachmentStatus)
	}
	if name := containerHostname(task, 0, "host"); name == "host" || name == "ip-172-31-0-9.ec2.internal" {
		t.Errorf("host name %q is not the container's own", name)
	}
}

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
