package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/features"
	"golang.org/x/sys/unix"
)

// member is an etcd member inside this process, alone in its cluster. It is made from etcd's server type
// itself, below the package "embed", which would insist on listeners: nothing of it can be reached from
// outside the process.
type member struct {
	server *etcdserver.EtcdServer
	client *clientv3.Client
	lock   *os.File

	full time.Time // when maintain last told that it is full

	failed chan struct{} // closed when the member has stopped by itself
	once   sync.Once
	cause  error
}

// memberURL has to look like an address; nothing listens there and nothing connects.
var memberURL = types.URLs{url.URL{Scheme: "http", Host: "127.0.0.1:1"}}

// startMember starts the member and returns when it takes requests. failed is called, from any goroutine,
// when it stops by itself later.
func startMember(ctx context.Context, cfg Config, failed func(error)) (_ *member, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("store: neither a directory nor endpoints are configured")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: making the data directory: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	m := &member{lock: lock, failed: make(chan struct{})}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	logger := newZapLogger(cfg.Logger, func(message string) {
		m.once.Do(func() {
			m.cause = errors.New("the embedded etcd member: " + message)
			close(m.failed)
			failed(m.cause)
		})
		// etcd calls Fatal where it must not go on: after a failed write or sync of its log, for one. Ending
		// the goroutine keeps that promise, and leaves the process the chance to say why and to close what
		// else it has.
		runtime.Goexit()
	})
	sc := config.ServerConfig{
		Name:                "berth",
		DataDir:             filepath.Join(cfg.Dir, "etcd"),
		PeerURLs:            memberURL,
		ClientURLs:          memberURL,
		InitialPeerURLsMap:  types.URLsMap{"berth": memberURL},
		InitialClusterToken: "berth",
		NewCluster:          true,
		Logger:              logger,

		// Alone, the member elects itself after one to two ticks times ElectionTicks.
		TickMs:        100,
		ElectionTicks: 2,
		PreVote:       true,

		// A restart reads the log since the last snapshot into memory.
		SnapshotCount:          250,
		SnapshotCatchUpEntries: 100,
		MaxSnapFiles:           2,
		MaxWALFiles:            2,

		QuotaBackendBytes:    cfg.QuotaBytes,
		BackendBatchInterval: 500 * time.Millisecond,
		BackendBatchLimit:    10000,
		MaxTxnOps:            MaxOps,
		MaxRequestBytes:      MaxBytes + MaxBytes/2,
		MaxConcurrentStreams: 1 << 20,

		WarningApplyDuration:        500 * time.Millisecond,
		WarningUnaryRequestDuration: time.Second,
		CompactionBatchLimit:        1000,
		CompactionSleepInterval:     10 * time.Millisecond,
		CompactHashCheckTime:        time.Hour,
		DowngradeCheckTime:          time.Hour,
		WatchProgressNotifyInterval: 10 * time.Minute,
		StrictReconfigCheck:         true,
		MaxLearners:                 1,
		BcryptCost:                  10, // unused, but complained about
		Metrics:                     "basic",
		V2Deprecation:               config.V2DeprDefault,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate("berth", logger),
	}
	// Opening ends by Goexit or panics where the data are damaged: on a goroutine of its own, to be told.
	type result struct {
		server *etcdserver.EtcdServer
		err    error
	}
	opened := make(chan result, 1)
	go func() {
		res := result{err: errors.New("the member ended while it was opened")}
		defer func() {
			if p := recover(); p != nil {
				res.err = fmt.Errorf("%v", p)
			}
			opened <- res
		}()
		res.server, res.err = etcdserver.NewServer(sc)
	}()
	res := <-opened
	select {
	case <-m.failed:
		res.err = m.cause
	default:
	}
	if res.err != nil {
		return nil, fmt.Errorf("store: opening %s: %w", sc.DataDir, res.err)
	}
	m.server = res.server
	m.server.Start()
	select {
	case <-m.server.ReadyNotify():
	case <-m.failed:
		return nil, fmt.Errorf("store: starting the embedded member: %w", m.cause)
	case <-ctx.Done():
		m.server.HardStop()
		return nil, fmt.Errorf("store: starting the embedded member: %w", ctx.Err())
	}
	m.client = v3client.New(m.server)
	return m, nil
}

// stop stops the member. One that has failed is left as it is, with its locks: its goroutines may hold
// each other for ever.
func (m *member) stop() error {
	select {
	case <-m.failed:
		return nil
	default:
	}
	if err := m.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("store: closing the client: %w", err)
	}
	stopped := make(chan struct{})
	go func() {
		m.server.HardStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-m.failed:
		return m.cause
	}
	return m.lock.Close()
}

// lockDir makes sure that one process at a time uses the directory. etcd would wait without a word.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: opening the lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
		}
		return nil, fmt.Errorf("store: locking %s: %w", dir, err)
	}
	return f, nil
}
