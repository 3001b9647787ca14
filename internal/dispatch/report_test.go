package dispatch

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// desk takes down what a reporter does, in order.
type desk struct {
	ecs.API
	done       []string
	submitted  *ecs.SubmitTaskStateChangeInput
	observeErr error
}

func (d *desk) SubmitTaskStateChange(_ context.Context, in *ecs.SubmitTaskStateChangeInput) (*ecs.SubmitTaskStateChangeOutput, error) {
	d.done, d.submitted = append(d.done, "submit"), in
	return &ecs.SubmitTaskStateChangeOutput{}, nil
}

func (d *desk) Observe(context.Context, string, *dispatchpb.TaskStatus) error {
	d.done = append(d.done, "observe")
	return d.observeErr
}

func TestWhatIsObserved(t *testing.T) {
	t.Parallel()
	one := func(c *dispatchpb.ContainerStatus) []*dispatchpb.ContainerStatus {
		c.Name = "app"
		return []*dispatchpb.ContainerStatus{c}
	}
	for name, c := range map[string]struct {
		status string
		c      *dispatchpb.ContainerStatus
		want   []string
	}{
		"nothing to see": {"RUNNING", &dispatchpb.ContainerStatus{}, []string{"submit"}},
		"health":         {"RUNNING", &dispatchpb.ContainerStatus{HealthStatus: "UNKNOWN"}, []string{"observe", "submit"}},
		"a restart":      {"RUNNING", &dispatchpb.ContainerStatus{RestartCount: 1}, []string{"observe", "submit"}},
		"the end":        {"STOPPED", &dispatchpb.ContainerStatus{}, []string{"observe", "submit"}},
	} {
		d := &desk{}
		err := APIReporter{ECS: d, Observer: d}.Report(t.Context(), "h1", &dispatchpb.TaskStatus{Arn: taskARN, LastStatus: c.status, Containers: one(c.c)})
		if err != nil || !slices.Equal(d.done, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, d.done, err, c.want)
		}
	}
	// What could not be written is not acknowledged: the host says it again.
	d := &desk{observeErr: errors.New("no leader")}
	err := APIReporter{ECS: d, Observer: d}.Report(t.Context(), "h1", &dispatchpb.TaskStatus{Arn: taskARN, LastStatus: "STOPPED"})
	if !errors.Is(err, d.observeErr) || errors.Is(err, ErrUnknownTask) {
		t.Errorf("an observation that failed: %v", err)
	}
}

func TestBindingsAreReported(t *testing.T) {
	t.Parallel()
	d := &desk{}
	err := APIReporter{ECS: d}.Report(t.Context(), "h1", &dispatchpb.TaskStatus{Arn: taskARN, LastStatus: "RUNNING", Containers: []*dispatchpb.ContainerStatus{
		{Name: "app", NetworkBindings: []*dispatchpb.PortMapping{
			{BindIp: "0.0.0.0", ContainerPort: 80, HostPort: 32768, Protocol: "tcp"},
			{ContainerPortRange: "90-92", HostPortRange: "40000-40002", Protocol: "udp"},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := d.submitted.Containers[0].NetworkBindings
	if len(got) != 2 || api.Value(got[0].BindIP) != "0.0.0.0" || api.Value(got[0].HostPort) != 32768 || got[0].HostPortRange != nil {
		t.Fatalf("bindings %+v", got)
	}
	if b := got[1]; b.ContainerPort != nil || b.BindIP != nil || api.Value(b.ContainerPortRange) != "90-92" || api.Value(b.HostPortRange) != "40000-40002" {
		t.Fatalf("range %+v", b)
	}
}
