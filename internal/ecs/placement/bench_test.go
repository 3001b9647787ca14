package placement

import (
	"fmt"
	"testing"
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
					req := Request{TaskID: id, Cluster: cluster, CPUUnits: 256, MemoryMiB: 512, Address: hosts > 1}
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
