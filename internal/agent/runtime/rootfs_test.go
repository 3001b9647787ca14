package runtime

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berthhq/berth/internal/agent"
)

func TestOtherABIs(t *testing.T) {
	t.Parallel()
	if goruntime.GOARCH != "amd64" {
		t.Fatalf("these are amd64's loaders, the machine is %s", goruntime.GOARCH)
	}
	elf32, elf64 := "\x7fELF\x01\x01\x01"+strings.Repeat("\x00", 13), "\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 13)
	tests := []struct {
		name  string
		files map[string]string
		links map[string]string
		key   rootfsKey
		want  bool
	}{
		{name: "empty"},
		{name: "own loaders", files: map[string]string{"lib64/ld-linux-x86-64.so.2": "", "lib/ld-musl-x86_64.so.1": ""}},
		{name: "glibc", files: map[string]string{"lib/ld-linux.so.2": ""}, want: true},
		{name: "musl", files: map[string]string{"lib/ld-musl-i386.so.1": ""}, want: true},
		{name: "x32", files: map[string]string{"libx32/ld-linux-x32.so.2": ""}, want: true},
		{name: "merged usr", files: map[string]string{"usr/lib/ld-linux.so.2": ""}, links: map[string]string{"lib": "usr/lib"}, want: true},
		{name: "a directory out of the image", links: map[string]string{"lib": "/usr/lib"}, files: map[string]string{"usr/lib/ld-linux.so.2": ""}, want: true},
		{name: "static by path", files: map[string]string{"app": elf32}, key: rootfsKey{program: "/app"}, want: true},
		{name: "static by link", files: map[string]string{"app": elf32}, links: map[string]string{"run": "/app"}, key: rootfsKey{program: "/run"}, want: true},
		{name: "static by directory", files: map[string]string{"srv/app": elf32}, key: rootfsKey{program: "./app", cwd: "/srv"}, want: true},
		{name: "static by PATH", files: map[string]string{"bin/app": elf32}, key: rootfsKey{program: "app", path: "/sbin:/bin"}, want: true},
		{name: "first in PATH", files: map[string]string{"bin/app": elf32, "sbin/app": elf64}, key: rootfsKey{program: "app", path: "/sbin:/bin"}},
		{name: "own program", files: map[string]string{"app": elf64}, key: rootfsKey{program: "/app"}},
		{name: "script", files: map[string]string{"app": "#!/bin/sh"}, key: rootfsKey{program: "/app"}},
		{name: "missing", key: rootfsKey{program: "/app"}},
		{name: "link in circles", links: map[string]string{"app": "app"}, key: rootfsKey{program: "/app"}},
	}
	for _, tt := range tests {
		root := t.TempDir()
		for name, body := range tt.files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for name, target := range tt.links {
			if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		if got := hasOtherLoader(root) || isOtherProgram(root, tt.key); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// The seccomp profile holds also where it is made for one ABI alone, and is made for all that an
// image may need.
func TestSeccomp(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	store := func(name string, more ...file) agent.Image {
		t.Helper()
		if _, err := r.Import(t.Context(), bytes.NewReader(archive(t, name+":latest", busyboxImage(t, more...))), nil); err != nil {
			t.Fatalf("import: %v", err)
		}
		image, err := r.Pull(t.Context(), name, agent.PullPreferCached)
		if err != nil {
			t.Fatalf("pull what was imported: %v", err)
		}
		return image
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"32 bits\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "static32"), source)
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a program of 32 bits: %v\n%s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "static32"))
	if err != nil {
		t.Fatal(err)
	}
	static := file{name: "bin/static32", body: string(program), mode: 0o755}

	native := []specs.Arch{specs.ArchX86_64}
	wide := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	// A new user namespace needs no capability: the filter alone forbids it.
	const denied = `exec 2>&1; busybox unshare -U true && echo allowed; grep ^Seccomp: /proc/self/status`
	tests := []struct {
		name    string
		image   agent.Image
		command []string
		want    string
		abis    []specs.Arch
	}{
		{"native", store("native"), []string{"sh", "-c", denied}, "Operation not permitted\nSeccomp:\t2", native},
		{"loader", store("loader", file{name: "lib/ld-linux.so.2", mode: 0o755}, static), []string{"sh", "-c", denied + "; static32"}, "Operation not permitted\nSeccomp:\t2\n32 bits", wide},
		{"static", store("static", static), []string{"static32"}, "32 bits", wide},
		{"unforeseen", store("unforeseen", static), []string{"sh", "-c", "static32; echo $?"}, "159", native}, // 128+SIGSYS
	}
	for _, tt := range tests {
		c := testContainer(tt.image, tt.name, "")
		c.Container.Command = tt.command
		out, read := output(t)
		c.Stdout, c.Stderr = out, out
		run(t, r, c)
		waitPhase(t, r, tt.name, agent.PhaseStopped)
		if got := read(); !strings.Contains(got, tt.want) || strings.Contains(got, "allowed") {
			t.Errorf("%s: %q, not %q", tt.name, got, tt.want)
		}
		record, err := r.engine.containers.Get(r.call(t.Context()), tt.name)
		if err != nil {
			t.Fatal(err)
		}
		var spec specs.Spec
		if err := json.Unmarshal(record.Spec.GetValue(), &spec); err != nil {
			t.Fatal(err)
		}
		if got := spec.Linux.Seccomp.Architectures; !slices.Equal(got, tt.abis) {
			t.Errorf("%s: the filter is for %v, not %v", tt.name, got, tt.abis)
		}
		if err := r.Delete(t.Context(), tt.name); err != nil {
			t.Errorf("%s: delete: %v", tt.name, err)
		}
	}
}
