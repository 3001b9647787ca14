package store

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Nobody without a certificate of the cluster's authority gets in.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	c := sharedCluster.get(t)
	for name, conf := range map[string]*tls.Config{
		"no certificate":        {RootCAs: c.ca},
		"another server's root": {Certificates: []tls.Certificate{c.client}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		s, err := Open(ctx, Config{Endpoints: c.endpoints(), TLS: conf, Prefix: "/" + rand.Text(), Logger: testLog(t)})
		cancel()
		if err == nil {
			s.Close()
			t.Errorf("%s: let in", name)
		}
	}
}

// Two servers of one store: what one commits the other sees; the lead passes on when its holder closes,
// and the new leader's snapshot has all that the old one committed.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	c := sharedCluster.get(t)
	cfg := Config{Endpoints: c.endpoints(), TLS: c.clientTLS(), Prefix: "/" + rand.Text(), Logger: testLog(t)}
	server := func(id string) *Store { cfg := cfg; cfg.ServerID = id; return open(t, cfg, things) }
	s1, s2 := server("one"), server("two")
	if s1.InstanceID() != s2.InstanceID() {
		t.Error("two servers of one store differ about its ID")
	}
	l1, err := s1.Campaign(t.Context(), "placer", "addr:1")
	if err != nil {
		t.Fatal(err)
	}
	won := make(chan *Leadership, 1)
	go func() {
		l2, err := s2.Campaign(context.Background(), "placer", "addr:2")
		if err != nil {
			t.Error(err)
		}
		won <- l2
	}()
	// Withdrawing leaves the rest as it is.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s3 := server("three")
	if _, err := s3.Campaign(ctx, "placer", "addr:3"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third candidate: %v", err)
	}
	var last int64
	for i := range 50 {
		last, err = s1.Update(t.Context(), func(tx *Tx) error {
			tx.Require(l1)
			things.Put(tx, k(fmt.Sprint(i)), &thing{Count: i})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-won:
		t.Fatal("two lead at once")
	default:
	}
	// The leader's lease goes from under it.
	if _, err := s3.client.Revoke(t.Context(), l1.session.lease); err != nil {
		t.Fatal(err)
	}
	l2 := <-won
	if rev := s2.Snapshot().Revision(); rev < last {
		t.Errorf("the new leader is at revision %d, the old one committed %d", rev, last)
	}
	if _, err := s1.Update(t.Context(), func(tx *Tx) error {
		tx.Require(l1)
		things.Put(tx, k("late"), &thing{})
		return nil
	}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("the old leader writes: %v", err)
	}
	<-l1.Done()
	if err := s3.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, ok := s3.Leader("placer"); !ok || got != (Leader{"two", "addr:2", l2.Revision()}) {
		t.Errorf("the leader is %+v", got)
	}
	// Closing hands over without waiting for a lease to expire.
	go func() {
		l1, err := s1.Campaign(context.Background(), "placer", "addr:1")
		if err != nil {
			t.Error(err)
		}
		won <- l1
	}()
	start := time.Now()
	if err := s2.Close(); err != nil {
		t.Error(err)
	}
	<-won
	if took := time.Since(start); took > sessionTTL/2 {
		t.Errorf("handing over took %v", took)
	}
}

// Other keys of a shared cluster neither disturb the store nor are touched by it.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	c := sharedCluster.get(t)
	prefix := "/" + rand.Text()
	s := open(t, Config{Endpoints: c.endpoints(), TLS: c.clientTLS(), Prefix: prefix, Logger: testLog(t)}, things)
	for _, key := range []string{prefix, prefix + "x/things/a/b/c", "/other"} {
		if _, err := s.client.Put(t.Context(), key, "not ours"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(t.Context()); err != nil { // although the watch has nothing to tell
		t.Fatal(err)
	}
	if n := things.Len(s.Snapshot()); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// While leaders of the cluster are killed, every counter ends at exactly what was acknowledged: commits
// whose answer got lost are neither forgotten nor done twice. Watchers see it all.
func TestLeadersKilled(t *testing.T) {
	t.Parallel()
	c, err := startCluster()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	cfg := Config{Endpoints: c.endpoints(), TLS: c.clientTLS(), Logger: testLog(t)}
	stores := []*Store{open(t, cfg, things), open(t, cfg, things)}
	lead, err := stores[0].Campaign(t.Context(), "x", "")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	start := stores[0].Snapshot()
	m := newMirror(start)
	var watching sync.WaitGroup
	watching.Go(func() {
		w := stores[0].Watch(ctx, start)
		for {
			c, err := w.Next(ctx)
			if err == nil {
				err = m.apply(c)
			}
			if err != nil {
				t.Errorf("watching: %v", err)
				return
			}
			if _, ok := things.Get(c.Snapshot, k("end")); ok {
				return
			}
		}
	})

	const writers = 6
	var acked, unknown [writers]int
	stop := make(chan struct{})
	var writing sync.WaitGroup
	for w := range writers {
		s := stores[w%2]
		writing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := s.Update(ctx, func(tx *Tx) error {
					if w == 0 {
						tx.Require(lead)
					}
					for _, id := range []string{fmt.Sprint("own/", w), "shared"} {
						r, ok := things.Get(tx, k(id))
						v := thing{}
						if ok {
							v = *r.Value
						}
						v.Count++
						things.Put(tx, k(id), &v)
					}
					return nil
				})
				switch {
				case err == nil:
					acked[w]++
				case errors.Is(err, ErrUnknownOutcome):
					unknown[w]++
				case errors.Is(err, ErrConflict): // nothing was written
				case w == 0 && errors.Is(err, ErrNotLeader):
					return
				default:
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	for range 2 {
		time.Sleep(time.Second) // of load
		i := c.killLeader()
		time.Sleep(2 * time.Second) // of an election, and of load on two members
		if err := c.start(i); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	writing.Wait()
	update(t, stores[1], func(tx *Tx) { things.Put(tx, k("end"), &thing{}) })
	watching.Wait()
	sum, unsure := 0, 0
	for _, s := range stores {
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	snap := stores[1].Snapshot()
	for w := range writers {
		r, ok := things.Get(snap, k(fmt.Sprint("own/", w)))
		if !ok {
			t.Fatalf("writer %d never wrote", w)
		}
		if got := r.Value.Count; got < acked[w] || got > acked[w]+unknown[w] {
			t.Errorf("writer %d: %d commits acknowledged, %d unknown, the counter is %d", w, acked[w], unknown[w], got)
		}
		sum, unsure = sum+acked[w], unsure+unknown[w]
	}
	if r, _ := things.Get(snap, k("shared")); r.Value.Count < sum || r.Value.Count > sum+unsure {
		t.Errorf("%d commits acknowledged, %d unknown, the shared counter is %d", sum, unsure, r.Value.Count)
	}
	t.Logf("%d commits, %d of unknown outcome", sum, unsure)
}

// An answer that got lost: the commit took place, and sending it again meets a conflict with itself.
func TestLostAnswer(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		s := open(t, b.cfg(t), things)
		kv := &forgetful{KV: s.client.KV}
		s.client.KV = kv
		increment := func(times ...func()) error {
			_, err := s.Update(t.Context(), func(tx *Tx) error {
				r, ok := things.Get(tx, k("n"))
				v := thing{}
				if ok {
					v = *r.Value
				}
				v.Count++
				things.Put(tx, k("n"), &v)
				return nil
			})
			return err
		}
		for i := range 5 {
			// The answer is lost after the commit, or the request before it; meanwhile others write.
			kv.lose(i%2 == 0, func() { update(t, s, func(tx *Tx) { things.Put(tx, k("other"), &thing{}) }) })
			if err := increment(); err != nil {
				t.Fatal(err)
			}
			kv.lose(i%2 == 0, func() {
				if i%2 == 1 { // never sent: a true conflict comes first
					update(t, s, func(tx *Tx) {
						r, _ := things.Get(tx, k("n"))
						things.Put(tx, k("n"), &thing{Count: r.Value.Count + 100})
					})
				}
			})
			if err := increment(); err != nil {
				t.Fatal(err)
			}
		}
		if r, _ := things.Get(s.Snapshot(), k("n")); r.Value.Count != 210 {
			t.Errorf("the counter is %d, want 210", r.Value.Count)
		}
		// Only deletes: nothing carries a mark, so it is told that it cannot be known.
		kv.lose(true, func() {})
		_, err := s.Update(t.Context(), func(tx *Tx) error { things.Delete(tx, k("n")); return nil })
		if !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a delete whose answer was lost: %v", err)
		}
		// The context ends while the outcome is open.
		ctx, cancel := context.WithCancel(t.Context())
		kv.lose(false, cancel)
		_, err = s.Update(ctx, func(tx *Tx) error { things.Put(tx, k("m"), &thing{}); return nil })
		if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while open: %v", err)
		}
	})
}

// forgetful loses one answer, or one request.
type forgetful struct {
	clientv3.KV
	mu        sync.Mutex
	armed     bool
	after     bool
	meanwhile func()
}

func (f *forgetful) lose(after bool, meanwhile func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.after, f.meanwhile = true, after, meanwhile
}

func (f *forgetful) Txn(ctx context.Context) clientv3.Txn { return &forgetfulTxn{f.KV.Txn(ctx), f} }

type forgetfulTxn struct {
	clientv3.Txn
	f *forgetful
}

func (t *forgetfulTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *forgetfulTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *forgetfulTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *forgetfulTxn) Commit() (*clientv3.TxnResponse, error) {
	t.f.mu.Lock()
	armed, after, meanwhile := t.f.armed, t.f.after, t.f.meanwhile
	t.f.armed = false
	t.f.mu.Unlock()
	if !armed {
		return t.Txn.Commit()
	}
	if after {
		if _, err := t.Txn.Commit(); err != nil {
			return nil, err
		}
	}
	meanwhile()
	return nil, errors.New("the connection was lost")
}
