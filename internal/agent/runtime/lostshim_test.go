package runtime

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// lostShim starts a task's shim as it is left when Berth dies right after starting it: nobody reads its
// log, and nothing tells of it but its socket.
func (h *host) lostShim(r *Runtime, task string) {
	h.t.Helper()
	bundle := h.t.TempDir()
	if err := unix.Mkfifo(filepath.Join(bundle, "log"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.shimSocket(task), Net: "unix"})
	if err != nil {
		h.t.Fatal(err)
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	socket, err := listener.File()
	if err != nil {
		h.t.Fatal(err)
	}
	defer socket.Close()
	address := grpcAddress(h.config.RunDir)
	cmd := exec.Command(r.programs.shim, "-namespace", namespace, "-id", "lost", "-address", address)
	cmd.Dir = bundle
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+address+".ttrpc")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go cmd.Wait()
}

// within fails the test if f takes longer.
func within(t testing.TB, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("after %s it still cannot %s", limit, what)
	}
}

// A shim that was started by a Berth that died at once serves the next one's containers.
func TestShimStartedByTheDead(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	c := testContainer(importBusybox(t, r), "c1", "exec sleep 1000")
	h.lostShim(r, c.TaskID)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.Create(ctx, c); err != nil {
		t.Fatalf("create: %v", err)
	}
	if _, err := r.Start(ctx, c.ID); err != nil {
		t.Fatalf("start: %v", err)
	}
	if n := len(h.processes()); n != 1 {
		t.Errorf("one task has %d shims", n)
	}
	if err := r.Delete(ctx, c.ID); err != nil {
		t.Fatalf("delete: %v", err)
	}
	waitUntil(t, "the shim ends", func() bool { return len(h.processes()) == 0 })
}

// If no container of the task is made any more, such a shim ends with the task, or with all there is.
func TestLostShimEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(r *Runtime) error{
		"task":  func(r *Runtime) error { return r.RemoveTask(context.Background(), "task-c1") },
		"reset": func(r *Runtime) error { return r.Reset(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			r := h.openForTest()
			h.lostShim(r, "task-c1")
			if err := end(r); err != nil {
				t.Fatal(err)
			}
			if left := h.processes(); len(left) != 0 {
				t.Errorf("processes left: %v", left)
			}
			if _, err := os.Lstat(r.shimSocket("task-c1")); !os.IsNotExist(err) {
				t.Errorf("its socket is left: %v", err)
			}
		})
	}
}

// A shim of which Berth had not written down how to reach it is ended with what it holds, and the
// container can be made again.
func TestShimForgotten(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	c := testContainer(importBusybox(t, r), "c1", "exec sleep 1000")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	h.runThenKill(c)
	bundle := filepath.Join(bundlesDir(h.config.RunDir), c.ID)
	for _, name := range []string{"bootstrap.json", "init.pid"} {
		if err := os.Remove(filepath.Join(bundle, name)); err != nil {
			t.Fatal(err)
		}
	}
	r = h.openForTest()
	if left := h.processes(); len(left) != 0 {
		t.Errorf("processes left: %v", left)
	}
	if _, ok, err := r.Inspect(t.Context(), c.ID); ok || err != nil {
		t.Errorf("the half-made container is known: %v", err)
	}
	run(t, r, c)
	waitPhase(t, r, c.ID, agent.PhaseRunning)
}

// A shim that does not answer holds up no call for longer than its deadline, and its containers can be
// deleted.
func TestHungShim(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	r.killWait = time.Second
	image := importBusybox(t, r)
	c1, c2 := testContainer(image, "c1", "exec sleep 1000"), testContainer(image, "c2", "exec sleep 1000")
	c2.TaskID = c1.TaskID
	run(t, r, c1)
	for _, pid := range h.processes() {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 40*time.Second, "give up a creation", func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Create(ctx, c2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("create: %v", err)
		}
	})
	within(t, 40*time.Second, "delete the containers", func() {
		for _, id := range []string{"c2", "c1"} {
			if err := r.Delete(t.Context(), id); err != nil {
				t.Errorf("delete: %v", err)
			}
		}
	})
	if left := h.processes(); len(left) != 0 {
		t.Errorf("processes left: %v", left)
	}
	if left := cgroupProcs(t, h, c1.TaskID, "c1"); len(left) != 0 {
		t.Errorf("the container's processes %v go on", left)
	}
	run(t, r, c1)
}

// SIGKILL reaches a container also if its shim does not answer.
func TestKillUnderHungShim(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	r.killWait = time.Second
	c := testContainer(importBusybox(t, r), "c1", "exec sleep 1000")
	run(t, r, c)
	for _, pid := range h.processes() {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 30*time.Second, "kill the container", func() {
		if err := r.Signal(t.Context(), c.ID, "KILL"); err != nil {
			t.Errorf("kill: %v", err)
		}
	})
	if state := waitPhase(t, r, c.ID, agent.PhaseStopped); state.ExitCode != 137 {
		t.Errorf("state is %+v", state)
	}
	if left := cgroupProcs(t, h, c.TaskID, c.ID); len(left) != 0 {
		t.Errorf("the container's processes %v go on", left)
	}
}

func TestListeningInodes(t *testing.T) {
	t.Parallel()
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
ffff888000000001: 00000002 00000000 00010000 0001 01 4711 /run/s/a
ffff888000000002: 00000003 00000000 00000000 0001 03 4712 /run/s/a
ffff888000000003: 00000002 00000000 00010000 0001 01 4713 /run/s/ab
ffff888000000004: 00000003 00000000 00000000 0001 03 4714
`
	if got := listeningInodes(table, "/run/s/a"); len(got) != 1 || !got["socket:[4711]"] {
		t.Errorf("got %v", got)
	}
}
