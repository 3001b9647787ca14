package store

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
)

// A task as the placer commits it: a specification, written once, and a placement; and per batch the
// hosts' sequence rows.
type benchSpec struct {
	Cluster, Definition, Group, StartedBy string
	CPU, Memory                           int64
	Containers                            []benchContainer
	Tags                                  map[string]string
}

type benchContainer struct {
	Name, Image string
	CPU, Memory int64
	Essential   bool
	Environment map[string]string
	Command     []string
}

type benchPlacement struct {
	Host, Instance, Address string
	Sequence                int64
}

type benchHost struct{ Sequence int64 }

var (
	benchSpecs      = DefineTable[benchSpec]("specs", 1)
	benchPlacements = DefineTable[benchPlacement]("placements", 1,
		Index("byHost", func(_ Key, p *benchPlacement) []string { return []string{p.Host} }))
	benchHosts = DefineTable[benchHost]("hosts", 1)
)

func newBenchSpec() *benchSpec {
	return &benchSpec{
		Cluster: "arn:aws:ecs:us-east-1:123456789012:cluster/default", StartedBy: "bench",
		Definition: "arn:aws:ecs:us-east-1:123456789012:task-definition/web:17", Group: "family:web", CPU: 256, Memory: 512,
		Containers: []benchContainer{{
			Name: "web", Image: "registry.example/web@sha256:" + strings.Repeat("0a", 32), CPU: 256, Memory: 512, Essential: true,
			Environment: map[string]string{"MODE": "production", "PORT": "8080", "UPSTREAM": "http://backend.internal:9000"},
			Command:     []string{"/bin/web", "--listen", ":8080", "--workers", "4"},
		}},
		Tags: map[string]string{"team": "platform", "cost-centre": "4711"},
	}
}

func openBench(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.Context(), Config{Dir: b.TempDir(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))},
		benchSpecs, benchPlacements, benchHosts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

var benchScope = Scope{"123456789012", "us-east-1"}

// One row a transaction, one writer: the latency of a durable, visible write.
func BenchmarkUpdateSerial(b *testing.B) {
	s := openBench(b)
	spec := newBenchSpec()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Update(b.Context(), func(tx *Tx) error {
			benchSpecs.Put(tx, K(benchScope, fmt.Sprintf("default/%032x", i)), spec)
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// One row a transaction, many writers.
func BenchmarkUpdateParallel(b *testing.B) {
	s := openBench(b)
	spec := newBenchSpec()
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Update(b.Context(), func(tx *Tx) error {
				benchSpecs.Put(tx, K(benchScope, fmt.Sprintf("default/%032x", n.Add(1))), spec)
				return nil
			}); err != nil {
				b.Error(err)
			}
		}
	})
}

// The placer: one writer, 40 tasks with two rows each and the 40 hosts' rows in each transaction.
func BenchmarkUpdatePlacements(b *testing.B) {
	for _, hosts := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			s := openBench(b)
			const batch = 40
			spec := newBenchSpec()
			task, host := 0, 0
			for b.Loop() {
				if _, err := s.Update(b.Context(), func(tx *Tx) error {
					for range batch {
						task++
						id := fmt.Sprintf("default/%032x", task*7919)
						host = (host + 1) % hosts
						hostID := fmt.Sprintf("host-%05d", host)
						hk := Key{ID: hostID}
						h, ok := benchHosts.Get(tx, hk)
						if !ok {
							h.Value = &benchHost{}
						}
						benchHosts.Put(tx, hk, &benchHost{Sequence: h.Value.Sequence + 1})
						benchSpecs.Put(tx, K(benchScope, id), spec)
						benchPlacements.Put(tx, K(benchScope, id), &benchPlacement{Host: hostID, Instance: hostID, Address: "10.0.0.1", Sequence: int64(task)})
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(task)/b.Elapsed().Seconds(), "tasks/s")
			b.ReportMetric(float64(3*task)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// Opening a store that was killed: ready means that the first snapshot is complete.
func BenchmarkOpen(b *testing.B) {
	for _, tasks := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("tasks=%d", tasks), func(b *testing.B) {
			cfg := Config{Dir: b.TempDir(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
			open := func() *Store {
				s, err := Open(b.Context(), cfg, benchSpecs, benchPlacements, benchHosts)
				if err != nil {
					b.Fatal(err)
				}
				return s
			}
			s := open()
			for task := 0; task < tasks; {
				if _, err := s.Update(b.Context(), func(tx *Tx) error {
					for range 60 {
						task++
						id := K(benchScope, fmt.Sprintf("default/%032x", task))
						benchSpecs.Put(tx, id, newBenchSpec())
						benchPlacements.Put(tx, id, &benchPlacement{Host: "host", Sequence: int64(task)})
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			s.Close()
			for b.Loop() {
				s := open()
				b.StopTimer()
				s.Close()
				b.StartTimer()
			}
		})
	}
}
