package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent"
)

func TestExec(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	c := testContainer(importBusybox(t, r), "c1", "exec sleep 1000")
	c.Container.User = "app"
	c.Container.WorkingDirectory = "/tmp"
	c.Container.CapabilitiesDrop = []string{"ALL"}
	c.Environment = []string{"FROM_TASK=1"}
	run(t, r, c)
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"as the container", []string{"sh", "-c", "id -u; pwd; echo $FROM_TASK $FROM_IMAGE; grep CapBnd /proc/self/status; cat"}, 0,
			"1234\n/tmp\n1 1\nCapBnd:\t0000000000000000\n"},
		{"both outputs", []string{"sh", "-c", "echo out; sleep 0.05; echo err >&2"}, 0, "out\nerr\n"},
		{"exit code", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"signal", []string{"sh", "-c", "kill -9 $$"}, 137, ""},
		{"the end of much", []string{"sh", "-c", "seq 1 20000; echo end"}, 0, "\n20000\nend\n"},
		{"no terminal", []string{"sh", "-c", "ls -l /proc/self/fd/0 | grep -c null"}, 0, "1\n"},
	}
	for _, tt := range tests {
		code, out, err := r.Exec(t.Context(), "c1", tt.args)
		if err != nil || code != tt.code || !strings.HasSuffix(string(out), tt.want) || len(out) > maxExecOutput {
			t.Errorf("%s: %d, %q, %v", tt.name, code, out, err)
		}
	}
	if _, _, err := r.Exec(t.Context(), "c1", []string{"nope"}); err == nil || !strings.Contains(err.Error(), `exec: "nope": executable file not found in $PATH`) {
		t.Errorf("what is not there: %v", err)
	}
	if _, _, err := r.Exec(t.Context(), "c2", []string{"true"}); err == nil {
		t.Error("an exec in a container that is not there")
	}
	if _, err := os.Stat(r.execDir("c1")); !os.IsNotExist(err) {
		t.Errorf("execs left something: %v", err)
	}
	if err := r.Signal(t.Context(), "c1", "KILL"); err != nil {
		t.Fatal(err)
	}
	waitPhase(t, r, "c1", agent.PhaseStopped)
	if _, _, err := r.Exec(t.Context(), "c1", []string{"true"}); err == nil {
		t.Error("an exec in a container that has stopped")
	}
}

// When an exec's time is over, nothing of it goes on, not even what has become init's child; the
// container does.
func TestExecTimeout(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	c := testContainer(importBusybox(t, r), "c1", "trap '' TERM; sleep 1000 & while true; do sleep 1000; done")
	run(t, r, c)
	waitUntil(t, "it is up", func() bool { return len(cgroupProcs(t, h, c.TaskID, c.ID)) == 3 })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(cgroupProcs(t, h, c.TaskID, c.ID)) < 7 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, out, err := r.Exec(ctx, "c1", []string{"sh", "-c", "echo begun; trap '' TERM; (sleep 1001 & sleep 1001 &); sh -c 'sleep 1002; true'; true"})
	if !errors.Is(err, context.Canceled) || string(out) != "begun\n" {
		t.Errorf("the exec ends with %q, %v", out, err)
	}
	waitUntil(t, "the exec's processes are gone", func() bool { return len(cgroupProcs(t, h, c.TaskID, c.ID)) == 3 })
	if state, _, err := r.Inspect(t.Context(), "c1"); err != nil || state.Phase != agent.PhaseRunning {
		t.Errorf("the container is %+v, %v", state, err)
	}
	if _, out, err := r.Exec(t.Context(), "c1", []string{"echo", "again"}); err != nil || string(out) != "again\n" {
		t.Errorf("the next exec: %q, %v", out, err)
	}
}

// A child that goes on and keeps the output open holds up nobody.
func TestExecLeavesChild(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	run(t, r, testContainer(importBusybox(t, r), "c1", "exec sleep 1000"))
	begun := time.Now()
	code, out, err := r.Exec(t.Context(), "c1", []string{"sh", "-c", "sleep 1000 & echo done"})
	if err != nil || code != 0 || string(out) != "done\n" {
		t.Errorf("exec: %d, %q, %v", code, out, err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the exec took %v", took)
	}
}

// An exec whose Berth was killed is ended by the next one.
func TestExecSurvivesNobody(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.open()
	c := testContainer(importBusybox(t, r), "c1", "exec sleep 1000")
	run(t, r, c)
	record, err := r.engine.containers.Get(r.call(t.Context()), "c1")
	if err != nil {
		t.Fatal(err)
	}
	process, err := execProcess(record, []string{"sleep", "1001"})
	if err != nil {
		t.Fatal(err)
	}
	e := &running{r: r, container: "c1", id: "left", path: filepath.Join(r.execDir("c1"), "left")}
	if e.out, err = newExecOutput(e.path); err != nil {
		t.Fatal(err)
	}
	if err := e.start(r.call(t.Context()), process); err != nil {
		t.Fatal(err)
	}
	if n := len(cgroupProcs(t, h, c.TaskID, c.ID)); n != 2 {
		t.Fatalf("there are %d processes", n)
	}
	e.out.close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.openForTest()
	waitUntil(t, "the exec is gone", func() bool { return len(cgroupProcs(t, h, c.TaskID, c.ID)) == 1 })
	r.background.Wait()
	if _, err := os.Stat(r.execDir("c1")); !os.IsNotExist(err) {
		t.Errorf("something is left of it: %v", err)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	events, err := r.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := testContainer(importBusybox(t, r), "c1", "echo run >>/count; cat /count; exit $(grep -c run /count)")
	c.Container.MemoryMib = 64
	path, read := output(t)
	c.Stdout = path
	other := testContainer(c.Image, "c2", "exec sleep 1000")
	other.TaskID = c.TaskID
	run(t, r, c)
	for n := 1; n <= 3; n++ {
		state := waitPhase(t, r, "c1", agent.PhaseStopped)
		if state.ExitCode != n {
			t.Errorf("run %d: the state is %+v", n, state)
		}
		if n == 2 {
			run(t, r, other) // the shim now has another container too
		}
		if n == 3 {
			break
		}
		before := time.Now()
		at, err := r.Restart(t.Context(), "c1")
		if err != nil || at.Before(before) {
			t.Fatalf("restart: %v, %v", at, err)
		}
		for e := range events {
			if state, _, _ := r.Inspect(t.Context(), "c1"); !e.OOM && e.ID == "c1" && state.Phase == agent.PhaseStopped {
				break
			}
		}
	}
	if got, want := read(), "run\nrun\nrun\nrun\nrun\nrun\n"; got != want {
		t.Errorf("output is %q", got)
	}
	at, err := r.Restart(t.Context(), "c2")
	if state, _, _ := r.Inspect(t.Context(), "c2"); err != nil || !at.Equal(state.StartedAt) || state.Phase != agent.PhaseRunning {
		t.Errorf("restarting what runs: %v, %v, %+v", at, err, state)
	}
	if _, err := r.Restart(t.Context(), "c3"); err == nil {
		t.Error("an unknown container is restarted")
	}
}

// Restart goes on from wherever Berth died in the middle of one.
func TestRestartInterrupted(t *testing.T) {
	t.Parallel()
	for n := 1; n <= len(restartSteps); n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			r := h.open()
			c := testContainer(importBusybox(t, r), "c1", "test -e /mark && exec sleep 1000; touch /mark; exit 42")
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			h.sacrifice(victimTask{Config: h.config, Containers: []agent.ContainerSpec{c}, RestartSteps: n})
			r = h.openForTest()
			state, ok, err := r.Inspect(t.Context(), "c1")
			stopped := state.Phase == agent.PhaseStopped && state.ExitCode == 42
			if err != nil || !ok || n < 3 && !stopped || n == 3 && state.Phase != agent.PhaseCreated {
				t.Fatalf("after %d steps it is %+v, %v, %v", n, state, ok, err)
			}
			if _, err := r.Restart(t.Context(), "c1"); err != nil {
				t.Fatalf("restart after %d steps: %v", n, err)
			}
			if state := waitPhase(t, r, "c1", agent.PhaseRunning); state.ExitCode != 0 {
				t.Errorf("it is %+v", state)
			}
			// Its next exit must be its own.
			h.killShims()
			if state := waitPhase(t, r, "c1", agent.PhaseStopped); state.ExitCode != 137 {
				t.Errorf("with its shim lost it is %+v", state)
			}
			if _, err := r.Restart(t.Context(), "c1"); err != nil {
				t.Fatalf("restart after the shim was lost: %v", err)
			}
			waitPhase(t, r, "c1", agent.PhaseRunning)
		})
	}
}
