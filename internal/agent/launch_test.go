package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func wantContainer(t *testing.T, st *dispatchpb.TaskStatus, i int, status string) *dispatchpb.ContainerStatus {
	t.Helper()
	c := st.GetContainers()[i]
	if c.LastStatus != status {
		t.Fatalf("container %s is %s (%s), want %s", c.Name, c.LastStatus, c.Reason, status)
	}
	return c
}

// A chain of all conditions starts link by link and stops from its end.
func TestDependencyChain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		healthy := false
		w.runtime.exec = func(string, []string) (int, string, error) {
			if healthy {
				return 0, "", nil
			}
			return 1, "not yet", nil
		}
		w.runtime.delay = func(op string) time.Duration {
			if op == "signal" {
				return time.Second
			}
			return 0
		}
		task := testTask("a1", 4) // c3 needs c2 HEALTHY, c1 SUCCESS; both need c0 START
		task.Containers[1].Essential = false
		task.Containers[2].HealthCheck = &dispatchpb.HealthCheck{Command: []string{"CMD-SHELL", "true"}, IntervalSeconds: 5, TimeoutSeconds: 2, Retries: 3}
		depends(task.Containers[1], "c0", conditionStart)
		depends(task.Containers[2], "c0", conditionStart)
		depends(task.Containers[3], "c1", conditionSuccess)
		depends(task.Containers[3], "c2", conditionHealthy)
		w.server.assign(task)
		pass(time.Second)
		if _, _, there := w.runtime.get(containerID(task, 3)); there || w.runtime.pulls != 3 {
			t.Fatalf("c3 exists: %v; %d images were pulled", there, w.runtime.pulls)
		}
		reply := w.server.inspect("r1", task.Arn)
		if !reply.GetFound() || len(reply.Waiting) != 1 || reply.Waiting[0].Container != "c3" || reply.Waiting[0].Reason != "c1 to exit with 0" {
			t.Fatalf("waits for %v", reply.GetWaiting())
		}
		w.runtime.exit(containerID(task, 1), 0, false)
		pass(10 * time.Second)
		wantStatus(t, w, task, statusActivating)
		if reply = w.server.inspect("r2", task.Arn); len(reply.Waiting) != 1 || reply.Waiting[0].Reason != "c2 to become HEALTHY" ||
			reply.Status.Containers[2].HealthOutput != "not yet" {
			t.Fatalf("waits for %v", reply)
		}
		w.runtime.mu.Lock()
		healthy = true
		w.runtime.mu.Unlock()
		pass(6 * time.Second)
		st := wantStatus(t, w, task, statusRunning)
		if c := st.Containers[2]; c.HealthStatus != healthHealthy || c.HealthSince == nil {
			t.Fatalf("c2 is %v", c)
		}
		w.server.stop(task, "")
		pass(500 * time.Millisecond)
		if reply = w.server.inspect("r3", task.Arn); len(reply.Waiting) == 0 || reply.Waiting[0].Reason != "c2 to stop first, which depends on it" {
			t.Fatalf("waits for %v", reply)
		}
		pass(5 * time.Second)
		wantStatus(t, w, task, statusStopped)
		want := []string{"SIGTERM " + containerID(task, 3), "SIGTERM " + containerID(task, 2), "SIGTERM " + containerID(task, 0)}
		if !slices.Equal(w.runtime.signals, want) {
			t.Fatalf("told to stop in the order %v, want %v", w.runtime.signals, want)
		}
		wantNothingLeft(t, w)
	})
}

func TestDependencyThatWillNeverBe(t *testing.T) {
	for name, c := range map[string]struct {
		condition string
		exit      int // of c0; negative: it runs
		essential bool
		reason    string
	}{
		"it failed": {conditionSuccess, 1, true,
			"CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [c0(image0) (STOPPED->STOPPED) - Exit: 1] for target [c1(image1) (NONE->RUNNING)] as dependency did not exit successfully."},
		"it takes too long": {conditionComplete, -1, true,
			"CannotStartContainerError: dependency graph: container ordering dependency [c0(image0) (RUNNING->RUNNING)] for target [c1(image1) (NONE->RUNNING)] has timed out."},
		"what needs it is not essential": {conditionComplete, -1, false,
			"CannotStartContainerError: dependency graph: container ordering dependency [c0(image0) (RUNNING->RUNNING)] for target [c1(image1) (NONE->RUNNING)] has timed out."},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				task := testTask("a1", 3)
				task.Containers[0].Essential = false
				task.Containers[1].Essential = c.essential
				task.Containers[0].StartTimeoutSeconds = 20
				depends(task.Containers[1], "c0", c.condition)
				w.server.assign(task)
				pass(time.Second)
				if c.exit >= 0 {
					w.runtime.exit(containerID(task, 0), c.exit, false)
				} else {
					wantStatus(t, w, task, statusActivating)
					wait := w.server.inspect("r", task.Arn).GetWaiting()
					if len(wait) != 1 || wait[0].Deadline.AsTime().Sub(wait[0].Since.AsTime()) != 20*time.Second || wait[0].Then == "" {
						t.Fatalf("waits for %v", wait)
					}
					pass(20 * time.Second)
				}
				pass(time.Second)
				st := w.server.status(task.Arn)
				blocked := wantContainer(t, st, 1, statusStopped)
				if blocked.Reason != c.reason || blocked.ExitCode != 143 || !blocked.HasExitCode || blocked.RuntimeId != "" || blocked.StartedAt != nil {
					t.Fatalf("c1 is %v", blocked)
				}
				if !c.essential {
					wantStatus(t, w, task, statusRunning)
					return
				}
				if wantStatus(t, w, task, statusStopped); st.Reason != c.reason || st.StartedAt != nil {
					t.Fatalf("the task is %v", st)
				}
				wantNothingLeft(t, w)
			})
		})
	}
}

// What is not essential fails alone.
func TestNonessentialContainerFailsToStart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.image = func(ref string) (Image, error) {
			if ref == "image1" {
				return Image{}, errors.New("image1: not found")
			}
			return Image{Ref: ref}, nil
		}
		task := testTask("a1", 3)
		task.Containers[1].Essential, task.Containers[2].Essential = false, false
		w.runtime.startErr = func(id string) error {
			if id == containerID(task, 2) {
				return errors.New("no such file")
			}
			return nil
		}
		w.server.assign(task)
		pass(5 * time.Second)
		st := wantStatus(t, w, task, statusRunning)
		if c := wantContainer(t, st, 1, statusStopped); c.Reason != "CannotPullContainerError: image1: not found" || c.HasExitCode {
			t.Fatalf("c1 is %v", c)
		}
		if c := wantContainer(t, st, 2, statusStopped); c.Reason != "CannotStartContainerError: no such file" {
			t.Fatalf("c2 is %v", c)
		}
		if st.PullStoppedAt == nil {
			t.Fatal("the pull has not ended")
		}
		if _, _, there := w.runtime.get(containerID(task, 2)); there {
			t.Fatal("what could not be started was left")
		}
		w.runtime.exit(containerID(task, 0), 0, false)
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
		wantNothingLeft(t, w)
	})
}

// Those that do not depend on one another start at the same time, however long it takes.
func TestIndependentContainersStartTogether(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.delay = func(op string) time.Duration {
			if op == "start" || op == "create" {
				return time.Second
			}
			return 0
		}
		task := testTask("a1", 10)
		began := time.Now()
		w.server.assign(task)
		pass(3 * time.Second)
		if took := wantStatus(t, w, task, statusRunning).StartedAt.AsTime().Sub(began); took > 2100*time.Millisecond {
			t.Fatalf("up after %s", took)
		}
	})
}

// A task that waits for one of its containers to complete holds up no other task's launch.
func TestWaitingHoldsNoPlace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.stop()
		w.tune = func(c *Config) { c.Launches = 1 }
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		waits, other := testTask("a1", 2), testTask("a2", 1)
		waits.Containers[0].Essential = false
		depends(waits.Containers[1], "c0", conditionComplete)
		pass(time.Second)
		w.server.assign(waits)
		pass(time.Second)
		w.server.assign(other)
		pass(time.Second)
		wantStatus(t, w, waits, statusActivating)
		wantStatus(t, w, other, statusRunning)
		w.runtime.exit(containerID(waits, 0), 4, false)
		pass(time.Second)
		wantStatus(t, w, waits, statusRunning)
	})
}

func TestDependentsArePulledUpfrontIfToldTo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.stop()
		w.tune = func(c *Config) { c.PullUpfront = true }
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		task := testTask("a1", 2)
		task.Containers[0].Essential = false
		depends(task.Containers[1], "c0", conditionComplete)
		w.server.assign(task)
		pass(2 * time.Second)
		wantStatus(t, w, task, statusActivating)
		if w.runtime.pulls != 2 {
			t.Fatalf("%d pulls", w.runtime.pulls)
		}
	})
}

func TestBridgeTask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := bridged(testTask("a1", 3))
		task.NetworkInterface = &dispatchpb.NetworkInterface{PrivateIpv4: "172.31.0.9"} // an older server still sends one
		task.Containers[0].PortMappings = []*dispatchpb.PortMapping{{ContainerPort: 80, Protocol: "tcp"}}
		task.Containers[0].Environment = []*dispatchpb.KeyValue{{Name: "SECRET", Value: "s"}}
		task.Containers[1].Links = []string{"c0:web"}
		task.Containers[2].DisableNetworking = true
		w.server.assign(task)
		pass(time.Second)
		st := wantStatus(t, w, task, statusRunning)
		if len(w.network.up) > 0 || len(w.bridge.up) != 3 || !w.bridge.up["a1/c2"].Isolated || st.AttachmentId != "" {
			t.Fatalf("networks %v, connections %v", w.network.up, w.bridge.up)
		}
		c := st.Containers[0]
		if len(c.NetworkBindings) != 1 || c.NetworkBindings[0].HostPort != 32768 || c.NetworkBindings[0].BindIp != "0.0.0.0" ||
			c.PrivateIpv4 != "172.17.0.02" || c.GatewayIpv4 == "" || c.MacAddress == "" {
			t.Fatalf("reported as %v", c)
		}
		spec, _, _ := w.runtime.get(containerID(task, 1))
		if spec.NetNS != "/run/netns/a1/c1" || !slices.Contains(spec.Environment, "WEB_PORT_80_TCP_ADDR=172.17.0.02") ||
			!slices.Contains(spec.Environment, "WEB_ENV_SECRET=s") {
			t.Fatalf("c1 is made as %+v", spec)
		}
		calls := w.bridge.calls
		w.stop()
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if w.bridge.calls != calls+3 {
			t.Fatalf("%d connections were taken up again", w.bridge.calls-calls)
		}
		wantStatus(t, w, task, statusRunning)
		w.server.stop(task, "")
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
		wantNothingLeft(t, w)
	})
}

// A container that is to have no network has none, also where the others share one.
func TestDisabledNetworking(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		shared, host := awsvpc(testTask("a1", 2)), testTask("a2", 2)
		host.NetworkMode = networkHost
		shared.Containers[1].DisableNetworking, host.Containers[1].DisableNetworking = true, true
		w.server.assign(shared, host)
		pass(time.Second)
		for i, want := range []bool{true, false} {
			a, _, _ := w.runtime.get(containerID(shared, i))
			b, _, _ := w.runtime.get(containerID(host, i))
			if (a.NetNS != "") != want || b.HostNetwork != want || b.NetNS != "" {
				t.Errorf("c%d: namespace %q, host's %v", i, a.NetNS, b.HostNetwork)
			}
		}
	})
}

func TestPortIsTaken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.bridge.err = errors.New("Bind for 0.0.0.0:80 failed: port is already allocated")
		task := bridged(testTask("a1", 1))
		w.server.assign(task)
		pass(time.Second)
		if st := wantStatus(t, w, task, statusStopped); st.Reason != "CannotStartContainerError: Bind for 0.0.0.0:80 failed: port is already allocated" {
			t.Fatalf("reason %q", st.Reason)
		}
		wantNothingLeft(t, w)
	})
}

func TestVolumes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.runtime.image = func(ref string) (Image, error) {
			return Image{Ref: ref, Volumes: []string{"/var/lib/" + ref, "/shared/"}}, nil
		}
		task := testTask("a1", 2)
		task.Volumes = []*dispatchpb.Volume{
			{Name: "own", Type: volumeHost}, {Name: "host", Type: volumeHost, HostPath: "/srv"}, {Name: "image-volume-0-0", Type: volumeTask},
		}
		task.Containers[0].Mounts = []*dispatchpb.Mount{
			{Volume: "own", Target: "/shared"}, {Volume: "host", Target: "/shared/sub", ReadOnly: true}, {Volume: "host", Target: "/old"},
		}
		task.Containers[1].Mounts = []*dispatchpb.Mount{{Volume: "host", Target: "/old"}}
		task.Containers[1].VolumesFrom = []*dispatchpb.VolumesFrom{{Container: "c0", ReadOnly: true}}
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
		got := func(i int) (out []string) {
			spec, _, _ := w.runtime.get(containerID(task, i))
			for _, m := range spec.Mounts {
				if !strings.HasPrefix(m.Target, "/etc/") {
					out = append(out, fmt.Sprintf("%s %s ro=%v fill=%v", m.Source, m.Target, m.ReadOnly, m.Fill))
				}
			}
			return out
		}
		if want := []string{
			"/volumes/a1/own /shared ro=false fill=true", "/srv /old ro=false fill=false", "/srv /shared/sub ro=true fill=false",
			"/volumes/a1/image-volume-0-0- /var/lib/image0 ro=false fill=true",
		}; !slices.Equal(got(0), want) {
			t.Errorf("c0: %q, want %q", got(0), want)
		}
		if want := []string{
			"/volumes/a1/own /shared ro=true fill=true", "/srv /old ro=false fill=false", "/srv /shared/sub ro=true fill=false",
			"/volumes/a1/image-volume-0-0- /var/lib/image0 ro=true fill=true", "/volumes/a1/image-volume-1-0 /var/lib/image1 ro=false fill=true",
		}; !slices.Equal(got(1), want) {
			t.Errorf("c1: %q, want %q", got(1), want)
		}
		w.server.stop(task, "")
		pass(time.Second)
		wantStatus(t, w, task, statusStopped)
		wantNothingLeft(t, w)
	})
}

type namedError struct{ error }

func (namedError) ErrorName() string { return "ResourceInitializationError" }

func TestVolumeCannotBeMade(t *testing.T) {
	for want, err := range map[string]error{
		"CannotCreateVolumeError: no space":          errors.New("no space"),
		"ResourceInitializationError: no such thing": fmt.Errorf("%w", namedError{errors.New("no such thing")}),
	} {
		t.Run(want, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.volumes.err = err
				task := testTask("a1", 1)
				task.Volumes = []*dispatchpb.Volume{{Name: "v", Type: volumeTask}}
				w.server.assign(task)
				pass(time.Second)
				if st := wantStatus(t, w, task, statusStopped); st.Reason != want {
					t.Fatalf("reason %q", st.Reason)
				}
			})
		})
	}
}

// Bridges and volumes of tasks that nobody knows are removed.
func TestStrayConnectionsAndVolumes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.stop()
		w.bridge.up["gone/c"] = Endpoint{TaskID: "gone", Container: "c"}
		w.volumes.of["gone"] = true
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		wantNothingLeft(t, w)
	})
}

func TestInspectionOfStoppedAndUnknownTasks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Second)
		if r := w.server.inspect("r1", task.Arn); !r.GetFound() || r.Status.LastStatus != statusRunning || len(r.Waiting) > 0 {
			t.Fatalf("of a running task: %v", r)
		}
		w.server.stop(task, "")
		pass(time.Second)
		if r := w.server.inspect("r2", task.Arn); !r.GetFound() || r.Status.LastStatus != statusStopped {
			t.Fatalf("of a stopped task: %v", r)
		}
		if r := w.server.inspect("r3", "arn:aws:ecs:us-east-1:123456789012:task/default/none"); r == nil || r.Found {
			t.Fatalf("of an unknown task: %v", r)
		}
	})
}
