package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewerRecordIsRefused(t *testing.T) {
	t.Parallel()
	w := &world{dir: t.TempDir(), runtime: newFakeRuntime(), network: &fakeNetwork{}, output: &fakeOutput{}, disk: disk{noSync: true}}
	a, err := open(w.config(), w.disk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(Config{}, w.disk); err == nil {
		t.Error("an agent without rooms was made")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	edit := func(bucket, key, value []byte) {
		db, err := bolt.Open(filepath.Join(w.dir, "agent.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, value) }); err != nil {
			t.Fatal(err)
		}
	}
	edit(bucketAssignments, []byte("arn"), []byte("not an assignment"))
	if _, err := open(w.config(), w.disk); err == nil || !strings.Contains(err.Error(), "task arn") {
		t.Errorf("a broken record: %v", err)
	}
	edit(bucketMeta, keySchema, encodeUint(schemaVersion+1))
	if _, err := open(w.config(), w.disk); err == nil || !strings.Contains(err.Error(), "newer berth") {
		t.Errorf("a newer record: %v", err)
	}
}

func TestRecordIsExclusive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := openJournal(dir, disk{noSync: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if _, err := openJournal(dir, disk{noSync: true}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Fatalf("opened twice: %v", err)
	}
}

// Writes that arrive during a commit share the next one, and what waits for a write hears of it only
// when it is on the disk.
func TestJournalGathersWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var commits atomic.Int32
		var full atomic.Bool
		j, err := openJournal(dir, disk{noSync: true, around: func() error {
			commits.Add(1)
			time.Sleep(time.Second)
			if full.Load() {
				return errors.New("no space left on device")
			}
			return nil
		}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		var saved atomic.Int32
		for i := range 10 {
			j.put(func() { saved.Add(1) }, write{bucketMeta, []byte("k"), encodeUint(uint64(i))})
			synctest.Wait() // the first commit begins; the others come during it
		}
		pass(time.Second)
		if saved.Load() != 0 {
			t.Fatalf("%d were told before the commit was over", saved.Load())
		}
		pass(4 * time.Second)
		if n := commits.Load(); saved.Load() != 10 || n != 4 { // each is counted before and after
			t.Fatalf("%d told after %d commits", saved.Load(), n/2)
		}
		full.Store(true)
		j.put(func() { saved.Add(1) }, write{bucketMeta, []byte("k"), encodeUint(11)})
		pass(time.Minute)
		if saved.Load() != 10 {
			t.Fatal("told of a write that failed")
		}
		full.Store(false)
		pass(time.Minute)
		if saved.Load() != 11 {
			t.Fatal("a write was given up")
		}
	})
}

func TestFullDiskStartsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(dir)
		defer w.close()
		var full atomic.Bool
		w.disk.around = func() error {
			if full.Load() {
				return errors.New("no space left on device")
			}
			return nil
		}
		if err := w.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { w.stop() }()
		pass(time.Second)
		full.Store(true)
		acks := len(w.server.acks)
		task := testTask("a1", 1)
		w.server.assign(task)
		pass(time.Minute)
		if len(w.runtime.starts) > 0 || len(w.server.acks) > acks || w.server.status(task.Arn) != nil {
			t.Fatal("the host acts on what it could not record")
		}
		full.Store(false)
		pass(time.Minute)
		wantStatus(t, w, task, statusRunning)
	})
}

func FuzzRecord(f *testing.F) {
	task := awsvpc(testTask("0123456789abcdef", 2))
	assignment, err := encodeAssignment(task)
	if err != nil {
		f.Fatal(err)
	}
	m := newMachine(task, nil, false)
	f.Add(assignment, []byte(nil))
	for range 3 {
		now := time.Unix(1e9, 0)
		drive(m, &now)
		m.handOver()
		f.Add(assignment, m.encoded)
		m.stop("over", now)
		m.resync()
	}
	f.Add([]byte{0x0a, 0x01, 'x'}, []byte(`{"version":1,"containers":[]}`))
	f.Fuzz(func(t *testing.T, assignment, state []byte) {
		r, err := decodeRecord(assignment, state)
		if err != nil {
			return
		}
		// What can be read can be driven, reported and written again.
		m := newMachine(r.task, r.progress, true)
		m.stopTimeout = time.Second
		now := time.Unix(2e9, 0)
		m.advance(now)
		m.plan(now)
		m.rebooted("host", now)
		if _, err := m.handOver(); err != nil {
			return // a year beyond 9999 has no JSON
		}
		if _, err := decodeRecord(assignment, m.encoded); err != nil {
			t.Fatalf("%s: %v", m.encoded, err)
		}
		for i := range r.task.Containers {
			containerSpec(r.task, i, Image{}, "host")
		}
	})
}

func FuzzTombstone(f *testing.F) {
	b, err := encodeTombstone(&dispatchpb.TaskStatus{Arn: "arn:x/0123", LastStatus: statusStopped})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeTombstone(b)
		if err != nil {
			return
		}
		again, err := encodeTombstone(got.status)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if second, err := decodeTombstone(again); err != nil || !proto.Equal(second.status, got.status) {
			t.Fatalf("%v, then %v (%v)", got.status, second.status, err)
		}
	})
}

// BenchmarkLaunch is what the agent adds to a launch: from the payload's arrival to the call of
// Start, with rooms that take no time, on a real disk.
func BenchmarkLaunch(b *testing.B) {
	w := newWorld(b.TempDir())
	defer w.close()
	w.disk = disk{}
	started := make(chan time.Time, 1)
	w.runtime.startErr = func(string) error { started <- time.Now(); return nil }
	if err := w.start(); err != nil {
		b.Fatal(err)
	}
	defer func() { w.stop() }()
	for !w.agent.Snapshot().Connected {
		time.Sleep(time.Millisecond)
	}
	var total time.Duration
	n := 0
	for b.Loop() {
		n++
		task := testTask(fmt.Sprintf("t%d", n), 1)
		began := time.Now()
		w.server.assign(task)
		select {
		case at := <-started:
			total += at.Sub(began)
		case <-time.After(10 * time.Second):
			b.Fatal("the task did not start")
		}
	}
	b.ReportMetric(float64(total.Microseconds())/float64(n)/1000, "ms/launch")
	b.ReportMetric(0, "ns/op")
}
