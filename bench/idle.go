package main

import (
	"time"

	"github.com/berthhq/berth/test/harness"
)

// idle measures what Berth costs while it has nothing to do: the proportional set size of all its
// processes, and their use of the processor, after five minutes without tasks.
func idle(b *bench) {
	berth := harness.New(b, harness.Options{}) // which builds it; that is not part of a start
	up := func() time.Duration {
		started := time.Now()
		berth.Up()
		return time.Since(started)
	}
	b.add(Figure{Name: "first start to ready", Value: ms(up()), Unit: "ms", Bar: Bar{Most: 2000}})
	var again []time.Duration
	for range 5 {
		berth.Terminate()
		again = append(again, up())
	}
	b.add(Figure{Name: "start to ready again, p50", Value: quantile(again, 0.5), Unit: "ms", Bar: Bar{Most: 2000}})

	// A cluster and a finished task: what a user's Berth has had, and the logger has been started.
	w := newWorkload(b, berth)
	w.wait(w.runTasks(1, "stamp"), "STOPPED")

	settle, span := 4*time.Minute, time.Minute
	if b.short {
		settle, span = 10*time.Second, 10*time.Second
	}
	b.sleep(settle)
	mine := func() []harness.Process { return harness.Processes(berth.ID(), berth.DataDir) }
	ticks := func() (sum int64) {
		for _, p := range mine() {
			n, err := p.CPUTicks()
			if err != nil {
				b.Fatalf("processor time: %v", err)
			}
			sum += n
		}
		return sum
	}
	before := ticks()
	b.sleep(span)
	used := ticks() - before
	var pss int64
	processes := mine()
	for _, p := range processes {
		n, err := p.PSS()
		if err != nil {
			b.Fatalf("PSS: %v", err)
		}
		pss += n
	}
	b.add(Figure{Name: "idle memory, PSS of all processes", Value: float64(pss) / 1e6, Unit: "MB", Bar: Bar{Most: 150}})
	b.add(Figure{Name: "idle processor, of one core", Value: float64(used) / span.Seconds(), Unit: "%", Bar: Bar{Most: 1}})
	b.note("Idle: %d processes, %s after start without tasks; processor time over the last %s of it.", len(processes), settle+span, span)
}

// sleep waits, unless the run is interrupted.
func (b *bench) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-b.ctx.Done():
		b.Fatalf("interrupted")
	}
}
