package agent

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// ECS's task and container statuses, as far as an agent reports them.
const (
	statusPending        = "PENDING"
	statusActivating     = "ACTIVATING"
	statusRunning        = "RUNNING"
	statusStopping       = "STOPPING"
	statusDeprovisioning = "DEPROVISIONING"
	statusStopped        = "STOPPED"
)

// ECS's network modes.
const (
	networkNone   = "none"
	networkHost   = "host"
	networkAWSVPC = "awsvpc"
	networkBridge = "bridge"
)

// maxReason is how many bytes of a reason Amazon's agent passes on.
const maxReason = 1024

// lastStatus is the task's status. It only moves forward: every condition below, once true, stays so,
// and they are asked last first.
func (p *progress) lastStatus() string {
	switch {
	case !p.StoppedAt.IsZero():
		return statusStopped
	case p.Clearing:
		return statusDeprovisioning
	case p.Stopping:
		return statusStopping
	case !p.StartedAt.IsZero():
		return statusRunning
	default:
		return statusActivating
	}
}

// report is what the server is told. It follows from the assignment and the progress alone, so it
// needs no storage of its own.
func report(t *dispatchpb.Task, p *progress) *dispatchpb.TaskStatus {
	st := &dispatchpb.TaskStatus{
		Arn:                t.Arn,
		Version:            p.Version,
		LastStatus:         p.lastStatus(),
		Reason:             trim(p.StopReason),
		PullStartedAt:      stamp(p.PullStartedAt),
		PullStoppedAt:      stamp(p.PullStoppedAt),
		StartedAt:          stamp(p.StartedAt),
		ExecutionStoppedAt: stamp(p.ExecutionStoppedAt),
		StoppedAt:          stamp(p.StoppedAt),
		Containers:         make([]*dispatchpb.ContainerStatus, len(t.Containers)),
	}
	if t.NetworkMode == networkAWSVPC {
		st.AttachmentId = t.NetworkInterface.GetAttachmentId()
		switch {
		case !p.StoppedAt.IsZero():
			st.AttachmentStatus = "DETACHED"
		case p.Networked:
			st.AttachmentStatus = "ATTACHED"
		default:
			st.AttachmentStatus = "ATTACHING"
		}
	}
	for i, c := range t.Containers {
		cp := &p.Containers[i]
		cs := &dispatchpb.ContainerStatus{
			Name:         c.Name,
			LastStatus:   statusPending,
			Reason:       trim(cp.Reason),
			CreatedAt:    stamp(cp.CreatedAt),
			StartedAt:    stamp(cp.StartedAt),
			FinishedAt:   stamp(cp.FinishedAt),
			RestartedAt:  stamp(cp.RestartedAt),
			RestartCount: cp.RestartCount,
			GpuIds:       c.GpuIds,
		}
		if cp.Image != nil {
			cs.ImageDigest, cs.ImageId = cp.Image.Digest, cp.Image.ID
		}
		if n := cp.Connection; n != nil {
			cs.PrivateIpv4, cs.GatewayIpv4, cs.MacAddress = n.IPv4, n.Gateway, n.MAC
		}
		if cp.Started {
			cs.LastStatus = statusRunning
			cs.RuntimeId = containerID(t, i)
			if t.NetworkMode == networkHost {
				cs.NetworkBindings = c.PortMappings
			} else if cp.Connection != nil {
				for _, b := range cp.Connection.Bindings {
					cs.NetworkBindings = append(cs.NetworkBindings, b.message())
				}
			}
		}
		if healthCommand(c) != nil {
			cs.HealthStatus = cmp.Or(cp.Health, healthUnknown)
			cs.HealthSince, cs.HealthExitCode, cs.HealthOutput = stamp(cp.HealthSince), int32(cp.HealthExitCode), cp.HealthOutput
		}
		if cp.Exited || !p.StoppedAt.IsZero() {
			cs.LastStatus = statusStopped
		}
		if cp.Exited && cp.ExitCode >= 0 {
			cs.HasExitCode, cs.ExitCode = true, int32(cp.ExitCode)
		}
		st.Containers[i] = cs
	}
	return st
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// trim keeps a reason within maxReason bytes and within UTF-8.
func trim(s string) string {
	if len(s) <= maxReason {
		return s
	}
	cut := maxReason
	for cut > 0 && s[cut]&0xC0 == 0x80 { // a continuation byte: step back to the character's start
		cut--
	}
	return s[:cut]
}
