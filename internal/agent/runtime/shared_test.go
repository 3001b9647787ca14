package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// inTask makes the container one of the task, in its modes.
func inTask(c agent.ContainerSpec, t agent.TaskSpec) agent.ContainerSpec {
	c.TaskID, c.PIDMode, c.IPCMode = t.ID, t.PIDMode, t.IPCMode
	return c
}

// newPauseHost is an instance whose shim can be the first process of a namespace that has no files: the
// test binary need not be static.
func newPauseHost(t testing.TB) *host {
	t.Helper()
	h := newHost(t)
	h.config.Shim = builtShim(t)
	return h
}

// With pid and ipc mode task, containers see each other's processes and memory, and what keeps the
// namespaces outlives Berth but not the task.
func TestSharedNamespaces(t *testing.T) {
	t.Parallel()
	h := newPauseHost(t)
	r := h.open()
	t.Cleanup(func() {
		if t.Failed() {
			h.openForTest() // which empties it
		}
	})
	image := importBusybox(t, r)
	task := agent.TaskSpec{ID: "t1", PIDMode: "task", IPCMode: "task", SharedMemoryMiB: 7, MemoryMiB: 256}
	a := inTask(testContainer(image, "a", "echo hello >/dev/shm/note; exec sleep 1001"), task)
	b := inTask(testContainer(image, "b", "exec sleep 1002"), task)
	if err := r.Create(t.Context(), a); err == nil {
		t.Error("a container joins namespaces that nobody has made")
	}
	for range 2 {
		if err := r.PrepareTask(t.Context(), task); err != nil {
			t.Fatalf("prepare: %v", err)
		}
	}
	note, ok := readPause(r.sharedDir("t1"))
	if !ok || !note.alive() {
		t.Fatalf("the first process is %+v, %v", note, ok)
	}
	if procs := cgroupProcs(t, h, "t1", pauseCgroup); len(procs) != 1 || procs[0] != note.PID {
		t.Errorf("in the task's cgroup are %v, not %d", procs, note.PID)
	}
	run(t, r, a)
	run(t, r, b)
	look := func(id, script, want string) {
		t.Helper()
		_, out, err := r.Exec(t.Context(), id, []string{"sh", "-c", script})
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s in %s: %q, %v", script, id, out, err)
		}
	}
	waitUntil(t, "the note is written", func() bool {
		code, _, err := r.Exec(t.Context(), "b", []string{"cat", "/dev/shm/note"})
		return err == nil && code == 0
	})
	look("b", "cat /dev/shm/note", "hello")
	look("b", "df -m /dev/shm", "7         0         7")
	look("b", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", "berth-pause "+r.config.Instance+"/t1 --  sleep 1001 sleep 1002 ")
	look("a", "readlink /proc/self/ns/ipc; grep -c . /proc/sysvipc/shm", "ipc:[")

	// The end of one is the other's business only in the namespace.
	if err := r.Signal(t.Context(), "a", "KILL"); err != nil {
		t.Fatal(err)
	}
	waitPhase(t, r, "a", agent.PhaseStopped)
	if _, err := r.Restart(t.Context(), "a"); err != nil {
		t.Fatalf("restart: %v", err)
	}
	look("b", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", "sleep 1001 ")

	// Another Berth finds everything as it is.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	second := h.openForTest()
	if err := second.PrepareTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if again, _ := readPause(second.sharedDir("t1")); again != note {
		t.Errorf("the first process was %+v and is %+v", note, again)
	}
	for _, id := range []string{"a", "b"} {
		if err := second.Delete(t.Context(), id); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	for range 2 {
		if err := second.RemoveTask(t.Context(), "t1"); err != nil {
			t.Errorf("remove the task: %v", err)
		}
	}
	if note.alive() {
		t.Error("the task is gone, its first process is not")
	}
	if _, err := os.Lstat(second.sharedDir("t1")); !os.IsNotExist(err) {
		t.Errorf("something shared is left: %v", err)
	}
}

// In a shared PID namespace, an exited container leaves no processes to the others.
func TestSharedPIDLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newPauseHost(t)
	r := h.openForTest()
	task := agent.TaskSpec{ID: "t1", PIDMode: "task"}
	if err := r.PrepareTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	c := inTask(testContainer(importBusybox(t, r), "a", "sleep 1003 & (sleep 1004 &); exit 3"), task)
	run(t, r, c)
	if state := waitPhase(t, r, "a", agent.PhaseStopped); state.ExitCode != 3 {
		t.Errorf("it is %+v", state)
	}
	waitUntil(t, "its processes are gone", func() bool { return len(cgroupProcs(t, h, "t1", "a")) == 0 })
}

// Containers cannot use the process that keeps their namespace, not even with the right to trace it:
// it has no file of the host, no rights, and nothing ends it from inside.
func TestPauseGivesNothing(t *testing.T) {
	t.Parallel()
	r := newPauseHost(t).openForTest()
	task := agent.TaskSpec{ID: "t1", PIDMode: "task"}
	if err := r.PrepareTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	note, _ := readPause(r.sharedDir("t1"))
	c := inTask(testContainer(importBusybox(t, r), "a", "exec sleep 1000"), task)
	c.Container.CapabilitiesAdd = []string{"SYS_PTRACE"}
	run(t, r, c)
	plain := inTask(testContainer(c.Image, "b", "exec sleep 1000"), task)
	run(t, r, plain)

	_, out, err := r.Exec(t.Context(), "a", []string{"sh", "-c", "ls -a /proc/1/root/; ls /proc/1/fd; ls /proc/1/root/etc; " +
		"echo x >/proc/1/root/new; echo x >>/proc/1/exe; grep -E '^(Uid|Cap...|NoNewPrivs)' /proc/1/status; cat /proc/1/environ"})
	if err != nil {
		t.Fatal(err)
	}
	got := string(out)
	for _, want := range []string{
		".\n..\npause\n", "/proc/1/root/etc: No such file", "can't create /proc/1/root/new: Read-only file system", "NoNewPrivs:\t1",
		"Uid:\t65534\t65534\t65534\t65534", "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("with the right to trace it, no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "/proc/1/exe") && !strings.Contains(got, "can't create /proc/1/exe") {
		t.Errorf("the program could be written:\n%s", got)
	}
	if strings.Contains(got, "PATH=") {
		t.Errorf("it has Berth's environment:\n%s", got)
	}
	_, out, err = r.Exec(t.Context(), "b", []string{"sh", "-c", "ls /proc/1/root/ /proc/1/fd; for s in $(seq 1 31); do kill -$s 1; done; echo done"})
	if err != nil || strings.Count(string(out), "Permission denied") != 1 || !strings.Contains(string(out), "done") {
		t.Errorf("without: %q, %v", out, err)
	}
	_, out, err = r.Exec(t.Context(), "a", []string{"sh", "-c", "sleep 0.2; echo alive"})
	if err != nil || string(out) != "alive\n" || !note.alive() {
		t.Errorf("after all signals: %q, %v", out, err)
	}
	for fd := range 8 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", note.PID, fd)); err == nil && strings.HasPrefix(target, "/") {
			t.Errorf("it has %s open", target)
		}
	}
}

// What keeps a task's namespaces is made anew when it was killed, and a note of a process number that
// is now another's harms nobody.
func TestPauseIsFound(t *testing.T) {
	t.Parallel()
	r := newPauseHost(t).openForTest()
	task := agent.TaskSpec{ID: "t1", PIDMode: "task"}
	if err := r.PrepareTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	first, _ := readPause(r.sharedDir("t1"))
	if err := unix.Kill(first.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "it is gone", func() bool { return !first.alive() })
	if err := r.PrepareTask(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	second, _ := readPause(r.sharedDir("t1"))
	if second == first || !second.alive() {
		t.Errorf("the second is %+v", second)
	}
	run(t, r, inTask(testContainer(importBusybox(t, r), "a", "exec sleep 1000"), task))
	if err := r.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	stranger := pause{PID: os.Getpid(), Start: 1}
	if stranger.alive() {
		t.Error("another process passes for the one noted")
	}
}

func TestHostModes(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of Berth"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	self := strconv.Itoa(os.Getpid())

	c := testContainer(image, "pid", "ls -d /proc/"+self+"; cat /proc/"+self+"/environ; ls /proc/"+self+"/root /proc/"+self+"/cwd/ /proc/"+self+
		"/fd; cat /proc/"+self+"/fd/"+strconv.Itoa(int(held.Fd()))+"; head -c 1 /proc/"+self+"/mem; head -c 1 /proc/"+self+"/maps")
	c.PIDMode = "host"
	c.Container.InitProcess = true // the namespace has one already
	out, read := output(t)
	c.Stdout, c.Stderr = out, out
	run(t, r, c)
	waitPhase(t, r, "pid", agent.PhaseStopped)
	got := read()
	if !strings.Contains(got, "/proc/"+self+"\n") || strings.Contains(got, "of Berth") || strings.Contains(got, "PATH=") {
		t.Errorf("in the host's PID namespace it sees\n%s", got)
	}
	// environ, root, cwd, the file held, mem, maps; how many files are open, Linux tells everybody.
	if n := strings.Count(got, "Permission denied"); n != 6 {
		t.Errorf("%d of 6 ways to Berth are closed:\n%s", n, got)
	}

	name := "berth-test-" + r.config.Instance
	if err := os.WriteFile("/dev/shm/"+name, []byte("shared"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/dev/shm/" + name)
	own, err := os.Readlink("/proc/self/ns/ipc")
	if err != nil {
		t.Fatal(err)
	}
	c = testContainer(image, "ipc", "readlink /proc/self/ns/ipc; cat /dev/shm/"+name)
	c.IPCMode = "host"
	if got, _ := runOutput(t, r, c); got != own+"\nshared" {
		t.Errorf("in the host's IPC namespace %s it sees %q", own, got)
	}
	c = testContainer(image, "none", "readlink /proc/self/ns/ipc; ls -d /dev/shm || echo none")
	c.IPCMode = "none"
	if got, _ := runOutput(t, r, c); !strings.HasSuffix(got, "none\n") || strings.HasPrefix(got, own) {
		t.Errorf("with ipc mode none it sees %q", got)
	}
	c = testContainer(image, "wrong", "true")
	c.IPCMode = "some"
	if err := r.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), "invalid IPC mode") {
		t.Errorf("an unknown mode: %v", err)
	}
}
