package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

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
	return nil
}

// runThenKill runs the containers under a runtime in another process, and kills that process.
func (h *host) runThenKill(containers ...agent.ContainerSpec) {
	h.t.Helper()
	task := victimTask{Config: h.config, Containers: containers}
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
