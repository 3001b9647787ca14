package history

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	scope = store.Scope{Account: "111122223333", Region: "us-west-2"}
	quiet = slog.New(slog.DiscardHandler)
	t0    = time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
)

func sec(n float64) time.Time { return t0.Add(time.Duration(n * float64(time.Second))) }

const taskID = "c13b4cb40f1f4fe4a2971f76ae5a47ad"

// hosts are the hosts of tasks, faked.
type hosts struct {
	mu    sync.Mutex
	away  bool
	lines []*dispatchpb.LogLine
	reply *dispatchpb.InspectReply
}

func (h *hosts) Inspect(context.Context, string) (*dispatchpb.InspectReply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away || h.reply == nil {
		return nil, errors.New("the task's host is not connected")
	}
	return h.reply, nil
}

func (h *hosts) OpenLogs(_ context.Context, q *dispatchpb.LogRequest, line func(*dispatchpb.LogLine) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away {
		return errors.New("the task's host is not connected")
	}
	for _, l := range h.lines {
		if err := line(l); err != nil {
			return err
		}
	}
	return nil
}

func (h *hosts) set(away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = away
}

func line(container, text string, partial bool) *dispatchpb.LogLine {
	return &dispatchpb.LogLine{Time: timestamppb.New(t0), Container: container, Stream: "stderr", Text: []byte(text), Partial: partial}
}

// world is an archiver with what is around it.
type world struct {
	store    *store.Store
	archive  *Archive
	hosts    *hosts
	archiver *Archiver
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: quiet}, state.Tables()...)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{store: s, archive: NewArchive(newBlob(t)), hosts: &hosts{lines: []*dispatchpb.LogLine{line("web", "bye", false)}}}
	w.archiver = NewArchiver(s, w.archive, w.hosts, quiet)
	return w
}

func newBlob(t *testing.T) blob.Store {
	t.Helper()
	b, err := blob.OpenDir(t.TempDir(), quiet)
	if err != nil {
		t.Fatalf("open the blob store: %v", err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (w *world) update(t *testing.T, fn func(tx *store.Tx)) {
	t.Helper()
	if _, err := w.store.Update(t.Context(), func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		t.Fatalf("update: %v", err)
	}
}

func taskSpec(id string) *state.Spec {
	return &state.Spec{
		ARN: state.ARN(scope, "task", "demo", id), ID: id, Cluster: "demo", ClusterARN: state.ARN(scope, "cluster", "demo"),
		TaskDefinitionARN: state.ARN(scope, "task-definition", "shop:7"), Family: "shop", Revision: 7, LaunchType: ecs.LaunchTypeEc2,
		Containers: []state.SpecContainer{
			{Name: "web", ID: "w", Image: "shop/web:1", Essential: true, Memory: "128"},
			{Name: "log", ID: "l", Image: "shop/log:1"},
		},
		CreatedAt: t0, CreatedBy: "arn:aws:iam::111122223333:root",
	}
}

// create makes a task's rows.
func (w *world) create(t *testing.T, id string) store.Key {
	t.Helper()
	key := state.TaskKey(scope, "demo", id)
	w.update(t, func(tx *store.Tx) {
		state.Specs.Put(tx, key, taskSpec(id))
		state.Placements.Put(tx, key, &state.Placement{HostID: "h1"})
		state.Hosts.Put(tx, state.HostKey("h1"), &state.Host{ID: "h1", Hostname: "worker-1"})
	})
	return key
}

// report applies a report to the rows.
func (w *world) report(t *testing.T, key store.Key, rep lifecycle.Report, at time.Time) {
	t.Helper()
	w.update(t, func(tx *store.Tx) {
		rec, _ := state.Record(tx, key)
		rep.Version = rec.Status.Reported + 1
		rec, _ = lifecycle.Apply(rec, rep, at)
		state.Statuses.Put(tx, key, &rec.Status)
	})
}

func failedReport() lifecycle.Report {
	return lifecycle.Report{LastStatus: lifecycle.Stopped, StartedAt: sec(1), StoppedAt: sec(4), Containers: []lifecycle.ContainerReport{
		{Name: "web", LastStatus: lifecycle.ContainerStopped, ExitCode: api.Ptr(int32(3)), StartedAt: sec(1), FinishedAt: sec(3)},
		{Name: "log", LastStatus: lifecycle.ContainerStopped, ExitCode: api.Ptr(int32(143)), StartedAt: sec(1), FinishedAt: sec(4)},
	}}
}

// eventually waits for a condition of another goroutine's making.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q lacks %q", what, text, p)
		}
	}
}
