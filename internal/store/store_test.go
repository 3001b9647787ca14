package store

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

type thing struct {
	Name  string
	Host  string
	Count int
}

var things = DefineTable[thing]("things", 1, Index("byHost", func(_ Key, t *thing) []string { return []string{t.Host} }))

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	start := time.Now()
	s, err := Open(ctx, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, things)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("first open", time.Since(start), s.InstanceID())
	sc := Scope{"123456789012", "us-east-1"}
	w := s.Watch(ctx, s.Snapshot())
	start = time.Now()
	const n = 500
	for range n {
		rev, err := s.Update(ctx, func(tx *Tx) error {
			r, ok := things.Get(tx, K(sc, "a/b"))
			v := thing{Name: "x", Host: "h"}
			if ok {
				v = *r.Value
			}
			v.Count++
			things.Put(tx, K(sc, "a/b"), &v)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.Next(ctx)
		if err != nil || c.Revision != rev {
			t.Fatal(c, err)
		}
	}
	t.Log("serial", time.Since(start)/n)
	l, err := s.Campaign(ctx, "placer", "here")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(s.Leader("placer"))
	_, err = s.Update(ctx, func(tx *Tx) error { tx.Require(l); things.Put(tx, K(sc, "z"), &thing{}); return nil })
	if err != nil {
		t.Fatal(err)
	}
	for r := range things.By(s.Snapshot(), "byHost", "h") {
		t.Log(r, r.Value)
	}
	start = time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Log("close", time.Since(start))
	start = time.Now()
	s, err = Open(context.Background(), Config{Dir: dir}, things)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("second open", time.Since(start), s.InstanceID(), things.Len(s.Snapshot()))
	s.Close()
}
