package runtime

import (
	"testing"

	"github.com/berthhq/berth/internal/agent"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := importBusybox(t, r)
	if image.Ref != "docker.io/library/busybox:latest" || image.StopSignal != "SIGINT" {
		t.Errorf("image is %+v", image)
	}

	c := testContainer(image, "c1", "echo hello; exit 7")
	path, read := output(t)
	c.Stdout = path
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatalf("create: %v", err)
	}
	if state := waitPhase(t, r, "c1", agent.PhaseCreated); state.TaskID != c.TaskID {
		t.Errorf("the task is %q", state.TaskID)
	}
	if err := r.Create(t.Context(), c); err != nil {
		t.Errorf("create again: %v", err)
	}
	started, err := r.Start(t.Context(), "c1")
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	state := waitPhase(t, r, "c1", agent.PhaseStopped)
	if state.ExitCode != 7 || state.OOMKilled || state.FinishedAt.Before(started) {
		t.Errorf("state is %+v, started at %v", state, started)
	}
	if err := r.Signal(t.Context(), "c1", "SIGTERM"); err != nil {
		t.Errorf("signal a stopped container: %v", err)
	}
	for range 2 {
		if err := r.Delete(t.Context(), "c1"); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
	if got := read(); got != "hello\n" {
		t.Errorf("output is %q", got)
	}
	if _, ok, err := r.Inspect(t.Context(), "c1"); ok || err != nil {
		t.Errorf("a deleted container is there: %v", err)
	}
}
