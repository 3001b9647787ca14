package events

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	scope = store.Scope{Account: "111122223333", Region: "us-west-2"}
	t0    = time.Date(2026, 11, 23, 5, 0, 0, 123456789, time.UTC)
	quiet = slog.New(slog.DiscardHandler)
)

const taskID = "c13b4cb40f1f4fe4a2971f76ae5a47ad"

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: quiet}, state.Tables()...)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// put runs a transaction and answers its change.
func put(t *testing.T, s *store.Store, fn func(tx *store.Tx)) store.Change {
	t.Helper()
	w := s.Watch(t.Context(), s.Snapshot())
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		t.Fatalf("update: %v", err)
	}
	c, err := w.Next(t.Context())
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	return c
}

var key = state.TaskKey(scope, "demo", taskID)

func spec() *state.Spec {
	return &state.Spec{
		ARN: state.ARN(scope, "task", "demo", taskID), ID: taskID, ClusterARN: state.ARN(scope, "cluster", "demo"), Cluster: "demo",
		TaskDefinitionARN: state.ARN(scope, "task-definition", "web:3"), Family: "web", Revision: 3, NetworkMode: "awsvpc",
		LaunchType: ecs.LaunchTypeEc2, Group: "family:web", CPU: "256", Memory: "512",
		Containers: []state.SpecContainer{{Name: "app", ID: "cf159fd6", Image: "app:1", Essential: true, CPU: "0"}},
		Interface:  &state.Interface{AttachmentID: "1789bcae", ENIID: "eni-1", MAC: "0a:98:eb:a7:29:ba", SubnetID: "subnet-1"},
		CreatedAt:  t0,
	}
}

func place(tx *store.Tx) {
	state.Specs.Put(tx, key, spec())
	state.Placements.Put(tx, key, &state.Placement{HostID: "h1", AvailabilityZone: "us-west-2a", PrivateIPv4: "10.0.0.139"})
	state.ContainerInstances.Put(tx, store.K(scope, "demo/i1"), &state.ContainerInstance{
		ARN: state.ARN(scope, "container-instance", "demo", "i1"), ID: "i1", ClusterARN: state.ARN(scope, "cluster", "demo"), HostID: "h1", Status: "ACTIVE",
	})
}

func describe(v store.View, k store.Key) (ecs.ContainerInstance, bool) {
	row, ok := state.ContainerInstances.Get(v, k)
	if !ok {
		return ecs.ContainerInstance{}, false
	}
	whole := func(name string, n int32) ecs.Resource {
		return ecs.Resource{Name: &name, Type: api.Ptr("INTEGER"), IntegerValue: &n, LongValue: api.Ptr(int64(0)), DoubleValue: api.Ptr(0.0)}
	}
	ports := ecs.Resource{Name: api.Ptr("PORTS"), Type: api.Ptr("STRINGSET"), IntegerValue: api.Ptr(int32(0)), StringSetValue: []string{"22"}}
	return ecs.ContainerInstance{
		ContainerInstanceArn: &row.Value.ARN, Status: &row.Value.Status, AgentConnected: api.Ptr(true),
		VersionInfo:         &ecs.VersionInfo{AgentVersion: api.Ptr("1")},
		RegisteredResources: []ecs.Resource{whole("CPU", 2048), ports}, RemainingResources: []ecs.Resource{whole("CPU", 0), ports},
	}, true
}

// stopped is what the task's status comes to.
func stopped(tx *store.Tx) {
	rec, _ := state.Record(tx, key)
	rec, _ = lifecycle.Apply(rec, lifecycle.Report{
		Version: 1, LastStatus: lifecycle.Stopped, StartedAt: t0.Add(2 * time.Second), StoppedAt: t0.Add(4 * time.Second),
		Containers: []lifecycle.ContainerReport{{Name: "app", LastStatus: lifecycle.ContainerStopped, ExitCode: api.Ptr(int32(1)), ImageDigest: "sha256:1"}},
	}, t0.Add(5*time.Second))
	state.Statuses.Put(tx, key, &rec.Status)
}

// TestTaskEventIsAWSs compares an event with what EventBridge delivers for such a task, member by member.
func TestTaskEventIsAWSs(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	put(t, s, place)
	c := put(t, s, stopped)
	events := Derive(c, describe, t0)
	if len(events) != 2 {
		t.Fatalf("%d events, want the task's and its instance's: %+v", len(events), events)
	}
	const want = `{
  "version": "0", "id": "ID", "detail-type": "ECS Task State Change", "source": "aws.ecs",
  "account": "111122223333", "time": "2026-11-23T05:00:05Z", "region": "us-west-2",
  "resources": ["arn:aws:ecs:us-west-2:111122223333:task/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad"],
  "detail": {
    "attachments": [{"id": "1789bcae", "type": "eni", "status": "DELETED", "details": [
      {"name": "subnetId", "value": "subnet-1"}, {"name": "networkInterfaceId", "value": "eni-1"},
      {"name": "macAddress", "value": "0a:98:eb:a7:29:ba"},
      {"name": "privateDnsName", "value": "ip-10-0-0-139.us-west-2.compute.internal"},
      {"name": "privateIPv4Address", "value": "10.0.0.139"}]}],
    "availabilityZone": "us-west-2a",
    "clusterArn": "arn:aws:ecs:us-west-2:111122223333:cluster/demo",
    "connectivity": "CONNECTED", "connectivityAt": "2026-11-23T05:00:05.123Z",
    "containers": [{
      "containerArn": "arn:aws:ecs:us-west-2:111122223333:container/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad/cf159fd6",
      "exitCode": 1, "lastStatus": "STOPPED", "name": "app", "image": "app:1", "imageDigest": "sha256:1",
      "taskArn": "arn:aws:ecs:us-west-2:111122223333:task/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad",
      "networkInterfaces": [{"attachmentId": "1789bcae", "privateIpv4Address": "10.0.0.139"}], "cpu": "0"}],
    "cpu": "256", "createdAt": "2026-11-23T05:00:00.123Z", "desiredStatus": "STOPPED", "enableExecuteCommand": false,
    "group": "family:web", "launchType": "EC2", "lastStatus": "STOPPED", "memory": "512",
    "overrides": {"containerOverrides": [{"name": "app"}]},
    "startedAt": "2026-11-23T05:00:02.123Z", "stoppingAt": "2026-11-23T05:00:05.123Z", "stoppedAt": "2026-11-23T05:00:04.123Z",
    "stoppedReason": "Essential container in task exited", "stopCode": "EssentialContainerExited",
    "taskArn": "arn:aws:ecs:us-west-2:111122223333:task/demo/c13b4cb40f1f4fe4a2971f76ae5a47ad",
    "taskDefinitionArn": "arn:aws:ecs:us-west-2:111122223333:task-definition/web:3",
    "updatedAt": "2026-11-23T05:00:05.123Z", "version": 2
  }
}`
	same(t, events[0], want)
	const wantInstance = `{
  "version": "0", "id": "ID", "detail-type": "ECS Container Instance State Change", "source": "aws.ecs",
  "account": "111122223333", "time": "2026-11-23T05:00:00Z", "region": "us-west-2",
  "resources": ["arn:aws:ecs:us-west-2:111122223333:container-instance/demo/i1"],
  "detail": {
    "agentConnected": true, "attributes": [], "clusterArn": "arn:aws:ecs:us-west-2:111122223333:cluster/demo",
    "containerInstanceArn": "arn:aws:ecs:us-west-2:111122223333:container-instance/demo/i1",
    "registeredResources": [{"name": "CPU", "type": "INTEGER", "integerValue": 2048}, {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"]}],
    "remainingResources": [{"name": "CPU", "type": "INTEGER", "integerValue": 0}, {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"]}],
    "status": "ACTIVE", "version": REVISION, "versionInfo": {"agentVersion": "1"}, "updatedAt": "2026-11-23T05:00:00.123Z"
  }
}`
	same(t, events[1], strings.ReplaceAll(wantInstance, "REVISION", fmt.Sprint(c.Revision)))
}

// same compares an event with JSON, all but the ID.
func same(t *testing.T, e Event, want string) {
	t.Helper()
	if len(e.ID) != 36 {
		t.Errorf("ID %q is not a UUID", e.ID)
	}
	e.ID = "ID"
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	canonical := func(s []byte) string {
		var v any
		if err := json.Unmarshal(s, &v); err != nil {
			t.Fatalf("%v in %s", err, s)
		}
		out, _ := json.MarshalIndent(v, "", " ")
		return string(out)
	}
	if got, want := canonical(raw), canonical([]byte(want)); got != want {
		t.Errorf("event\n%s\nwant\n%s", got, want)
	}
}

func TestDeriveMakesAnEventOfEachVersionAndNoMore(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	kinds := func(events []Event) string {
		var out []string
		for _, e := range events {
			out = append(out, map[string]string{TaskChange: "task", InstanceChange: "instance"}[e.DetailType])
		}
		return strings.Join(out, " ")
	}
	for _, step := range []struct {
		what string
		do   func(tx *store.Tx)
		want string
	}{
		{"a task is placed", place, "task instance"},
		{"a report says nothing that clients see", func(tx *store.Tx) {
			state.Statuses.Put(tx, key, &lifecycle.Status{LastStatus: lifecycle.Pending, Reported: 1})
		}, ""},
		{"a stop is asked for", func(tx *store.Tx) {
			rec, _ := state.Record(tx, key)
			rec, _ = lifecycle.RequestStop(rec, lifecycle.Cause{Reason: "enough"}, t0)
			state.Desires.Put(tx, key, &rec.Desired)
		}, "task"},
		{"the task stops", func(tx *store.Tx) { state.Statuses.Delete(tx, key); stopped(tx) }, "task instance"},
		{"the instance drains", func(tx *store.Tx) {
			row, _ := state.ContainerInstances.Get(tx, store.K(scope, "demo/i1"))
			ci := *row.Value
			ci.Status = "DRAINING"
			state.ContainerInstances.Put(tx, row.Key, &ci)
		}, "instance"},
		{"the rows are forgotten", func(tx *store.Tx) {
			state.Specs.Delete(tx, key)
			state.Desires.Delete(tx, key)
			state.Statuses.Delete(tx, key)
			state.Placements.Delete(tx, key)
		}, ""},
	} {
		before := s.Snapshot().Revision()
		c := put(t, s, step.do)
		if got := kinds(Derive(c, describe, t0)); got != step.want {
			t.Errorf("%s: events %q, want %q", step.what, got, step.want)
		}
		// What can be told afterwards is no less.
		if got := kinds(Since(c.Snapshot, before, describe, t0)); step.want != "" && !strings.Contains(got, strings.Fields(step.want)[0]) {
			t.Errorf("%s: events %q of the rows that are younger, want %q", step.what, got, step.want)
		}
	}
}

func TestEventIDsAreTheSameEachTime(t *testing.T) {
	t.Parallel()
	a := NewServiceAction(scope, "arn:svc", Action{EventType: "INFO", EventName: "SERVICE_STEADY_STATE", CreatedAt: t0})
	b := NewServiceAction(scope, "arn:svc", Action{EventType: "INFO", EventName: "SERVICE_STEADY_STATE", CreatedAt: t0})
	c := NewServiceAction(scope, "arn:svc", Action{EventType: "INFO", EventName: "SERVICE_STEADY_STATE", CreatedAt: t0.Add(time.Second)})
	if a.ID != b.ID || a.ID == c.ID {
		t.Errorf("IDs %s, %s and %s", a.ID, b.ID, c.ID)
	}
	same(t, c, `{"version":"0","id":"ID","detail-type":"ECS Service Action","source":"aws.ecs","account":"111122223333",
		"time":"2026-11-23T05:00:01Z","region":"us-west-2","resources":["arn:svc"],
		"detail":{"eventType":"INFO","eventName":"SERVICE_STEADY_STATE","clusterArn":"","createdAt":"2026-11-23T05:00:01.123Z"}}`)
	same(t, NewDeploymentStateChange(scope, "arn:svc", Deployment{EventType: "ERROR", EventName: "SERVICE_DEPLOYMENT_FAILED", DeploymentID: "ecs-svc/123", UpdatedAt: t0, Reason: "no"}),
		`{"version":"0","id":"ID","detail-type":"ECS Deployment State Change","source":"aws.ecs","account":"111122223333",
		"time":"2026-11-23T05:00:00Z","region":"us-west-2","resources":["arn:svc"],
		"detail":{"eventType":"ERROR","eventName":"SERVICE_DEPLOYMENT_FAILED","deploymentId":"ecs-svc/123","updatedAt":"2026-11-23T05:00:00.123Z","reason":"no"}}`)
}

// TestFeedGoesOnWhereItWas runs a feed, ends it, changes rows behind its back and runs another on the
// same log: no task's last state is missing from it.
func TestFeedGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	s, b := openStore(t), newBlob(t)
	run := func(l *Log) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- NewFeed(s, l, describe, quiet).Run(ctx) }()
		return func() { cancel(); <-done }
	}
	last := func(l *Log, after int64, want string) int64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for r := l.Follow(after); ; {
			records, err := r.Next(ctx)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			for _, rec := range records {
				raw, _ := json.Marshal(rec.Event)
				if strings.Contains(string(raw), want) {
					return rec.Seq
				}
			}
		}
	}
	l := open(t, b)
	stop := run(l)
	put(t, s, place)
	seq := last(l, 0, `"lastStatus":"PROVISIONING"`)
	stop()
	put(t, s, stopped)
	l = open(t, b)
	if l.Revision() == 0 || l.Last() < seq {
		t.Fatalf("the log came back at record %d, revision %d", l.Last(), l.Revision())
	}
	stop = run(l)
	defer stop()
	last(l, seq, `"lastStatus":"STOPPED"`)
}
