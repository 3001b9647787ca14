package e2e

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// processMembers shape the process itself.
var processMembers = []member{
	{of("name"), acts, "its label and its place in DescribeTasks", func(w *world) {
		done := w.says(nil, []string{"hello"}, w.shell("echo hello"))
		if n := aws.ToString(done.Containers[0].Name); n != "app" {
			w.Errorf("the container's name is %q", n)
		}
	}},
	{of("image"), acts, "the program that runs is the image's; the digest is the image's", func(w *world) {
		done := w.stopped(w.run(w.define(nil, w.app("print", "1"))))
		if d := aws.ToString(done.Containers[0].ImageDigest); !strings.HasPrefix(d, "sha256:") {
			w.Errorf("imageDigest is %q", d)
		}
	}},
	{of("entryPoint", "command"), acts, "the entry point's and the command's words are the process's arguments; an entry point drops the image's command", func(w *world) {
		w.says(nil, []string{"-c", "one two", "three"}, w.shell("", func(c *container) {
			c.EntryPoint, c.Command = []string{"/bin/busybox", "printf", "%s\\n"}, []string{"-c", "one two", "three"}
		}))
	}},
	{of("environment[].name", "environment[].value"), acts, "variables of the process, the last of a name", func(w *world) {
		w.says(nil, []string{"b=c d", "2"}, w.shell(`echo "$A"; echo $TWICE`, func(c *container) {
			c.Environment = []types.KeyValuePair{pair("A", "b=c d"), pair("TWICE", "1"), pair("TWICE", "2")}
		}))
	}},
	{of("workingDirectory"), acts, "where the process starts, made if the image has no such directory", func(w *world) {
		w.says(nil, []string{"/some/where"}, w.shell("pwd", func(c *container) { c.WorkingDirectory = aws.String("/some/where") }))
	}},
	{of("user"), acts, "user and group of the process", func(w *world) {
		w.says(nil, []string{"uid=1234 gid=5678 groups=5678"}, w.shell("busybox id", func(c *container) { c.User = aws.String("1234:5678") }))
	}},
	{of("hostname"), acts, "the host name", func(w *world) {
		w.says(nil, []string{"web-1"}, w.shell("hostname", func(c *container) { c.Hostname = aws.String("web-1") }))
	}},
	{of("readonlyRootFilesystem"), acts, "writing to the root file system fails", func(w *world) {
		w.says(nil, []string{"touch: /file: Read-only file system"}, w.shell("exec 2>&1; /bin/touch /file", func(c *container) { c.ReadonlyRootFilesystem = aws.Bool(true) }))
	}},
	{of("privileged"), acts, "all capabilities, and no system call filter", func(w *world) {
		script := "busybox grep -E '^(CapBnd|Seccomp):' /proc/self/status"
		plain := w.stopped(w.run(w.define(nil, w.shell(script))))
		all := w.stopped(w.run(w.define(nil, w.shell(script, func(c *container) { c.Privileged = aws.Bool(true) }))))
		before, after := w.b.Logs(id(plain), "app"), w.b.Logs(id(all), "app")
		if slices.Equal(before, after) || !slices.Contains(after, "Seccomp:\t0") {
			w.Errorf("privileged: %q; not: %q", after, before)
		}
	}},
	{of("interactive"), acts, "standard input stays open: a read waits", func(w *world) {
		open := w.running(w.run(w.define(nil, w.shell("cat; echo ended", func(c *container) { c.Interactive = aws.Bool(true) }))))
		w.stop(open, "")
		w.says(nil, []string{"ended"}, w.shell("cat; echo ended"))
	}},
	{of("pseudoTerminal"), acts, "standard output is a terminal", func(w *world) {
		w.says(nil, []string{"terminal"}, w.shell("busybox test -t 1 && echo terminal", func(c *container) { c.PseudoTerminal = aws.Bool(true) }))
	}},
	{of("dockerLabels"), acts, "labels of the container, beside ECS's own, as the metadata endpoint shows them", func(w *world) {
		lines := w.metadata("${ECS_CONTAINER_METADATA_URI_V4}", func(c *container) { c.DockerLabels = map[string]string{"team": "blue"} })
		if !contains(`"team":"blue"`)(lines) || !contains(`"com.amazonaws.ecs.container-name":"app"`)(lines) {
			w.Errorf("the container's metadata is %s", strings.Join(lines, ""))
		}
	}},
	{of("systemControls[].namespace", "systemControls[].value"), acts, "kernel parameters of the container's own namespaces", func(w *world) {
		w.says(nil, []string{"77", "1"}, w.shell("cat /proc/sys/kernel/msgmni /proc/sys/net/ipv4/ip_forward", func(c *container) {
			c.SystemControls = []types.SystemControl{
				{Namespace: aws.String("kernel.msgmni"), Value: aws.String("77")}, {Namespace: aws.String("net.ipv4.ip_forward"), Value: aws.String("1")},
			}
		}))
	}},
	{of("ulimits[].name", "ulimits[].softLimit", "ulimits[].hardLimit"), acts, "limits of the process", func(w *world) {
		w.says(nil, []string{"Max open files            1000                 2000                 files"},
			w.shell("grep 'open files' /proc/self/limits", func(c *container) {
				c.Ulimits = []types.Ulimit{{Name: types.UlimitNameNofile, SoftLimit: 1000, HardLimit: 2000}}
			}))
	}},
	{of("linuxParameters.capabilities.add", "linuxParameters.capabilities.drop"), acts, "capabilities are what is left after dropping and adding", func(w *world) {
		w.says(nil, []string{"CapBnd:\t0000000000001000"}, w.shell("grep CapBnd /proc/self/status", linux(types.LinuxParameters{
			Capabilities: &types.KernelCapabilities{Drop: []string{"ALL"}, Add: []string{"NET_ADMIN"}},
		})))
	}},
	{of("linuxParameters.initProcessEnabled"), acts, "process 1 is an init that reaps orphans", func(w *world) {
		w.says(nil, []string{"not 1", "0"}, w.shell(`[ $$ = 1 ] || echo not 1; (sleep 0.1 &); sleep 0.5; busybox ps -o stat | busybox grep -c Z`, linux(types.LinuxParameters{InitProcessEnabled: aws.Bool(true)})))
	}},
	{of("linuxParameters.sharedMemorySize"), acts, "the size of /dev/shm", func(w *world) {
		w.says(nil, []string{"10240"}, w.shell("busybox df -k /dev/shm | busybox awk 'NR==2 {print $2}'", linux(types.LinuxParameters{SharedMemorySize: aws.Int32(10)})))
	}},
	{of("linuxParameters.tmpfs[].containerPath", "linuxParameters.tmpfs[].size", "linuxParameters.tmpfs[].mountOptions"), acts, "a file system in memory of that size and with those options", func(w *world) {
		w.says(nil, []string{"8192", "noatime"}, w.shell("busybox df -k /scratch | busybox awk 'NR==2 {print $2}'; grep /scratch /proc/mounts | grep -o noatime", linux(types.LinuxParameters{
			Tmpfs: []types.Tmpfs{{ContainerPath: aws.String("/scratch"), Size: 8, MountOptions: []string{"noatime"}}},
		})))
	}},
	{of("linuxParameters.devices[].hostPath", "linuxParameters.devices[].containerPath", "linuxParameters.devices[].permissions"), acts, "the host's device under the container's path, with no more access than granted", func(w *world) {
		w.says(nil, []string{"crw-rw-rw- 1, 7", "read", "not written"}, w.shell(
			`busybox stat -c '%A %t, %T' /dev/mine; busybox head -c 1 /dev/mine >/dev/null && echo read; (echo x >/dev/mine) 2>/dev/null || echo not written`, linux(types.LinuxParameters{
				Devices: []types.Device{{HostPath: aws.String("/dev/full"), ContainerPath: aws.String("/dev/mine"), Permissions: []types.DeviceCgroupPermission{"read"}}},
			})))
	}},
	{of("dockerSecurityOptions"), acts, "no-new-privileges is set on the process", func(w *world) {
		w.says(nil, []string{"NoNewPrivs:\t1"}, w.shell("grep NoNewPrivs /proc/self/status", func(c *container) { c.DockerSecurityOptions = []string{"no-new-privileges"} }))
	}},
}

func pair(name, value string) types.KeyValuePair {
	return types.KeyValuePair{Name: &name, Value: &value}
}

// linux sets a container's linuxParameters.
func linux(p types.LinuxParameters) func(*container) {
	return func(c *container) { c.LinuxParameters = &p }
}

// metadata runs a container that fetches a URL of its own metadata endpoint, in mode bridge, and
// answers what came. The URL is the shell's to expand.
func (w *world) metadata(url string, change ...func(*container)) []string {
	w.Helper()
	task := w.run(w.define(bridged, w.shell(`/testapp get "`+url+`"`, change...)))
	w.stopped(task)
	return w.b.Logs(id(task), "app")
}

func bridged(in *taskDefinition) { in.NetworkMode = types.NetworkModeBridge }
