package placement

import (
	"fmt"
	"testing"

	"github.com/berthhq/berth/internal/ecs/placement/query"
)

// BenchmarkPlace places 10,000 tasks, each with an address, on empty hosts.
func BenchmarkPlace(b *testing.B) {
	const tasks = 10_000
	ids := make([]string, tasks)
	for i := range ids {
		ids[i] = fmt.Sprintf("%032x", i*2654435761)
	}
	for _, hosts := range []int{1, 1000, 5000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			l := NewLedger()
			for i := range hosts {
				h := newHost(i)
				if hosts == 1 {
					h.CPUUnits, h.MemoryMiB = 1<<40, 1<<40
				}
				l.SetHost(h)
			}
			b.ReportAllocs()
			for b.Loop() {
				batch := l.Begin()
				for _, id := range ids {
					req := Request{TaskID: id, Cluster: cluster, Group: "family:web", CPUUnits: 256, MemoryMiB: 512, Address: hosts > 1}
					if _, ok := batch.Place(req); !ok {
						b.Fatal("no place")
					}
				}
				b.StopTimer()
				batch.Undo()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N)*tasks/b.Elapsed().Seconds(), "placements/s")
		})
	}
}

// BenchmarkRules places a call's worth of ten tasks by explicit strategies and constraints, which look at
// every host, on hosts that have ten tasks of the group each.
func BenchmarkRules(b *testing.B) {
	strategy := func(kind, field string) Strategy {
		s, ok := NewStrategy(kind, field)
		if !ok {
			b.Fatal(kind, field)
		}
		return s
	}
	member, err := query.Parse("attribute:ecs.os-type == linux and not(task:group == database) and attribute:ecs.availability-zone =~ eu-.*")
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		rules Rules
	}{
		{"spread", Rules{Strategies: []Strategy{strategy("spread", "attribute:ecs.availability-zone"), strategy("spread", "instanceId")}}},
		{"binpack", Rules{Strategies: []Strategy{strategy("binpack", "memory")}}},
		{"zone-binpack-memberOf", Rules{Members: []*query.Expr{member}, Strategies: []Strategy{strategy("spread", "attribute:ecs.availability-zone"), strategy("binpack", "cpu")}}},
		{"memberOf", Rules{Members: []*query.Expr{member}}},
	} {
		for _, hosts := range []int{1000, 5000} {
			b.Run(fmt.Sprintf("%s/hosts=%d", c.name, hosts), func(b *testing.B) {
				l := NewLedger()
				for i := range hosts {
					h := newHost(i)
					h.AvailabilityZone = string(rune('a' + i%3))
					l.SetHost(h)
					for j := range 10 {
						l.Reserve(Reservation{TaskID: fmt.Sprint(i, "-", j), HostID: h.ID, Cluster: cluster, Group: "family:web", CPUUnits: 64, MemoryMiB: 64})
					}
				}
				for b.Loop() {
					batch := l.Begin()
					for i := range 10 {
						req := Request{TaskID: fmt.Sprintf("t%d", i), Cluster: cluster, Group: "family:web", CPUUnits: 256, MemoryMiB: 512, Rules: c.rules}
						if _, ok := batch.Place(req); !ok {
							b.Fatal("no place")
						}
					}
					batch.Undo()
				}
				b.ReportMetric(float64(b.N)*10/b.Elapsed().Seconds(), "placements/s")
			})
		}
	}
}

// BenchmarkExplain says why nothing fits.
func BenchmarkExplain(b *testing.B) {
	l := full(5000)
	req := Request{TaskID: "t", Cluster: cluster, CPUUnits: 256, MemoryMiB: 512}
	for b.Loop() {
		if e := l.Explain(req); e.Total != 5000 {
			b.Fatal(e.Total)
		}
	}
}

// BenchmarkNearlyFull places a task on the only host of many that has room; BenchmarkFull refuses one.
func BenchmarkNearlyFull(b *testing.B) {
	for _, hosts := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			l := full(hosts)
			l.Release(fmt.Sprint("filler", hosts/3))
			req := Request{TaskID: "t", Cluster: cluster, CPUUnits: 256, MemoryMiB: 512}
			for b.Loop() {
				if _, ok := l.Place(req); !ok {
					b.Fatal("no place")
				}
			}
		})
	}
}

func BenchmarkFull(b *testing.B) {
	for _, hosts := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			l := full(hosts)
			req := Request{TaskID: "t", Cluster: cluster, CPUUnits: 256, MemoryMiB: 512}
			for b.Loop() {
				if _, ok := l.Place(req); ok {
					b.Fatal("placed")
				}
			}
		})
	}
}

// BenchmarkPortTaken refuses a task whose port is taken everywhere, which the index does not know.
func BenchmarkPortTaken(b *testing.B) {
	for _, hosts := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			l := NewLedger()
			for i := range hosts {
				l.SetHost(newHost(i))
			}
			req := Request{TaskID: "t", Cluster: cluster, CPUUnits: 256, MemoryMiB: 512, Ports: []Port{{Number: 22}}}
			for b.Loop() {
				if _, ok := l.Place(req); ok {
					b.Fatal("placed")
				}
			}
		})
	}
}

func full(hosts int) *Ledger {
	l := NewLedger()
	for i := range hosts {
		h := newHost(i)
		l.SetHost(h)
		l.Reserve(Reservation{TaskID: fmt.Sprint("filler", i), HostID: h.ID, Cluster: cluster, CPUUnits: h.CPUUnits - 100})
	}
	return l
}
