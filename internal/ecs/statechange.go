package ecs

import (
	"context"
	"reflect"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// acknowledgment is what ECS answers to a state change.
var acknowledgment = "ACK"

// SubmitTaskStateChange takes in what a host knows of a task. It is the only writer of a task's status.
// Reports may come late, twice or out of order: lifecycle moves forward only.
func (s *Service) SubmitTaskStateChange(ctx context.Context, in *ecs.SubmitTaskStateChangeInput) (*ecs.SubmitTaskStateChangeOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	cluster, ok := findCluster(s.store.Snapshot(), sc, in.Cluster)
	if !ok {
		return nil, &ecs.ClusterNotFoundException{Message: "Cluster not found."}
	}
	id, ok := resourceID(sc, "task", cluster.ID, api.Value(in.Task))
	if !ok {
		return nil, invalid("The referenced task was not found.")
	}
	status, ok := lifecycle.ParseState(api.Value(in.Status))
	if !ok && in.Status != nil {
		return nil, invalid("Invalid status: %s", *in.Status)
	}
	report := lifecycle.Report{
		LastStatus: status, Reason: api.Value(in.Reason),
		PullStartedAt: api.Value(in.PullStartedAt), PullStoppedAt: api.Value(in.PullStoppedAt),
		ExecutionStoppedAt: api.Value(in.ExecutionStoppedAt),
	}
	for _, c := range in.Containers {
		report.Containers = append(report.Containers, containerReport(&c))
	}
	if err := s.report(ctx, state.TaskKey(sc, cluster.ID, id), in.Attachments, report); err != nil {
		return nil, err
	}
	return &ecs.SubmitTaskStateChangeOutput{Acknowledgment: &acknowledgment}, nil
}

func containerReport(c *ecs.ContainerStateChange) lifecycle.ContainerReport {
	out := lifecycle.ContainerReport{
		Name: api.Value(c.ContainerName), RuntimeID: api.Value(c.RuntimeId),
		LastStatus: lifecycle.ContainerState(api.Value(c.Status)), ExitCode: c.ExitCode,
		Reason: api.Value(c.Reason), ImageDigest: api.Value(c.ImageDigest),
	}
	for _, b := range c.NetworkBindings {
		out.Bindings = append(out.Bindings, lifecycle.Binding{
			BindIP: api.Value(b.BindIP), ContainerPort: api.Value(b.ContainerPort),
			HostPort: api.Value(b.HostPort), Protocol: string(b.Protocol),
			ContainerPortRange: api.Value(b.ContainerPortRange), HostPortRange: api.Value(b.HostPortRange),
		})
	}
	return out
}

// SubmitContainerStateChange takes in what a host knows of one container.
func (s *Service) SubmitContainerStateChange(ctx context.Context, in *ecs.SubmitContainerStateChangeInput) (*ecs.SubmitContainerStateChangeOutput, error) {
	_, err := s.SubmitTaskStateChange(ctx, &ecs.SubmitTaskStateChangeInput{
		Cluster: in.Cluster, Task: in.Task,
		Containers: []ecs.ContainerStateChange{{
			ContainerName: in.ContainerName, RuntimeId: in.RuntimeId, Status: in.Status,
			ExitCode: in.ExitCode, Reason: in.Reason, NetworkBindings: in.NetworkBindings,
		}},
	})
	if err != nil {
		return nil, err
	}
	return &ecs.SubmitContainerStateChangeOutput{Acknowledgment: &acknowledgment}, nil
}

// report applies a report to a task's status. The API's reports carry no number, so each counts as the
// newest; one that says nothing new is not written.
func (s *Service) report(ctx context.Context, key store.Key, attachments []ecs.AttachmentStateChange, rep lifecycle.Report) error {
	_, err := s.store.Update(ctx, func(tx *store.Tx) error {
		rec, ok := state.Record(tx, key)
		if !ok {
			return invalid("The referenced task was not found.")
		}
		rep.Version = rec.Status.Reported + 1
		if spec, _ := state.Specs.Get(tx, key); spec.Value.Attached() {
			for _, a := range attachments {
				if strings.HasSuffix(api.Value(a.AttachmentArn), spec.Value.Interface.AttachmentID) {
					rep.Attachment = lifecycle.AttachmentState(api.Value(a.Status))
				}
			}
		}
		next, changed := lifecycle.Apply(rec, rep, time.Now().UTC())
		if !changed {
			return nil
		}
		same := next.Status
		same.Reported = rec.Status.Reported
		// A host that speaks of a task given up as of one that lives is to be told: the write, though it
		// says nothing new, brings the task up with the host's payloads.
		lives := rec.Status.LastStatus == lifecycle.Stopped && rep.LastStatus.Before(lifecycle.Stopped) && rep.LastStatus != ""
		if rec.Status.Reported > 0 && reflect.DeepEqual(same, rec.Status) && !lives {
			return nil
		}
		state.Statuses.Put(tx, key, &next.Status)
		return nil
	})
	return err
}
