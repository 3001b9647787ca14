package logdriver

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logger/spool"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// MaxAge is how long after a container's end its output is tried to be delivered. CloudWatch Logs takes
// no older events.
const MaxAge = 14 * 24 * time.Hour

// finishPatience is how long Finish waits for the last of the output to be delivered.
const finishPatience = 2 * time.Second

// maxLarge is how many shippers hold a full batch at once; the others hold smallBatch.
const maxLarge = 16

// Config is what Drivers need.
type Config struct {
	Dir      string // of the records and cursors, made if need be
	SpoolDir string // the logger's
	// Put puts a batch of awslogs; HostId is filled in by it.
	Put func(context.Context, *dispatchpb.PutLogsRequest) (*dispatchpb.PutLogsReply, error)
	// Hidden are directories whose sockets are nobody's address.
	Hidden []string
	Logger *slog.Logger
}

// Stats count since the start.
type Stats = agent.LogStats

// Drivers implement agent.LogDrivers. Their methods may be called concurrently.
type Drivers struct {
	cfg     Config
	records records
	large   chan struct{}
	tasks   sync.WaitGroup

	mu       sync.Mutex
	shippers map[string]*shipper // by container ID
	stats    Stats
	ctx      context.Context // set while Run runs
}

var _ agent.LogDrivers = (*Drivers)(nil)

// Open takes up the containers that earlier runs recorded. Nothing is delivered before Run.
func Open(cfg Config) (*Drivers, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log drivers' directory: %w", err)
	}
	d := &Drivers{cfg: cfg, records: records{cfg.Dir}, large: make(chan struct{}, maxLarge), shippers: map[string]*shipper{}}
	ids, err := d.records.all()
	if err != nil {
		return nil, fmt.Errorf("list the log drivers' records: %w", err)
	}
	for _, id := range ids {
		rec, cursor, err := d.records.load(id)
		if err == nil {
			err = d.enter(rec, cursor)
		}
		if err != nil {
			cfg.Logger.Error("the output of a container cannot be delivered", "container", id, "error", err)
		}
	}
	return d, nil
}

// Run delivers until ctx ends. It may be called once.
func (d *Drivers) Run(ctx context.Context) error {
	d.mu.Lock()
	d.ctx = ctx
	for _, s := range d.shippers {
		d.begin(s)
	}
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	d.ctx = nil // none begins any more
	d.mu.Unlock()
	d.tasks.Wait()
	return ctx.Err()
}

// begin starts a shipper's goroutine, if Run runs. The caller holds mu.
func (d *Drivers) begin(s *shipper) {
	if d.ctx == nil || s.began {
		return
	}
	s.began = true
	ctx, stop := context.WithCancel(d.ctx)
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	d.tasks.Go(func() {
		defer stop()
		s.run(ctx)
	})
}

func (d *Drivers) newShipper(rec record, cursor spool.Cursor) (*shipper, error) {
	shape, sink, err := d.driver(rec)
	if err != nil {
		return nil, err
	}
	return &shipper{d: d, rec: rec, cursor: cursor, shape: shape, sink: sink,
		log:  d.cfg.Logger.With("task", rec.taskID(), "container", rec.Container, "driver", rec.Driver),
		wake: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

func (d *Drivers) enter(rec record, cursor spool.Cursor) error {
	s, err := d.newShipper(rec, cursor)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shippers[rec.ContainerID] = s
	d.begin(s)
	return nil
}

func (d *Drivers) drop(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.shippers, id)
}

func (d *Drivers) get(id string) *shipper {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shippers[id]
}

func (d *Drivers) count(f func(*Stats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.stats)
}

// Start implements agent.LogDrivers.
func (d *Drivers) Start(ctx context.Context, t *dispatchpb.Task, i int) error {
	c := t.Containers[i]
	if !needsShipping(c.LogDriver) || d.get(agent.ContainerID(t, i)) != nil {
		return nil
	}
	rec, err := newRecord(t, i)
	if err != nil {
		return err
	}
	if err := rec.check(); err != nil {
		return err
	}
	s, err := d.newShipper(rec, spool.Cursor{})
	if err != nil {
		return err
	}
	if err := s.sink.prepare(ctx); err != nil {
		s.sink.close()
		return err
	}
	// A container is attached again when its Berth is: then it has its record, and Open has taken it up.
	if err := d.records.save(rec); err != nil {
		s.sink.close()
		return fmt.Errorf("record the log driver: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shippers[rec.ContainerID] == nil {
		d.shippers[rec.ContainerID] = s
		d.begin(s)
	}
	return nil
}

// Finish implements agent.LogDrivers.
func (d *Drivers) Finish(ctx context.Context, containerID string) error {
	s := d.get(containerID)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	failing := s.failing
	if s.rec.EndedAt.IsZero() {
		// Saved before the shipper can see it and, having delivered all, remove the record.
		rec := s.rec
		rec.EndedAt = time.Now()
		if err := d.records.save(rec); err != nil {
			s.mu.Unlock()
			return fmt.Errorf("record the end of the output: %w", err)
		}
		s.rec = rec
	}
	s.mu.Unlock()
	s.nudge()
	if failing != nil {
		return nil // it takes as long as the destination is away
	}
	timer := time.NewTimer(finishPatience)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// Pending implements agent.LogDrivers.
func (d *Drivers) Pending(taskID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.shippers {
		if s.record().taskID() == taskID {
			return true
		}
	}
	return false
}

// Forget implements agent.LogDrivers.
func (d *Drivers) Forget(_ context.Context, taskID string) error {
	d.mu.Lock()
	var of []*shipper
	for id, s := range d.shippers {
		if s.record().taskID() == taskID {
			of = append(of, s)
			delete(d.shippers, id)
		}
	}
	d.mu.Unlock()
	for _, s := range of {
		s.mu.Lock()
		stop := s.stop
		s.mu.Unlock()
		if stop != nil {
			stop()
		}
		if err := d.records.remove(s.record().ContainerID); err != nil {
			return fmt.Errorf("forget the output of task %s: %w", taskID, err)
		}
	}
	return nil
}

// Stats implements agent.LogDrivers.
func (d *Drivers) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.stats
	st.Containers = len(d.shippers)
	for _, s := range d.shippers {
		s.mu.Lock()
		if s.failing != nil {
			st.Failing++
		}
		s.mu.Unlock()
	}
	return st
}
