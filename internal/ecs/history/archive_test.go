package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

func TestStoppedTasksAreArchived(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.create(t, strings.Repeat("a", 32)) // stops while no archiver runs
	w.report(t, before, failedReport(), sec(5))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.archiver.Run(ctx) }()
	defer func() { cancel(); <-done }()
	after, lives := w.create(t, strings.Repeat("b", 32)), w.create(t, strings.Repeat("c", 32))
	w.report(t, after, failedReport(), sec(5))
	w.report(t, lives, lifecycle.Report{LastStatus: lifecycle.Running}, sec(5))
	for _, id := range []string{"a", "b"} {
		eventually(t, "task "+id+" is archived", func() bool { ok, _ := w.archive.Archived(ctx, strings.Repeat(id, 32)); return ok })
	}
	// Rows may go now.
	w.update(t, func(tx *store.Tx) { state.Specs.Delete(tx, after); state.Statuses.Delete(tx, after) })
	got, err := w.archive.Task(ctx, "bb")
	if err != nil {
		t.Fatalf("by the beginning of its ID: %v", err)
	}
	if got.Hostname != "worker-1" || *got.Status.Containers[0].ExitCode != 3 || len(got.Extras[0].Lines) != 1 || got.Extras[0].Lines[0].Text != "bye" || len(got.Status.Timeline) == 0 {
		t.Errorf("archived %+v", got)
	}
	if ok, _ := w.archive.Archived(ctx, strings.Repeat("c", 32)); ok {
		t.Error("a task that runs is archived")
	}
	failures, err := w.archive.Failures(ctx, sec(60), 10)
	if err != nil || len(failures) != 2 {
		t.Errorf("failures %+v, %v", failures, err)
	}
}

// TestOutputIsFetchedLater archives a task while its host is away, and again when it is back.
func TestOutputIsFetchedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.create(t, taskID)
	w.report(t, key, failedReport(), sec(5))
	w.hosts.set(true)
	if w.archiver.attempt(t.Context(), key) {
		t.Error("a task without its output is done with")
	}
	got, err := w.archive.Task(t.Context(), taskID)
	if err != nil || got.NoOutput == "" {
		t.Fatalf("%+v, %v; want a record that says that the output lacks", got, err)
	}
	w.hosts.set(false)
	if !w.archiver.attempt(t.Context(), key) {
		t.Error("a task with its output is not done with")
	}
	if got, err = w.archive.Task(t.Context(), taskID); err != nil || got.NoOutput != "" || len(got.Extras[0].Lines) != 1 {
		t.Errorf("%+v, %v; want the output", got, err)
	}
	// A report that comes late is taken in, and the output stays though the host is away again.
	w.hosts.set(true)
	late := failedReport()
	late.Containers[1].Reason = "late news"
	w.report(t, key, late, sec(9))
	if !w.archiver.attempt(t.Context(), key) {
		t.Error("a task with its output is not done with")
	}
	if got, _ = w.archive.Task(t.Context(), taskID); got.Status.Containers[1].Reason != "late news" || len(got.Extras[0].Lines) != 1 {
		t.Errorf("%+v; want the late news, and the output as before", got)
	}
}

// TestCrashWhileArchiving stops between the two writes of a record, and between the deletions of both.
func TestCrashWhileArchiving(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.create(t, taskID)
	w.report(t, key, failedReport(), sec(5))
	whole := w.archive.blob
	w.archive.blob = &dying{Store: whole, puts: 1}
	if w.archiver.attempt(t.Context(), key) {
		t.Fatal("archived although the power went")
	}
	w.archive.blob = whole
	if ok, err := w.archive.Archived(t.Context(), taskID); ok || err != nil {
		t.Fatalf("half a record counts as one: %v, %v", ok, err)
	}
	if f, err := w.archive.Failures(t.Context(), sec(9), 5); len(f) > 0 || err != nil {
		t.Fatalf("failures %v, %v; want none yet", f, err)
	}
	if !w.archiver.attempt(t.Context(), key) {
		t.Fatal("not archived the second time")
	}
	if f, err := w.archive.Failures(t.Context(), sec(9), 5); len(f) != 1 || err != nil {
		t.Fatalf("failures %v, %v; want one", f, err)
	}
	w.archive.blob = &dying{Store: whole, deletes: 1}
	late := sec(5).Add(Retention)
	if err := w.archive.Prune(t.Context(), late); err == nil {
		t.Fatal("pruned although the power went")
	}
	w.archive.blob = whole
	if err := w.archive.Prune(t.Context(), late); err != nil {
		t.Fatalf("prune: %v", err)
	}
	for info := range whole.List(t.Context(), root, "") {
		t.Errorf("%s is left over", info.Key)
	}
}

// dying has the power go after so many puts and deletions.
type dying struct {
	blob.Store
	puts, deletes int
}

func (d *dying) Put(ctx context.Context, key string, r io.Reader, o blob.PutOptions) (blob.Info, error) {
	if d.puts--; d.puts < 0 {
		return blob.Info{}, errors.New("the power went")
	}
	return d.Store.Put(ctx, key, r, o)
}

func (d *dying) Delete(ctx context.Context, key string) error {
	if d.deletes--; d.deletes < 0 {
		return errors.New("the power went")
	}
	return d.Store.Delete(ctx, key)
}

func TestPruneKeepsAWeek(t *testing.T) {
	t.Parallel()
	a := NewArchive(newBlob(t))
	for day := range 10 {
		r := &Run{ID: fmt.Sprintf("0000000%d-0000-4000-8000-000000000000", day), At: t0.Add(-time.Duration(day) * 24 * time.Hour)}
		if err := a.PutRun(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Prune(t.Context(), t0.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	kept, err := a.Failures(t.Context(), t0, 100)
	if err != nil || len(kept) != 7 || kept[0].ID[:8] != "00000000" || kept[6].ID[:8] != "00000006" {
		t.Errorf("%d kept, %v: %v", len(kept), err, kept)
	}
	if some, _ := a.Failures(t.Context(), t0, 2); len(some) != 2 || some[1].ID[:8] != "00000001" {
		t.Errorf("the newest two are %v", some)
	}
	if _, err := a.Run(t.Context(), "00000009"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a run of nine days ago: %v", err)
	}
	if _, err := a.Run(t.Context(), "0000000"); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("the beginning of several: %v", err)
	}
	for _, bad := range []string{"", "../x", "A", "task/x", strings.Repeat("0", 37)} {
		if _, err := a.Run(t.Context(), bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v, want ErrNotFound", bad, err)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	task := &Task{Spec: *taskSpec(taskID), Extras: make([]Extra, 2)}
	l := newTails(task)
	for i := range 100 {
		l.add(line("web", fmt.Sprint(i), false))
	}
	for range 100 { // one line without an end, far too long
		l.add(line("log", strings.Repeat("é", 1000), true))
	}
	l.add(line("stranger", "x", false))
	l.end()
	if got := task.Extras[0].Lines; len(got) != keptLines || got[0].Text != "80" || got[19].Text != "99" {
		t.Errorf("%d lines of web, from %q", len(got), got[0].Text)
	}
	if got := task.Extras[1].Lines; len(got) != 1 || len(got[0].Text) > keptBytes || len(got[0].Text) < keptBytes-4 {
		t.Errorf("%d lines of log", len(got))
	}
}

// TestQueue has every task that was asked for done after it was asked for the last time, and none twice
// at once.
func TestQueue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue()
		asked, begun := map[store.Key]int{}, map[store.Key]int{} // at which step
		busy := map[store.Key]bool{}
		keys := []store.Key{{ID: "a"}, {ID: "b"}, {ID: "c"}}
		take := func(step int) {
			k, ok := q.next()
			if !ok {
				return
			}
			if busy[k] {
				t.Fatalf("%s is begun twice at once", k.ID)
			}
			q.take()
			busy[k], begun[k] = true, step
		}
		finish := func(k store.Key) {
			if busy[k] {
				delete(busy, k)
				q.done(k)
			}
		}
		step := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			step++
			k := rapid.SampledFrom(keys).Draw(t, "task")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				q.add(k)
				asked[k] = step
			case 1:
				take(step)
			case 2:
				finish(k)
			case 3:
				if !busy[k] {
					q.later(k, t0)
				}
				q.wake(t0.Add(-time.Second))
			}
		}
		q.wake(t0)
		for len(q.waiting) > 0 || len(busy) > 0 {
			step++
			take(step)
			for k := range busy {
				finish(k)
			}
		}
		for k, at := range asked {
			if begun[k] <= at {
				t.Fatalf("%s was asked for at %d and begun last at %d", k.ID, at, begun[k])
			}
		}
	})
}

func TestLearning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.create(t, taskID)
	task, _ := FromRows(w.store.Snapshot(), key)
	w.hosts.reply = &dispatchpb.InspectReply{Found: true, Status: &dispatchpb.TaskStatus{Containers: []*dispatchpb.ContainerStatus{
		{Name: "web", RestartCount: 2}, {Name: "stranger"},
	}}, Waiting: []*dispatchpb.Waiting{{Container: "web", Reason: "pulling image shop/web:1"}}}
	live := w.archiver.Complete(t.Context(), task)
	if task.Status.Containers[0].RestartCount != 2 || len(live.Waiting) != 1 || live.Problem != "" {
		t.Errorf("learned %+v, %+v", task.Status.Containers, live)
	}
	w.hosts.set(true)
	if live = w.archiver.Complete(t.Context(), task); live.Problem == "" || task.NoOutput == "" {
		t.Errorf("of a host that is away: %+v, output %q", live, task.NoOutput)
	}
}

// TestArchiverForgetsAfterAWeek lets eight days pass.
func TestArchiverForgetsAfterAWeek(t *testing.T) {
	t.Parallel()
	archive := NewArchive(newBlob(t))
	synctest.Test(t, func(t *testing.T) {
		const id = "7245358d-557b-45a1-aa09-a9e2685da0c3"
		if err := archive.PutRun(t.Context(), &Run{ID: id, At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- NewArchiver(nil, archive, nil, quiet).prune(ctx) }()
		for day := range 8 {
			time.Sleep(24*time.Hour - time.Minute)
			synctest.Wait()
			if _, err := archive.Run(t.Context(), id); (err == nil) != (day < 7) {
				t.Errorf("after %d days: %v", day+1, err)
			}
			time.Sleep(time.Minute)
		}
		cancel()
		<-done
	})
}
