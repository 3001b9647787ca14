package ecs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/placement/query"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// maxUpdateInstances is ECS's limit of container instances in one change of their state.
const maxUpdateInstances = 10

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
	switch in.Status {
	case "", ecs.ContainerInstanceStatusActive, ecs.ContainerInstanceStatusDraining, ecs.ContainerInstanceStatusRegistering,
		ecs.ContainerInstanceStatusDeregistering, ecs.ContainerInstanceStatusRegistrationFailed:
	default:
		return nil, invalid("Invalid status: %s", in.Status)
	}
	var filter *query.Expr
	if text := api.Value(in.Filter); text != "" {
		if filter, err = query.Parse(text); err != nil {
			return nil, invalid("Invalid filter: %s", err)
		}
	}
	if err := s.orch.EnsureInstances(ctx, cluster.Key, *cluster.Value.ClusterArn); err != nil {
		return nil, fromOrchestrator(err)
	}
	snap := s.store.Snapshot()
	arns, next, err := page(func(yield func(string, string) bool) {
		for row := range state.ContainerInstances.List(snap, sc, cluster.ID+"/") {
			if row.Value.Status == inactive || in.Status != "" && string(in.Status) != row.Value.Status {
				continue
			}
			if filter != nil && !filter.Match(s.subject(snap, row.Value)) {
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

// subject is a container instance as the cluster query language sees it.
func (s *Service) subject(v store.View, ci *state.ContainerInstance) query.Subject {
	u, _ := s.orch.UsageOf(v, ci.HostID)
	var attributes map[string]string // made when the first is asked for
	sub := query.Subject{
		AgentConnected: u.Connected, AgentVersion: u.Host.AgentVersion, RegisteredAt: ci.RegisteredAt,
		Attribute: func(name string) (string, bool) {
			if attributes == nil {
				attributes = map[string]string{}
				for _, a := range attributesOf(v, ci) {
					attributes[*a.Name] = api.Value(a.Value)
				}
			}
			value, ok := attributes[name]
			return value, ok
		},
		Groups: func(yield func(string) bool) {
			for task, last := range tasksOn(v, ci) {
				if last != lifecycle.Stopped && !yield(task.Group) {
					return
				}
			}
		},
	}
	for _, last := range tasksOn(v, ci) {
		if last == lifecycle.Running {
			sub.RunningTasks++
		}
	}
	return sub
}

// tasksOn gives the tasks of a container instance, each with its lastStatus.
func tasksOn(v store.View, ci *state.ContainerInstance) iter.Seq2[*state.Spec, lifecycle.State] {
	return func(yield func(*state.Spec, lifecycle.State) bool) {
		for p := range state.Placements.By(v, "host", ci.HostID) {
			if p.Value.ContainerInstanceARN != ci.ARN {
				continue
			}
			spec, ok := state.Specs.Get(v, p.Key)
			rec, known := state.Record(v, p.Key)
			if ok && known && !yield(spec.Value, rec.Status.LastStatus) {
				return
			}
		}
	}
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
		row, ok := findInstance(snap, cluster.Key, ref)
		if !ok {
			out.Failures = append(out.Failures, missing(instanceRef(cluster.Key, ref)))
			continue
		}
		ci := s.describeInstance(snap, row)
		if slices.Contains(in.Include, ecs.ContainerInstanceFieldTags) {
			ci.Tags = tagsOf(snap, sc, row.Value.ARN)
		}
		if slices.Contains(in.Include, ecs.ContainerInstanceFieldContainerInstanceHealth) {
			ci.HealthStatus = health(*ci.AgentConnected, time.Now().UTC())
		}
		out.ContainerInstances = append(out.ContainerInstances, ci)
	}
	return out, nil
}

// health says what is known of a host's container runtime: it is part of the agent's process, so while
// the agent is connected it works.
func health(connected bool, now time.Time) *ecs.ContainerInstanceHealthStatus {
	status, at := ecs.InstanceHealthCheckStateInsufficientData, (*time.Time)(nil)
	if connected {
		status, at = ecs.InstanceHealthCheckStateOk, &now
	}
	return &ecs.ContainerInstanceHealthStatus{OverallStatus: status, Details: []ecs.InstanceHealthCheckResult{{
		Type: ecs.InstanceHealthCheckTypeContainerRuntime, Status: status, LastUpdated: at,
	}}}
}

// UpdateContainerInstancesState has container instances take new tasks, or no more of them. What runs
// there goes on.
func (s *Service) UpdateContainerInstancesState(ctx context.Context, in *ecs.UpdateContainerInstancesStateInput) (*ecs.UpdateContainerInstancesStateOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	switch n := len(in.ContainerInstances); {
	case n == 0:
		return nil, invalid("Container Instances cannot be empty.")
	case n > maxUpdateInstances:
		return nil, invalid("Container Instances cannot have more than %d elements.", maxUpdateInstances)
	case in.Status != ecs.ContainerInstanceStatusActive && in.Status != ecs.ContainerInstanceStatusDraining:
		return nil, invalid("Container instance status should be one of [ACTIVE,DRAINING]")
	}
	out := &ecs.UpdateContainerInstancesStateOutput{}
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		cluster, err := s.cluster(tx, sc, in.Cluster)
		if err != nil {
			return err
		}
		out.ContainerInstances, out.Failures = []ecs.ContainerInstance{}, []ecs.Failure{}
		for _, ref := range in.ContainerInstances {
			row, ok := findInstance(tx, cluster.Key, ref)
			switch {
			case !ok:
				out.Failures = append(out.Failures, missing(instanceRef(cluster.Key, ref)))
				continue
			case row.Value.Status == inactive:
				out.Failures = append(out.Failures, failure(row.Value.ARN, inactive))
				continue
			}
			if status := string(in.Status); row.Value.Status != status {
				next := *row.Value
				next.Status = status
				next.Changes++
				row.Value = &next
				state.ContainerInstances.Put(tx, row.Key, &next)
			}
			// From the snapshot: what is told of its tasks is nothing that the change depends on.
			out.ContainerInstances = append(out.ContainerInstances, s.describeInstance(tx.Snapshot(), row))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeregisterContainerInstance takes a host out of a cluster. With force its tasks are stopped: were they
// left alone, as ECS leaves them, they would hold a part of the host that nobody accounts for. A host
// that is still there comes back as another container instance with the next task the cluster has for it.
func (s *Service) DeregisterContainerInstance(ctx context.Context, in *ecs.DeregisterContainerInstanceInput) (*ecs.DeregisterContainerInstanceOutput, error) {
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
	if ref == "" {
		return nil, invalid("Container instance can not be blank.")
	}
	notFound := clientError("Referenced container instance %s not found.", shortID(ref))
	row, ok := findInstance(snap, cluster.Key, ref)
	if !ok {
		return nil, notFound
	}
	cause := lifecycle.Cause{Code: lifecycle.UserInitiated, Reason: "Container instance deregistration forced by user"}
	err = s.orch.Deregister(ctx, row.Key, cause, func(_ *state.ContainerInstance, tasks int) error {
		if tasks > 0 && !api.Value(in.Force) {
			return invalid("Found running tasks on the instance.")
		}
		return nil
	})
	if errors.Is(err, orchestrator.ErrNotFound) {
		return nil, notFound
	}
	if err != nil {
		return nil, fromOrchestrator(err)
	}
	snap = s.store.Snapshot()
	if row, ok = findInstance(snap, cluster.Key, ref); !ok {
		return nil, notFound
	}
	ci := s.describeInstance(snap, row)
	return &ecs.DeregisterContainerInstanceOutput{ContainerInstance: &ci}, nil
}

func (s *Service) describeInstance(v store.View, row store.Row[state.ContainerInstance]) ecs.ContainerInstance {
	ci := row.Value
	u, _ := s.orch.UsageOf(v, ci.HostID)
	host := u.Host
	connected := u.Connected && ci.Status != inactive
	out := ecs.ContainerInstance{
		ContainerInstanceArn: &ci.ARN, Status: &ci.Status, RegisteredAt: &ci.RegisteredAt,
		AgentConnected: &connected, Version: api.Ptr(1 + ci.Changes),
		VersionInfo:         &ecs.VersionInfo{AgentVersion: &host.AgentVersion},
		RegisteredResources: resources(host.CPUUnits, host.MemoryMiB, host.Reserved),
		Attributes:          attributesOf(v, ci), Attachments: []ecs.Attachment{}, Tags: []ecs.Tag{},
		RunningTasksCount: api.Ptr(int32(0)), PendingTasksCount: api.Ptr(int32(0)),
	}
	if name, _ := state.SplitTaskKey(row.Key); name != "" {
		if c, ok := state.Clusters.Get(v, store.K(row.Scope, name)); ok {
			if provider := providerOf(v, c.Value, ci); provider != "" {
				out.CapacityProviderName = &provider
			}
		}
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
	if len(host.GPUIDs) > 0 {
		out.RegisteredResources = append(out.RegisteredResources, stringSet("GPU", host.GPUIDs))
		out.RemainingResources = append(out.RemainingResources, stringSet("GPU", freeGPUs(v, &host)))
	}
	for _, last := range tasksOn(v, ci) {
		switch {
		case last == lifecycle.Running:
			*out.RunningTasksCount++
		case last.Before(lifecycle.Running):
			*out.PendingTasksCount++
		}
	}
	return out
}

// freeGPUs are those of a host that no task has to itself.
func freeGPUs(v store.View, host *state.Host) []string {
	free := slices.Clone(host.GPUIDs)
	for p := range state.Placements.By(v, "host", host.ID) {
		if rec, ok := state.Record(v, p.Key); ok && rec.Status.LastStatus != lifecycle.Stopped {
			free = slices.DeleteFunc(free, func(id string) bool { return slices.Contains(p.Value.GPUIDs, id) })
		}
	}
	return free
}

func stringSet(name string, values []string) ecs.Resource {
	return ecs.Resource{Name: &name, Type: api.Ptr("STRINGSET"), DoubleValue: api.Ptr(0.0), LongValue: api.Ptr(int64(0)), IntegerValue: api.Ptr(int32(0)), StringSetValue: values}
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
	return []ecs.Resource{
		whole("CPU", cpu), whole("MEMORY", memory),
		stringSet("PORTS", set("tcp")), stringSet("PORTS_UDP", set("udp")),
	}
}
