package state

import (
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/store"
)

// Record is a task's life so far, put together from its rows.
func Record(v store.View, task store.Key) (lifecycle.Record, bool) {
	spec, ok := Specs.Get(v, task)
	if !ok {
		return lifecycle.Record{}, false
	}
	facts := lifecycle.Facts{CreatedAt: spec.Value.CreatedAt, OwnInterface: spec.Value.Attached()}
	for _, c := range spec.Value.Containers {
		facts.Containers = append(facts.Containers, lifecycle.Member{Name: c.Name, Essential: c.Essential, HasHealthCheck: c.HealthCheck})
	}
	rec := lifecycle.New(facts)
	if d, ok := Desires.Get(v, task); ok {
		rec.Desired = *d.Value
	}
	if s, ok := Statuses.Get(v, task); ok {
		rec.Status = *s.Value
	}
	return rec, true
}

// Task is a task as DescribeTasks shows it.
func Task(v store.View, key store.Key) (ecs.Task, bool) {
	rec, ok := Record(v, key)
	if !ok {
		return ecs.Task{}, false
	}
	row, _ := Specs.Get(v, key)
	spec, st := row.Value, &rec.Status
	t := ecs.Task{
		TaskArn: &spec.ARN, ClusterArn: &spec.ClusterARN, TaskDefinitionArn: &spec.TaskDefinitionARN,
		Group: &spec.Group, LaunchType: spec.LaunchType,
		LastStatus: api.Ptr(string(st.LastStatus)), DesiredStatus: api.Ptr(string(rec.DesiredStatus())),
		HealthStatus: ecs.HealthStatus(rec.Health()),
		CreatedAt:    &spec.CreatedAt, PullStartedAt: at(st.PullStartedAt), PullStoppedAt: at(st.PullStoppedAt),
		StartedAt: at(st.StartedAt), StoppingAt: at(rec.StoppingAt()),
		ExecutionStoppedAt: at(st.ExecutionStoppedAt), StoppedAt: at(st.StoppedAt),
		Version:              api.Ptr(rec.Version()),
		EnableExecuteCommand: &spec.ExecuteCommand,
		Overrides:            overrides(spec),
		Attachments:          []ecs.Attachment{},
		Containers:           []ecs.Container{},
		Tags:                 []ecs.Tag{},
		Attributes:           []ecs.Attribute{},
		StartedBy:            text(spec.StartedBy),
		CapacityProviderName: text(spec.CapacityProvider),
		Cpu:                  text(spec.CPU), Memory: text(spec.Memory),
		PlatformVersion: text(spec.PlatformVersion),
	}
	if spec.LaunchType == ecs.LaunchTypeFargate {
		t.PlatformFamily = api.Ptr("Linux")
	}
	if spec.StorageGiB > 0 {
		t.EphemeralStorage = &ecs.EphemeralStorage{SizeInGiB: &spec.StorageGiB}
		t.FargateEphemeralStorage = &ecs.TaskEphemeralStorage{SizeInGiB: &spec.StorageGiB}
	}
	if !st.ConnectedAt.IsZero() {
		t.Connectivity, t.ConnectivityAt = ecs.ConnectivityConnected, &st.ConnectedAt
	}
	if cause, ok := rec.Stop(); ok {
		t.StopCode, t.StoppedReason = ecs.TaskStopCode(cause.Code), &cause.Reason
	}
	var address string
	var gpus []string // not yet given to a container
	if p, ok := Placements.Get(v, key); ok {
		t.AvailabilityZone = &p.Value.AvailabilityZone
		t.ContainerInstanceArn = text(p.Value.ContainerInstanceARN)
		address, gpus = p.Value.PrivateIPv4, p.Value.GPUIDs
		if a := p.Value.Architecture; a != "" {
			t.Attributes = append(t.Attributes, ecs.Attribute{Name: api.Ptr(AttributeArchitecture), Value: &a})
		}
	}
	if spec.Attached() {
		t.Attachments = []ecs.Attachment{attachment(spec.Interface, st.Attachment, address, key.Region)}
	}
	for i, c := range spec.Containers {
		var known lifecycle.Container // a stored status may lack it
		if i < len(st.Containers) {
			known = st.Containers[i]
		} else {
			known.LastStatus = lifecycle.ContainerPending
		}
		shown := containerView(spec, c, known, address, key.Scope)
		if n := min(c.GPUs, len(gpus)); n > 0 {
			shown.GpuIds, gpus = gpus[:n], gpus[n:]
		}
		t.Containers = append(t.Containers, shown)
	}
	return t, true
}

func containerView(spec *Spec, c SpecContainer, st lifecycle.Container, address string, sc store.Scope) ecs.Container {
	out := ecs.Container{
		ContainerArn: api.Ptr(ARN(sc, "container", spec.Cluster, spec.ID, c.ID)),
		TaskArn:      &spec.ARN, Name: &c.Name, Image: &c.Image,
		ImageDigest: text(st.ImageDigest), RuntimeId: text(st.RuntimeID),
		LastStatus: api.Ptr(string(st.LastStatus)), ExitCode: st.ExitCode, Reason: text(st.Reason),
		HealthStatus: ecs.HealthStatus(st.Health),
		Cpu:          &c.CPU, Memory: text(c.Memory), MemoryReservation: text(c.Reservation),
		NetworkInterfaces: []ecs.NetworkInterface{},
		NetworkBindings:   []ecs.NetworkBinding{},
	}
	if out.HealthStatus == "" {
		out.HealthStatus = ecs.HealthStatusUnknown
	}
	for _, b := range st.Bindings {
		bind := b.BindIP
		if bind == "" {
			bind = "0.0.0.0"
		}
		shown := ecs.NetworkBinding{BindIP: &bind, Protocol: ecs.TransportProtocol(b.Protocol)}
		if b.ContainerPortRange != "" {
			shown.ContainerPortRange, shown.HostPortRange = &b.ContainerPortRange, text(b.HostPortRange)
		} else {
			shown.ContainerPort, shown.HostPort = &b.ContainerPort, &b.HostPort
		}
		out.NetworkBindings = append(out.NetworkBindings, shown)
	}
	if spec.Attached() {
		out.NetworkInterfaces = append(out.NetworkInterfaces, ecs.NetworkInterface{
			AttachmentId: &spec.Interface.AttachmentID, PrivateIpv4Address: text(address),
		})
	}
	return out
}

func attachment(ni *Interface, status lifecycle.AttachmentState, address, region string) ecs.Attachment {
	a := ecs.Attachment{
		Id: &ni.AttachmentID, Type: api.Ptr("ElasticNetworkInterface"), Status: api.Ptr(string(status)),
		Details: []ecs.KeyValuePair{
			pair("subnetId", ni.SubnetID),
			pair("networkInterfaceId", ni.ENIID),
			pair("macAddress", ni.MAC),
		},
	}
	if address != "" {
		a.Details = append(a.Details,
			pair("privateDnsName", PrivateDNSName(address, region)),
			pair("privateIPv4Address", address))
	}
	return a
}

// overrides are always shown, with an entry for each container, as ECS does.
func overrides(spec *Spec) *ecs.TaskOverride {
	out := ecs.TaskOverride{}
	if spec.Overrides != nil {
		out = *spec.Overrides
	}
	given := out.ContainerOverrides
	out.ContainerOverrides = nil
	for _, c := range spec.Containers {
		o := ecs.ContainerOverride{Name: &c.Name}
		for _, g := range given {
			if g.Name != nil && *g.Name == c.Name {
				o = g
			}
		}
		out.ContainerOverrides = append(out.ContainerOverrides, o)
	}
	if out.InferenceAcceleratorOverrides == nil {
		//lint:ignore SA1019 ECS still shows the member, always empty
		out.InferenceAcceleratorOverrides = []ecs.InferenceAcceleratorOverride{}
	}
	return &out
}

func pair(name, value string) ecs.KeyValuePair { return ecs.KeyValuePair{Name: &name, Value: &value} }

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
