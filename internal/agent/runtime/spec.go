package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/runtime/shim"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

const (
	// groupAnnotation makes containers with the same value share a shim.
	groupAnnotation = "io.containerd.runc.v2.group"

	// minMemoryMiB is the least hard memory limit that Docker, and so ECS, accepts.
	minMemoryMiB = 6
	// pidsLimit keeps one container's fork bomb from being the host's.
	pidsLimit = 32768
	// Linux knows CPU shares from 2 to 262144 (kernel/sched/sched.h); ECS takes 0 and 1 for 2.
	minCPUShares, maxCPUShares = 2, 262144
	// defaultNoFile is the limit of open files of a container that sets none, as on Fargate.
	defaultNoFile = 65535

	defaultPath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultShmMB = 64 // MiB
)

// specInput is all that a container's OCI spec follows from.
type specInput struct {
	container agent.ContainerSpec
	image     ocispec.ImageConfig
	user      specs.User
	cgroup    string // absolute, below each hierarchy's root
	init      string // the program that can be a container's init process
	otherABIs bool   // the image has programs that are not of the machine's own ABI
	devices   []grantedDevice
	shared    sharedPaths // what the containers of a task share in pid and ipc mode task
	host      hostFacts
}

// hostFacts is what the spec needs to know of the host.
type hostFacts struct {
	capabilities []string // those this process may pass on, "CAP_…"
	maxNoFile    uint64   // highest limit of open files this process may give
	maskedPaths  []string
	hidden       []string // Config.Hidden
	unified      bool     // cgroup version 2
	memory       uint64   // bytes of RAM
	swapLimit    bool     // the kernel limits swap by cgroup
	swappiness   bool     // and knows how eagerly, as only version 1 does
	seccomp      func(*specs.Spec) *specs.LinuxSeccomp
	apparmor     bool // profiles are enforced
}

// buildSpec answers the OCI spec by Docker's and ECS's rules. It reads nothing and changes nothing.
func buildSpec(in specInput) (*specs.Spec, error) {
	c := in.container.Container
	if c == nil {
		return nil, errors.New("the container has no definition")
	}
	args, err := arguments(c, in.image)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(c, in.host.capabilities)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(c.Ulimits, in.host.maxNoFile)
	if err != nil {
		return nil, err
	}
	resources, err := resources(c, in.host)
	if err != nil {
		return nil, err
	}
	security, err := securityOptions(c.DockerSecurityOptions)
	if err != nil {
		return nil, err
	}
	namespaces, err := containerNamespaces(in)
	if err != nil {
		return nil, err
	}
	mounts, err := containerMounts(in)
	if err != nil {
		return nil, err
	}
	// In the host's PID namespace or the task's there is an init process already, as Docker has it.
	if c.InitProcess && in.container.PIDMode == "" {
		args = append([]string{shim.InitPath, "--"}, args...)
		mounts = append(mounts, specs.Mount{
			Destination: shim.InitPath, Type: "bind", Source: in.init, Options: []string{"bind", "ro"},
		})
	}
	sysctls, err := systemControls(in.container)
	if err != nil {
		return nil, err
	}
	cwd := path.Join("/", in.image.WorkingDir)
	if c.WorkingDirectory != "" {
		if !path.IsAbs(c.WorkingDirectory) {
			return nil, fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDirectory)
		}
		cwd = path.Clean(c.WorkingDirectory)
	}
	// A process of another user than root keeps in its effective set only what it may not lose; the
	// kernel would take the rest at exec in any case.
	effective := caps
	if in.user.UID != 0 {
		effective = nil
	}
	s := &specs.Spec{
		Version:  specs.Version,
		Hostname: in.container.Hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: c.ReadonlyRootFilesystem},
		Process: &specs.Process{
			Terminal: c.PseudoTerminal,
			Args:     args,
			Env:      environment(in),
			Cwd:      cwd,
			User:     in.user,
			Rlimits:  limits,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Permitted: effective, Effective: effective,
			},
			NoNewPrivileges: security.noNewPrivileges,
			ApparmorProfile: apparmorProfile(security, c.Privileged, in.host.apparmor),
		},
		Mounts:      mounts,
		Annotations: map[string]string{groupAnnotation: in.container.TaskID},
		Linux: &specs.Linux{
			CgroupsPath:   in.cgroup,
			Resources:     resources,
			Sysctl:        sysctls,
			Namespaces:    namespaces,
			MaskedPaths:   slices.Clone(in.host.maskedPaths),
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if c.Privileged {
		privilege(s)
	}
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, hidden(in.host.hidden, in.container.Mounts)...)
	grant(s, in.devices)
	if in.host.seccomp != nil && security.filtered(c.Privileged) {
		s.Linux.Seccomp = in.host.seccomp(s)
		if !in.otherABIs {
			narrow(s.Linux.Seccomp)
		}
	}
	return s, nil
}

// privilege opens what Docker opens for --privileged.
func privilege(s *specs.Spec) {
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	for i := range s.Mounts {
		if m := &s.Mounts[i]; m.Type == "sysfs" || m.Type == "cgroup" {
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
}

// arguments answers the process to run. As in Docker, an entry point in the task definition also
// drops the image's command.
func arguments(c *dispatchpb.Container, image ocispec.ImageConfig) ([]string, error) {
	entry, command := image.Entrypoint, image.Cmd
	if c.HasEntryPoint {
		entry, command = c.EntryPoint, nil
		// The one way to say "no entry point, but the image's command".
		if len(entry) == 1 && entry[0] == "" {
			entry = nil
		}
	}
	if c.HasCommand && len(c.Command) > 0 {
		command = c.Command
	}
	args := slices.Concat(entry, command)
	if len(args) == 0 {
		return nil, errors.New("no command specified")
	}
	return args, nil
}

// environment answers the variables of the process: the image's, then the container's in its order,
// each name once.
func environment(in specInput) []string {
	base := []string{defaultPath}
	if in.container.Hostname != "" {
		base = append(base, "HOSTNAME="+in.container.Hostname)
	}
	if in.container.Container.PseudoTerminal {
		base = append(base, "TERM=xterm")
	}
	image := in.image.Env
	if len(in.container.Container.GpuIds) == 0 {
		for _, v := range image {
			if strings.HasPrefix(v, visibleDevices+"=") {
				image = setVariable(image, visibleDevices+"="+noDevices)
				break
			}
		}
	}
	at := map[string]int{}
	var out []string
	for _, v := range slices.Concat(base, image, in.container.Environment) {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			out[i] = v
			continue
		}
		at[name] = len(out)
		out = append(out, v)
	}
	return out
}

// defaultCapabilities is Docker's set.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// capabilities answers the container's set: the default, or all that this host can give, first
// without those dropped, then with those added, so that "drop ALL, add one" is that one.
func capabilities(c *dispatchpb.Container, available []string) ([]string, error) {
	name := func(s string) string {
		s = strings.ToUpper(s)
		if s == "ALL" || strings.HasPrefix(s, "CAP_") {
			return s
		}
		return "CAP_" + s
	}
	all := available
	if c.Privileged {
		return slices.Sorted(slices.Values(all)), nil
	}
	set := map[string]bool{}
	for _, capability := range defaultCapabilities {
		set[capability] = slices.Contains(all, capability)
	}
	for list, names := range map[string][]string{"CapAdd": c.CapabilitiesAdd, "CapDrop": c.CapabilitiesDrop} {
		for _, s := range names {
			if name(s) != "ALL" && !slices.Contains(cap.Known(), name(s)) {
				return nil, fmt.Errorf("invalid %s: unknown capability: %q", list, name(s))
			}
		}
	}
	for _, s := range c.CapabilitiesDrop {
		if name(s) == "ALL" {
			clear(set)
			continue
		}
		delete(set, name(s))
	}
	for _, s := range c.CapabilitiesAdd {
		if name(s) == "ALL" {
			for _, capability := range all {
				if !slices.ContainsFunc(c.CapabilitiesDrop, func(d string) bool { return name(d) == capability }) {
					set[capability] = true
				}
			}
			continue
		}
		if !slices.Contains(all, name(s)) {
			return nil, fmt.Errorf("invalid CapAdd: capability not supported by your kernel or not available in the current environment: %q", name(s))
		}
		set[name(s)] = true
	}
	maps.DeleteFunc(set, func(_ string, on bool) bool { return !on })
	return slices.Sorted(maps.Keys(set)), nil
}

// ulimitNames are the names Docker and ECS know, as in docker run --ulimit.
var ulimitNames = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
	"rtprio", "rttime", "sigpending", "stack",
}

func rlimits(ulimits []*dispatchpb.Ulimit, maxNoFile uint64) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	files := false
	for _, u := range ulimits {
		if !slices.Contains(ulimitNames, u.Name) {
			return nil, fmt.Errorf("invalid ulimit type: %s", u.Name)
		}
		// -1 is "unlimited", which is the highest unsigned number.
		if u.Hard >= 0 && (u.Soft > u.Hard || u.Soft < 0) {
			return nil, fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		files = files || u.Name == "nofile"
		out = append(out, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
		})
	}
	if !files {
		n := min(defaultNoFile, maxNoFile)
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: n, Hard: n})
	}
	return out, nil
}

func resources(c *dispatchpb.Container, host hostFacts) (*specs.LinuxResources, error) {
	shares := uint64(min(max(c.CpuUnits, minCPUShares), maxCPUShares))
	r := &specs.LinuxResources{
		Devices: append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, defaultDevices()...),
		CPU:     &specs.LinuxCPU{Shares: &shares},
		Pids:    &specs.LinuxPids{Limit: new(int64(pidsLimit))},
		Memory:  &specs.LinuxMemory{},
	}
	if c.MemoryMib != 0 {
		if c.MemoryMib < minMemoryMiB {
			return nil, fmt.Errorf("minimum memory limit allowed is %dMB", minMemoryMiB)
		}
		limit := c.MemoryMib << 20
		r.Memory.Limit = &limit
		if host.swapLimit {
			// Memory and swap together; as much swap as memory, as in Docker, unless the container says.
			swap := 2 * limit
			if c.MaxSwapMib != nil {
				swap = limit + *c.MaxSwapMib<<20
			}
			r.Memory.Swap = &swap
		}
	}
	// ECS ignores it without maxSwap.
	if c.Swappiness != nil && c.MaxSwapMib != nil && host.swappiness {
		if *c.Swappiness < 0 || *c.Swappiness > 100 {
			return nil, fmt.Errorf("invalid value: %d, valid memory swappiness range is 0-100", *c.Swappiness)
		}
		r.Memory.Swappiness = new(uint64(*c.Swappiness))
	}
	if c.MemoryReservationMib != 0 {
		if c.MemoryReservationMib < minMemoryMiB {
			return nil, fmt.Errorf("minimum memory reservation allowed is %dMB", minMemoryMiB)
		}
		if c.MemoryMib != 0 && c.MemoryReservationMib > c.MemoryMib {
			return nil, errors.New("minimum memory limit can not be less than memory reservation limit")
		}
		reservation := c.MemoryReservationMib << 20
		r.Memory.Reservation = &reservation
	}
	return r, nil
}

// defaultDevices are those that every container may use; runc makes their nodes.
func defaultDevices() []specs.LinuxDeviceCgroup {
	device := func(major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"}, // mknod alone opens nothing
		device(1, 3), device(1, 5), device(1, 7), device(1, 8), device(1, 9), // null, zero, full, random, urandom
		device(5, 0), device(5, 1), device(5, 2), {Allow: true, Type: "c", Major: new(int64(136)), Access: "rwm"}, // terminals
	}
}

// systemControls answers the sysctls, with Docker's defaults for a network namespace of its own:
// unprivileged processes may bind low ports and ping.
func systemControls(c agent.ContainerSpec) (map[string]string, error) {
	out := map[string]string{}
	if !c.HostNetwork {
		out["net.ipv4.ip_unprivileged_port_start"] = "0"
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for _, control := range c.Container.SystemControls {
		if c.HostNetwork && strings.HasPrefix(control.Name, "net.") {
			return nil, fmt.Errorf("sysctl %q not allowed in host network namespace", control.Name)
		}
		out[control.Name] = control.Value
	}
	return out, nil
}

// Values of pidMode and ipcMode; pidMode knows no none. Empty is a namespace of the container's own.
const (
	modeHost = "host"
	modeTask = "task"
	modeNone = "none"
)

// sharedPaths are where PrepareTask has put what the containers of a task share: namespaces, and the
// directory that is their /dev/shm.
type sharedPaths struct{ pid, ipc, shm string }

// containerNamespaces answers those that the container has of its own or joins; what is missing is the host's.
func containerNamespaces(in specInput) ([]specs.LinuxNamespace, error) {
	c := in.container
	out := []specs.LinuxNamespace{{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}}
	switch c.PIDMode {
	case "":
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace})
	case modeTask:
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.shared.pid})
	case modeHost:
	default:
		return nil, fmt.Errorf("invalid PID mode: %s", c.PIDMode)
	}
	switch c.IPCMode {
	case "", modeNone:
		out = append(out, specs.LinuxNamespace{Type: specs.IPCNamespace})
	case modeTask:
		out = append(out, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: in.shared.ipc})
	case modeHost:
	default:
		return nil, fmt.Errorf("invalid IPC mode: %s", c.IPCMode)
	}
	if !c.HostNetwork {
		out = append(out, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS})
	}
	if in.host.unified {
		// As Docker does: with version 2 a container sees its own cgroup as the root.
		out = append(out, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return out, nil
}

// sharedMemory answers the container's /dev/shm; ok is false if it has none.
func sharedMemory(in specInput) (m specs.Mount, ok bool) {
	bind := func(source string) (specs.Mount, bool) {
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: source, Options: []string{"rbind", "rprivate", "rw"}}, true
	}
	switch in.container.IPCMode {
	case modeHost:
		return bind("/dev/shm")
	case modeTask:
		return bind(in.shared.shm)
	case modeNone:
		return specs.Mount{}, false
	}
	return specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: sharedMemoryOptions(in.container.Container.SharedMemoryMib)}, true
}

// sharedMemoryOptions are those of a tmpfs to be /dev/shm; 0 is Docker's default size.
func sharedMemoryOptions(sizeMiB int64) []string {
	return []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(cmp.Or(sizeMiB, defaultShmMB), 10) + "m"}
}

func containerMounts(input specInput) ([]specs.Mount, error) {
	in := input.container
	c := in.Container
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
	}
	if shm, ok := sharedMemory(input); ok {
		out = append(out, shm)
	}
	var own []specs.Mount
	for _, t := range c.Tmpfs {
		if !path.IsAbs(t.Path) {
			return nil, fmt.Errorf("invalid mount target, must be an absolute path in the container: %q", t.Path)
		}
		options := append([]string{"nosuid", "nodev", "noexec", fmt.Sprintf("size=%dm", t.SizeMib)}, t.Options...)
		own = append(own, specs.Mount{Destination: path.Clean(t.Path), Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	bind := func(source, target string, readOnly bool) error {
		if !path.IsAbs(target) || !path.IsAbs(source) {
			return fmt.Errorf("invalid mount %s at %s: both must be absolute paths", source, target)
		}
		options := []string{"rbind", "rprivate", "rw"}
		if readOnly {
			options[2] = "ro"
		}
		own = append(own, specs.Mount{Destination: path.Clean(target), Type: "bind", Source: path.Clean(source), Options: options})
		return nil
	}
	for _, m := range in.Mounts {
		if err := bind(m.Source, m.Target, m.ReadOnly); err != nil {
			return nil, err
		}
	}
	// A mount must come after those it lies in, and what the container asks for replaces a default.
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	for _, m := range own {
		out = slices.DeleteFunc(out, func(d specs.Mount) bool {
			return d.Destination == m.Destination || m.Destination == "/dev" && strings.HasPrefix(d.Destination, "/dev/")
		})
		out = append(out, m)
	}
	return out, nil
}
