package ecs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	service "github.com/berthhq/berth/internal/ecs"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account, region = "123456789012", "eu-west-1"

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Errorf(string, ...any)
	Fatalf(string, ...any)
	Logf(string, ...any)
}

// world is the service on a store of its own.
type world struct {
	tester
	ctx   context.Context
	store *store.Store
	orch  *orchestrator.Orchestrator
	ecs   *service.Service
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}, state.Tables()...)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	o := orchestrator.New(orchestrator.Config{Store: db, ServerID: "test", Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("orchestrator: %v", err)
		}
		db.Close()
	})
	w := &world{tester: t, store: db, orch: o, ecs: service.New(service.Config{Store: db, Orchestrator: o, Logger: slog.New(slog.DiscardHandler)})}
	w.ctx = as(account, region)
	return w
}

func as(account, region string) context.Context {
	p := caller.ForRoot(account)
	p.Region = region
	return caller.With(context.Background(), p)
}

// connect has a host of so many CPUs, each with 1,024 MiB, connect.
func (w *world) connect(id string, cpus int64) { w.Helper(); w.connectAs(id, cpus, nil) }

// connectAs is connect for a host that says something else of itself.
func (w *world) connectAs(id string, cpus int64, change func(*dispatchpb.Hello)) {
	w.Helper()
	hello := &dispatchpb.Hello{
		HostId: id, Hostname: id, AgentVersion: "1", BootId: "b", CpuUnits: cpus << 10, MemoryMib: cpus << 10,
		SubnetCidr: "10.9.0.0/24", AvailabilityZoneSuffix: "a", ReservedTcpPorts: []string{"22"},
		Attributes: map[string]string{
			"ecs.os-type": "linux", "ecs.os-family": "LINUX", "ecs.cpu-architecture": "x86_64",
			"ecs.capability.task-eni": "", "com.amazonaws.ecs.capability.docker-remote-api.1.18": "",
		},
	}
	if change != nil {
		change(hello)
	}
	if err := w.orch.HostConnected(w.ctx, hello); err != nil {
		w.Fatalf("connect: %v", err)
	}
}

func (w *world) createCluster(name string) {
	w.Helper()
	if _, err := w.ecs.CreateCluster(w.ctx, &ecs.CreateClusterInput{ClusterName: &name}); err != nil {
		w.Fatalf("CreateCluster: %v", err)
	}
}

// register registers a definition of one container.
func (w *world) register(family string, change func(*ecs.RegisterTaskDefinitionInput)) string {
	w.Helper()
	in := &ecs.RegisterTaskDefinitionInput{
		Family: &family, NetworkMode: ecs.NetworkModeHost,
		ContainerDefinitions: []ecs.ContainerDefinition{{Name: api.Ptr("app"), Image: api.Ptr("app"), Cpu: api.Ptr(int32(256)), Memory: api.Ptr(int32(128))}},
	}
	if change != nil {
		change(in)
	}
	out, err := w.ecs.RegisterTaskDefinition(w.ctx, in)
	if err != nil {
		w.Fatalf("RegisterTaskDefinition: %v", err)
	}
	return *out.TaskDefinition.TaskDefinitionArn
}

func (w *world) run(cluster, definition string, count int32) *ecs.RunTaskOutput {
	w.Helper()
	out, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: &cluster, TaskDefinition: &definition, Count: &count})
	if err != nil {
		w.Fatalf("RunTask: %v", err)
	}
	return out
}

// report reports a task's status as dispatch does.
func (w *world) report(task, status string, change func(*ecs.SubmitTaskStateChangeInput)) {
	w.Helper()
	cluster, _, _ := splitTask(task)
	in := &ecs.SubmitTaskStateChangeInput{Cluster: &cluster, Task: &task, Status: &status}
	if change != nil {
		change(in)
	}
	if _, err := w.ecs.SubmitTaskStateChange(w.ctx, in); err != nil {
		w.Fatalf("SubmitTaskStateChange of %s: %v", task, err)
	}
}

func splitTask(arn string) (cluster, id string, ok bool) {
	p, err := state.ParseARN(arn)
	if err != nil || len(p.Path) != 2 {
		return "", "", false
	}
	return p.Path[0], p.Path[1], true
}

func (w *world) describe(task string) ecs.Task {
	w.Helper()
	cluster, _, _ := splitTask(task)
	out, err := w.ecs.DescribeTasks(w.ctx, &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: []string{task}})
	if err != nil || len(out.Tasks) != 1 {
		w.Fatalf("DescribeTasks of %s: %v %+v", task, err, out)
	}
	return out.Tasks[0]
}

// follower is the host's end of a stream of payloads: it does what an agent does with them.
type follower struct {
	stream   dispatch.Assignments
	sequence int64
	desired  map[string]string // by ARN, of tasks that have not stopped
}

func (w *world) follow(host string) *follower {
	w.Helper()
	s, err := w.orch.Assignments(w.ctx, host)
	if err != nil {
		w.Fatalf("Assignments: %v", err)
	}
	return &follower{stream: s, desired: map[string]string{}}
}

// until applies payloads until the condition holds.
func (f *follower) until(w *world, what string, cond func(desired map[string]string) bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for !cond(f.desired) {
		p, err := f.stream.Next(ctx)
		if err != nil {
			w.Fatalf("waiting for %s: %v; have %v", what, err, f.desired)
		}
		f.apply(w, p)
	}
}

func (f *follower) apply(w *world, p *dispatchpb.Payload) {
	w.Helper()
	if p.Sequence <= f.sequence {
		w.Errorf("sequence %d after %d", p.Sequence, f.sequence)
	}
	f.sequence = p.Sequence
	if p.Full {
		f.desired = map[string]string{}
	}
	for _, t := range p.Tasks {
		f.desired[t.Arn] = t.DesiredStatus
	}
}

// wantError checks an error's code and a part of its message.
func wantError(t tester, err error, code, part string) {
	t.Helper()
	var known api.Error
	if !errors.As(err, &known) {
		t.Errorf("error %v, want %s", err, code)
		return
	}
	if known.ErrorCode() != code || !strings.Contains(known.ErrorMessage(), part) {
		t.Errorf("error %s: %s; want %s: …%s…", known.ErrorCode(), known.ErrorMessage(), code, part)
	}
}

func hostName(i int) string { return fmt.Sprintf("%032d", i) }
