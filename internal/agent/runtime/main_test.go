package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent"
)

// TestMain lets the test binary be the shim, as main lets berth, and a berth that gets killed.
func TestMain(m *testing.M) {
	if IsShim(os.Args) {
		ShimMain()
		return
	}
	if task := os.Getenv("BERTH_TEST_VICTIM"); task != "" {
		if err := victim(task); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	os.Exit(m.Run())
}

// victimTask is what a victim does before it waits to be killed.
type victimTask struct {
	Config     Config
	Containers []agent.ContainerSpec
	// RestartSteps is how far it restarts the first container, once that has stopped, before it dies;
	// 0: it does not wait for that.
	RestartSteps int
}

func victim(encoded string) error {
	var task victimTask
	if err := json.Unmarshal([]byte(encoded), &task); err != nil {
		return err
	}
	ctx := context.Background()
	r, err := Open(ctx, task.Config)
	if err != nil {
		return err
	}
	for _, c := range task.Containers {
		if err := r.Create(ctx, c); err != nil {
			return err
		}
		if _, err := r.Start(ctx, c.ID); err != nil {
			return err
		}
	}
	if task.RestartSteps == 0 {
		return nil
	}
	id := task.Containers[0].ID
	for state, _, _ := r.Inspect(ctx, id); state.Phase != agent.PhaseStopped; state, _, err = r.Inspect(ctx, id) {
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	record, err := r.engine.containers.Get(r.call(ctx), id)
	if err != nil {
		return err
	}
	for _, step := range restartSteps[:task.RestartSteps] {
		if err := step(r, r.call(ctx), record); err != nil {
			return err
		}
	}
	return nil
}

// restartSteps are those of Restart up to the process's start.
var restartSteps = []func(r *Runtime, ctx context.Context, record containerRecord) error{
	func(r *Runtime, ctx context.Context, record containerRecord) error {
		return r.recordExit(ctx, record, 42, time.Now())
	},
	func(r *Runtime, ctx context.Context, record containerRecord) error {
		return r.deleteTask(ctx, record.ID, record.Labels[labelTask])
	},
	func(r *Runtime, ctx context.Context, record containerRecord) error {
		mounts, err := r.engine.snapshots.Mounts(ctx, record.SnapshotKey)
		if err != nil {
			return err
		}
		return r.createTask(ctx, record, mounts)
	},
}

// runThenKill runs the containers under a runtime in another process, and kills that process.
func (h *host) runThenKill(containers ...agent.ContainerSpec) {
	h.t.Helper()
	h.sacrifice(victimTask{Config: h.config, Containers: containers})
}

// sacrifice has another process do the task, and kills that process.
func (h *host) sacrifice(task victimTask) {
	h.t.Helper()
	task.Config.Logger = nil
	encoded, err := json.Marshal(task)
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BERTH_TEST_VICTIM="+string(encoded))
	cmd.Stderr = testWriter{h.t}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if line != "ready\n" {
		h.t.Fatalf("the process to be killed said %q", line)
	}
}
