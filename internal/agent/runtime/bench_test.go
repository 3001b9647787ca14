package runtime

import (
	"fmt"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent"
)

// BenchmarkLaunch measures a task of one container: from Create to Start having returned, and what
// its removal takes.
func BenchmarkLaunch(b *testing.B) {
	h := newHost(b)
	h.config.Shim = builtShim(b)
	r := h.openForTest()
	image := importBusybox(b, r)
	var create, start, remove time.Duration
	i := 0
	for b.Loop() {
		i++
		c := testContainer(image, fmt.Sprintf("c%d", i), "exec sleep 100")
		t0 := time.Now()
		if err := r.PrepareTask(b.Context(), agent.TaskSpec{ID: c.TaskID, CPUUnits: 256, MemoryMiB: 512}); err != nil {
			b.Fatal(err)
		}
		if err := r.Create(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if _, err := r.Start(b.Context(), c.ID); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		if err := r.Delete(b.Context(), c.ID); err != nil {
			b.Fatal(err)
		}
		if err := r.RemoveTask(b.Context(), c.TaskID); err != nil {
			b.Fatal(err)
		}
		create += t1.Sub(t0)
		start += t2.Sub(t1)
		remove += time.Since(t2)
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(i) }
	b.ReportMetric(ms(create), "create-ms")
	b.ReportMetric(ms(start), "start-ms")
	b.ReportMetric(ms(remove), "remove-ms")
}

// BenchmarkExec measures a health check's share: a process that ends at once.
func BenchmarkExec(b *testing.B) {
	h := newHost(b)
	h.config.Shim = builtShim(b)
	r := h.openForTest()
	run(b, r, testContainer(importBusybox(b, r), "c1", "exec sleep 1000"))
	for b.Loop() {
		if code, _, err := r.Exec(b.Context(), "c1", []string{"true"}); err != nil || code != 0 {
			b.Fatalf("%d, %v", code, err)
		}
	}
}

// BenchmarkRestart measures a container that ends at once and is restarted.
func BenchmarkRestart(b *testing.B) {
	h := newHost(b)
	h.config.Shim = builtShim(b)
	r := h.openForTest()
	run(b, r, testContainer(importBusybox(b, r), "c1", "true"))
	for b.Loop() {
		b.StopTimer()
		waitPhase(b, r, "c1", agent.PhaseStopped)
		b.StartTimer()
		if _, err := r.Restart(b.Context(), "c1"); err != nil {
			b.Fatal(err)
		}
	}
}
