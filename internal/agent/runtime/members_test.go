package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// outputOf runs the container to its end and answers both of its outputs.
func outputOf(t testing.TB, r *Runtime, c agent.ContainerSpec) string {
	t.Helper()
	path, read := output(t)
	c.Stdout, c.Stderr = path, path
	run(t, r, c)
	waitPhase(t, r, c.ID, agent.PhaseStopped)
	if err := r.Delete(t.Context(), c.ID); err != nil {
		t.Fatalf("delete: %v", err)
	}
	return read()
}

// A device that was not granted stays shut, also to root with its own node of it; one that was granted
// opens as far as it was.
func TestDevices(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	// The number of /dev/fuse, which the image's root may not open, and directories with it.
	dir := t.TempDir()
	for _, name := range []string{"log", "sub/log2"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o640, int(unix.Mkdev(10, 229))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("log", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	const forge = "busybox mknod /tmp/own c 10 229; (: </tmp/own) && echo opened; "
	const use = "(: </dev/log) && echo read; (: >/dev/log) && echo written; "
	device := func(host, container string, permissions ...string) *dispatchpb.Device {
		return &dispatchpb.Device{HostPath: host, ContainerPath: container, Permissions: permissions}
	}
	tests := []struct {
		name    string
		devices []*dispatchpb.Device
		script  string
		want    []string
		not     []string
	}{
		{"nothing", nil, forge, []string{"/tmp/own: Operation not permitted"}, []string{"opened"}},
		{"all", []*dispatchpb.Device{device(dir+"/log", "/dev/log")}, use + forge, []string{"read\nwritten\n", "opened"}, nil},
		{"read", []*dispatchpb.Device{device(dir+"/log", "/dev/log", "read")}, use, []string{"read", "/dev/log: Operation not permitted"}, []string{"written"}},
		{"write", []*dispatchpb.Device{device(dir+"/log", "/dev/log", "write", "mknod")}, use, []string{"written"}, []string{"read\n"}},
		{"link", []*dispatchpb.Device{device(dir+"/link", "/dev/log")}, use, []string{"read\nwritten\n"}, nil},
		{"same path", []*dispatchpb.Device{device("/dev/fuse", "", "read")}, "(: </dev/fuse) && echo read; ls -l /dev/fuse", []string{"read", "10, 229"}, nil},
		{"directory", []*dispatchpb.Device{device(dir, "/dev/many")}, "ls -l /dev/many/log /dev/many/sub/log2", []string{"crw-r-----    1 root     root       10, 229", "sub/log2"}, nil},
	}
	for _, tt := range tests {
		c := testContainer(image, strings.ReplaceAll(tt.name, " ", "-"), tt.script)
		c.Container.Devices = tt.devices
		got := outputOf(t, r, c)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", tt.name, want, got)
			}
		}
		for _, not := range tt.not {
			if strings.Contains(got, not) {
				t.Errorf("%s: there is %q in\n%s", tt.name, not, got)
			}
		}
	}
	for path, want := range map[string]string{
		"/dev/nope":   `error gathering device information while adding custom device "/dev/nope": no such file or directory`,
		"/etc/passwd": `error gathering device information while adding custom device "/etc/passwd": not a device node`,
		"/etc":        "not a device node",
		"dev/null":    "absolute",
	} {
		c := testContainer(image, "wrong", "true")
		c.Container.Devices = []*dispatchpb.Device{device(path, "/dev/x")}
		if err := r.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v", path, err)
		}
	}
}

func TestSwap(t *testing.T) {
	t.Parallel()
	mib := func(n int64) *int64 { return &n }
	tests := []struct {
		name              string
		limit, max, swaps *int64
		host              hostFacts
		swap              int64 // MiB; -1: unset
		swappiness        int64
	}{
		{"Docker's default", mib(64), nil, nil, hostFacts{swapLimit: true}, 128, -1},
		{"none", mib(64), mib(0), mib(10), hostFacts{swapLimit: true, swappiness: true}, 64, 10},
		{"some", mib(64), mib(100), nil, hostFacts{swapLimit: true}, 164, -1},
		{"version 2 knows no swappiness", mib(64), mib(1), mib(10), hostFacts{swapLimit: true, unified: true}, 65, -1},
		{"no limit of memory", mib(0), mib(100), nil, hostFacts{swapLimit: true}, -1, -1},
		{"swappiness alone", mib(64), nil, mib(10), hostFacts{swappiness: true}, -1, -1},
		{"no accounting", mib(64), mib(100), nil, hostFacts{}, -1, -1},
	}
	for _, tt := range tests {
		got, err := resources(&dispatchpb.Container{MemoryMib: *tt.limit, MaxSwapMib: tt.max, Swappiness: tt.swaps}, tt.host)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		swap, swappiness := int64(-1), int64(-1)
		if got.Memory.Swap != nil {
			swap = *got.Memory.Swap >> 20
		}
		if got.Memory.Swappiness != nil {
			swappiness = int64(*got.Memory.Swappiness)
		}
		if swap != tt.swap || swappiness != tt.swappiness {
			t.Errorf("%s: swap %d, swappiness %d", tt.name, swap, swappiness)
		}
	}

	r := newHost(t).openForTest()
	c := testContainer(importBusybox(t, r), "c1", "exec sleep 1000")
	c.Container.MemoryMib, c.Container.MaxSwapMib, c.Container.Swappiness = 64, mib(16), mib(30)
	run(t, r, c)
	want := map[string]string{"memory.memsw.limit_in_bytes": fmt.Sprint(80 << 20), "memory.swappiness": "30"}
	root := r.cgroups.v1["memory"]
	if r.cgroups.unified != "" {
		root, want = r.cgroups.unified, map[string]string{"memory.swap.max": fmt.Sprint(16 << 20)}
	}
	if limited, _ := r.cgroups.swap(); !limited {
		want = nil // it must run all the same
	}
	for file, value := range want {
		data, err := os.ReadFile(filepath.Join(root, r.cgroupPath(c.TaskID, c.ID), file))
		if err != nil || strings.TrimSpace(string(data)) != value {
			t.Errorf("%s is %q, not %s: %v", file, data, value, err)
		}
	}
}

func TestSecurityOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		options []string
		want    security
		err     string
	}{
		{nil, security{}, ""},
		{[]string{"no-new-privileges", "label:type:svirt_t", "label=disable"}, security{noNewPrivileges: true}, ""},
		{[]string{"no-new-privileges:true"}, security{noNewPrivileges: true}, ""},
		{[]string{"no-new-privileges=true", "no-new-privileges=false"}, security{}, ""},
		{[]string{"apparmor:web", "seccomp:unconfined"}, security{apparmor: "web", seccomp: unconfined}, ""},
		{[]string{"apparmor=a:b", "seccomp=builtin"}, security{apparmor: "a:b"}, ""},
		{[]string{"whatever"}, security{}, `invalid --security-opt 1: "whatever"`},
		{[]string{"no-new-privileges:perhaps"}, security{}, `invalid --security-opt 2: "no-new-privileges:perhaps"`},
		{[]string{"credentialspec:file://x.json"}, security{}, `invalid --security-opt 2: "credentialspec:file://x.json"`},
		{[]string{"seccomp:{}"}, security{}, `invalid --security-opt 2`},
	}
	for _, tt := range tests {
		got, err := securityOptions(tt.options)
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%q: %+v, %v", tt.options, got, err)
		}
	}
	for _, tt := range []struct {
		security             security
		privileged, enforced bool
		want                 string
	}{
		{security{}, false, true, "docker-default"},
		{security{}, true, true, "unconfined"},
		{security{apparmor: "web"}, true, true, "web"},
		{security{apparmor: "web"}, false, false, ""},
	} {
		if got := apparmorProfile(tt.security, tt.privileged, tt.enforced); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}

	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	c := testContainer(image, "c1", "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status")
	c.Container.DockerSecurityOptions = []string{"no-new-privileges", "seccomp:unconfined", "apparmor:unconfined"}
	if got := outputOf(t, r, c); got != "NoNewPrivs:\t1\nSeccomp:\t0\n" {
		t.Errorf("the options have no effect: %q", got)
	}
}

// What a container has not been given fails, whatever it tries.
func TestNotGranted(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	attacks := map[string]string{
		"mount":                "busybox mount -t tmpfs x /tmp",
		"remount":              "busybox mount -o remount,rw /proc/sys",
		"host's sysctl":        "echo x >/proc/sys/kernel/core_pattern",
		"sysrq":                "echo b >/proc/sysrq-trigger",
		"clock":                "busybox date -s 2000.01.01-00:00; test $(busybox date +%Y) = 2000",
		"hostname":             "hostname other",
		"chroot escape":        "ls /proc/1/root/../../../root/.bash_history",
		"raw memory":           "busybox mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem",
		"disk":                 "busybox mknod /tmp/disk b 254 0; head -c 1 /tmp/disk",
		"cgroup":               "busybox mkdir $(busybox find /sys/fs/cgroup -name cgroup.procs | head -n 1 | busybox xargs busybox dirname)/x",
		"network device":       "busybox ip link add dummy0 type dummy",
		"user namespace":       "busybox unshare -U true",
		"kernel module":        "busybox insmod /bin/busybox",
		"firmware":             "ls /sys/firmware/* && cat /proc/kcore",
		"devices of its own":   "echo a >/sys/fs/cgroup/devices/devices.allow",
		"nice":                 "test $(busybox nice -n -10 busybox nice) = -10",
		"low level networking": "busybox ifconfig lo down",
	}
	script := "echo begun"
	for name, attack := range attacks {
		script += "; (" + attack + ") >/dev/null 2>&1 && echo " + strings.ReplaceAll(name, "'", "") + " SUCCEEDED"
	}
	if got := outputOf(t, r, testContainer(image, "attacks", script+"; echo ended")); got != "begun\nended\n" {
		t.Errorf("of the attacks: %s", got)
	}
	c := testContainer(image, "chown", "touch /tmp/a && busybox chown 5 /tmp/a || echo refused")
	c.Container.CapabilitiesDrop = []string{"CHOWN"}
	if got := outputOf(t, r, c); !strings.Contains(got, "refused") {
		t.Errorf("without CHOWN: %s", got)
	}
	c = testContainer(image, "bind", "true")
	c.Container.CapabilitiesDrop = []string{"FLY"}
	if err := r.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), `invalid CapDrop: unknown capability: "CAP_FLY"`) {
		t.Errorf("dropping what is none: %v", err)
	}
}

// Kernel settings may be changed where they are the container's own alone.
func TestSystemControls(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	set := func(id, name, value string, adapt func(*agent.ContainerSpec)) (agent.ContainerSpec, error) {
		c := testContainer(image, id, "cat /proc/sys/"+strings.ReplaceAll(name, ".", "/"))
		c.Container.SystemControls = []*dispatchpb.KeyValue{{Name: name, Value: value}}
		if adapt != nil {
			adapt(&c)
		}
		return c, nil
	}
	for name, value := range map[string]string{"kernel.shmmax": "12345", "fs.mqueue.msg_max": "77", "net.ipv4.ip_forward": "1", "kernel.msgmni": "99"} {
		c, _ := set(strings.ReplaceAll(name, ".", "-"), name, value, nil)
		if got := outputOf(t, r, c); got != value+"\n" {
			t.Errorf("%s is %q", name, got)
		}
	}
	for id, tt := range map[string]struct {
		name  string
		adapt func(*agent.ContainerSpec)
		want  string
	}{
		"a": {"kernel.shmmax", func(c *agent.ContainerSpec) { c.IPCMode = "host" }, "kernel.shmmax"},
		"b": {"net.ipv4.ip_forward", func(c *agent.ContainerSpec) { c.HostNetwork = true }, `sysctl "net.ipv4.ip_forward" not allowed in host network namespace`},
		"c": {"kernel.panic", nil, "kernel.panic"},
		"d": {"vm.swappiness", nil, "vm.swappiness"},
	} {
		c, _ := set(id, tt.name, "1", tt.adapt)
		if err := r.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
