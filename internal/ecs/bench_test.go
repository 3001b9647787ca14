package ecs_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// BenchmarkRunTask places tasks durably, ten a call, 64 calls at a time.
func BenchmarkRunTask(b *testing.B) {
	for _, hosts := range []int{1000, 5000} {
		b.Run(hostName(hosts)[28:], func(b *testing.B) {
			w := newWorld(b)
			w.createCluster("demo")
			for i := range hosts {
				w.connect(hostName(i), 256)
			}
			def := w.register("web", func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = ecs.NetworkModeNone })
			b.ResetTimer()
			var next atomic.Int64
			var all sync.WaitGroup
			for range 64 {
				all.Go(func() {
					for next.Add(10) <= int64(b.N)+9 {
						out, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, Count: api.Ptr(int32(10))})
						if err != nil || len(out.Tasks) != 10 {
							b.Errorf("RunTask: %v", err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
