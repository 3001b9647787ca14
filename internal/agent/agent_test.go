package agent

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// inWorld runs f in a bubble of virtual time, with an agent running on a host. Everything must be
// gone when f is over: a goroutine left behind is a deadlock of the bubble.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(dir)
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			w.stop()
			w.close()
		}()
		f(t, w)
		w.check(t)
	})
}

// check fails the test for what must never happen and did.
func (w *world) check(t *testing.T) {
	t.Helper()
	w.runtime.mu.Lock()
	defer w.runtime.mu.Unlock()
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for _, b := range slices.Concat(w.runtime.broken, w.server.broken) {
		t.Error(b)
	}
}

// pass lets d of virtual time pass and everything settle.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantStatus(t *testing.T, w *world, task *dispatchpb.Task, want string) *dispatchpb.TaskStatus {
	t.Helper()
	st := w.server.status(task.Arn)
	if st.GetLastStatus() != want {
		t.Fatalf("status is %q (%s), want %q", st.GetLastStatus(), st.GetReason(), want)
	}
	return st
}

// wantNothingLeft checks that a stopped task has left nothing but its output.
func wantNothingLeft(t *testing.T, w *world) {
	t.Helper()
	if left := w.left(); left != "" {
		t.Fatal(left)
	}
	if s := w.agent.Snapshot(); len(s.Tasks) != 0 {
		t.Fatalf("the agent still knows %v", s.Tasks)
	}
}

func TestTaskRunsAndIsStopped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.ignoreTerm = true
		task := awsvpc(testTask("a1", 2))
		task.Containers[0].StopTimeoutSeconds = 7
		pass(time.Second)
		w.server.assign(task)
		pass(time.Second)
		st := wantStatus(t, w, task, statusRunning)
		if !w.agent.Live("a1") || w.agent.Live("a2") {
			t.Fatal("the agent does not know what lives")
		}
		if st.AttachmentStatus != "ATTACHED" || st.StartedAt == nil || st.PullStoppedAt == nil || st.Containers[1].ImageDigest != "sha256:image1" {
			t.Fatalf("incomplete report %v", st)
		}
		if got := w.server.heard[task.Arn]; len(got) > 2 {
			t.Fatalf("the launch took the reports %v", got)
		}
		spec, _, _ := w.runtime.get(containerID(task, 0))
		if spec.NetNS != "/run/netns/a1" || spec.Stdout == "" || len(spec.Mounts) != 3 || spec.Hostname != "ip-172-31-0-5.ec2.internal" {
			t.Fatalf("container made as %+v", spec)
		}

		began := time.Now()
		w.server.stop(task, "Task stopped by user")
		pass(time.Second)
		wantStatus(t, w, task, statusStopping)
		pass(7 * time.Second)
		if c := w.server.status(task.Arn).Containers[0]; !c.HasExitCode || c.ExitCode != 137 {
			t.Fatalf("after its stopTimeout the container is %v", c)
		}
		pass(25 * time.Second)
		st = wantStatus(t, w, task, statusStopped)
		if took := st.StoppedAt.AsTime().Sub(began); took < 30*time.Second || took > 31*time.Second {
			t.Fatalf("stopped after %s, want the default stop timeout", took)
		}
		if st.Reason != "Task stopped by user" || st.AttachmentStatus != "DETACHED" || st.ExecutionStoppedAt == nil {
			t.Fatalf("stopped as %v", st)
		}
		if w.agent.Live("a1") {
			t.Fatal("a stopped task lives")
		}
		wantNothingLeft(t, w)
	})
}

func TestEssentialExitStopsTheOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 3)
		task.Containers[2].Essential = false
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
		w.runtime.exit(containerID(task, 2), 0, false)
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
		w.runtime.exit(containerID(task, 1), 3, false)
		pass(time.Second)
		st := wantStatus(t, w, task, statusStopped)
		if st.Reason != "Essential container in task exited" {
			t.Fatalf("reason %q", st.Reason)
		}
		for i, want := range []int32{143, 3, 0} {
			if c := st.Containers[i]; !c.HasExitCode || c.ExitCode != want {
				t.Errorf("container %d: %v, want exit code %d", i, c, want)
			}
		}
		wantNothingLeft(t, w)
	})
}

func TestExitWithoutEvent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.mute = true
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.runtime.exit(containerID(task, 0), 1, false)
		pass(resyncEvery + time.Second)
		wantStatus(t, w, task, statusStopped)
	})
}

func TestContainerIsLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(2 * time.Second)
		w.stop()
		w.runtime.mu.Lock()
		clear(w.runtime.containers)
		w.runtime.mu.Unlock()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		c := wantStatus(t, w, task, statusStopped).Containers[0]
		if c.HasExitCode || !strings.HasPrefix(c.Reason, "ContainerRuntimeError: ") {
			t.Fatalf("container %v", c)
		}
		wantNothingLeft(t, w)
	})
}

func TestOutOfMemory(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.runtime.exit(containerID(task, 0), 137, true)
		pass(time.Second)
		c := wantStatus(t, w, task, statusStopped).Containers[0]
		if c.Reason != "OutOfMemoryError: Container killed due to memory usage" || c.ExitCode != 137 {
			t.Fatalf("container %v", c)
		}
	})
}

func TestStoppedBeforeItStarted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 2)
		w.server.stop(task, "no longer needed")
		pass(time.Second)
		st := wantStatus(t, w, task, statusStopped)
		if st.StartedAt != nil || st.Reason != "no longer needed" || st.Containers[0].LastStatus != statusStopped || st.Containers[0].HasExitCode {
			t.Fatalf("stopped as %v", st)
		}
		if w.runtime.pulls > 0 {
			t.Fatal("an image was pulled for it")
		}
		wantNothingLeft(t, w)
	})
}

func TestStopInterruptsPull(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.delay = func(op string) time.Duration {
			if op == "pull" {
				return -1
			}
			return 0
		}
		task := awsvpc(testTask("a1", 1))
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusActivating)
		w.server.stop(task, "")
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
		wantNothingLeft(t, w)
	})
}

func TestFailuresAreTyped(t *testing.T) {
	for name, c := range map[string]struct {
		arrange   func(w *world)
		task      func(t *dispatchpb.Task)
		within    time.Duration
		reason    string
		container string
	}{
		"image not found": {
			arrange: func(w *world) {
				w.runtime.image = func(string) (Image, error) { return Image{}, errors.New("image0: not found") }
			},
			within: time.Second, reason: "CannotPullContainerError: image0: not found", container: "CannotPullContainerError: image0: not found",
		},
		"registry down": {
			arrange: func(w *world) {
				w.runtime.image = func(string) (Image, error) { return Image{}, errors.New("connection refused") }
			},
			within: 20 * time.Second, reason: "CannotPullContainerError: connection refused", container: "CannotPullContainerError: connection refused",
		},
		"pull takes for ever": {
			arrange: func(w *world) { w.hang("pull") },
			within:  pullTimeout + time.Minute,
			reason:  "ContainerRuntimeTimeoutError: Could not transition to pulled; timed out after waiting 2h0m0s",
		},
		"create fails": {
			arrange: func(w *world) {
				w.runtime.createErr = func(string) error { return errors.New("no space left on device") }
			},
			within: time.Second, reason: "CannotCreateContainerError: no space left on device",
		},
		"the OCI runtime cannot create it": { // which is part of starting it in Docker, and so in ECS
			arrange: func(w *world) {
				w.runtime.createErr = func(string) error {
					return errors.New(`OCI runtime create failed: exec: "/nope": no such file or directory`)
				}
			},
			within: time.Second, reason: `CannotStartContainerError: OCI runtime create failed: exec: "/nope": no such file or directory`,
		},
		"create takes for ever": {
			arrange: func(w *world) { w.hang("create") },
			within:  createTimeout + time.Second,
			reason:  "ContainerRuntimeTimeoutError: Could not transition to created; timed out after waiting 4m0s",
		},
		"start fails": {
			arrange: func(w *world) {
				w.runtime.startErr = func(string) error { return errors.New("exec: \"nope\": executable file not found") }
			},
			within: time.Second, reason: "CannotStartContainerError: exec: \"nope\": executable file not found",
		},
		"start takes for ever": {
			arrange: func(w *world) { w.hang("start") },
			within:  startTimeout + time.Second,
			reason:  "ContainerRuntimeTimeoutError: Could not transition to started; timed out after waiting 3m0s",
		},
		"no network": {
			arrange: func(w *world) { w.network.err = errors.New("address in use") },
			task:    func(t *dispatchpb.Task) { awsvpc(t) },
			within:  time.Second,
			reason:  "ResourceInitializationError: failed to set up the task's network: address in use",
		},
		"no logger": {
			arrange: func(w *world) { w.output.err = errors.New("gone") },
			within:  time.Second,
			reason:  "ResourceInitializationError: failed to initialize logging driver: gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c.arrange(w)
				task := testTask("a1", 1)
				if c.task != nil {
					c.task(task)
				}
				w.server.assign(task)
				pass(c.within)
				st := wantStatus(t, w, task, statusStopped)
				if st.Reason != c.reason || c.container != "" && st.Containers[0].Reason != c.container {
					t.Fatalf("reason %q, container %q", st.Reason, st.Containers[0].Reason)
				}
				if st.StartedAt != nil || st.Containers[0].HasExitCode {
					t.Fatalf("it never started, yet is %v", st)
				}
				wantNothingLeft(t, w)
			})
		})
	}
}

func (w *world) hang(op string) {
	w.runtime.delay = func(o string) time.Duration {
		if o == op {
			return -1
		}
		return 0
	}
}

func TestPullIsTriedAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.image = func(ref string) (Image, error) {
			if w.runtime.pulls < pullTries {
				return Image{}, errors.New("connection reset by peer")
			}
			return Image{Ref: ref}, nil
		}
		task := testTask("a1", 1)
		began := time.Now()
		w.server.assign(task)
		pass(30 * time.Second)
		st := wantStatus(t, w, task, statusRunning)
		// 1.1 + 2.2 + 4.4 + 8.8 s
		if took := st.StartedAt.AsTime().Sub(began); took < 16500*time.Millisecond || took > 17*time.Second {
			t.Fatalf("started after %s", took)
		}
	})
}

func TestSameImageIsPulledOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 3)
		for _, c := range task.Containers {
			c.Image = "same"
		}
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
		if w.runtime.pulls != 1 {
			t.Fatalf("%d pulls", w.runtime.pulls)
		}
	})
}

func TestImageStopSignal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.image = func(ref string) (Image, error) { return Image{Ref: ref, StopSignal: "SIGQUIT"}, nil }
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.server.stop(task, "")
		pass(time.Second)
		if want := []string{"SIGQUIT " + containerID(task, 0)}; !slices.Equal(w.runtime.signals, want) {
			t.Fatalf("signals %v", w.runtime.signals)
		}
	})
}

func TestRestartAdoptsWhatRuns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stays, exits := testTask("a1", 1), testTask("a2", 1)
		w.server.assign(stays, exits)
		pass(2 * time.Second)
		hostID, reports := w.agent.HostID(), len(w.server.heard[stays.Arn])
		w.stop()
		w.runtime.exit(containerID(exits, 0), 42, false)
		pass(time.Minute)
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		wantStatus(t, w, stays, statusRunning)
		if st := wantStatus(t, w, exits, statusStopped); st.Containers[0].ExitCode != 42 {
			t.Fatalf("what exited meanwhile is %v", st)
		}
		if w.agent.HostID() != hostID {
			t.Fatal("the host has changed its ID")
		}
		if n := len(w.server.heard[stays.Arn]); n != reports {
			t.Fatalf("a restart made %d reports out of %d", n, reports)
		}
	})
}

func TestRebootEndsEverything(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := awsvpc(testTask("a1", 1))
		w.server.assign(task)
		pass(2 * time.Second)
		w.stop()
		w.runtime.reboot()
		w.bootID = "boot-2"
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		st := wantStatus(t, w, task, statusStopped)
		if !strings.HasPrefix(st.Reason, "Host ") || st.Containers[0].HasExitCode {
			t.Fatalf("after a reboot: %v", st)
		}
		wantNothingLeft(t, w)
	})
}

func TestServerLosesATask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.server.mu.Lock()
		clear(w.server.tasks)
		w.server.mu.Unlock()
		w.server.kick()
		pass(time.Second)
		wantNothingLeft(t, w)
		if got := w.server.heard[task.Arn]; slices.Contains(got, statusStopped) {
			t.Fatalf("a task that the server does not know was reported: %v", got)
		}
	})
}

func TestStoppedTaskDoesNotRunAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.runtime.exit(containerID(task, 0), 0, false)
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
		wantNothingLeft(t, w)
		n := len(w.server.heard[task.Arn])
		w.server.assign(task) // from an older snapshot
		pass(time.Second)
		if got := w.server.heard[task.Arn]; len(got) != n+1 || got[n] != statusStopped {
			t.Fatalf("answered with %v", got[n:])
		}
		// Also after a restart.
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
		if w.runtime.starts[containerID(task, 0)] != 1 {
			t.Fatal("it ran again")
		}
	})
}

func TestStalePayloadIsIgnored(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		old := cloneTask(task)
		old.DesiredStatus = statusStopped
		w.server.send(payloadMessage(0, true, old))
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
	})
}

func TestReportsAreRepeatedUntilAcknowledged(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.server.deaf = true
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(25 * time.Second)
		// ACTIVATING may have been overtaken by RUNNING before it was sent.
		if got := w.server.heard[task.Arn]; len(got) < 3 || got[len(got)-3] != statusRunning {
			t.Fatalf("reports in 25 s: %v", got)
		}
		w.server.stop(task, "")
		pass(5 * time.Second)
		if len(w.agent.Snapshot().Tasks) != 1 {
			t.Fatal("forgotten before it was acknowledged")
		}
		w.server.mu.Lock()
		w.server.deaf = false
		w.server.mu.Unlock()
		pass(15 * time.Second)
		wantNothingLeft(t, w)
	})
}

func TestServerAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.server.mu.Lock()
		w.server.refuse = true
		w.server.mu.Unlock()
		w.server.kick()
		pass(time.Hour)
		w.runtime.exit(containerID(task, 0), 5, false)
		pass(time.Hour)
		if w.agent.Snapshot().Connected {
			t.Fatal("connected to a server that refuses")
		}
		w.server.mu.Lock()
		w.server.refuse = false
		w.server.mu.Unlock()
		pass(lastReconnect + time.Second)
		if st := wantStatus(t, w, task, statusStopped); st.Containers[0].ExitCode != 5 {
			t.Fatalf("reported %v", st)
		}
		beats := w.server.heartbeats()
		pass(20 * time.Second)
		if n := w.server.heartbeats() - beats; n != 4 {
			t.Fatalf("%d heartbeats in 20 s", n)
		}
	})
}

func TestLeftoversAreRemovedAtStart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.stop()
		w.runtime.containers["stray"] = &fakeContainer{state: ContainerState{ID: "stray", TaskID: "t", Phase: PhaseRunning}}
		w.runtime.cgroups["t"] = true
		w.network.up["t"] = true
		w.output.attached["stray"] = true
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		wantNothingLeft(t, w)
	})
}

// A container that cannot be deleted holds its task in DEPROVISIONING for a while; then the task is
// over and the sweep goes on trying.
func TestClearingGivesUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.runtime.mu.Lock()
		w.runtime.deleteErr = func(string) error { return errors.New("device or resource busy") }
		w.runtime.mu.Unlock()
		w.server.stop(task, "")
		pass(clearTimeout / 2)
		wantStatus(t, w, task, statusDeprovisioning)
		pass(clearTimeout)
		wantStatus(t, w, task, statusStopped)
		w.runtime.mu.Lock()
		w.runtime.deleteErr = nil
		w.runtime.mu.Unlock()
		pass(2 * sweepEvery)
		wantNothingLeft(t, w)
	})
}

func TestOutputIsPruned(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		w.server.stop(task, "")
		pass(3*time.Hour - time.Minute)
		if len(w.output.pruned()) != 0 {
			t.Fatal("output was removed before its time")
		}
		pass(3 * time.Minute)
		if !slices.Equal(w.output.pruned(), []string{"a1"}) {
			t.Fatalf("removed %v", w.output.pruned())
		}
	})
}

func TestRemoveAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.server.assign(awsvpc(testTask("a1", 2)), testTask("a2", 1))
		pass(time.Second)
		if err := w.agent.RemoveAll(t.Context()); err == nil {
			t.Fatal("tasks were removed under a running agent")
		}
		w.stop()
		a, err := open(w.config(), w.disk)
		if err != nil {
			t.Fatal(err)
		}
		w.agent, w.stop = a, func() { a.Close() }
		if err := a.RemoveAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantNothingLeft(t, w)
		if !slices.Equal(w.output.pruned(), []string{"a1", "a2"}) {
			t.Fatalf("removed %v", w.output.pruned())
		}
	})
}

// Launches are limited, and a slow pull takes no place among them.
func TestLaunchesAreLimited(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.stop()
		w.tune = func(c *Config) { c.Launches = 2 }
		w.runtime.delay = func(op string) time.Duration {
			if op == "create" {
				return time.Second
			}
			return 0
		}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		var tasks []*dispatchpb.Task
		for _, id := range []string{"a1", "a2", "a3", "a4", "a5"} {
			tasks = append(tasks, testTask(id, 1))
		}
		w.server.assign(tasks...)
		running := func() (n int) {
			for _, task := range tasks {
				if w.server.status(task.Arn).GetLastStatus() == statusRunning {
					n++
				}
			}
			return n
		}
		pass(1100 * time.Millisecond)
		if n := running(); n != 2 {
			t.Fatalf("%d run after the first round", n)
		}
		pass(2 * time.Second)
		if n := running(); n != 5 {
			t.Fatalf("%d run after the third round", n)
		}
	})
}
