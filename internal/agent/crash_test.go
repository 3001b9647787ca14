package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// mortal stands between an agent and its rooms, its server and its disk. At a chosen call it cuts the
// agent off from all of them at once, as SIGKILL would: what the record held at that moment is what
// the next agent starts from. What is left of the old agent can do no more.
type mortal struct {
	w *world

	mu        sync.Mutex
	dead      bool
	countdown int // calls until the end; negative: not armed
	after     bool
	next      string // the next agent's directory
	err       error
}

// call surrounds one call to a room.
func (m *mortal) call(ctx context.Context, do func() error) error {
	if m.strike(false) {
		<-ctx.Done()
		return ctx.Err()
	}
	err := do()
	if m.strike(true) {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// strike says whether the agent is dead, and kills it if this is the chosen call.
func (m *mortal) strike(after bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead || m.countdown < 0 || m.after != after {
		return m.dead
	}
	if m.countdown > 0 {
		m.countdown--
		return false
	}
	m.dead = true
	m.err = m.w.agent.journal.db.View(func(tx *bolt.Tx) error {
		return tx.CopyFile(filepath.Join(m.next, "agent.db"), 0o600)
	})
	return true
}

func (m *mortal) arm(calls int, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.countdown, m.after = calls, after
}

// mortalConn lets nothing through once the agent is dead.
type mortalConn struct {
	net.Conn
	m *mortal
}

func (c mortalConn) Write(b []byte) (int, error) {
	c.m.mu.Lock()
	dead := c.m.dead
	c.m.mu.Unlock()
	if dead {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

type mortalRuntime struct {
	*fakeRuntime
	m *mortal
}

func (r mortalRuntime) Pull(ctx context.Context, ref string, p PullPolicy) (img Image, err error) {
	err = r.m.call(ctx, func() (err error) { img, err = r.fakeRuntime.Pull(ctx, ref, p); return err })
	return img, err
}

func (r mortalRuntime) Create(ctx context.Context, c ContainerSpec) error {
	return r.m.call(ctx, func() error { return r.fakeRuntime.Create(ctx, c) })
}

func (r mortalRuntime) Start(ctx context.Context, id string) (at time.Time, err error) {
	err = r.m.call(ctx, func() (err error) { at, err = r.fakeRuntime.Start(ctx, id); return err })
	return at, err
}

func (r mortalRuntime) Signal(ctx context.Context, id, s string) error {
	return r.m.call(ctx, func() error { return r.fakeRuntime.Signal(ctx, id, s) })
}

func (r mortalRuntime) Delete(ctx context.Context, id string) error {
	return r.m.call(ctx, func() error { return r.fakeRuntime.Delete(ctx, id) })
}

func (r mortalRuntime) Inspect(ctx context.Context, id string) (s ContainerState, ok bool, err error) {
	err = r.m.call(ctx, func() (err error) { s, ok, err = r.fakeRuntime.Inspect(ctx, id); return err })
	return s, ok, err
}

func (r mortalRuntime) PrepareTask(ctx context.Context, t TaskSpec) error {
	return r.m.call(ctx, func() error { return r.fakeRuntime.PrepareTask(ctx, t) })
}

func (r mortalRuntime) RemoveTask(ctx context.Context, id string) error {
	return r.m.call(ctx, func() error { return r.fakeRuntime.RemoveTask(ctx, id) })
}

func (r mortalRuntime) Restart(ctx context.Context, id string) (at time.Time, err error) {
	err = r.m.call(ctx, func() (err error) { at, err = r.fakeRuntime.Restart(ctx, id); return err })
	return at, err
}

func (r mortalRuntime) Exec(ctx context.Context, id string, args []string) (code int, output []byte, err error) {
	err = r.m.call(ctx, func() (err error) { code, output, err = r.fakeRuntime.Exec(ctx, id, args); return err })
	return code, output, err
}

type mortalBridge struct {
	*fakeBridge
	m *mortal
}

func (b mortalBridge) Connect(ctx context.Context, e Endpoint) (c Connection, err error) {
	err = b.m.call(ctx, func() (err error) { c, err = b.fakeBridge.Connect(ctx, e); return err })
	return c, err
}

func (b mortalBridge) Disconnect(ctx context.Context, task, container string) error {
	return b.m.call(ctx, func() error { return b.fakeBridge.Disconnect(ctx, task, container) })
}

type mortalVolumes struct {
	*fakeVolumes
	m *mortal
}

func (v mortalVolumes) Provide(ctx context.Context, t *dispatchpb.Task) (dirs map[string]string, err error) {
	err = v.m.call(ctx, func() (err error) { dirs, err = v.fakeVolumes.Provide(ctx, t); return err })
	return dirs, err
}

func (v mortalVolumes) Release(ctx context.Context, task string) error {
	return v.m.call(ctx, func() error { return v.fakeVolumes.Release(ctx, task) })
}

type mortalNetwork struct {
	*fakeNetwork
	m *mortal
}

func (n mortalNetwork) Setup(ctx context.Context, id string, nic *dispatchpb.NetworkInterface) (ns string, err error) {
	err = n.m.call(ctx, func() (err error) { ns, err = n.fakeNetwork.Setup(ctx, id, nic); return err })
	return ns, err
}

func (n mortalNetwork) Teardown(ctx context.Context, id string) error {
	return n.m.call(ctx, func() error { return n.fakeNetwork.Teardown(ctx, id) })
}

type mortalOutput struct {
	*fakeOutput
	m *mortal
}

func (o mortalOutput) Attach(ctx context.Context, task, c, id string) (out, errs string, err error) {
	err = o.m.call(ctx, func() (err error) { out, errs, err = o.fakeOutput.Attach(ctx, task, c, id); return err })
	return out, errs, err
}

func (o mortalOutput) Detach(ctx context.Context, id string) error {
	return o.m.call(ctx, func() error { return o.fakeOutput.Detach(ctx, id) })
}

// startMortal runs an agent that can be cut off.
func (w *world) startMortal(next string) (*mortal, error) {
	m := &mortal{w: w, countdown: -1, next: next}
	w.tune = func(c *Config) {
		c.Runtime, c.Network, c.Output = mortalRuntime{w.runtime, m}, mortalNetwork{w.network, m}, mortalOutput{w.output, m}
		c.Processes, c.Bridge, c.Volumes = mortalRuntime{w.runtime, m}, mortalBridge{w.bridge, m}, mortalVolumes{w.volumes, m}
		c.Dial = func(context.Context) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///bufconn",
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
					conn, err := w.lis.DialContext(ctx)
					return mortalConn{conn, m}, err
				}),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
		}
	}
	return m, w.start()
}

// deed is one thing that happens to a host.
type deed struct {
	what      string
	task      int
	container int
	code      int
	after     bool
	then      time.Duration
}

func (d deed) String() string {
	return fmt.Sprintf("%s task=%d container=%d n=%d after=%v, then %s", d.what, d.task, d.container, d.code, d.after, d.then)
}

// TestAnythingMayHappen is the agent's safety property: whatever is assigned, stopped, exits, fails
// or crashes, and whenever, no container is made or started twice, or restarted without being counted,
// statuses only move forward and say one thing a version, and when all tasks are stopped nothing is left
// and the server has acknowledged everything.
func TestAnythingMayHappen(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		var tasks []*dispatchpb.Task
		for i := range rapid.IntRange(1, 3).Draw(rt, "tasks") {
			task := randomTask(rt, fmt.Sprintf("t%d", i), 3)
			switch rapid.IntRange(0, 2).Draw(rt, "network") {
			case 0:
				awsvpc(task)
			case 1:
				bridged(task)
			}
			if rapid.Bool().Draw(rt, "volume") {
				task.Volumes = []*dispatchpb.Volume{{Name: "data", Type: volumeTask}}
				task.Containers[0].Mounts = []*dispatchpb.Mount{{Volume: "data", Target: "/data"}}
			}
			tasks = append(tasks, task)
		}
		deeds := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) deed {
			return deed{
				what:      rapid.SampledFrom([]string{"assign", "assign", "crash", "crash", "stop", "exit", "kick", "restart", "silence", "lost"}).Draw(rt, "what"),
				task:      rapid.IntRange(0, len(tasks)-1).Draw(rt, "task"),
				container: rapid.IntRange(0, 2).Draw(rt, "container"),
				code:      rapid.IntRange(0, 20).Draw(rt, "n"),
				after:     rapid.Bool().Draw(rt, "after"),
				then:      time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond,
			}
		}), 1, 14).Draw(rt, "deeds")
		delays := rapid.SliceOfN(rapid.IntRange(0, 400), 8, 8).Draw(rt, "delays")
		stubborn := rapid.Bool().Draw(rt, "stubborn")

		runs++
		dir := filepath.Join(root, fmt.Sprint(runs))
		var failure string
		synctest.Test(t, func(*testing.T) { failure = happen(dir, tasks, deeds, delays, stubborn) })
		os.RemoveAll(dir)
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// TestRestartsAreCounted looks closer at the moments around a restart: containers with a restart policy
// that exit again and again, while the agent crashes.
func TestRestartsAreCounted(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		task := testTask("t0", rapid.IntRange(1, 2).Draw(rt, "containers"))
		for _, c := range task.Containers {
			c.RestartPolicy = &dispatchpb.RestartPolicy{Enabled: true, IgnoredExitCodes: []int32{7}, AttemptPeriodSeconds: 1}
		}
		deeds := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) deed {
			return deed{
				what:      rapid.SampledFrom([]string{"crash", "exit", "exit", "restart"}).Draw(rt, "what"),
				container: rapid.IntRange(0, 1).Draw(rt, "container"),
				code:      rapid.IntRange(0, 8).Draw(rt, "n"),
				after:     rapid.Bool().Draw(rt, "after"),
				then:      time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond,
			}
		}), 1, 14).Draw(rt, "deeds")
		delays := rapid.SliceOfN(rapid.IntRange(0, 100), 4, 4).Draw(rt, "delays")
		runs++
		dir := filepath.Join(root, fmt.Sprint(runs))
		var failure string
		begin := deed{what: "assign", then: 3 * time.Second}
		synctest.Test(t, func(*testing.T) {
			failure = happen(dir, []*dispatchpb.Task{task}, append([]deed{begin}, deeds...), delays, false)
		})
		os.RemoveAll(dir)
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// happen plays deeds in a bubble and says what is wrong in the end.
func happen(dir string, tasks []*dispatchpb.Task, deeds []deed, delays []int, stubborn bool) (failure string) {
	generation := 0
	newDir := func() string {
		generation++
		d := filepath.Join(dir, fmt.Sprint(generation))
		if err := os.MkdirAll(d, 0o700); err != nil {
			failure = err.Error()
		}
		return d
	}
	w := newWorld(newDir())
	defer w.close()
	var calls, commits atomic.Int64
	w.runtime.ignoreTerm = stubborn
	w.runtime.delay = func(string) time.Duration {
		return time.Duration(delays[int(calls.Add(1))%len(delays)]) * time.Millisecond
	}
	w.disk.around = func() error {
		time.Sleep(time.Duration(delays[int(commits.Add(1))%len(delays)]) * time.Millisecond)
		return nil
	}
	m, err := w.startMortal(newDir())
	if err != nil {
		return err.Error()
	}
	// revive starts the next agent if this one is dead, or if it is to end well now.
	revive := func(gracefully bool) error {
		m.mu.Lock()
		dead, next, err := m.dead, m.next, m.err
		m.mu.Unlock()
		if err != nil {
			return err
		}
		if !dead && !gracefully {
			return nil
		}
		w.stop()
		if dead {
			if err := os.Rename(filepath.Join(w.dir, "tasks"), filepath.Join(next, "tasks")); err != nil && !os.IsNotExist(err) {
				return err
			}
			w.dir = next
		}
		m, err = w.startMortal(newDir())
		return err
	}
	assigned := map[int]bool{}
	for _, d := range deeds {
		task := tasks[d.task]
		d.container %= len(task.Containers)
		switch d.what {
		case "assign":
			if !assigned[d.task] {
				assigned[d.task] = true
				w.server.assign(task)
			}
		case "stop":
			assigned[d.task] = true
			w.server.stop(task, "stopped")
		case "exit":
			w.runtime.exit(containerID(task, d.container), d.code, d.code == 3)
		case "kick":
			w.server.kick()
		case "silence":
			w.runtime.mu.Lock()
			w.runtime.mute = d.after
			w.runtime.mu.Unlock()
		case "lost":
			if d.code == 0 { // the server forgets a task that it never assigned, or did
				w.server.mu.Lock()
				delete(w.server.tasks, task.Arn)
				w.server.mu.Unlock()
			}
		case "crash":
			m.arm(d.code, d.after)
		case "restart":
			if err := revive(true); err != nil {
				return err.Error()
			}
		}
		pass(d.then)
		if err := revive(false); err != nil {
			return err.Error()
		}
	}
	m.arm(-1, false)
	if err := revive(true); err != nil {
		return err.Error()
	}
	for i, task := range tasks {
		if assigned[i] {
			w.server.stop(task, "the end")
		}
	}
	pass(5 * time.Minute)
	defer w.stop()

	w.runtime.mu.Lock()
	defer w.runtime.mu.Unlock()
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	wrong := slices.Concat(w.runtime.broken, w.server.broken)
	for i, task := range tasks {
		if st := w.server.statuses[task.Arn]; assigned[i] && st.GetLastStatus() != statusStopped {
			wrong = append(wrong, fmt.Sprintf("%s ends as %q: %v", task.Arn, st.GetLastStatus(), w.agent.Snapshot().Tasks))
		} else if assigned[i] && st.Reason == "" {
			wrong = append(wrong, task.Arn+" stopped without a reason")
		}
		for k, c := range w.server.statuses[task.Arn].GetContainers() {
			if n := w.runtime.restarts[containerID(task, k)]; int64(n) != c.RestartCount {
				wrong = append(wrong, fmt.Sprintf("%s of %s was restarted %d times and is said to have been %d times", c.Name, task.Arn, n, c.RestartCount))
			}
		}
	}
	if left := w.left(); left != "" {
		wrong = append(wrong, left)
	}
	if left := w.agent.Snapshot().Tasks; len(left) > 0 {
		wrong = append(wrong, fmt.Sprintf("still known: %v", left))
	}
	if dirs, _ := os.ReadDir(filepath.Join(w.dir, "tasks")); len(dirs) > 0 {
		wrong = append(wrong, fmt.Sprintf("directories left: %v", dirs))
	}
	return strings.Join(wrong, "\n")
}
