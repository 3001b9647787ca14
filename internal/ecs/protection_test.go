package ecs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// ofService makes a task one of a service, as the scheduler of services will.
func (w *world) ofService(task, service string) {
	w.Helper()
	key, err := state.ParseTaskARN(task)
	if err != nil {
		w.Fatalf("%v", err)
	}
	_, err = w.store.Update(w.ctx, func(tx *store.Tx) error {
		row, _ := state.Specs.Get(tx, key)
		spec := *row.Value
		spec.Group = "service:" + service
		state.Specs.Put(tx, key, &spec)
		return nil
	})
	if err != nil {
		w.Fatalf("%v", err)
	}
}

func (w *world) protect(enabled bool, minutes *int32, tasks ...string) (*ecs.UpdateTaskProtectionOutput, error) {
	return w.ecs.UpdateTaskProtection(w.ctx, &ecs.UpdateTaskProtectionInput{Cluster: api.Ptr("demo"), Tasks: tasks, ProtectionEnabled: &enabled, ExpiresInMinutes: minutes})
}

func TestTaskProtection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", nil)
	tasks := w.run("demo", def, 2).Tasks
	mine, alone := *tasks[0].TaskArn, *tasks[1].TaskArn
	w.ofService(mine, "web")
	nobody := strings.Repeat("0", 32)
	until := func(want time.Duration) {
		t.Helper()
		out, err := w.ecs.GetTaskProtection(w.ctx, &ecs.GetTaskProtectionInput{Cluster: api.Ptr("demo"), Tasks: []string{mine}})
		if err != nil || len(out.ProtectedTasks) != 1 {
			t.Fatalf("GetTaskProtection: %v %+v", err, out)
		}
		p := out.ProtectedTasks[0]
		if *p.ProtectionEnabled != (want > 0) || (p.ExpirationDate != nil) != (want > 0) {
			t.Fatalf("%+v, want %v", p, want)
		}
		if want > 0 {
			if left := time.Until(*p.ExpirationDate); left > want || left < want-time.Minute {
				t.Errorf("for %v, want %v", left, want)
			}
		}
	}
	until(0)
	out, err := w.protect(true, nil, mine, alone, nobody)
	if err != nil || len(out.ProtectedTasks) != 1 || len(out.Failures) != 2 || *out.Failures[0].Reason != "TASK_NOT_VALID" || *out.Failures[1].Reason != "MISSING" {
		t.Fatalf("UpdateTaskProtection: %v %+v", err, out)
	}
	if *out.Failures[0].Arn != alone || *out.Failures[1].Arn != "arn:aws:ecs:eu-west-1:123456789012:task/demo/"+nobody {
		t.Errorf("failures: %s %s", *out.Failures[0].Arn, *out.Failures[1].Arn)
	}
	until(120 * time.Minute)
	if _, err = w.protect(true, api.Ptr(int32(2880)), mine); err != nil {
		t.Fatal(err)
	}
	until(2880 * time.Minute)
	if _, err = w.protect(false, nil, mine); err != nil {
		t.Fatal(err)
	}
	until(0)
	if _, err = w.protect(true, api.Ptr(int32(1)), mine); err != nil {
		t.Fatal(err)
	}
	key, _ := state.ParseTaskARN(mine)
	if got := state.ProtectedUntil(w.store.Snapshot(), key, time.Now().Add(time.Minute)); !got.IsZero() {
		t.Errorf("past its time it is protected until %s", got)
	}
	if _, err = w.ecs.StopTask(w.ctx, &ecs.StopTaskInput{Cluster: api.Ptr("demo"), Task: &mine}); err != nil {
		t.Fatal(err)
	}
	if out, err = w.protect(true, nil, mine); err != nil || len(out.Failures) != 1 || *out.Failures[0].Reason != "TASK_NOT_VALID" {
		t.Errorf("of a task that stops: %v %+v", err, out)
	}
	for _, n := range []int32{0, -1, 2881} {
		_, err = w.protect(true, &n, mine)
		wantError(t, err, "InvalidParameterException", "expiresInMinutes must be between 1 and 2880")
	}
	_, err = w.protect(true, nil)
	wantError(t, err, "InvalidParameterException", "Tasks must be between 1 and 10")
	_, err = w.protect(true, nil, make([]string, 11)...)
	wantError(t, err, "InvalidParameterException", "Tasks must be between 1 and 10")
	_, err = w.protect(true, nil, "short")
	wantError(t, err, "InvalidParameterException", "taskId length")
	_, err = w.ecs.GetTaskProtection(w.ctx, &ecs.GetTaskProtectionInput{Cluster: api.Ptr("demo")})
	wantError(t, err, "InvalidParameterException", "Tasks must be between 1 and 100")
	_, err = w.ecs.UpdateTaskProtection(w.ctx, &ecs.UpdateTaskProtectionInput{Cluster: api.Ptr("demo"), Tasks: []string{mine}})
	wantError(t, err, "InvalidParameterException", "ProtectionEnabled")
}

func TestListTasksOfAService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	tasks := w.run("demo", w.register("web", nil), 2).Tasks
	w.ofService(*tasks[0].TaskArn, "web")
	for _, name := range []string{"web", "arn:aws:ecs:eu-west-1:123456789012:service/demo/web"} {
		out, err := w.ecs.ListTasks(w.ctx, &ecs.ListTasksInput{Cluster: api.Ptr("demo"), ServiceName: &name})
		if err != nil || len(out.TaskArns) != 1 || out.TaskArns[0] != *tasks[0].TaskArn {
			t.Errorf("%s: %v %+v", name, err, out)
		}
	}
	for _, name := range []string{"other", "arn:aws:ecs:eu-west-1:123456789012:service/other/web"} {
		_, err := w.ecs.ListTasks(w.ctx, &ecs.ListTasksInput{Cluster: api.Ptr("demo"), ServiceName: &name})
		wantError(t, err, "ServiceNotFoundException", "Service not found.")
	}
	_, err := w.ecs.ListTasks(w.ctx, &ecs.ListTasksInput{Cluster: api.Ptr("demo"), DaemonName: api.Ptr("d")})
	wantError(t, err, "UnsupportedFeatureException", "daemons")
}
