package ecs

import (
	"context"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
)

// Calls that Amazon's agent makes. Berth's own agent needs none of them: it has a stream to its server,
// and its host becomes a container instance of each cluster that uses it.

// RegisterContainerInstance answers an instance that is registered, as to an agent that starts again.
// What is not one of Berth's hosts cannot join this way.
func (s *Service) RegisterContainerInstance(ctx context.Context, in *ecs.RegisterContainerInstanceInput) (*ecs.RegisterContainerInstanceOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	ref := api.Value(in.ContainerInstanceArn)
	if ref == "" {
		return nil, clientError("Only hosts that run Berth's own agent can be container instances, and those register themselves.")
	}
	row, ok := findInstance(snap, cluster.Key, ref)
	if !ok || row.Value.Status == inactive {
		return nil, clientError("Referenced container instance %s not registered.", shortID(ref))
	}
	ci := s.describeInstance(snap, row)
	ci.Tags = tagsOf(snap, sc, row.Value.ARN)
	return &ecs.RegisterContainerInstanceOutput{ContainerInstance: &ci}, nil
}

// DiscoverPollEndpoint would say where Amazon's agent is to poll. There is no such place.
func (s *Service) DiscoverPollEndpoint(ctx context.Context, in *ecs.DiscoverPollEndpointInput) (*ecs.DiscoverPollEndpointOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.cluster(s.store.Snapshot(), sc, in.Cluster); err != nil {
		return nil, err
	}
	return nil, clientError("Berth has no endpoint that Amazon's agent could poll: its hosts run an agent of Berth's own.")
}

// UpdateContainerAgent never finds an update: a host's agent is the binary that the host runs.
func (s *Service) UpdateContainerAgent(ctx context.Context, in *ecs.UpdateContainerAgentInput) (*ecs.UpdateContainerAgentOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	ref := api.Value(in.ContainerInstance)
	if row, ok := findInstance(snap, cluster.Key, ref); !ok || row.Value.Status == inactive {
		return nil, clientError("Referenced container instance %s not found.", shortID(ref))
	}
	return nil, &ecs.NoUpdateAvailableException{Message: "There is no update available for your container agent. Upgrade Berth on the host."}
}

// attachmentStatuses are what a host can say of an attachment.
var attachmentStatuses = []string{"PRECREATED", "CREATED", "ATTACHING", "ATTACHED", "DETACHING", "DETACHED", "DELETED", "FAILED"}

// SubmitAttachmentStateChanges takes in what a host knows of its tasks' network interfaces.
func (s *Service) SubmitAttachmentStateChanges(ctx context.Context, in *ecs.SubmitAttachmentStateChangesInput) (*ecs.SubmitAttachmentStateChangesOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.Attachments) == 0 {
		return nil, invalid("Attachments can not be empty.")
	}
	snap := s.store.Snapshot()
	cluster, ok := findCluster(snap, sc, in.Cluster)
	if !ok {
		return nil, &ecs.ClusterNotFoundException{Message: "Cluster not found."}
	}
	for _, a := range in.Attachments {
		if !slices.Contains(attachmentStatuses, api.Value(a.Status)) {
			return nil, invalid("Invalid status: %s", api.Value(a.Status))
		}
		found := false
		for spec := range state.Specs.List(snap, sc, cluster.ID+"/") {
			if found = spec.Value.Attached() && shortID(api.Value(a.AttachmentArn)) == spec.Value.Interface.AttachmentID; found {
				if err := s.report(ctx, spec.Key, []ecs.AttachmentStateChange{a}, lifecycle.Report{}); err != nil {
					return nil, err
				}
				break
			}
		}
		if !found {
			return nil, invalid("The referenced attachment was not found.")
		}
	}
	return &ecs.SubmitAttachmentStateChangesOutput{Acknowledgment: &acknowledgment}, nil
}

// shortID is the last part of an ARN, or the ID itself.
func shortID(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }
