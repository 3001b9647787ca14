package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/failpoint"
)

// schemaVersion is of agent.db's contents. Raise it with every change that an older agent would
// misread, and migrate in openJournal.
const schemaVersion = 1

// The buckets of agent.db.
var (
	bucketMeta        = []byte("meta")        // keyHost, keyBoot, keySequence, keySchema
	bucketAssignments = []byte("assignments") // task ARN → dispatchpb.Task
	bucketProgress    = []byte("progress")    // task ARN → progress, as JSON
	bucketStopped     = []byte("stopped")     // task ARN → the last dispatchpb.TaskStatus

	keySchema   = []byte("schema")
	keyHost     = []byte("host")
	keyBoot     = []byte("boot")
	keySequence = []byte("sequence")
)

// journal is agent.db: the host's durable record. All writes go through one goroutine that puts
// everything waiting into one transaction, since what a transaction costs is its two fsyncs: while
// one is under way the next collects, and of two writes to one key only the later is made.
type journal struct {
	db     *bolt.DB
	log    *slog.Logger
	around func() error // in tests

	mu      sync.Mutex
	pending map[string]write // by bucket and key
	after   []func()
	closing bool

	wake chan struct{}
	done chan struct{}
}

// write sets a key, or deletes it if value is nil.
type write struct {
	bucket, key, value []byte
}

// disk is for tests, which crash the agent but not the machine: no fsyncs, and slow, or failing,
// whenever they want.
type disk struct {
	noSync bool
	around func() error // called before and after each commit
}

// openJournal opens or makes the database.
func openJournal(dir string, disk disk, log *slog.Logger) (*journal, error) {
	path := filepath.Join(dir, "agent.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: 5 * time.Second,
		NoSync:  disk.noSync,
		// The free list is rebuilt when the file is opened, instead of being written each time.
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
	})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			return nil, fmt.Errorf("open %s: another agent has it open", path)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := prepareSchema(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	j := &journal{
		db: db, log: log, around: disk.around,
		pending: map[string]write{},
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	go j.loop()
	return j, nil
}

func prepareSchema(db *bolt.DB) error {
	ready := false
	err := db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return nil
		}
		v, err := decodeUint(meta.Get(keySchema))
		if err != nil {
			return fmt.Errorf("schema version: %w", err)
		}
		if v > schemaVersion {
			return fmt.Errorf("it was written by a newer berth (schema version %d, this one knows %d): run that one", v, schemaVersion)
		}
		ready = v == schemaVersion
		return nil
	})
	if err != nil || ready {
		return err
	}
	failpoint.Hit("agent/schema/before")
	defer failpoint.Hit("agent/schema/after")
	return db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketAssignments, bucketProgress, bucketStopped} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, encodeUint(schemaVersion))
	})
}

// put makes writes durable together, soon, and then calls after, on the journal's goroutine. It
// never blocks. A write that the disk refuses is tried again until it succeeds: what waits for it
// waits, and nothing is reported that would be forgotten.
func (j *journal) put(after func(), writes ...write) {
	j.mu.Lock()
	for _, w := range writes {
		j.pending[string(w.bucket)+"/"+string(w.key)] = w
	}
	if after != nil {
		j.after = append(j.after, after)
	}
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *journal) loop() {
	defer close(j.done)
	const firstRetry, lastRetry = 100 * time.Millisecond, 5 * time.Second
	retry := firstRetry
	for range j.wake {
		for {
			j.mu.Lock()
			batch, after, closing := j.pending, j.after, j.closing
			j.pending, j.after = map[string]write{}, nil
			j.mu.Unlock()
			if len(batch) == 0 && len(after) == 0 {
				if closing {
					return
				}
				break
			}
			failpoint.Hit("agent/commit/before")
			err := j.commit(batch)
			failpoint.Hit("agent/commit/after")
			if err == nil {
				retry = firstRetry
				for _, f := range after {
					f()
				}
				continue
			}
			j.log.Error("the host's record cannot be written; tasks wait for it", "error", err, "retry", retry)
			if closing {
				return
			}
			j.mu.Lock()
			for k, w := range batch {
				if _, newer := j.pending[k]; !newer {
					j.pending[k] = w
				}
			}
			j.after = append(after, j.after...)
			j.mu.Unlock()
			time.Sleep(retry) // close waits for at most one of these
			retry = min(2*retry, lastRetry)
		}
	}
}

func (j *journal) commit(batch map[string]write) error {
	if len(batch) == 0 {
		return nil
	}
	if j.around != nil {
		if err := j.around(); err != nil {
			return err
		}
		defer j.around()
	}
	return j.db.Update(func(tx *bolt.Tx) error {
		for _, w := range batch {
			b := tx.Bucket(w.bucket)
			if w.value == nil {
				if err := b.Delete(w.key); err != nil {
					return err
				}
			} else if err := b.Put(w.key, w.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// flush returns when everything put before is durable.
func (j *journal) flush() {
	done := make(chan struct{})
	j.put(func() { close(done) })
	select {
	case <-done:
	case <-j.done:
	}
}

// close writes what is pending and closes the database.
func (j *journal) close() error {
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		<-j.done
		return nil
	}
	j.closing = true
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
	<-j.done
	return j.db.Close()
}

// contents is what a journal held when the agent started.
type contents struct {
	hostID, bootID string
	sequence       int64
	tasks          []recorded
	stopped        []tombstone
}

// recorded is one task's record.
type recorded struct {
	task     *dispatchpb.Task
	progress *progress // nil: only assigned
}

// load reads everything. A record that cannot be read is an error, not a task to forget: what it
// describes may be running.
func (j *journal) load() (*contents, error) {
	c := &contents{}
	err := j.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		c.hostID, c.bootID = string(meta.Get(keyHost)), string(meta.Get(keyBoot))
		if b := meta.Get(keySequence); b != nil {
			v, err := decodeUint(b)
			if err != nil {
				return fmt.Errorf("sequence: %w", err)
			}
			c.sequence = int64(v)
		}
		states := tx.Bucket(bucketProgress)
		err := tx.Bucket(bucketAssignments).ForEach(func(k, v []byte) error {
			r, err := decodeRecord(v, states.Get(k))
			if err != nil {
				return fmt.Errorf("task %s: %w", k, err)
			}
			if !bytes.Equal(k, []byte(r.task.Arn)) {
				return fmt.Errorf("task %s: the record is of %s", k, r.task.Arn)
			}
			c.tasks = append(c.tasks, r)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketStopped).ForEach(func(k, v []byte) error {
			t, err := decodeTombstone(v)
			if err != nil {
				return fmt.Errorf("task %s: %w", k, err)
			}
			c.stopped = append(c.stopped, t)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the host's record: %w", err)
	}
	return c, nil
}

// decodeRecord reads a task's two values; without the second the task was assigned and no more.
func decodeRecord(assignment, state []byte) (recorded, error) {
	t, err := decodeAssignment(assignment)
	if err != nil {
		return recorded{}, err
	}
	if state == nil {
		return recorded{task: t}, nil
	}
	p, err := decodeProgress(state, len(t.Containers))
	if err != nil {
		return recorded{}, err
	}
	return recorded{task: t, progress: p}, nil
}

func encodeUint(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func decodeUint(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%d bytes instead of 8", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
