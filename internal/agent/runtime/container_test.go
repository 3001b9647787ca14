package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// What the process sees of the container's definition.
func TestContainerProcess(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	ownCgroup := "/berth-" + r.config.Instance + "/task-cgroup/cgroup"
	if r.host.unified {
		ownCgroup = "0::/\n"
	}
	const status = `grep -E '^(Cap(Bnd|Eff)|NoNewPrivs|Seccomp):' /proc/self/status | tail -n 10`
	tests := []struct {
		name   string
		script string
		adapt  func(*agent.ContainerSpec)
		want   []string // parts of the output
	}{
		{"defaults", "id; pwd; hostname; echo $PATH; ls -d /sys/class/net/*; ls -l /proc/self/fd/0; " + status, nil, []string{
			"uid=0(root) gid=0(root)", "\n/\n", "defaults\n/bin\n", "/sys/class/net/lo\n", "/dev/null",
			"CapBnd:\t00000000a80425fb", "CapEff:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2",
		}},
		{"environment", "env", func(c *agent.ContainerSpec) {
			c.Environment = []string{"BOTH=task", "FROM_TASK=a=b"}
			c.Hostname = "web"
		}, []string{"FROM_IMAGE=1\n", "BOTH=task\n", "FROM_TASK=a=b\n", "HOSTNAME=web\n"}},
		{"user by name", "id; " + status, func(c *agent.ContainerSpec) { c.Container.User = "app" },
			[]string{"uid=1234(app) gid=2345(app) groups=50(staff)", "CapEff:\t0000000000000000"}},
		{"user by number", "id", func(c *agent.ContainerSpec) { c.Container.User = "77:88" }, []string{"uid=77 gid=88"}},
		{"working directory", "pwd", func(c *agent.ContainerSpec) { c.Container.WorkingDirectory = "/tmp/deep" },
			[]string{"/tmp/deep\n"}},
		{"read only", "touch /x || echo refused", func(c *agent.ContainerSpec) { c.Container.ReadonlyRootFilesystem = true },
			[]string{"refused"}},
		{"capabilities", status, func(c *agent.ContainerSpec) {
			c.Container.CapabilitiesDrop = []string{"ALL"}
			c.Container.CapabilitiesAdd = []string{"NET_BIND_SERVICE"}
		}, []string{"CapEff:\t0000000000000400"}},
		{"privileged", "touch /sys/fs/cgroup/x; ls /dev | head -n 100; " + status, func(c *agent.ContainerSpec) { c.Container.Privileged = true },
			[]string{"Seccomp:\t0", "kmsg"}},
		{"limits", "ulimit -n; ulimit -Hn", func(c *agent.ContainerSpec) {
			c.Container.Ulimits = []*dispatchpb.Ulimit{{Name: "nofile", Soft: 111, Hard: 222}}
		}, []string{"111\n222\n"}},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/core/somaxconn", func(c *agent.ContainerSpec) {
			c.Container.SystemControls = []*dispatchpb.KeyValue{{Name: "net.core.somaxconn", Value: "321"}}
		}, []string{"0\n321\n"}},
		{"memory file systems", "df -m /dev/shm /scratch", func(c *agent.ContainerSpec) {
			c.Container.SharedMemoryMib = 10
			c.Container.Tmpfs = []*dispatchpb.Tmpfs{{Path: "/scratch", SizeMib: 3}}
		}, []string{"10         0        10   0% /dev/shm", "3         0         3   0% /scratch"}},
		{"cgroup", "cat /proc/self/cgroup", nil, []string{ownCgroup}},
		{"terminal", "ls -l /proc/self/fd/1; echo $TERM", func(c *agent.ContainerSpec) { c.Container.PseudoTerminal = true },
			[]string{"/dev/pts/0", "xterm"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := testContainer(image, strings.ReplaceAll(tt.name, " ", "-"), tt.script)
			c.Hostname = tt.name
			if strings.Contains(tt.name, " ") {
				c.Hostname = ""
			}
			if tt.adapt != nil {
				tt.adapt(&c)
			}
			got, state := runOutput(t, r, c)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s(%+v)", want, got, state)
				}
			}
		})
	}
}

func TestInteractive(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	c := testContainer(importBusybox(t, r), "c1", "cat")
	c.Container.Interactive = true
	run(t, r, c)
	c2 := testContainer(c.Image, "c2", "cat")
	run(t, r, c2)
	waitPhase(t, r, "c2", agent.PhaseStopped)
	if state, _, err := r.Inspect(t.Context(), "c1"); err != nil || state.Phase != agent.PhaseRunning {
		t.Errorf("with its standard input open it is %+v, %v", state, err)
	}
}

// With an init process, signals reach the command, and orphans are reaped.
func TestInitProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.config.Shim = builtShim(t)
	r := h.openForTest()
	image := importBusybox(t, r)
	look := testContainer(image, "look", "cat /proc/1/cmdline; echo; (sleep 0.01 &); sleep 0.2; grep -c zombie /proc/[0-9]*/status; exit 5")
	look.Container.InitProcess = true
	got, state := runOutput(t, r, look)
	if !strings.HasPrefix(got, "/sbin/docker-init\x00--\x00sh") || strings.Contains(got, ":1\n") || state.ExitCode != 5 {
		t.Errorf("with an init process the output is %q, %+v", got, state)
	}

	c := testContainer(image, "c1", "trap 'exit 9' TERM; while true; do sleep 0.05; done")
	c.Container.InitProcess = true
	run(t, r, c)
	waitUntil(t, "it is up", func() bool {
		return len(cgroupProcs(t, h, c.TaskID, c.ID)) >= 2
	})
	waitUntil(t, "SIGTERM ends it", func() bool {
		if err := r.Signal(t.Context(), "c1", "SIGTERM"); err != nil {
			t.Fatal(err)
		}
		state, _, err := r.Inspect(t.Context(), "c1")
		return err == nil && state.Phase == agent.PhaseStopped
	})
	if state := waitPhase(t, r, "c1", agent.PhaseStopped); state.ExitCode != 9 && state.ExitCode != 143 {
		t.Errorf("state is %+v", state)
	}

	lost := testContainer(c.Image, "lost", "")
	lost.Container.Command, lost.Container.InitProcess = []string{"nope"}, true
	run(t, r, lost)
	if state := waitPhase(t, r, "lost", agent.PhaseStopped); state.ExitCode != 127 {
		t.Errorf("a command that is not there is %+v", state)
	}
}

func TestHostNetworkAndBinds(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	dir := t.TempDir()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("10.0.0.1 db\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := testContainer(importBusybox(t, r), "c1", "echo hi >/data/f; cat /etc/hosts; touch /etc/hosts || echo ro; ls -l /proc/self/ns/net")
	c.HostNetwork = true
	c.Mounts = []agent.Mount{{Source: hosts, Target: "/etc/hosts", ReadOnly: true}, {Source: dir, Target: "/data"}}
	got, _ := runOutput(t, r, c)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.0.0.1 db", "ro\n", own} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(data) != "hi\n" {
		t.Errorf("the bind mount has %q, %v", data, err)
	}
}

// A container that cannot start says why, as Docker does, and leaves nothing.
func TestCreateErrors(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	image := importBusybox(t, r)
	tests := []struct {
		name  string
		adapt func(*agent.ContainerSpec)
		want  string
	}{
		{"no command", func(c *agent.ContainerSpec) { c.Container.Command = []string{"nope"} },
			`exec: "nope": executable file not found in $PATH`},
		{"no file", func(c *agent.ContainerSpec) { c.Container.Command = []string{"/nope"} },
			`exec: "/nope": stat /nope: no such file or directory`},
		{"no user", func(c *agent.ContainerSpec) { c.Container.User = "nobody2" },
			"unable to find user nobody2: no matching entries in passwd file"},
		{"no image", func(c *agent.ContainerSpec) { c.Image.Digest = "sha256:" + strings.Repeat("0", 64) }, "no such image"},
		{"little memory", func(c *agent.ContainerSpec) { c.Container.MemoryMib = 5 }, "minimum memory limit allowed is 6MB"},
		{"bad capability", func(c *agent.ContainerSpec) { c.Container.CapabilitiesAdd = []string{"FLY"} }, "CAP_FLY"},
		{"bad name", func(c *agent.ContainerSpec) { c.TaskID = "../x" }, "cannot name"},
		{"no network", func(c *agent.ContainerSpec) { c.NetNS = "/run/netns/nope" }, "/run/netns/nope"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testContainer(image, strings.ReplaceAll(tt.name, " ", "-"), "true")
			tt.adapt(&c)
			err := r.Create(t.Context(), c)
			if err == nil {
				_, err = r.Start(t.Context(), c.ID)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, not %q", err, tt.want)
			}
			if _, ok, err := r.Inspect(t.Context(), c.ID); ok || err != nil {
				t.Errorf("it is there, %v", err)
			}
		})
	}
	waitUntil(t, "failed containers' shims end", func() bool { return len(h.processes()) == 0 })
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	const eat = "tail -c 200000000 </dev/zero"

	own := testContainer(image, "own", "exec tail -c 200000000 </dev/zero")
	own.Container.MemoryMib = 16
	events, err := r.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run(t, r, own)
	if state := waitPhase(t, r, "own", agent.PhaseStopped); !state.OOMKilled || state.ExitCode != 137 {
		t.Errorf("state is %+v", state)
	}
	seen := map[bool]bool{}
	for !seen[true] || !seen[false] {
		select {
		case e := <-events:
			seen[e.OOM] = true
		case <-time.After(10 * time.Second):
			t.Fatalf("of exit and OOM kill came %v", seen)
		}
	}

	child := testContainer(image, "child", eat+"; exit 3")
	child.Container.MemoryMib = 32
	run(t, r, child)
	if state := waitPhase(t, r, "child", agent.PhaseStopped); state.OOMKilled || state.ExitCode != 3 {
		t.Errorf("with a killed child the state is %+v", state)
	}

	later := testContainer(image, "later", eat+"; exec sleep 1000")
	later.Container.MemoryMib = 32
	run(t, r, later)
	waitUntil(t, "the child is killed", func() bool { return r.cgroups.oomKills(r.cgroupPath("task-later", "later")) > 0 })
	if err := r.Signal(t.Context(), "later", "KILL"); err != nil {
		t.Fatal(err)
	}
	if state := waitPhase(t, r, "later", agent.PhaseStopped); state.OOMKilled || state.ExitCode != 137 {
		t.Errorf("killed by us later, the state is %+v", state)
	}
}

// The task's limits hold for all its containers together.
func TestTaskLimits(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	c := testContainer(importBusybox(t, r), "c1", "exec tail -c 200000000 </dev/zero")
	for range 2 {
		if err := r.PrepareTask(t.Context(), agent.TaskSpec{ID: c.TaskID, CPUUnits: 256, MemoryMiB: 24}); err != nil {
			t.Fatalf("prepare: %v", err)
		}
	}
	c.Container.CpuUnits = 512
	run(t, r, c)
	if state := waitPhase(t, r, "c1", agent.PhaseStopped); !state.OOMKilled {
		t.Errorf("state is %+v", state)
	}
	quota, shares := "cpu.max", "cpu.weight"
	want := []string{"25000 100000", "59"} // the weight as runc converts shares
	root := r.cgroups.unified
	if root == "" {
		root = r.cgroups.v1["cpu"]
		quota, shares, want = "cpu.cfs_quota_us", "cpu.shares", []string{"25000", "512"}
	}
	for i, path := range []string{filepath.Join(c.TaskID, quota), filepath.Join(c.TaskID, "c1", shares)} {
		data, err := os.ReadFile(filepath.Join(root, r.cgroupPath(), path))
		// runc translated shares to weights by another formula before 1.3.2.
		if got := strings.TrimSpace(string(data)); err != nil || got != want[i] && !(want[i] == "20" && got == "59") {
			t.Errorf("%s is %s, %v", path, data, err)
		}
	}
	if err := r.Delete(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.RemoveTask(t.Context(), c.TaskID); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, r.cgroupPath(c.TaskID))); !os.IsNotExist(err) {
		t.Errorf("the task's cgroup is there: %v", err)
	}
}

// Deleting kills, also what ignores SIGTERM, and several at a time.
func TestDeleteRunning(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	image := importBusybox(t, r)
	errs := make(chan error)
	const n = 6
	var started sync.WaitGroup
	started.Add(n)
	for i := range n {
		go func() {
			c := testContainer(image, "c"+strconv.Itoa(i), "trap '' TERM; sleep 1000 & sleep 1000")
			c.TaskID = "task-" + strconv.Itoa(i%2)
			err := r.Create(t.Context(), c)
			if err == nil {
				_, err = r.Start(t.Context(), c.ID)
			}
			// As the agent does: none of a task is deleted while another of it is still being made.
			started.Done()
			started.Wait()
			err = errors.Join(err, r.Signal(t.Context(), c.ID, "SIGTERM"), r.Delete(t.Context(), c.ID))
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	waitUntil(t, "the shims end", func() bool { return len(h.processes()) == 0 })
	if err := r.Signal(t.Context(), "c1", "SIGTERM"); err != nil {
		t.Errorf("signal what is gone: %v", err)
	}
	if err := r.Signal(t.Context(), "c1", "SIGNOPE"); err == nil {
		t.Error("an unknown signal is sent")
	}
}

// Creations and deletions of one task overlap as they like, so that its shim ends and starts between
// them: no shim is left over, and no socket.
func TestShimsComeAndGo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	image := importBusybox(t, r)
	errs := make(chan error)
	const n = 4
	for i := range n {
		go func() {
			var err error
			for round := range 4 {
				c := testContainer(image, fmt.Sprintf("c%d-%d", i, round), "true")
				c.TaskID = "task"
				err = errors.Join(err, r.Create(t.Context(), c))
				if _, startErr := r.Start(t.Context(), c.ID); startErr != nil {
					err = errors.Join(err, startErr)
				}
				err = errors.Join(err, r.Delete(t.Context(), c.ID))
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	waitUntil(t, "the shims end", func() bool { return len(h.processes()) == 0 })
	if left, err := os.ReadDir(socketsDir(h.config.RunDir)); err != nil || len(left) != 0 {
		t.Errorf("sockets left: %v, %v", left, err)
	}
}
