package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func checkEvery(interval, timeout, retries, startPeriod int64) *dispatchpb.HealthCheck {
	return &dispatchpb.HealthCheck{
		Command:         []string{"CMD", "check", "me"},
		IntervalSeconds: interval, TimeoutSeconds: timeout, Retries: retries, StartPeriodSeconds: startPeriod,
	}
}

func TestHealthCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ command, want []string }{
		{nil, nil}, {[]string{"NONE"}, nil}, {[]string{"CMD"}, nil}, {[]string{"curl", "x"}, nil},
		{[]string{"CMD", "curl", "-f"}, []string{"curl", "-f"}},
		{[]string{"CMD-SHELL", "curl || exit 1"}, []string{"/bin/sh", "-c", "curl || exit 1"}},
	} {
		got := healthCommand(&dispatchpb.Container{HealthCheck: &dispatchpb.HealthCheck{Command: c.command}})
		if !slices.Equal(got, c.want) {
			t.Errorf("%q runs %q, want %q", c.command, got, c.want)
		}
	}
	if healthCommand(&dispatchpb.Container{}) != nil {
		t.Error("a container without a check has one")
	}
}

func TestHealth(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var code, checks atomic.Int64
		code.Store(1)
		w.runtime.exec = func(_ string, args []string) (int, string, error) {
			checks.Add(1)
			if !slices.Equal(args, []string{"check", "me"}) {
				return 99, "", nil
			}
			return int(code.Load()), strings.Repeat("x", 2000) + "the end\n", nil
		}
		task := testTask("a1", 2)
		task.Containers[0].HealthCheck = checkEvery(30, 5, 3, 0)
		w.server.assign(task)
		pass(31 * time.Second)
		st := wantStatus(t, w, task, statusRunning)
		if c := st.Containers[0]; c.HealthStatus != healthUnknown || st.Containers[1].HealthStatus != "" {
			t.Fatalf("after one failure: %v", st)
		}
		pass(62 * time.Second)
		c := w.server.status(task.Arn).Containers[0]
		if c.HealthStatus != healthUnhealthy || c.HealthExitCode != 1 || !strings.HasSuffix(c.HealthOutput, "the end") || len(c.HealthOutput) > maxHealthOutput {
			t.Fatalf("after three failures: %v", c)
		}
		wantStatus(t, w, task, statusRunning) // nobody stops a standalone task for that
		code.Store(0)
		pass(31 * time.Second)
		if c := w.server.status(task.Arn).Containers[0]; c.HealthStatus != healthHealthy {
			t.Fatalf("after a success: %v", c)
		}
		reports, version := len(w.server.heard[task.Arn]), w.server.status(task.Arn).Version
		pass(10 * time.Minute)
		if n := len(w.server.heard[task.Arn]); n != reports || checks.Load() < 20 {
			t.Fatalf("%d reports of %d checks that changed nothing", n-reports, checks.Load())
		}

		// The next run of the agent knows what this one found, and looks again.
		before := checks.Load()
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(40 * time.Second)
		if st := wantStatus(t, w, task, statusRunning); st.Containers[0].HealthStatus != healthHealthy || st.Version != version {
			t.Fatalf("after a restart of the agent: %v", st)
		}
		if checks.Load() == before {
			t.Fatal("no checks after a restart of the agent")
		}
	})
}

func TestHealthInTheStartPeriod(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var code atomic.Int64
		code.Store(1)
		w.runtime.exec = func(string, []string) (int, string, error) { return int(code.Load()), "", nil }
		task := testTask("a1", 1)
		task.Containers[0].HealthCheck = checkEvery(10, 5, 1, 60)
		w.server.assign(task)
		health := func() string { return w.server.status(task.Arn).Containers[0].HealthStatus }
		pass(55 * time.Second)
		if health() != healthUnknown {
			t.Fatalf("in the start period it is %s", health())
		}
		code.Store(0)
		pass(6 * time.Second) // it is looked at every 5 s
		if health() != healthHealthy {
			t.Fatalf("after its first success it is %s", health())
		}
		code.Store(1)
		pass(11 * time.Second)
		if health() != healthUnhealthy {
			t.Fatalf("after a failure that counts it is %s", health())
		}
	})
}

func TestHealthCheckTakesTooLong(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hang("exec")
		task := testTask("a1", 1)
		task.Containers[0].HealthCheck = checkEvery(10, 3, 2, 0)
		w.server.assign(task)
		pass(30 * time.Second)
		c := w.server.status(task.Arn).Containers[0]
		if c.HealthStatus != healthUnhealthy || c.HealthExitCode != -1 || c.HealthOutput != "Health check exceeded timeout (3s)" {
			t.Fatalf("container %v", c)
		}
		w.server.stop(task, "")
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
	})
}

// The rules of Docker, played against a plainly written count.
func TestHealthRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(1e9, 0)
		task := testTask("a", 1)
		retries := rapid.Int64Range(1, 4).Draw(rt, "retries")
		period := rapid.Int64Range(0, 60).Draw(rt, "startPeriod")
		task.Containers[0].HealthCheck = checkEvery(10, 5, retries, period)
		m := newMachine(task, nil, false)
		m.stopTimeout = 30 * time.Second
		began := now
		m.started(0, now, now)
		want, failures := healthUnknown, int64(0)
		for range rapid.IntRange(1, 40).Draw(rt, "checks") {
			now = m.health[0].next
			r := result{exitCode: rapid.SampledFrom([]int{0, 1}).Draw(rt, "code")}
			switch rapid.IntRange(0, 9).Draw(rt, "trouble") {
			case 0:
				r.err = context.DeadlineExceeded
			case 1:
				r.err = errors.New("no such file")
			}
			m.checked(0, r, now)
			switch {
			case r.err == nil && r.exitCode == 0:
				want, failures = healthHealthy, 0
			case want == healthUnknown && now.Before(began.Add(time.Duration(period)*time.Second)):
			default:
				if failures++; failures >= retries {
					want = healthUnhealthy
				}
			}
			if got := m.p.Containers[0].Health; got != want {
				rt.Fatalf("%s, want %s", got, want)
			}
			if gap := m.health[0].next.Sub(now); gap != 10*time.Second && (gap != startInterval || want != healthUnknown) {
				rt.Fatalf("looked at again after %s", gap)
			}
		}
	})
}

func restarting(c *dispatchpb.Container, period int64, ignored ...int32) {
	c.RestartPolicy = &dispatchpb.RestartPolicy{Enabled: true, AttemptPeriodSeconds: period, IgnoredExitCodes: ignored}
}

func TestRestartPolicy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		restarting(task.Containers[0], 60, 3)
		task.Containers[0].HealthCheck = checkEvery(10, 5, 1, 0)
		id := containerID(task, 0)
		w.server.assign(task)
		pass(61 * time.Second)
		if c := w.server.status(task.Arn).Containers[0]; c.HealthStatus != healthHealthy {
			t.Fatalf("before: %v", c)
		}
		w.runtime.exit(id, 1, true)
		pass(2 * time.Second)
		c := wantContainer(t, wantStatus(t, w, task, statusRunning), 0, statusRunning)
		if c.RestartCount != 1 || c.RestartedAt == nil || c.HasExitCode || c.Reason != "" || c.HealthStatus != healthUnknown || !c.StartedAt.AsTime().Before(c.RestartedAt.AsTime()) {
			t.Fatalf("after an exit: %v", c)
		}
		// The count outlives the agent, also if it is away for the exit.
		pass(2 * time.Minute)
		w.stop()
		w.runtime.exit(id, 0, false)
		pass(time.Hour)
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if c := wantStatus(t, w, task, statusRunning).Containers[0]; c.RestartCount != 2 {
			t.Fatalf("after an exit in the agent's absence: %v", c)
		}
		w.runtime.exit(id, 1, false) // too soon
		pass(2 * time.Second)
		st := wantStatus(t, w, task, statusStopped)
		if c := st.Containers[0]; c.ExitCode != 1 || c.RestartCount != 2 || st.Reason != "Essential container in task exited" {
			t.Fatalf("after an exit too soon: %v", st)
		}
		wantNothingLeft(t, w)
	})
}

func TestExitCodesThatAreIgnored(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		restarting(task.Containers[0], 60, 3)
		w.server.assign(task)
		pass(2 * time.Minute)
		w.runtime.exit(containerID(task, 0), 3, false)
		pass(time.Second)
		if c := wantStatus(t, w, task, statusStopped).Containers[0]; c.ExitCode != 3 || c.RestartCount != 0 {
			t.Fatalf("container %v", c)
		}
	})
}

// A restart that fails leaves the exit before it as the container's.
func TestRestartFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.restartErr = func(string) error { return errors.New("no such device") }
		task := testTask("a1", 1)
		restarting(task.Containers[0], 60)
		w.server.assign(task)
		pass(2 * time.Minute)
		w.runtime.exit(containerID(task, 0), 9, false)
		pass(2 * time.Second)
		if c := wantStatus(t, w, task, statusStopped).Containers[0]; c.ExitCode != 9 || c.RestartCount != 0 {
			t.Fatalf("container %v", c)
		}
		wantNothingLeft(t, w)
	})
}

// A task that stops is not held up by a container that was about to run again.
func TestStopDuringARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.delay = func(op string) time.Duration {
			if op == "restart" {
				return 5 * time.Second
			}
			return 0
		}
		task := testTask("a1", 1)
		restarting(task.Containers[0], 60)
		w.server.assign(task)
		pass(2 * time.Minute)
		w.runtime.exit(containerID(task, 0), 9, false)
		pass(time.Second)
		w.server.stop(task, "enough")
		pass(10 * time.Second)
		st := wantStatus(t, w, task, statusStopped)
		if c := st.Containers[0]; c.ExitCode != 143 || c.RestartCount != 1 || st.Reason != "enough" {
			t.Fatalf("stopped as %v", st)
		}
		wantNothingLeft(t, w)
	})
}
