package runtime

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// A container that ends while nobody is there is reported with its own exit code and time.
func TestExitWhileClosed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	image := importBusybox(t, r)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	ends := testContainer(image, "ends", "cat /gate; exit 42")
	ends.Mounts = []agent.Mount{{Source: gate, Target: "/gate"}}
	stays := testContainer(image, "stays", "exec sleep 1000")
	stays.TaskID = ends.TaskID
	if err := r.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	h.runThenKill(ends, stays)
	if n := len(h.processes()); n != 1 {
		t.Errorf("one task has %d shims", n)
	}

	before := time.Now()
	f, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	// The process is gone from its cgroup when it has ended.
	waitUntil(t, "the container ends", func() bool {
		return len(cgroupProcs(t, h, ends.TaskID, "ends")) == 0
	})
	after := time.Now()

	r = h.openForTest()
	state, ok, err := r.Inspect(t.Context(), "ends")
	if err != nil || !ok || state.Phase != agent.PhaseStopped || state.ExitCode != 42 {
		t.Fatalf("state is %+v, %v, %v", state, ok, err)
	}
	if state.FinishedAt.Before(before.Add(-time.Second)) || state.FinishedAt.After(after.Add(time.Second)) {
		t.Errorf("finished at %v, not within %v and %v", state.FinishedAt, before, after)
	}
	if state, _, _ := r.Inspect(t.Context(), "stays"); state.Phase != agent.PhaseRunning || state.StartedAt.IsZero() {
		t.Errorf("the other is %+v", state)
	}
	events, err := r.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Signal(t.Context(), "stays", "SIGKILL"); err != nil {
		t.Fatalf("signal after the restart: %v", err)
	}
	for e := range events {
		if e.ID == "stays" && !e.OOM {
			break // the shim may repeat the other's exit
		}
	}
	if state := waitPhase(t, r, "stays", agent.PhaseStopped); state.ExitCode != 137 || state.OOMKilled {
		t.Errorf("killed, it is %+v", state)
	}
}

// After a reboot there are no processes and no run directory, only what is in Root.
func TestReboot(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	image := importBusybox(t, r)
	if err := r.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	h.runThenKill(testContainer(image, "c1", "exec sleep 1000"))
	h.killShims()
	for _, pid := range cgroupProcs(t, h, "task-c1", "c1") {
		unix.Kill(pid, unix.SIGKILL)
	}
	waitUntil(t, "the container ends", func() bool { return len(cgroupProcs(t, h, "task-c1", "c1")) == 0 })
	if err := unmountBelow(h.config.RunDir); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.config.RunDir); err != nil {
		t.Fatal(err)
	}

	r = h.openForTest()
	for range 2 {
		state, ok, err := r.Inspect(t.Context(), "c1")
		if err != nil || !ok || state.Phase != agent.PhaseStopped || state.ExitCode != -1 || state.TaskID != "task-c1" {
			t.Errorf("state is %+v, %v, %v", state, ok, err)
		}
	}
	if all, err := r.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("list is %v, %v", all, err)
	}
	if err := r.Delete(t.Context(), "c1"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// A shim that dies takes its containers along; what they ended with is kept over a restart.
func TestShimLost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	image := importBusybox(t, r)
	run(t, r, testContainer(image, "seen", "exec sleep 1000"))
	h.killShims()
	if state := waitPhase(t, r, "seen", agent.PhaseStopped); state.ExitCode != 137 {
		t.Errorf("state is %+v", state)
	}
	if procs := cgroupProcs(t, h, "task-seen", "seen"); len(procs) != 0 {
		t.Errorf("its processes %v go on", procs)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	h.runThenKill(testContainer(image, "unseen", "exec sleep 1000"))
	h.killShims()
	for range 2 {
		r = h.open()
		for _, id := range []string{"seen", "unseen"} {
			state, ok, err := r.Inspect(t.Context(), id)
			if err != nil || !ok || state.Phase != agent.PhaseStopped || state.ExitCode != 137 {
				t.Errorf("%s is %+v, %v, %v", id, state, ok, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	h.openForTest()
}

// What a Create that was cut short leaves is removed at the next start.
func TestInterruptedCreate(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	image := importBusybox(t, r)
	ctx := r.call(t.Context())
	c := testContainer(image, "half", "exec sleep 1000")
	stored, err := r.unpacked(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := r.engine.snapshots.Prepare(ctx, c.ID, stored.chain)
	if err != nil {
		t.Fatal(err)
	}
	record, err := r.record(ctx, c, stored, mounts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.engine.containers.Create(ctx, record); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := r.Inspect(t.Context(), "half"); ok || err != nil {
		t.Errorf("a half-made container is known: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.openForTest()
	if all, err := r.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("list is %v, %v", all, err)
	}
	run(t, r, c)
}

// Without a reader of its output a container waits, and loses nothing.
func TestOutputWithoutReader(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	path := filepath.Join(t.TempDir(), "out")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	c := testContainer(importBusybox(t, r), "c1", "head -c 1048576 /dev/zero; echo end; exec sleep 1000")
	c.Stdout = path
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	h.runThenKill(c)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, size+4)
	if n, err := io.ReadFull(f, got); err != nil {
		t.Fatalf("read after %d bytes: %v", n, err)
	}
	if !bytes.Equal(got, append(make([]byte, size), "end\n"...)) {
		t.Error("the output is damaged")
	}
	r = h.openForTest()
	if state, _, err := r.Inspect(t.Context(), "c1"); err != nil || state.Phase != agent.PhaseRunning {
		t.Errorf("state is %+v, %v", state, err)
	}
}

// A replaced berth binary leaves alone what runs, and what it ran under goes with the last container.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	image := importBusybox(t, r)
	run(t, r, testContainer(image, "old", "exec sleep 1000"))
	oldDir := r.programs.dir
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// Another runc stands for another release of everything.
	data, err := os.ReadFile(filepath.Join(oldDir, "runc"))
	if err != nil {
		t.Fatal(err)
	}
	h.config.Runc = filepath.Join(t.TempDir(), "runc")
	if err := os.WriteFile(h.config.Runc, append(data, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	r = h.open()
	run(t, r, testContainer(image, "new", "exec sleep 1000"))
	if state, _, err := r.Inspect(t.Context(), "old"); err != nil || state.Phase != agent.PhaseRunning {
		t.Errorf("after the upgrade the old container is %+v, %v", state, err)
	}
	if err := r.Delete(t.Context(), "old"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.openForTest()
	if _, err := os.Stat(oldDir); !os.IsNotExist(err) {
		t.Errorf("a runtime that nothing refers to is there: %v", err)
	}
	if state, _, err := r.Inspect(t.Context(), "new"); err != nil || state.Phase != agent.PhaseRunning {
		t.Errorf("the new container is %+v, %v", state, err)
	}
}

// Two instances side by side do not see each other.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	a, b := newHost(t).openForTest(), newHost(t).openForTest()
	for _, r := range []*Runtime{a, b} {
		run(t, r, testContainer(importBusybox(t, r), "same", "exec sleep 1000"))
	}
	if err := a.Reset(t.Context()); err != nil {
		t.Errorf("reset: %v", err)
	}
	if state, _, err := b.Inspect(t.Context(), "same"); err != nil || state.Phase != agent.PhaseRunning {
		t.Errorf("the other's container is %+v, %v", state, err)
	}
	if found, err := a.ListImages(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("after the reset there are %v, %v", found, err)
	}
}

func waitUntil(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// killShims kills the instance's shims and waits for their end.
func (h *host) killShims() {
	h.t.Helper()
	for _, pid := range h.processes() {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			h.t.Fatal(err)
		}
	}
	waitUntil(h.t, "the shims end", func() bool { return len(h.processes()) == 0 })
}

// cgroupProcs answers the processes of a container, not counting the dead.
func cgroupProcs(t testing.TB, h *host, task, id string) []int {
	t.Helper()
	groups, err := detectCgroups()
	if err != nil {
		t.Fatal(err)
	}
	root := groups.unified
	if root == "" {
		root = groups.v1["memory"]
	}
	data, err := os.ReadFile(filepath.Join(root, "berth-"+h.config.Instance, task, id, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for f := range strings.FieldsSeq(string(data)) {
		var pid int
		for _, d := range f {
			pid = pid*10 + int(d-'0')
		}
		out = append(out, pid)
	}
	return out
}
