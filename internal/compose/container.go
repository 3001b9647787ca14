package compose

import (
	"fmt"
	"maps"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func flag(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

// process translates what shapes the process.
func (c *converter) process(s types.ServiceConfig, d *ecs.ContainerDefinition) {
	// An empty list clears the image's; ECS says that with one empty word, and only of the entry point.
	d.Command, d.EntryPoint = s.Command, s.Entrypoint
	if s.Entrypoint != nil && len(s.Entrypoint) == 0 {
		d.EntryPoint = []string{""}
	}
	for _, name := range sorted(s.Environment) {
		value := s.Environment[name]
		if value == nil {
			c.note(s.Name, "environment: %s has no value here; ECS takes none from the caller's shell", name)
			continue
		}
		d.Environment = append(d.Environment, ecs.KeyValuePair{Name: &name, Value: value})
	}
	d.User, d.WorkingDirectory, d.Hostname = text(s.User), text(s.WorkingDir), text(s.Hostname)
	d.Interactive, d.PseudoTerminal = flag(s.StdinOpen), flag(s.Tty)
	d.Privileged, d.ReadonlyRootFilesystem = flag(s.Privileged), flag(s.ReadOnly)
	if len(s.Labels) > 0 {
		d.DockerLabels = s.Labels
	}
	for _, option := range s.SecurityOpt {
		d.DockerSecurityOptions = append(d.DockerSecurityOptions, strings.TrimSuffix(strings.Replace(option, "=", ":", 1), ":true"))
	}
	for _, name := range sorted(s.Sysctls) {
		d.SystemControls = append(d.SystemControls, ecs.SystemControl{Namespace: &name, Value: api.Ptr(s.Sysctls[name])})
	}
	for _, name := range sorted(s.Ulimits) {
		u := s.Ulimits[name]
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		d.Ulimits = append(d.Ulimits, ecs.Ulimit{Name: ecs.UlimitName(name), SoftLimit: api.Ptr(int32(soft)), HardLimit: api.Ptr(int32(hard))})
	}
	lp := &ecs.LinuxParameters{InitProcessEnabled: s.Init}
	if len(s.CapAdd) > 0 || len(s.CapDrop) > 0 {
		bare := func(names []string) (out []string) {
			for _, n := range names {
				out = append(out, strings.TrimPrefix(strings.ToUpper(n), "CAP_"))
			}
			return out
		}
		lp.Capabilities = &ecs.KernelCapabilities{Add: bare(s.CapAdd), Drop: bare(s.CapDrop)}
	}
	for _, dev := range s.Devices {
		device := ecs.Device{HostPath: text(dev.Source), ContainerPath: text(dev.Target)}
		for letter, permission := range map[string]ecs.DeviceCgroupPermission{"r": "read", "w": "write", "m": "mknod"} {
			if strings.Contains(dev.Permissions, letter) {
				device.Permissions = append(device.Permissions, permission)
			}
		}
		slices.Sort(device.Permissions)
		lp.Devices = append(lp.Devices, device)
	}
	if s.ShmSize > 0 {
		lp.SharedMemorySize = mib(s.ShmSize)
	}
	for _, t := range s.Tmpfs {
		target, options, _ := strings.Cut(t, ":")
		lp.Tmpfs = append(lp.Tmpfs, tmpfs(target, options))
	}
	if !isZero(lp) {
		d.LinuxParameters = lp
	}
	if l := s.Logging; l != nil && l.Driver != "" {
		d.LogConfiguration = &ecs.LogConfiguration{LogDriver: ecs.LogDriver(l.Driver), Options: l.Options}
	}
}

// tmpfs reads the options of Compose's short form. ECS wants a size; half a gigabyte is what a process
// that asks for none is given here.
func tmpfs(target, options string) ecs.Tmpfs {
	out := ecs.Tmpfs{ContainerPath: &target, Size: api.Ptr(int32(512))}
	for option := range strings.SplitSeq(options, ",") {
		if size, ok := strings.CutPrefix(option, "size="); ok {
			if n, err := parseBytes(size); err == nil {
				out.Size = mib(n)
				continue
			}
		}
		if option != "" {
			out.MountOptions = append(out.MountOptions, option)
		}
	}
	return out
}

func parseBytes(s string) (types.UnitBytes, error) {
	var b types.UnitBytes
	if err := b.DecodeMapstructure(s); err != nil {
		return 0, err
	}
	return b, nil
}

// mib rounds up.
func mib(b types.UnitBytes) *int32 {
	n := (int64(b) + 1<<20 - 1) >> 20
	return api.Ptr(int32(min(max(n, 1), math.MaxInt32)))
}

// resources translates what the container may use.
func (c *converter) resources(s types.ServiceConfig, d *ecs.ContainerDefinition) {
	limit, soft, cpus := s.MemLimit, s.MemReservation, float64(s.CPUS)
	gpus := s.Gpus
	if s.Deploy != nil {
		if l := s.Deploy.Resources.Limits; l != nil {
			limit, cpus = max(limit, l.MemoryBytes), max(cpus, float64(l.NanoCPUs))
		}
		if r := s.Deploy.Resources.Reservations; r != nil {
			soft, cpus = max(soft, r.MemoryBytes), max(cpus, float64(r.NanoCPUs))
			gpus = append(gpus, r.Devices...)
		}
	}
	switch {
	case limit > 0 && limit < 6<<20:
		c.note(s.Name, "memory: %d bytes are below the least that a container can have, 6 MiB", int64(limit))
		d.Memory = api.Ptr(int32(6))
	case limit > 0:
		d.Memory = mib(limit)
	}
	if soft > 0 {
		d.MemoryReservation = mib(soft)
	}
	if d.Memory == nil && d.MemoryReservation == nil {
		d.MemoryReservation = api.Ptr(int32(reservation))
		c.note(s.Name, "memory: none is given and ECS wants one; %d MiB are reserved, without a limit", reservation)
	}
	switch {
	case s.CPUShares > 0:
		d.Cpu = api.Ptr(int32(s.CPUShares))
	case cpus > 0:
		d.Cpu = api.Ptr(int32(math.Ceil(cpus * 1024)))
	}
	if s.MemSwapLimit > 0 && limit > 0 || s.MemSwappiness > 0 {
		if d.LinuxParameters == nil {
			d.LinuxParameters = &ecs.LinuxParameters{}
		}
		if s.MemSwapLimit >= limit && limit > 0 {
			d.LinuxParameters.MaxSwap = api.Ptr(int32((s.MemSwapLimit - limit) >> 20))
		}
		if s.MemSwappiness > 0 {
			d.LinuxParameters.Swappiness = api.Ptr(int32(s.MemSwappiness))
		}
	}
	for _, g := range gpus {
		if !slices.Contains(g.Capabilities, "gpu") && len(s.Gpus) == 0 {
			c.note(s.Name, "deploy.resources.reservations.devices: only GPUs have a counterpart, not %v", g.Capabilities)
			continue
		}
		n := max(int(g.Count), len(g.IDs), 1)
		if g.Count < 0 {
			c.note(s.Name, "gpus: all of a host's GPUs cannot be asked for; one is")
		}
		d.ResourceRequirements = append(d.ResourceRequirements, ecs.ResourceRequirement{Type: ecs.ResourceTypeGpu, Value: api.Ptr(strconv.Itoa(n))})
	}
}

// network translates ports, names and resolvers.
func (c *converter) network(s types.ServiceConfig, def *ecs.RegisterTaskDefinitionInput, d *ecs.ContainerDefinition) {
	mode := ecs.NetworkModeBridge
	switch {
	case s.NetworkMode == "host":
		mode = ecs.NetworkModeHost
	case s.NetworkMode == "none":
		mode = ecs.NetworkModeNone
	case s.NetworkMode != "" && s.NetworkMode != "bridge" && s.NetworkMode != "default":
		c.note(s.Name, "network_mode: %q has no counterpart; the task is in mode bridge", s.NetworkMode)
	}
	if def.NetworkMode != "" && def.NetworkMode != mode {
		c.note(s.Name, "network_mode: a task has one network mode, and it is %s", def.NetworkMode)
		mode = def.NetworkMode
	}
	def.NetworkMode = mode
	for i, p := range s.Ports {
		m := ecs.PortMapping{ContainerPort: api.Ptr(int32(p.Target)), Protocol: ecs.TransportProtocol(p.Protocol)}
		switch published, err := strconv.Atoi(p.Published); {
		case p.Published == "":
		case err != nil:
			c.note(s.Name, "ports: one host port of %s cannot be chosen; the host does", p.Published)
		default:
			m.HostPort = api.Ptr(int32(published))
		}
		if p.HostIP != "" {
			c.note(s.Name, "ports: %d is bound to all of the host's addresses and not to %s alone", p.Target, p.HostIP)
		}
		if !c.options.Together && mode != ecs.NetworkModeNone {
			m.Name = api.Ptr(portName(s.Name, i))
			m.AppProtocol = ecs.ApplicationProtocol(p.AppProtocol)
		}
		d.PortMappings = append(d.PortMappings, m)
	}
	for _, port := range s.Expose {
		n, err := strconv.Atoi(strings.TrimSuffix(port, "/tcp"))
		mapped := slices.ContainsFunc(d.PortMappings, func(m ecs.PortMapping) bool { return int(*m.ContainerPort) == n })
		if err == nil && !mapped && !c.options.Together && mode != ecs.NetworkModeNone {
			d.PortMappings = append(d.PortMappings, ecs.PortMapping{ContainerPort: api.Ptr(int32(n)), Name: api.Ptr(portName(s.Name, len(d.PortMappings)))})
		}
	}
	d.DnsServers, d.DnsSearchDomains = s.DNS, s.DNSSearch
	for _, name := range sorted(s.ExtraHosts) {
		for _, address := range s.ExtraHosts[name] {
			if address == "host-gateway" {
				c.note(s.Name, "extra_hosts: host-gateway has no counterpart; %s is left out", name)
				continue
			}
			d.ExtraHosts = append(d.ExtraHosts, ecs.HostEntry{Hostname: &name, IpAddress: &address})
		}
	}
	if mode != ecs.NetworkModeBridge || !c.options.Together {
		for _, link := range s.Links {
			c.note(s.Name, "links: %s: services find each other by name", link)
		}
		return
	}
	// In one task, a container finds those it depends on under their names.
	links := slices.Clone(s.Links)
	for _, on := range sorted(s.DependsOn) {
		if _, active := c.project.Services[on]; active && !slices.ContainsFunc(links, func(l string) bool { return l == on || strings.HasPrefix(l, on+":") }) {
			links = append(links, on)
		}
	}
	d.Links = links
}

func portName(service string, i int) string {
	name := strings.ToLower(family(service))
	if i == 0 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, i)
}

// volumes translates mounts. Named volumes are shared ones: they outlive the task, as in Compose.
func (c *converter) volumes(s types.ServiceConfig, def *ecs.RegisterTaskDefinitionInput, d *ecs.ContainerDefinition) {
	add := func(v ecs.Volume) {
		if !slices.ContainsFunc(def.Volumes, func(o ecs.Volume) bool { return *o.Name == *v.Name }) {
			def.Volumes = append(def.Volumes, v)
		}
	}
	for _, v := range s.Volumes {
		var name string
		switch v.Type {
		case types.VolumeTypeBind:
			name = "host-" + strings.Trim(notFamily.ReplaceAllString(v.Source, "-"), "-")
			name = name[:min(len(name), 255)]
			if !filepath.IsAbs(v.Source) {
				c.note(s.Name, "volumes: %s is not an absolute path", v.Source)
			}
			add(ecs.Volume{Name: &name, Host: &ecs.HostVolumeProperties{SourcePath: api.Ptr(v.Source)}})
		case types.VolumeTypeVolume:
			if v.Source == "" {
				name = "anonymous-" + strings.Trim(notFamily.ReplaceAllString(s.Name+v.Target, "-"), "-")
				add(ecs.Volume{Name: &name, Host: &ecs.HostVolumeProperties{}})
				break
			}
			name = v.Source
			declared := c.project.Volumes[v.Source]
			conf := &ecs.DockerVolumeConfiguration{
				Scope: ecs.ScopeShared, Autoprovision: api.Ptr(!bool(declared.External)), Driver: text(declared.Driver), DriverOpts: declared.DriverOpts, Labels: declared.Labels,
			}
			if declared.Name != "" {
				name = declared.Name
			}
			add(ecs.Volume{Name: &name, DockerVolumeConfiguration: conf})
			if v.Volume != nil && v.Volume.Subpath != "" {
				c.note(s.Name, "volumes: the whole of %s is mounted, not %s in it", name, v.Volume.Subpath)
			}
		case types.VolumeTypeTmpfs:
			t := tmpfs(v.Target, "")
			if v.Tmpfs != nil && v.Tmpfs.Size > 0 {
				t.Size = mib(v.Tmpfs.Size)
			}
			if d.LinuxParameters == nil {
				d.LinuxParameters = &ecs.LinuxParameters{}
			}
			d.LinuxParameters.Tmpfs = append(d.LinuxParameters.Tmpfs, t)
			continue
		default:
			c.note(s.Name, "volumes: type %s at %s has no counterpart", v.Type, v.Target)
			continue
		}
		d.MountPoints = append(d.MountPoints, ecs.MountPoint{SourceVolume: &name, ContainerPath: api.Ptr(path.Clean(v.Target)), ReadOnly: flag(v.ReadOnly)})
	}
	for _, from := range s.VolumesFrom {
		source, access, _ := strings.Cut(from, ":")
		if !c.options.Together || source == "container" {
			c.note(s.Name, "volumes_from: %s is in another task", from)
			continue
		}
		d.VolumesFrom = append(d.VolumesFrom, ecs.VolumeFrom{SourceContainer: &source, ReadOnly: flag(access == "ro")})
	}
}

// lifecycle translates health, dependencies, restarts and stops.
func (c *converter) lifecycle(s types.ServiceConfig, d *ecs.ContainerDefinition) {
	d.HealthCheck = c.healthCheck(s)
	if s.StopGracePeriod != nil {
		d.StopTimeout = api.Ptr(max(seconds(*s.StopGracePeriod), 2))
	}
	for _, on := range sorted(s.DependsOn) {
		dependency := s.DependsOn[on]
		switch _, active := c.project.Services[on]; {
		case !active && !dependency.Required:
			continue
		case !c.options.Together:
			c.note(s.Name, "depends_on: %s is a service of its own; ECS starts services independently of one another", on)
			continue
		}
		condition := ecs.ContainerConditionStart
		switch dependency.Condition {
		case types.ServiceConditionHealthy:
			condition = ecs.ContainerConditionHealthy
		case types.ServiceConditionCompletedSuccessfully:
			condition = ecs.ContainerConditionSuccess
		}
		d.DependsOn = append(d.DependsOn, ecs.ContainerDependency{ContainerName: &on, Condition: condition})
	}
	// What others wait to see the end of cannot be essential.
	for _, other := range c.project.Services {
		if c.options.Together && other.DependsOn[s.Name].Condition == types.ServiceConditionCompletedSuccessfully {
			d.Essential = api.Ptr(false)
		}
	}
	restart := s.Restart
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil && s.Deploy.RestartPolicy.Condition != "" {
		restart = s.Deploy.RestartPolicy.Condition
	}
	switch condition, _, _ := strings.Cut(restart, ":"); condition {
	case "", "no", "none":
	case "on-failure":
		d.RestartPolicy = &ecs.ContainerRestartPolicy{Enabled: api.Ptr(true), IgnoredExitCodes: []int32{0}, RestartAttemptPeriod: api.Ptr(int32(60))}
	default: // always, unless-stopped, any
		if c.options.Together {
			d.RestartPolicy = &ecs.ContainerRestartPolicy{Enabled: api.Ptr(true), RestartAttemptPeriod: api.Ptr(int32(60))}
		}
		// A service of ECS's replaces its tasks in any case.
	}
}

func (c *converter) healthCheck(s types.ServiceConfig) *ecs.HealthCheck {
	h := s.HealthCheck
	if h == nil || h.Disable || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	out := &ecs.HealthCheck{Command: h.Test}
	within := func(member string, d *types.Duration, least, most int32) *int32 {
		if d == nil {
			return nil
		}
		n := seconds(*d)
		if n < least || n > most {
			c.note(s.Name, "healthcheck.%s: %s is not within %d to %d s", member, time.Duration(*d), least, most)
		}
		return api.Ptr(min(max(n, least), most))
	}
	out.Interval = within("interval", h.Interval, 5, 300)
	out.Timeout = within("timeout", h.Timeout, 2, 60)
	out.StartPeriod = within("start_period", h.StartPeriod, 0, 300)
	if h.Retries != nil {
		out.Retries = api.Ptr(int32(min(max(*h.Retries, 1), 10)))
	}
	return out
}

func seconds(d types.Duration) int32 {
	return int32(math.Ceil(time.Duration(d).Seconds()))
}

// namespaces translates pid and ipc.
func (c *converter) namespaces(s types.ServiceConfig, def *ecs.RegisterTaskDefinitionInput) {
	switch {
	case s.Pid == "host":
		def.PidMode = ecs.PidModeHost
	case strings.HasPrefix(s.Pid, "service:") && c.options.Together:
		def.PidMode = ecs.PidModeTask
	case s.Pid != "":
		c.note(s.Name, "pid: %q has no counterpart", s.Pid)
	}
	switch {
	case s.Ipc == "host":
		def.IpcMode = ecs.IpcModeHost
	case s.Ipc == "none":
		def.IpcMode = ecs.IpcModeNone
	case (strings.HasPrefix(s.Ipc, "service:") || s.Ipc == "shareable") && c.options.Together:
		def.IpcMode = ecs.IpcModeTask
	case s.Ipc != "" && s.Ipc != "private":
		c.note(s.Name, "ipc: %q has no counterpart", s.Ipc)
	}
}

// platform translates "linux/arm64".
func (c *converter) platform(s types.ServiceConfig, def *ecs.RegisterTaskDefinitionInput) {
	os, arch, _ := strings.Cut(s.Platform, "/")
	architecture := map[string]ecs.CPUArchitecture{"amd64": ecs.CPUArchitectureX8664, "x86_64": ecs.CPUArchitectureX8664, "arm64": ecs.CPUArchitectureArm64, "arm64/v8": ecs.CPUArchitectureArm64}[arch]
	switch {
	case s.Platform == "":
	case os != "linux" || architecture == "":
		c.note(s.Name, "platform: %q has no counterpart", s.Platform)
	default:
		def.RuntimePlatform = &ecs.RuntimePlatform{CpuArchitecture: architecture, OperatingSystemFamily: ecs.OSFamilyLinux}
	}
}
