package orchestrator

import (
	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// container translates one container definition.
func container(d *ecs.ContainerDefinition) *dispatchpb.Container {
	c := &dispatchpb.Container{
		Name:                   api.Value(d.Name),
		Image:                  api.Value(d.Image),
		Essential:              d.Essential == nil || *d.Essential,
		CpuUnits:               int64(api.Value(d.Cpu)),
		MemoryMib:              int64(api.Value(d.Memory)),
		MemoryReservationMib:   int64(api.Value(d.MemoryReservation)),
		EntryPoint:             d.EntryPoint,
		HasEntryPoint:          d.EntryPoint != nil,
		Command:                d.Command,
		HasCommand:             d.Command != nil,
		User:                   api.Value(d.User),
		WorkingDirectory:       api.Value(d.WorkingDirectory),
		ReadonlyRootFilesystem: api.Value(d.ReadonlyRootFilesystem),
		Privileged:             api.Value(d.Privileged),
		StopTimeoutSeconds:     int64(api.Value(d.StopTimeout)),
		Hostname:               api.Value(d.Hostname),
		DockerLabels:           d.DockerLabels,
		DnsServers:             d.DnsServers,
		DnsSearchDomains:       d.DnsSearchDomains,
		Interactive:            api.Value(d.Interactive),
		PseudoTerminal:         api.Value(d.PseudoTerminal),
		StartTimeoutSeconds:    int64(api.Value(d.StartTimeout)),
		Links:                  d.Links,
		DockerSecurityOptions:  d.DockerSecurityOptions,
		DisableNetworking:      api.Value(d.DisableNetworking),
	}
	for _, e := range d.Environment {
		c.Environment = append(c.Environment, &dispatchpb.KeyValue{Name: api.Value(e.Name), Value: api.Value(e.Value)})
	}
	for _, m := range d.PortMappings {
		c.PortMappings = append(c.PortMappings, &dispatchpb.PortMapping{
			ContainerPort: api.Value(m.ContainerPort), HostPort: api.Value(m.HostPort), Protocol: string(m.Protocol), Name: api.Value(m.Name),
			ContainerPortRange: api.Value(m.ContainerPortRange), AppProtocol: string(m.AppProtocol),
		})
	}
	for _, h := range d.ExtraHosts {
		c.ExtraHosts = append(c.ExtraHosts, &dispatchpb.KeyValue{Name: api.Value(h.Hostname), Value: api.Value(h.IpAddress)})
	}
	for _, u := range d.Ulimits {
		c.Ulimits = append(c.Ulimits, &dispatchpb.Ulimit{Name: string(u.Name), Soft: int64(api.Value(u.SoftLimit)), Hard: int64(api.Value(u.HardLimit))})
	}
	for _, s := range d.SystemControls {
		c.SystemControls = append(c.SystemControls, &dispatchpb.KeyValue{Name: api.Value(s.Namespace), Value: api.Value(s.Value)})
	}
	if lp := d.LinuxParameters; lp != nil {
		c.InitProcess = api.Value(lp.InitProcessEnabled)
		c.SharedMemoryMib = int64(api.Value(lp.SharedMemorySize))
		if lp.Capabilities != nil {
			c.CapabilitiesAdd, c.CapabilitiesDrop = lp.Capabilities.Add, lp.Capabilities.Drop
		}
		for _, t := range lp.Tmpfs {
			c.Tmpfs = append(c.Tmpfs, &dispatchpb.Tmpfs{Path: api.Value(t.ContainerPath), SizeMib: int64(api.Value(t.Size)), Options: t.MountOptions})
		}
		for _, dev := range lp.Devices {
			permissions := make([]string, 0, len(dev.Permissions))
			for _, p := range dev.Permissions {
				permissions = append(permissions, string(p))
			}
			c.Devices = append(c.Devices, &dispatchpb.Device{
				HostPath: api.Value(dev.HostPath), ContainerPath: api.Value(dev.ContainerPath), Permissions: permissions,
			})
		}
		if lp.MaxSwap != nil {
			c.MaxSwapMib = api.Ptr(int64(*lp.MaxSwap))
		}
		if lp.Swappiness != nil {
			c.Swappiness = api.Ptr(int64(*lp.Swappiness))
		}
	}
	for _, m := range d.MountPoints {
		c.Mounts = append(c.Mounts, &dispatchpb.Mount{
			Volume: api.Value(m.SourceVolume), Target: api.Value(m.ContainerPath), ReadOnly: api.Value(m.ReadOnly),
		})
	}
	for _, v := range d.VolumesFrom {
		c.VolumesFrom = append(c.VolumesFrom, &dispatchpb.VolumesFrom{Container: api.Value(v.SourceContainer), ReadOnly: api.Value(v.ReadOnly)})
	}
	for _, on := range d.DependsOn {
		c.DependsOn = append(c.DependsOn, &dispatchpb.Dependency{Container: api.Value(on.ContainerName), Condition: string(on.Condition)})
	}
	for _, f := range d.EnvironmentFiles {
		c.EnvironmentFiles = append(c.EnvironmentFiles, api.Value(f.Value))
	}
	if h := d.HealthCheck; h != nil {
		c.HealthCheck = healthCheck(h)
	}
	if r := d.RestartPolicy; r != nil {
		c.RestartPolicy = &dispatchpb.RestartPolicy{
			Enabled: api.Value(r.Enabled), IgnoredExitCodes: r.IgnoredExitCodes, AttemptPeriodSeconds: defaultRestartPeriod,
		}
		if r.RestartAttemptPeriod != nil {
			c.RestartPolicy.AttemptPeriodSeconds = int64(*r.RestartAttemptPeriod)
		}
	}
	if l := d.LogConfiguration; l != nil {
		c.LogDriver, c.LogOptions = string(l.LogDriver), l.Options
	}
	return c
}

// ECS's defaults, from the API reference of HealthCheck and ContainerRestartPolicy. In seconds.
const (
	defaultHealthInterval = 30
	defaultHealthTimeout  = 5
	defaultHealthRetries  = 3
	defaultRestartPeriod  = 300
)

func healthCheck(h *ecs.HealthCheck) *dispatchpb.HealthCheck {
	or := func(v *int32, otherwise int64) int64 {
		if v == nil {
			return otherwise
		}
		return int64(*v)
	}
	return &dispatchpb.HealthCheck{
		Command:            h.Command,
		IntervalSeconds:    or(h.Interval, defaultHealthInterval),
		TimeoutSeconds:     or(h.Timeout, defaultHealthTimeout),
		Retries:            or(h.Retries, defaultHealthRetries),
		StartPeriodSeconds: or(h.StartPeriod, 0),
	}
}

// volume translates one volume of a definition.
func volume(v *ecs.Volume) *dispatchpb.Volume {
	out := &dispatchpb.Volume{Name: api.Value(v.Name), Type: "HOST"}
	switch {
	case v.EfsVolumeConfiguration != nil:
		e := v.EfsVolumeConfiguration
		out.Type, out.EfsFileSystemId, out.EfsRootDirectory = "EFS", api.Value(e.FileSystemId), api.Value(e.RootDirectory)
		if e.AuthorizationConfig != nil {
			out.EfsAccessPointId = api.Value(e.AuthorizationConfig.AccessPointId)
		}
	case v.DockerVolumeConfiguration != nil:
		d := v.DockerVolumeConfiguration
		out.Type = "TASK"
		if d.Scope == ecs.ScopeShared {
			out.Type = "SHARED"
		}
		out.Autoprovision = api.Value(d.Autoprovision)
		out.Driver, out.DriverOpts, out.Labels = api.Value(d.Driver), d.DriverOpts, d.Labels
	case v.Host != nil:
		out.HostPath = api.Value(v.Host.SourcePath)
	}
	return out
}
