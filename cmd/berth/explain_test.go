package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/history"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

var began = time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)

func after(seconds float64) time.Time {
	return began.Add(time.Duration(seconds * float64(time.Second)))
}

// life is a task's record, made by the steps that make a real one.
type life struct {
	task *history.Task
	rec  lifecycle.Record
}

func newLife() *life {
	sc := store.Scope{Account: "111122223333", Region: "eu-central-1"}
	const id = "c13b4cb40f1f4fe4a2971f76ae5a47ad"
	facts := lifecycle.Facts{CreatedAt: began, Containers: []lifecycle.Member{{Name: "web", Essential: true, HasHealthCheck: true}, {Name: "db"}}}
	return &life{
		rec: lifecycle.New(facts),
		task: &history.Task{
			Key: state.TaskKey(sc, "demo", id), Hostname: "worker-1", Placement: &state.Placement{HostID: "1357c47d790de2dc0890b20fb0514533"},
			Extras: make([]history.Extra, 2),
			Spec: state.Spec{
				ARN: state.ARN(sc, "task", "demo", id), ID: id, Cluster: "demo", Family: "shop", Revision: 7, LaunchType: ecs.LaunchTypeEc2,
				Containers: []state.SpecContainer{
					{Name: "web", Image: "registry.example/shop/web:1", Essential: true, HealthCheck: true, Memory: "128"},
					{Name: "db", Image: "postgres:16"},
				},
				CreatedAt: began, CreatedBy: "arn:aws:iam::111122223333:user/ann",
			},
		},
	}
}

func (l *life) report(at float64, rep lifecycle.Report) *life {
	rep.Version = l.rec.Status.Reported + 1
	l.rec, _ = lifecycle.Apply(l.rec, rep, after(at))
	return l
}

// started is a life up to RUNNING.
func started() *life {
	l := newLife()
	l.report(0.2, lifecycle.Report{LastStatus: lifecycle.Activating, PullStartedAt: after(0.1)})
	return l.report(2, lifecycle.Report{
		LastStatus: lifecycle.Running, PullStoppedAt: after(1.6), StartedAt: after(2),
		Containers: []lifecycle.ContainerReport{
			{Name: "web", LastStatus: lifecycle.ContainerRunning, StartedAt: after(2), ImageDigest: "sha256:8a0d40f143550123"},
			{Name: "db", LastStatus: lifecycle.ContainerRunning, StartedAt: after(1.8)},
		},
	})
}

func (l *life) stopped(at float64, reason string, web, db lifecycle.ContainerReport) *life {
	web.Name, db.Name, web.LastStatus, db.LastStatus = "web", "db", lifecycle.ContainerStopped, lifecycle.ContainerStopped
	return l.report(at, lifecycle.Report{LastStatus: lifecycle.Stopped, Reason: reason, StoppedAt: after(at), Containers: []lifecycle.ContainerReport{web, db}})
}

func (l *life) wrote(container int, lines ...string) *life {
	for i, text := range lines {
		stream := "stdout"
		if i == len(lines)-1 {
			stream = "stderr"
		}
		l.task.Extras[container].Lines = append(l.task.Extras[container].Lines, history.Line{At: after(4 + float64(i)/10), Stream: stream, Text: text})
	}
	return l
}

func (l *life) explain(at float64, live *history.Live) history.Explanation {
	l.task.Desired, l.task.Status = l.rec.Desired, l.rec.Status
	return l.task.Explain(live, after(at))
}

func code(n int32) *int32 { return &n }

func explanations() map[string]history.Explanation {
	ended := lifecycle.ContainerReport{ExitCode: code(143), FinishedAt: after(5.2)}
	out := map[string]history.Explanation{}

	out["exited"] = started().stopped(5.3, "", lifecycle.ContainerReport{ExitCode: code(1), FinishedAt: after(4.3)}, ended).
		wrote(0, "listening on :80", "\x1b[31mpanic:\x1b[0m no such table: orders").explain(90, nil)
	out["segfault"] = started().stopped(5.3, "", lifecycle.ContainerReport{ExitCode: code(139), FinishedAt: after(4.3)}, ended).explain(90, nil)
	out["out-of-memory"] = started().stopped(5.3, "", lifecycle.ContainerReport{ExitCode: code(137), FinishedAt: after(4.3), Reason: "OutOfMemoryError: Container killed due to memory usage"}, ended).explain(90, nil)
	out["finished"] = started().stopped(5.3, "", lifecycle.ContainerReport{ExitCode: code(0), FinishedAt: after(4.3)}, ended).explain(4*3600, nil)

	pull := "CannotPullContainerError: pull image registry.example/shop/web:1: registry.example: connection refused"
	out["cannot-pull"] = newLife().report(0.2, lifecycle.Report{LastStatus: lifecycle.Activating, PullStartedAt: after(0.1)}).
		stopped(9, pull, lifecycle.ContainerReport{Reason: pull}, lifecycle.ContainerReport{}).explain(90, nil)
	exec := "CannotStartContainerError: exec /server: exec format error"
	out["exec-format"] = newLife().report(0.2, lifecycle.Report{LastStatus: lifecycle.Activating}).
		stopped(1, exec, lifecycle.ContainerReport{Reason: exec}, lifecycle.ContainerReport{}).explain(90, nil)

	l := started()
	l.rec, _ = lifecycle.RequestStop(l.rec, lifecycle.Cause{Reason: "rolling back", By: "arn:aws:iam::111122223333:user/bob"}, after(60))
	out["stopping"] = l.report(61, lifecycle.Report{LastStatus: lifecycle.Stopping}).explain(70, &history.Live{Waiting: []history.Waiting{
		{Container: "web", For: "to end on SIGTERM", Since: after(60), Deadline: after(90), Then: "it is killed"}}})
	out["stopped-by-user"] = l.stopped(91, "", lifecycle.ContainerReport{ExitCode: code(137), FinishedAt: after(90.5)}, ended).explain(100, nil)

	l = started()
	for n := range int64(2) {
		l.rec, _ = lifecycle.Observe(l.rec, []lifecycle.ContainerObservation{{Name: "db", RestartCount: n + 1, RestartedAt: after(20 + 60*float64(n))}}, after(20+60*float64(n)))
	}
	l.rec, _ = lifecycle.Observe(l.rec, []lifecycle.ContainerObservation{{Name: "web", Health: lifecycle.Unhealthy, HealthSince: after(100), HealthExitCode: 7,
		HealthOutput: "curl: (7) Failed to connect to localhost port 80"}}, after(101))
	out["unhealthy"] = l.explain(120, &history.Live{})

	out["pulling"] = newLife().report(0.2, lifecycle.Report{LastStatus: lifecycle.Activating, PullStartedAt: after(0.1)}).explain(12, &history.Live{Waiting: []history.Waiting{
		{Container: "web", For: "pulling image registry.example/shop/web:1", Since: after(0.1), Deadline: after(7200), Then: "the task stops: CannotPullContainerError"},
		{Container: "db", For: "web to be RUNNING", Since: after(0.1)}}})
	l = newLife()
	out["host-away"] = l.explain(45, &history.Live{Problem: "the task's host is not connected"})

	check := func(filter string, detail string) history.Check {
		return history.Check{Filter: filter, OK: detail == "", Detail: detail}
	}
	out["not-placed"] = (&history.Run{
		ID: "7245358d-557b-45a1-aa09-a9e2685da0c3", At: began, Cluster: "demo", Definition: "shop:7", LaunchType: "EC2", Asked: 3, Placed: 1, Hosts: 3,
		Needs: "512 CPU units, 1024 MiB, port 80/tcp",
		Verdicts: []history.Verdict{
			{Hostname: "worker-1", HostID: "1", Reason: "RESOURCE:PORTS", Checks: []history.Check{check("agent", ""), check("cpu", ""), check("memory", ""), check("ports", "80/tcp taken")}},
			{Hostname: "worker-2", HostID: "2", Reason: "RESOURCE:CPU", Checks: []history.Check{check("agent", ""), check("cpu", "needs 512, 256 free"), check("memory", "needs 1024, 12 free"), check("ports", "")}},
			{HostID: "1357c47d790de2dc0890b20fb0514533", Reason: "AGENT", Checks: []history.Check{check("agent", "not connected"), check("cpu", ""), check("memory", ""), check("ports", "")}},
		},
	}).Explain()
	out["no-hosts"] = (&history.Run{ID: "7245358d-557b-45a1-aa09-a9e2685da0c3", At: began, Cluster: "demo", Definition: "shop:7", Asked: 1, Needs: "1 CPU units"}).Explain()
	return out
}

// moments are when explanations are looked at that tell of the present; seconds after the task began.
var moments = map[string]float64{"finished": 4 * 3600, "stopping": 70, "stopped-by-user": 100, "unhealthy": 120, "pulling": 12, "host-away": 45}

// TestExplanations compares what users see with the golden files: go test ./cmd/berth -run Explanations -update
func TestExplanations(t *testing.T) {
	t.Parallel()
	show := func(now time.Time, do func(*renderer)) string {
		var b bytes.Buffer
		r := &renderer{w: &b, now: now, zone: time.UTC}
		do(r)
		if r.err != nil {
			t.Fatal(r.err)
		}
		return b.String()
	}
	all := explanations()
	texts := map[string]string{
		"list":  show(after(120), func(r *renderer) { r.list([]history.Explanation{all["exited"], all["not-placed"], all["cannot-pull"]}) }),
		"empty": show(after(120), func(r *renderer) { r.list(nil) }),
	}
	for name, e := range all {
		now, ok := moments[name]
		if !ok {
			now = 90
		}
		texts[name] = show(after(now), func(r *renderer) { r.explanation(e) })
	}
	for name, got := range texts {
		file := filepath.Join("testdata", "explain", name+".txt")
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
		if strings.ContainsRune(got, '\x1b') {
			t.Errorf("%s: an escape sequence gets through to the terminal", name)
		}
	}
}

func TestColoursTakeNoRoom(t *testing.T) {
	t.Parallel()
	var plain, coloured bytes.Buffer
	e := explanations()["exited"]
	(&renderer{w: &plain, now: after(120), zone: time.UTC}).explanation(e)
	(&renderer{w: &coloured, now: after(120), zone: time.UTC, paint: true}).explanation(e)
	if !strings.Contains(coloured.String(), "\x1b[31m") {
		t.Error("a failure is not red")
	}
	stripped := coloured.String()
	for _, c := range []string{"0", "1", "2", "31", "32", "33"} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+c+"m", "")
	}
	if stripped != plain.String() {
		t.Errorf("with colours\n%s\nwithout\n%s", stripped, plain.String())
	}
}

func TestEventLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := eventPrinter{out: &b}
	for _, c := range []struct{ event, want string }{
		{`{"time":"2026-11-23T05:00:00Z","detail-type":"ECS Task State Change","detail":{"taskArn":"arn:aws:ecs:x:1:task/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad","taskDefinitionArn":"arn:aws:ecs:x:1:task-definition/shop:7","lastStatus":"STOPPED","stopCode":"EssentialContainerExited","stoppedReason":"Essential container in task exited","containers":[{"name":"web","exitCode":1},{"name":"db"}]}}`,
			"task demo/c13b4cb40f1f  shop:7            STOPPED         Essential container in task exited (web: 1)\n"},
		{`{"time":"2026-11-23T05:00:00Z","detail-type":"ECS Task State Change","detail":{"taskArn":"arn:aws:ecs:x:1:task/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad","taskDefinitionArn":"arn:aws:ecs:x:1:task-definition/shop:7","lastStatus":"RUNNING","desiredStatus":"STOPPED","stoppedReason":"no more"}}`,
			"task demo/c13b4cb40f1f  shop:7            RUNNING         to be STOPPED: no more\n"},
		{`{"time":"2026-11-23T05:00:00Z","detail-type":"ECS Container Instance State Change","detail":{"containerInstanceArn":"arn:aws:ecs:x:1:container-instance/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad","status":"ACTIVE","registeredResources":[{"name":"CPU","integerValue":2048},{"name":"MEMORY","integerValue":1024}],"remainingResources":[{"name":"CPU","integerValue":1024},{"name":"MEMORY","integerValue":0}]}}`,
			"host demo/c13b4cb40f1f  ACTIVE, agent gone, 1024 of 2048 CPU units free, 0 of 1024 MiB free\n"},
		{`{"time":"2026-11-23T05:00:00Z","detail-type":"ECS Service Action","resources":["arn:aws:ecs:x:1:service/demo/shop"],"detail":{"eventType":"ERROR","eventName":"SERVICE_TASK_PLACEMENT_FAILURE","reason":"RESOURCE:CPU"}}`,
			"service demo/shop  SERVICE_TASK_PLACEMENT_FAILURE  RESOURCE:CPU\n"},
	} {
		b.Reset()
		if err := p.print(json.RawMessage(c.event)); err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(b.String(), "  "); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
	p.json = true
	b.Reset()
	if err := p.print(json.RawMessage(`{"a":1}`)); err != nil || b.String() != "{\"a\":1}\n" {
		t.Errorf("as JSON: %q, %v", b.String(), err)
	}
}
