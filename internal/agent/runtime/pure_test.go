package runtime

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestArguments(t *testing.T) {
	t.Parallel()
	image := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}}
	tests := []struct {
		name string
		c    *dispatchpb.Container
		want string // "" is an error
	}{
		{"the image's", &dispatchpb.Container{}, "/entry cmd"},
		{"command", &dispatchpb.Container{HasCommand: true, Command: []string{"a", "b"}}, "/entry a b"},
		{"empty command", &dispatchpb.Container{HasCommand: true}, "/entry cmd"},
		{"entry point drops the command", &dispatchpb.Container{HasEntryPoint: true, EntryPoint: []string{"/e"}}, "/e"},
		{"both", &dispatchpb.Container{HasEntryPoint: true, EntryPoint: []string{"/e"}, HasCommand: true, Command: []string{"a"}}, "/e a"},
		{"no entry point", &dispatchpb.Container{HasEntryPoint: true, HasCommand: true, Command: []string{"a"}}, "a"},
		{"nothing", &dispatchpb.Container{HasEntryPoint: true}, ""},
	}
	for _, tt := range tests {
		got, err := arguments(tt.c, image)
		if strings.Join(got, " ") != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	available := append(slices.Clone(defaultCapabilities), "CAP_SYS_ADMIN", "CAP_NET_ADMIN")
	tests := []struct {
		name      string
		add, drop []string
		count     int
		has, not  string
	}{
		{"default", nil, nil, 14, "CAP_CHOWN", "CAP_SYS_ADMIN"},
		{"add", []string{"sys_admin"}, nil, 15, "CAP_SYS_ADMIN", "CAP_NET_ADMIN"},
		{"drop", nil, []string{"CAP_CHOWN"}, 13, "CAP_KILL", "CAP_CHOWN"},
		{"drop all, add one", []string{"CHOWN"}, []string{"ALL"}, 1, "CAP_CHOWN", "CAP_KILL"},
		{"add all, drop one", []string{"ALL"}, []string{"CHOWN"}, 15, "CAP_SYS_ADMIN", "CAP_CHOWN"},
	}
	for _, tt := range tests {
		got, err := capabilities(&dispatchpb.Container{CapabilitiesAdd: tt.add, CapabilitiesDrop: tt.drop}, available)
		if err != nil || len(got) != tt.count || !slices.Contains(got, tt.has) || slices.Contains(got, tt.not) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
}

// Whatever the definition says, the spec stays within what Linux takes, and each variable and each
// mount point comes once.
func TestBuildSpecProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`/[a-c](/[a-c]){0,2}`)
		c := &dispatchpb.Container{
			HasCommand: true, Command: []string{"x"},
			CpuUnits:             rapid.Int64Range(0, 1<<40).Draw(t, "cpu"),
			MemoryMib:            rapid.SampledFrom([]int64{0, 6, 4096}).Draw(t, "memory"),
			MemoryReservationMib: rapid.SampledFrom([]int64{0, 6}).Draw(t, "reservation"),
			Privileged:           rapid.Bool().Draw(t, "privileged"),
			CapabilitiesDrop:     rapid.SliceOfN(rapid.SampledFrom(append(slices.Clone(defaultCapabilities), "ALL")), 0, 3).Draw(t, "drop"),
		}
		for _, p := range rapid.SliceOfNDistinct(path, 0, 4, rapid.ID).Draw(t, "tmpfs") {
			c.Tmpfs = append(c.Tmpfs, &dispatchpb.Tmpfs{Path: p, SizeMib: 1})
		}
		var mounts []agent.Mount
		for _, p := range rapid.SliceOfN(path, 0, 4).Draw(t, "binds") {
			mounts = append(mounts, agent.Mount{Source: "/src", Target: p})
		}
		in := specInput{
			container: agent.ContainerSpec{
				ID: "c", TaskID: "t", Container: c,
				Environment: rapid.SliceOf(rapid.StringMatching(`[A-C]=[x-z]`)).Draw(t, "environment"),
				HostNetwork: rapid.Bool().Draw(t, "host"), Mounts: mounts,
			},
			image:  ocispec.ImageConfig{Env: rapid.SliceOf(rapid.StringMatching(`[A-C]=i`)).Draw(t, "image")},
			user:   specs.User{UID: rapid.Uint32().Draw(t, "uid")},
			cgroup: "/g",
			host:   hostFacts{capabilities: defaultCapabilities, maxNoFile: 100},
		}
		s, err := buildSpec(in)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if shares := *s.Linux.Resources.CPU.Shares; shares < minCPUShares || shares > maxCPUShares {
			t.Fatalf("shares are %d", shares)
		}
		names := map[string]bool{}
		for _, v := range s.Process.Env {
			name, value, _ := strings.Cut(v, "=")
			if names[name] {
				t.Fatalf("%s is there twice in %v", name, s.Process.Env)
			}
			names[name] = true
			if value == "i" && slices.ContainsFunc(in.container.Environment, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
				t.Fatalf("the image's %s wins", name)
			}
		}
		for i, m := range s.Mounts {
			for _, later := range s.Mounts[i+1:] {
				if later.Destination == m.Destination {
					t.Fatalf("two mounts at %s", m.Destination)
				}
				if strings.HasPrefix(m.Destination, later.Destination+"/") {
					t.Fatalf("%s comes before %s, which hides it", m.Destination, later.Destination)
				}
			}
		}
		for _, set := range [][]string{s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted} {
			if in.user.UID != 0 && len(set) != 0 {
				t.Fatalf("user %d has %v", in.user.UID, set)
			}
		}
	})
}

func TestCgroupMounts(t *testing.T) {
	t.Parallel()
	const hybrid = `25 30 0:22 / /sys/fs/cgroup ro,nosuid shared:7 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:8 - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid shared:9 - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
29 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
`
	got := cgroupMounts([]byte(hybrid))
	if len(got) != 3 || got["cpu"] != "/sys/fs/cgroup/cpu,cpuacct" || got["memory"] != "/sys/fs/cgroup/memory" {
		t.Errorf("mounts are %v", got)
	}
}

func FuzzCgroupMounts(f *testing.F) {
	f.Add([]byte("28 25 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"))
	f.Add([]byte("a - cgroup - b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for controller, mount := range cgroupMounts(data) {
			if controller != "" && mount == "" {
				t.Errorf("%q is mounted nowhere", controller)
			}
		}
	})
}

func FuzzParseOOMKills(f *testing.F) {
	f.Add([]byte("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"))
	f.Add([]byte("oom_kill -1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n := parseOOMKills(data); n < 0 || n > 0 && !bytes.Contains(data, []byte("oom_kill ")) {
			t.Errorf("%d kills in %q", n, data)
		}
	})
}

func FuzzStartTicks(f *testing.F) {
	f.Add("42 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20")
	f.Add(")")
	f.Fuzz(func(t *testing.T, stat string) { startTicks(stat) })
}

func FuzzParseExit(f *testing.F) {
	f.Add("137 2026-11-23T02:00:00.5Z")
	f.Add("-1 0001-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, s string) {
		code, at, ok := parseExit(s)
		if !ok || at.UTC().Year() < 0 || at.UTC().Year() > 9999 {
			return
		}
		again, then, ok := parseExit(formatExit(code, at))
		if !ok || again != code || !then.Equal(at) {
			t.Errorf("%q becomes %d %v, then %d %v", s, code, at, again, then)
		}
	})
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app", []byte("app:x:1:2::/:/bin/sh\n"), []byte("g:x:3:app\n"))
	f.Add("1:g", []byte(""), []byte("g:x:3:\n"))
	f.Fuzz(func(t *testing.T, name string, passwd, group []byte) {
		u, err := accounts{passwd: passwd, group: group}.resolveUser(name)
		if err == nil && (u.UID > 1<<31-1 || u.GID > 1<<31-1) {
			t.Errorf("%q is %+v", name, u)
		}
	})
}

func FuzzNormalizeRef(f *testing.F) {
	f.Add("busybox")
	f.Add("localhost:5000/a/b:c@sha256:" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, ref string) {
		once, err := NormalizeRef(ref)
		if err != nil {
			return
		}
		if twice, err := NormalizeRef(once); err != nil || twice != once {
			t.Errorf("%q is %q, then %q, %v", ref, once, twice, err)
		}
		if strings.HasPrefix(once, pinPrefix) {
			t.Errorf("%q passes for a pin", ref)
		}
	})
}

func TestPrograms(t *testing.T) {
	t.Parallel()
	base, runc := filepath.Join(t.TempDir(), "runtime"), filepath.Join(t.TempDir(), "runc")
	if err := os.WriteFile(runc, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	first, err := installPrograms(base, "", runc)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	again, err := installPrograms(base, "", runc)
	if err != nil || again != first {
		t.Errorf("installed again it is %+v, %v", again, err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the second time takes %v", took)
	}
	for _, path := range []string{first.shim, first.runc} {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if err := os.WriteFile(runc, []byte("#!/bin/sh\necho\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	second, err := installPrograms(base, "", runc)
	if err != nil || second.dir == first.dir {
		t.Errorf("another runc is in %s, %v", second.dir, err)
	}
	if err := removeOldPrograms(base, map[string]bool{filepath.Base(second.dir): true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.dir); !os.IsNotExist(err) {
		t.Errorf("the old one is there: %v", err)
	}
	if _, err := installPrograms(base, "", filepath.Join(base, "nope")); err == nil {
		t.Error("a missing runc is installed")
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	for _, f := range Doctor(filepath.Join(t.TempDir(), "root"), builtRunc(t)) {
		if !f.OK {
			t.Errorf("%s: %s", f.Name, f.Detail)
		}
	}
	for _, f := range Doctor("/proc/nope", "/nope") {
		if (f.Name == "overlayfs" || f.Name == "runc") && f.OK {
			t.Errorf("%s is found where there is none: %s", f.Name, f.Detail)
		}
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{Instance: "x", RunDir: "/run/x"},
		{Instance: "0123abcd", RunDir: "relative"},
		{Instance: "0123abcd", RunDir: "/run/" + strings.Repeat("x", 40)},
	} {
		if r, err := Open(t.Context(), c); err == nil {
			r.Close()
			t.Errorf("%+v is taken", c)
		}
	}
}
