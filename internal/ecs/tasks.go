package ecs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/ecs/taskdef"
	"github.com/berthhq/berth/internal/store"
)

// Limits of the task calls, from the API reference.
const (
	maxRunCount      = 10
	maxDescribeTasks = 100
	maxSubnets       = 16
	maxGroups        = 5
)

// fargateStorageGiB is the ephemeral storage of a task on Fargate that asks for none.
const fargateStorageGiB = 20

// RunTask places tasks. It answers when they are durable and have a host.
func (s *Service) RunTask(ctx context.Context, in *ecs.RunTaskInput) (*ecs.RunTaskOutput, error) {
	run, cluster, err := s.prepare(ctx, in)
	if err != nil {
		return nil, err
	}
	placed, err := s.orch.Place(ctx, run)
	provided := run.Tasks[0].CapacityProvider != "" && run.Tasks[0].LaunchType != ecs.LaunchTypeFargate
	switch {
	case errors.Is(err, orchestrator.ErrNoInstances) && run.Tasks[0].LaunchType == ecs.LaunchTypeFargate:
		return &ecs.RunTaskOutput{Tasks: []ecs.Task{}, Failures: []ecs.Failure{withDetail(noCapacity(), "", run.RequestID)}}, nil
	case errors.Is(err, orchestrator.ErrNoInstances) && provided:
		return nil, errEmptyProvider()
	case err != nil:
		return nil, fromOrchestrator(err)
	}
	out := &ecs.RunTaskOutput{Tasks: s.started(placed, cluster), Failures: failures(placed, run, cluster)}
	if provided {
		out.Failures = append(out.Failures, emptyProviders(placed, run)...)
	}
	return out, nil
}

// prepare checks a RunTask request against what is stored and makes the Run.
func (s *Service) prepare(ctx context.Context, in *ecs.RunTaskInput) (orchestrator.Run, store.Key, error) {
	none := orchestrator.Run{}
	p, err := caller.From(ctx)
	if err != nil {
		return none, store.Key{}, err
	}
	sc := store.Scope{Account: p.AccountID, Region: p.Region}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return none, store.Key{}, err
	}
	if api.Value(in.TaskDefinition) == "" {
		return none, store.Key{}, invalid("TaskDefinition can not be blank.")
	}
	def, err := s.definition(snap, sc, *in.TaskDefinition)
	if err == errNoDefinition {
		return none, store.Key{}, clientError("TaskDefinition not found.")
	}
	if err != nil {
		return none, store.Key{}, err
	}
	run, err := s.plan(in, p, cluster, def)
	if err != nil {
		return none, store.Key{}, err
	}
	if in.PropagateTags == ecs.PropagateTagsTaskDefinition {
		run.Tags = mergeTags(tagsOf(snap, sc, *def.Value.TaskDefinitionArn), run.Tags)
		if err := checkTags(run.Tags); err != nil {
			return none, store.Key{}, err
		}
	}
	if api.Value(in.EnableECSManagedTags) {
		run.Tags = append(slices.Clone(run.Tags), ecs.Tag{Key: api.Ptr("aws:ecs:clusterName"), Value: &cluster.ID})
	}
	return run, cluster.Key, nil
}

// started describes the tasks of a Run. Those of a repeated call may be forgotten already: what is left
// to say of them is that they were.
func (s *Service) started(placed orchestrator.Placed, cluster store.Key) []ecs.Task {
	tasks := []ecs.Task{}
	for _, id := range placed.TaskIDs {
		t, ok := state.Task(placed.Snapshot, state.TaskKey(cluster.Scope, cluster.ID, id))
		if !ok {
			t = ecs.Task{
				TaskArn:    api.Ptr(state.ARN(cluster.Scope, "task", cluster.ID, id)),
				ClusterArn: api.Ptr(state.ARN(cluster.Scope, "cluster", cluster.ID)),
				LastStatus: api.Ptr(string(lifecycle.Deleted)), DesiredStatus: api.Ptr(string(lifecycle.Stopped)),
			}
		}
		t.Tags = tagsOf(placed.Snapshot, cluster.Scope, *t.TaskArn)
		tasks = append(tasks, t)
	}
	return tasks
}

// failures says why some tasks of a Run found no place: for EC2 one for each container instance that
// was considered, for FARGATE one in all, since nobody sees the hosts.
func failures(placed orchestrator.Placed, run orchestrator.Run, cluster store.Key) []ecs.Failure {
	out := []ecs.Failure{}
	for _, v := range placed.Failures {
		switch {
		case run.Tasks[0].LaunchType == ecs.LaunchTypeFargate:
			return []ecs.Failure{withDetail(noCapacity(), "", run.RequestID)}
		case v.Considered() || len(run.Hosts) > 0:
			f := failure(instanceARN(cluster.Scope, cluster.ID, v.InstanceARN, v.HostID), string(v.Reason))
			out = append(out, withDetail(f, shortfall(v), run.RequestID))
		}
	}
	return out
}

// shortfall says by how much a host cannot take the task; empty: the reason says it all.
func shortfall(v placement.Verdict) string {
	units := map[placement.Reason]string{placement.CPU: "CPU units", placement.Memory: "MiB", placement.GPU: "GPUs"}
	if unit, ok := units[v.Reason]; ok {
		return fmt.Sprintf("The task needs %d %s and %d are free. ", v.Needed, unit, max(v.Free, 0))
	}
	switch v.Reason {
	case placement.Attribute:
		return "The container instance lacks " + v.Lacks + ". "
	case placement.MemberOf:
		return "It does not satisfy " + v.Lacks + ". "
	}
	return ""
}

// withDetail adds to a failure what is known of it, and where there is more: AWS leaves the member to
// free text.
func withDetail(f ecs.Failure, known, requestID string) ecs.Failure {
	if requestID != "" {
		known += "All hosts by all filters: berth explain " + requestID
	}
	if known = strings.TrimSpace(known); known != "" {
		f.Detail = &known
	}
	return f
}

func noCapacity() ecs.Failure {
	return failure("", "Capacity is unavailable at this time. Please try again later or in a different availability zone")
}

// StartTask places one task on each of the container instances named.
func (s *Service) StartTask(ctx context.Context, in *ecs.StartTaskInput) (*ecs.StartTaskOutput, error) {
	if n := len(in.ContainerInstances); n == 0 || n > maxRunCount {
		return nil, invalid("Container instances must be between 1 and %d.", maxRunCount)
	}
	run, cluster, err := s.prepare(ctx, &ecs.RunTaskInput{
		Cluster: in.Cluster, TaskDefinition: in.TaskDefinition, Count: api.Ptr(int32(len(in.ContainerInstances))),
		EnableECSManagedTags: in.EnableECSManagedTags, EnableExecuteCommand: in.EnableExecuteCommand,
		Group: in.Group, NetworkConfiguration: in.NetworkConfiguration, Overrides: in.Overrides,
		PropagateTags: in.PropagateTags, ReferenceId: in.ReferenceId, StartedBy: in.StartedBy, Tags: in.Tags,
		VolumeConfigurations: in.VolumeConfigurations, LaunchType: ecs.LaunchTypeEc2,
	})
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	out := &ecs.StartTaskOutput{Tasks: []ecs.Task{}, Failures: []ecs.Failure{}}
	for _, ref := range in.ContainerInstances {
		row, ok := findInstance(snap, cluster, ref)
		switch {
		case !ok:
			out.Failures = append(out.Failures, missing(instanceRef(cluster, ref)))
			continue
		case row.Value.Status == inactive:
			out.Failures = append(out.Failures, failure(row.Value.ARN, inactive))
			continue
		}
		run.Hosts = append(run.Hosts, row.Value.HostID)
	}
	if len(run.Hosts) == 0 {
		return out, nil
	}
	run.Tasks = run.Tasks[:len(run.Hosts)]
	placed, err := s.orch.Place(ctx, run)
	if err != nil {
		return nil, fromOrchestrator(err)
	}
	out.Tasks = s.started(placed, cluster)
	out.Failures = append(out.Failures, failures(placed, run, cluster)...)
	return out, nil
}

// instanceARN names the container instance of a verdict. A host that has not been used by the cluster
// yet has none; it is named by its own ID, as the instance it would become.
func instanceARN(sc store.Scope, cluster, arn, hostID string) string {
	if arn != "" {
		return arn
	}
	return state.ARN(sc, "container-instance", cluster, hostID)
}

// plan checks a RunTask request and makes the specs of its tasks.
func (s *Service) plan(in *ecs.RunTaskInput, p caller.Principal, cluster store.Row[ecs.Cluster], def store.Row[ecs.TaskDefinition]) (orchestrator.Run, error) {
	none := orchestrator.Run{}
	count := 1
	if in.Count != nil {
		count = int(*in.Count)
	}
	if count < 1 || count > maxRunCount {
		return none, invalid("Count must be between 1 and %d.", maxRunCount)
	}
	if def.Value.Status != ecs.TaskDefinitionStatusActive {
		return none, clientError("TaskDefinition is inactive")
	}
	asked := in
	in, shares, err := capacity(in, cluster.Value, count)
	if err != nil {
		return none, err
	}
	if err := checkRunFields(in); err != nil {
		return none, err
	}
	launchType, err := s.launchType(in, def.Value)
	if err != nil {
		return none, err
	}
	effective, err := taskdef.Resolve(def.Value, in.Overrides)
	if err != nil {
		return none, err
	}
	if err := unsupported(effective); err != nil {
		return none, err
	}
	need, err := taskdef.RequirementsOf(effective)
	if err != nil {
		return none, err
	}
	if in.Overrides != nil && in.Overrides.EphemeralStorage != nil && launchType != ecs.LaunchTypeFargate {
		return none, invalid("Tasks using the EC2 launch type do not support EphemeralStorage.")
	}
	nic, err := networkOf(in, effective, launchType)
	if err != nil {
		return none, err
	}
	rules, err := rulesOf(in, effective, need, launchType)
	if err != nil {
		return none, err
	}
	run := orchestrator.Run{
		Cluster: cluster.Key, ClusterARN: *cluster.Value.ClusterArn, Definition: def.Key, Tags: in.Tags,
		Token: api.Value(in.ClientToken), Rules: rules, RequestID: p.RequestID,
	}
	if run.Token != "" {
		if run.Fingerprint, err = fingerprint(asked); err != nil {
			return none, err
		}
	}
	base := state.Spec{
		ClusterARN: run.ClusterARN, Cluster: cluster.ID,
		TaskDefinitionARN: *def.Value.TaskDefinitionArn, Family: *def.Value.Family, Revision: *def.Value.Revision,
		NetworkMode: networkMode(effective), LaunchType: launchType,
		Group: "family:" + *def.Value.Family, StartedBy: api.Value(in.StartedBy), Overrides: in.Overrides,
		ExecuteCommand: api.Value(in.EnableExecuteCommand),
		CPU:            api.Value(effective.Cpu), Memory: api.Value(effective.Memory),
		CPUUnits: need.CPUUnits, MemoryMiB: need.MemoryMiB, Ports: ports(need), GPUs: gpus(effective),
		CreatedAt: time.Now().UTC(), CreatedBy: p.ARN,
	}
	if g := api.Value(in.Group); g != "" {
		base.Group = g
	}
	if base.CPU == "" {
		base.CPU = fmt.Sprint(need.CPUUnits)
	}
	if base.Memory == "" {
		base.Memory = fmt.Sprint(need.MemoryMiB)
	}
	if launchType == ecs.LaunchTypeFargate {
		if base.PlatformVersion, err = platformVersion(api.Value(in.PlatformVersion)); err != nil {
			return none, err
		}
		if base.StorageGiB = fargateStorageGiB; effective.EphemeralStorage != nil {
			base.StorageGiB = api.Value(effective.EphemeralStorage.SizeInGiB)
		}
	}
	for i := range count {
		spec := base
		if len(shares) > 0 {
			spec.CapacityProvider = shares[i]
		}
		spec.ID = state.NewID()
		spec.ARN = state.ARN(cluster.Scope, "task", cluster.ID, spec.ID)
		for _, c := range effective.ContainerDefinitions {
			spec.Containers = append(spec.Containers, specContainer(&c))
		}
		if nic != nil {
			spec.Interface = newInterface(*nic)
		}
		run.Tasks = append(run.Tasks, &spec)
	}
	return run, nil
}

// platformVersion is FARGATE's for a call that asks for one; those before 1.3.0 are retired.
func platformVersion(asked string) (string, error) {
	switch asked {
	case "", "LATEST":
		return "1.4.0", nil
	case "1.3.0", "1.4.0":
		return asked, nil
	}
	return "", &ecs.PlatformUnknownException{Message: "The specified platform version does not exist."}
}

func checkRunFields(in *ecs.RunTaskInput) error {
	switch {
	case len(api.Value(in.StartedBy)) > 128:
		return invalid("startedBy can have at most 128 characters.")
	case len(api.Value(in.ClientToken)) > 64:
		return invalid("clientToken can have at most 64 characters.")
	case strings.HasPrefix(api.Value(in.Group), "service:"):
		return invalid("Invalid namespace for group.")
	case api.Value(in.PlatformVersion) != "" && in.LaunchType != ecs.LaunchTypeFargate:
		return invalid("The platform version must be null when specifying an EC2 launch type.")
	case len(api.Value(in.ReferenceId)) > 1024:
		return invalid("referenceId can have at most 1024 characters.")
	case len(in.VolumeConfigurations) > 0:
		return &ecs.UnsupportedFeatureException{Message: "Berth does not implement volume configurations yet."}
	}
	switch in.PropagateTags {
	case "", ecs.PropagateTagsTaskDefinition, ecs.PropagateTagsNone:
	default:
		return invalid("Invalid value for propagateTags: %s", in.PropagateTags)
	}
	return checkTags(in.Tags)
}

// launchType settles what kind of launch is meant and whether it can be had.
func (s *Service) launchType(in *ecs.RunTaskInput, def *ecs.TaskDefinition) (ecs.LaunchType, error) {
	switch in.LaunchType {
	case "", ecs.LaunchTypeEc2:
		if !slices.Contains(def.Compatibilities, ecs.CompatibilityEc2) {
			return "", invalid("Task definition does not support launch_type EC2.")
		}
		return ecs.LaunchTypeEc2, nil
	case ecs.LaunchTypeFargate:
		if !slices.Contains(def.Compatibilities, ecs.CompatibilityFargate) {
			return "", invalid("Task definition does not support launch_type FARGATE.")
		}
		if !s.cfg.SharedKernelFargate {
			return "", &ecs.UnsupportedFeatureException{Message: "Berth cannot yet give a FARGATE task a kernel of its own. " +
				"Run it with launch type EC2, or start Berth with --dev to have FARGATE tasks share the host's kernel."}
		}
		s.cfg.Logger.Warn("FARGATE task shares the host's kernel: --dev", "taskDefinition", api.Value(def.TaskDefinitionArn))
		return ecs.LaunchTypeFargate, nil
	case ecs.LaunchTypeExternal, ecs.LaunchTypeManagedInstances:
		return "", &ecs.UnsupportedFeatureException{Message: fmt.Sprintf("Berth does not implement launch type %s yet.", in.LaunchType)}
	}
	return "", invalid("Invalid launch type: %s", in.LaunchType)
}

func networkMode(def *ecs.TaskDefinition) string {
	if def.NetworkMode == "" {
		return string(ecs.NetworkModeBridge)
	}
	return string(def.NetworkMode)
}

// networkOf checks the network configuration against the definition's mode, and answers what the tasks
// get; nil for modes without an interface of their own.
func networkOf(in *ecs.RunTaskInput, def *ecs.TaskDefinition, launchType ecs.LaunchType) (*state.Interface, error) {
	var vpc *ecs.AwsVpcConfiguration
	if in.NetworkConfiguration != nil {
		vpc = in.NetworkConfiguration.AwsvpcConfiguration
	}
	mode := ecs.NetworkMode(networkMode(def))
	if mode != ecs.NetworkModeAwsvpc {
		if vpc != nil {
			return nil, invalid("Network Configuration is not valid for the given networkMode of this task definition.")
		}
		return nil, nil
	}
	switch {
	case vpc == nil:
		return nil, invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	case len(vpc.Subnets) == 0:
		return nil, invalid("subnets can not be empty.")
	case len(vpc.Subnets) > maxSubnets:
		return nil, invalid("subnets can have at most %d items.", maxSubnets)
	case len(vpc.SecurityGroups) > maxGroups:
		return nil, invalid("securityGroups can have at most %d items.", maxGroups)
	case vpc.AssignPublicIp == ecs.AssignPublicIpEnabled && launchType != ecs.LaunchTypeFargate:
		return nil, invalid("Assign public IP is not supported for this launch type.")
	}
	for _, id := range vpc.Subnets {
		if !strings.HasPrefix(id, "subnet-") {
			return nil, invalid("Error retrieving subnet information for [%s]: The subnet ID '%s' does not exist (ErrorCode: InvalidSubnetID.NotFound)", id, id)
		}
	}
	for _, id := range vpc.SecurityGroups {
		if !strings.HasPrefix(id, "sg-") {
			return nil, invalid("Error retrieving security group information for [%s]: The security group '%s' does not exist (ErrorCode: InvalidGroup.NotFound)", id, id)
		}
	}
	// Until there are VPCs to choose from, every subnet is the default one: its addresses are what the
	// task gets, and the subnet that was asked for is what it shows.
	return &state.Interface{SubnetID: vpc.Subnets[0], SecurityGroups: vpc.SecurityGroups}, nil
}

func newInterface(base state.Interface) *state.Interface {
	mac := make([]byte, 5)
	rand.Read(mac)
	base.AttachmentID = uuid.NewString()
	base.ENIID = "eni-" + state.NewID()[:17]
	// Locally administered, as EC2's are.
	base.MAC = fmt.Sprintf("0a:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4])
	return &base
}

func specContainer(c *ecs.ContainerDefinition) state.SpecContainer {
	out := state.SpecContainer{
		Name: *c.Name, ID: uuid.NewString(), Image: api.Value(c.Image),
		Essential: c.Essential == nil || *c.Essential, HealthCheck: c.HealthCheck != nil,
		CPU: fmt.Sprint(api.Value(c.Cpu)), GPUs: taskdef.GPUs(c),
	}
	if c.Memory != nil {
		out.Memory = fmt.Sprint(*c.Memory)
	}
	if c.MemoryReservation != nil {
		out.Reservation = fmt.Sprint(*c.MemoryReservation)
	}
	return out
}

func ports(r taskdef.Requirements) []state.Port {
	var out []state.Port
	for _, p := range r.Ports {
		out = append(out, state.Port{Number: int(p.Number), Protocol: string(p.Protocol)})
	}
	return out
}

// fingerprint digests everything a RunTask call asks for.
func fingerprint(in *ecs.RunTaskInput) (string, error) {
	all := *in
	all.ClientToken = nil
	raw, err := json.Marshal(all)
	if err != nil {
		return "", fmt.Errorf("digest the request: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

func mergeTags(base, over []ecs.Tag) []ecs.Tag {
	out := slices.Clone(over)
	for _, t := range base {
		if !slices.ContainsFunc(over, func(o ecs.Tag) bool { return *o.Key == *t.Key }) {
			out = append(out, t)
		}
	}
	return out
}

// StopTask asks a task to stop. It answers at once; the task is STOPPED when its containers are.
func (s *Service) StopTask(ctx context.Context, in *ecs.StopTaskInput) (*ecs.StopTaskOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	cluster, err := s.cluster(s.store.Snapshot(), sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	if api.Value(in.Task) == "" {
		return nil, invalid("Task can not be blank.")
	}
	if len(api.Value(in.Reason)) > 255 {
		return nil, invalid("reason can have at most 255 characters.")
	}
	if err := checkTaskID(cluster.ID, *in.Task); err != nil {
		return nil, err
	}
	notFound := invalid("The referenced task was not found.")
	id, ok := resourceID(sc, "task", cluster.ID, *in.Task)
	if !ok {
		return nil, notFound
	}
	key := state.TaskKey(sc, cluster.ID, id)
	if _, ok := state.Specs.Get(s.store.Snapshot(), key); !ok {
		return nil, notFound
	}
	cause := lifecycle.Cause{Code: lifecycle.UserInitiated, Reason: api.Value(in.Reason)}
	if err := s.orch.Stop(ctx, key, cause); err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	t, ok := state.Task(snap, key)
	if !ok {
		return nil, notFound
	}
	t.Tags = tagsOf(snap, sc, *t.TaskArn)
	return &ecs.StopTaskOutput{Task: &t}, nil
}

// DescribeTasks describes tasks, stopped ones for an hour at least.
func (s *Service) DescribeTasks(ctx context.Context, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	switch n := len(in.Tasks); {
	case n == 0:
		return nil, invalid("Tasks cannot be empty.")
	case n > maxDescribeTasks:
		return nil, invalid("Tasks cannot have more than %d elements.", maxDescribeTasks)
	}
	withTags := slices.Contains(in.Include, ecs.TaskFieldTags)
	out := &ecs.DescribeTasksOutput{Tasks: []ecs.Task{}, Failures: []ecs.Failure{}}
	seen := map[string]bool{}
	for _, ref := range in.Tasks {
		if err := checkTaskID(cluster.ID, ref); err != nil {
			return nil, err
		}
		id, ok := resourceID(sc, "task", cluster.ID, ref)
		if ok && seen[id] {
			continue
		}
		seen[id] = true
		t, found := state.Task(snap, state.TaskKey(sc, cluster.ID, id))
		if !ok || !found {
			arn := ref
			if !strings.HasPrefix(ref, "arn:") {
				arn = state.ARN(sc, "task", cluster.ID, ref)
			}
			out.Failures = append(out.Failures, missing(arn))
			continue
		}
		if withTags {
			t.Tags = tagsOf(snap, sc, *t.TaskArn)
		}
		out.Tasks = append(out.Tasks, t)
	}
	return out, nil
}

// ListTasks lists the ARNs of a cluster's tasks: those that should run, unless stopped ones are asked
// for.
func (s *Service) ListTasks(ctx context.Context, in *ecs.ListTasksInput) (*ecs.ListTasksOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	cluster, err := s.cluster(snap, sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	match, err := s.taskFilter(snap, sc, cluster, in)
	if err != nil {
		return nil, err
	}
	prefix := cluster.ID + "/"
	rows := func(from string) iter.Seq2[string, string] {
		return func(yield func(string, string) bool) {
			for spec := range state.Specs.ListFrom(snap, sc, prefix, from) {
				if match(spec) && !yield(spec.ID, spec.Value.ARN) {
					return
				}
			}
		}
	}
	arns, next, err := pageFrom(rows, in.MaxResults, 100, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTasksOutput{TaskArns: arns, NextToken: next}, nil
}

func (s *Service) taskFilter(v store.View, sc store.Scope, cluster store.Row[ecs.Cluster], in *ecs.ListTasksInput) (func(store.Row[state.Spec]) bool, error) {
	desired := lifecycle.State(in.DesiredStatus)
	switch desired {
	case "":
		desired = lifecycle.Running
	case lifecycle.Running, lifecycle.Stopped, lifecycle.Pending:
	default:
		return nil, invalid("Invalid desiredStatus: %s", desired)
	}
	switch in.LaunchType {
	case "", ecs.LaunchTypeEc2, ecs.LaunchTypeFargate, ecs.LaunchTypeExternal, ecs.LaunchTypeManagedInstances:
	default:
		return nil, invalid("Invalid launch type: %s", in.LaunchType)
	}
	group := ""
	if name := api.Value(in.ServiceName); name != "" {
		// A service is known by its tasks.
		if id, ok := resourceID(sc, "service", cluster.ID, name); ok {
			group = serviceGroup + id
		}
		if group == "" || !hasGroup(v, cluster.Key, group) {
			return nil, &ecs.ServiceNotFoundException{Message: "Service not found."}
		}
	}
	if api.Value(in.DaemonName) != "" {
		return nil, &ecs.UnsupportedFeatureException{Message: "Berth does not implement daemons of Amazon ECS Managed Instances."}
	}
	instance := ""
	if ref := api.Value(in.ContainerInstance); ref != "" {
		id, ok := resourceID(sc, "container-instance", cluster.ID, ref)
		row, found := state.ContainerInstances.Get(v, store.K(sc, cluster.ID+"/"+id))
		if !ok || !found {
			return nil, invalid("The specified container instance was not found.")
		}
		instance = row.Value.ARN
	}
	return func(spec store.Row[state.Spec]) bool {
		t := spec.Value
		switch {
		case in.LaunchType != "" && t.LaunchType != in.LaunchType,
			group != "" && t.Group != group,
			api.Value(in.Family) != "" && t.Family != *in.Family,
			api.Value(in.StartedBy) != "" && t.StartedBy != *in.StartedBy:
			return false
		}
		rec, ok := state.Record(v, spec.Key)
		if !ok || rec.DesiredStatus() != desired {
			return false
		}
		if instance != "" {
			p, ok := state.Placements.Get(v, spec.Key)
			return ok && p.Value.ContainerInstanceARN == instance
		}
		return true
	}, nil
}

// hasGroup tells whether a cluster has a task of the group, stopped ones counted.
func hasGroup(v store.View, cluster store.Key, group string) bool {
	for spec := range state.Specs.List(v, cluster.Scope, cluster.ID+"/") {
		if spec.Value.Group == group {
			return true
		}
	}
	return false
}
