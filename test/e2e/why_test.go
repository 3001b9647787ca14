package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/berthhq/berth/test/harness"
)

// TestWhy: what a failed task and a run without a place leave behind is explained, also when Berth was
// killed at the moment the task ended, and each task's end is among the events.
func TestWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Start(t, harness.Options{}))

	failed := w.stopped(w.runApp("exit", "42"))
	killed := w.runApp("print", "3")
	w.b.Kill()
	w.b.Up()
	w.stopped(killed)

	explain := func(ref string) string { return w.b.Run("explain", ref) }
	harness.Poll(t, 20*time.Second, "the task to be explained from its record", func() bool {
		return strings.Contains(explain(id(killed)[:12]), "finished (exit code 0)")
	})
	if text := explain(id(failed)); !strings.Contains(text, `exited with 42`) || !strings.Contains(text, "EssentialContainerExited") {
		t.Errorf("explanation of a task that exited with 42:\n%s", text)
	}
	if text := explain(id(killed)); !strings.Contains(text, "LAST OUTPUT OF ") {
		t.Errorf("explanation without the output:\n%s", text)
	}

	app := w.app("wait")
	app.Cpu = 1000000
	huge := w.define(nil, app)
	out, err := w.b.ECS().RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &huge})
	if err != nil || len(out.Failures) != 1 {
		t.Fatalf("RunTask of what fits nowhere: %+v, %v", out, err)
	}
	_, run, found := strings.Cut(aws.ToString(out.Failures[0].Detail), "berth explain ")
	if !found {
		t.Fatalf("the failure's detail is %q", aws.ToString(out.Failures[0].Detail))
	}
	if text := explain(run); !strings.Contains(text, "RESOURCE:CPU") || !strings.Contains(text, "needs 1000000") {
		t.Errorf("explanation of the run:\n%s", text)
	}
	recent := w.b.Run("explain")
	if !strings.Contains(recent, id(failed)[:12]) || !strings.Contains(recent, run) || strings.Contains(recent, id(killed)[:12]) {
		t.Errorf("failures are the failed task and the run, and not the task that did its work:\n%s", recent)
	}
	if text, err := w.b.Try("explain", "0123456789abcdef"); err == nil {
		t.Errorf("a task that never was is explained:\n%s", text)
	}

	last := map[string]string{}
	for line := range strings.Lines(w.b.Run("events", "--json")) {
		var e struct {
			Source string `json:"source"`
			Detail struct {
				TaskARN    string `json:"taskArn"`
				LastStatus string `json:"lastStatus"`
			} `json:"detail"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Source != "aws.ecs" {
			t.Fatalf("event %q: %v", line, err)
		}
		last[e.Detail.TaskARN] = e.Detail.LastStatus
	}
	for _, task := range []string{*failed.TaskArn, *killed.TaskArn} {
		if last[task] != "STOPPED" {
			t.Errorf("the last event of %s says %q", task, last[task])
		}
	}
}
