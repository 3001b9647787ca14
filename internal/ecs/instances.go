package ecs

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// ListContainerInstances lists a cluster's container instances. To ask for them is a use of the
// cluster, so connected hosts that have not been used by it yet are registered first.
func (s *Service) ListContainerInstances(ctx context.Context, in *ecs.ListContainerInstancesInput) (*ecs.ListContainerInstancesOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	cluster, err := s.cluster(s.store.Snapshot(), sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	if api.Value(in.Filter) != "" {
		return nil, &ecs.UnsupportedFeatureException{Message: "Berth does not implement the cluster query language yet."}
	}
	if err := s.orch.EnsureInstances(ctx, cluster.Key, *cluster.Value.ClusterArn); err != nil {
		return nil, fromOrchestrator(err)
	}
	snap := s.store.Snapshot()
	arns, next, err := page(func(yield func(string, string) bool) {
		for row := range state.ContainerInstances.List(snap, sc, cluster.ID+"/") {
			if in.Status != "" && string(in.Status) != row.Value.Status {
				continue
			}
			if !yield(row.ID, row.Value.ARN) {
				return
			}
		}
	}, in.MaxResults, 100, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListContainerInstancesOutput{ContainerInstanceArns: arns, NextToken: next}, nil
}

// DescribeContainerInstances describes hosts as a cluster sees them. What is remaining is what is left
// on the host, whichever cluster took the rest.
func (s *Service) DescribeContainerInstances(ctx context.Context, in *ecs.DescribeContainerInstancesInput) (*ecs.DescribeContainerInstancesOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	switch n := len(in.ContainerInstances); {
	case n == 0:
		return nil, invalid("Container Instances cannot be empty.")
	case n > 100:
		return nil, invalid("Container Instances cannot have more than 100 elements.")
	}
	out := &ecs.DescribeContainerInstancesOutput{ContainerInstances: []ecs.ContainerInstance{}, Failures: []ecs.Failure{}}
	for _, ref := range in.ContainerInstances {
		id, ok := resourceID(sc, "container-instance", cluster.ID, ref)
		row, found := state.ContainerInstances.Get(snap, store.K(sc, cluster.ID+"/"+id))
		if !ok || !found {
			out.Failures = append(out.Failures, missing(instanceRef(cluster.Key, ref)))
			continue
		}
		usage, _ := s.orch.UsageOf(snap, row.Value.HostID)
		ci := describeInstance(snap, row, usage)
		if slices.Contains(in.Include, ecs.ContainerInstanceFieldTags) {
			ci.Tags = tagsOf(snap, sc, row.Value.ARN)
		}
		out.ContainerInstances = append(out.ContainerInstances, ci)
	}
	return out, nil
}

func describeInstance(v store.View, row store.Row[state.ContainerInstance], u orchestrator.HostUsage) ecs.ContainerInstance {
	ci, host := row.Value, u.Host
	out := ecs.ContainerInstance{
		ContainerInstanceArn: &ci.ARN, Status: &ci.Status, RegisteredAt: &ci.RegisteredAt,
		AgentConnected: &u.Connected, Version: api.Ptr(int64(1)),
		VersionInfo:         &ecs.VersionInfo{AgentVersion: &host.AgentVersion},
		RegisteredResources: resources(host.CPUUnits, host.MemoryMiB, host.Reserved),
		Attributes:          []ecs.Attribute{}, Attachments: []ecs.Attachment{}, Tags: []ecs.Tag{},
		RunningTasksCount: api.Ptr(int32(0)), PendingTasksCount: api.Ptr(int32(0)),
	}
	var taken []state.Port
	for _, p := range u.Ports {
		port := state.Port{Number: int(p.Number), Protocol: "tcp"}
		if p.Protocol == placement.UDP {
			port.Protocol = "udp"
		}
		taken = append(taken, port)
	}
	out.RemainingResources = resources(u.CPUFree, u.MemFree, taken)
	names := make([]string, 0, len(host.Attributes))
	for name := range host.Attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		a := ecs.Attribute{Name: &name}
		if value := host.Attributes[name]; value != "" {
			a.Value = &value
		}
		out.Attributes = append(out.Attributes, a)
	}
	for p := range state.Placements.By(v, "host", ci.HostID) {
		if p.Value.ContainerInstanceARN != ci.ARN {
			continue
		}
		rec, ok := state.Record(v, p.Key)
		switch {
		case !ok:
		case rec.Status.LastStatus == lifecycle.Running:
			*out.RunningTasksCount++
		case rec.Status.LastStatus.Before(lifecycle.Running):
			*out.PendingTasksCount++
		}
	}
	return out
}

// resources are a host's, in the form and order of ECS.
func resources(cpu, memory int64, ports []state.Port) []ecs.Resource {
	set := func(protocol string) []string {
		out := []string{}
		for _, p := range ports {
			if p.Protocol == protocol {
				out = append(out, fmt.Sprint(p.Number))
			}
		}
		return out
	}
	whole := func(name string, n int64) ecs.Resource {
		return ecs.Resource{Name: &name, Type: api.Ptr("INTEGER"), DoubleValue: api.Ptr(0.0), LongValue: api.Ptr(int64(0)), IntegerValue: api.Ptr(int32(n))}
	}
	strings := func(name string, values []string) ecs.Resource {
		return ecs.Resource{Name: &name, Type: api.Ptr("STRINGSET"), DoubleValue: api.Ptr(0.0), LongValue: api.Ptr(int64(0)), IntegerValue: api.Ptr(int32(0)), StringSetValue: values}
	}
	return []ecs.Resource{
		whole("CPU", cpu), whole("MEMORY", memory),
		strings("PORTS", set("tcp")), strings("PORTS_UDP", set("udp")),
	}
}
