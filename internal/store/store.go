package store

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// formatVersion is the version of the store's own layout: keys, envelope, the tables beginning with "@".
const formatVersion = 1

// Config tells Open where the state is.
type Config struct {
	// Dir holds the embedded member's data. It is used when Endpoints is empty, made with mode 0700,
	// and belongs to one process at a time.
	Dir string
	// Endpoints are the client URLs of an etcd cluster, e.g. "https://10.0.0.1:2379".
	Endpoints []string
	// TLS is for Endpoints.
	TLS *tls.Config
	// Prefix of all keys; default "/berth".
	Prefix string
	// ServerID is this server's name among the servers of a store, the same after a restart: what a
	// process of that name left behind (its leases, candidacies, ephemeral rows) is removed at Open.
	// Default: "local" when embedded, else a random one.
	ServerID string
	// QuotaBytes is the embedded database's quota; default 8 GiB.
	QuotaBytes int64
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Store is an open store. All its methods may be called concurrently.
type Store struct {
	cfg    Config
	log    *slog.Logger
	prefix string // ends with "/"
	schema *schema
	client *clientv3.Client
	member *member // nil: external cluster

	instance string

	ctx    context.Context // ends with Close or failure
	cancel context.CancelCauseFunc
	loops  sync.WaitGroup

	snap atomic.Pointer[Snapshot]

	mu         sync.Mutex
	moved      chan struct{} // closed and replaced when snap moves
	changes    changeRing
	spaceTried chan struct{} // closed and replaced when maintain has tried to make space

	session  sessionState
	marks    *markState
	turn     chan struct{} // holds one token: the Update whose turn it is among those in conflict
	starving atomic.Bool   // that one keeps losing, and new ones must not push in
	folds    atomic.Int64  // how often load ran
	progress chan struct{} // asks follow to find out how far the watch is
	space    chan struct{} // asks maintain to make space

	failOnce sync.Once
	done     chan struct{}
	err      error // set before done is closed

	closeOnce sync.Once
	closeErr  error
}

// Open opens the store, starting the embedded member when no endpoints are given, and returns when the
// first snapshot is complete. All tables must be given: data of a table not given is an error.
func Open(ctx context.Context, cfg Config, tables ...TableDef) (_ *Store, err error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "/berth"
	}
	if cfg.QuotaBytes == 0 {
		cfg.QuotaBytes = 8 << 30
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.ServerID == "" {
		cfg.ServerID = "local"
		if len(cfg.Endpoints) > 0 {
			cfg.ServerID = rand.Text()
		}
	}
	sc, err := newSchema(append([]TableDef{metaTable, serverTable, electionTable}, tables...))
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg:      cfg,
		log:      cfg.Logger,
		prefix:   strings.TrimSuffix(cfg.Prefix, "/") + "/",
		schema:   sc,
		moved:    make(chan struct{}),
		session:  sessionState{slot: make(chan struct{}, 1)},
		marks:    newMarkState(),
		turn:     make(chan struct{}, 1),
		progress: make(chan struct{}, 1),
		space:    make(chan struct{}, 1),
		done:     make(chan struct{}),

		spaceTried: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.snap.Store(sc.empty())
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if len(cfg.Endpoints) == 0 {
		if s.member, err = startMember(ctx, cfg, s.fail); err != nil {
			return nil, err
		}
		s.client = s.member.client
	} else {
		s.client, err = clientv3.New(clientv3.Config{
			Endpoints:            cfg.Endpoints,
			TLS:                  cfg.TLS,
			Context:              s.ctx,
			DialTimeout:          5 * time.Second,
			DialKeepAliveTime:    10 * time.Second,
			DialKeepAliveTimeout: 5 * time.Second,
			Logger:               newZapLogger(cfg.Logger, nil),
		})
		if err != nil {
			return nil, fmt.Errorf("store: connecting to etcd: %w", err)
		}
	}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	s.spawn(s.follow)
	if err := s.initialize(ctx); err != nil {
		return nil, err
	}
	s.spawn(s.maintain)
	return s, nil
}

// metaRow is the one row type of @meta; its keys are "format" and "instance".
type metaRow struct {
	Format   int    `json:"format,omitempty"`
	Instance string `json:"instance,omitempty"`
}

var metaTable = defineTable[metaRow]("@meta", 1)

// initialize checks the format, gives a new store its identity, and removes what an earlier process
// of the same server left.
func (s *Store) initialize(ctx context.Context) error {
	_, err := s.Update(ctx, func(tx *Tx) error {
		format, ok := metaTable.Get(tx, Key{ID: "format"})
		if !ok {
			metaTable.Put(tx, Key{ID: "format"}, &metaRow{Format: formatVersion})
		} else if format.Value.Format > formatVersion {
			return &NewerSchemaError{Table: "@format", Stored: format.Value.Format, Known: formatVersion}
		}
		instance, ok := metaTable.Get(tx, Key{ID: "instance"})
		if !ok {
			instance.Value = &metaRow{Instance: strings.ToLower(rand.Text())}
			metaTable.Put(tx, Key{ID: "instance"}, instance.Value)
		}
		s.instance = instance.Value.Instance
		return nil
	})
	if err != nil {
		return err
	}
	return s.forgetEarlier(ctx)
}

// InstanceID names this store: made once, when the store was new, and kept for as long as its data.
func (s *Store) InstanceID() string { return s.instance }

// Snapshot is the newest snapshot. It includes every commit that an Update of this Store has answered.
func (s *Store) Snapshot() *Snapshot { return s.snap.Load() }

// Done is closed when the store has failed for good or was closed; Err then tells why.
func (s *Store) Done() <-chan struct{} { return s.done }

// Err is nil while the store works, ErrClosed after Close, else a *FailedError.
func (s *Store) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

func (s *Store) fail(cause error) { s.stop(&FailedError{cause}) }

func (s *Store) stop(err error) {
	s.failOnce.Do(func() {
		s.err = err
		if !errors.Is(err, ErrClosed) {
			s.log.Error("the store has stopped", "error", err)
		}
		close(s.done)
		s.cancel(err)
	})
}

// Close gives up leaderships and ephemeral rows and stops the embedded member. Calls under way end with
// ErrClosed. It is not an error to close twice.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	if s.Err() == nil && s.client != nil {
		s.endSession()
	}
	failed := s.Err() != nil && !errors.Is(s.Err(), ErrClosed)
	s.stop(ErrClosed)
	if s.member != nil && failed {
		// What waits inside a member that has failed may wait for ever.
		return s.member.stop()
	}
	s.mu.Lock() // the lock alone is meant: it lets a spawn under way finish
	//lint:ignore SA2001 as said
	s.mu.Unlock()
	s.loops.Wait()
	if s.member != nil {
		return s.member.stop()
	}
	if s.client != nil {
		if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("store: closing the connection: %w", err)
		}
	}
	return nil
}

// spawn runs f on a goroutine that Close waits for, unless the store has stopped.
func (s *Store) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err() != nil {
		return false
	}
	s.loops.Go(f)
	return true
}

// publish makes a change's snapshot the newest, and tells all who wait.
func (s *Store) publish(c Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes.push(c)
	s.moveTo(c.Snapshot)
}

// publishAll makes a snapshot the newest that no single change leads to.
func (s *Store) publishAll(snap *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes.skip(snap.seq)
	s.moveTo(snap)
}

func (s *Store) moveTo(snap *Snapshot) {
	s.snap.Store(snap)
	close(s.moved)
	s.moved = make(chan struct{})
}

// wait returns when the condition holds for the newest snapshot.
func (s *Store) wait(ctx context.Context, cond func(*Snapshot) bool) (*Snapshot, error) {
	for {
		s.mu.Lock()
		moved := s.moved
		s.mu.Unlock()
		if snap := s.Snapshot(); cond(snap) {
			return snap, nil
		}
		select {
		case <-moved:
		case <-s.done:
			return nil, s.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
