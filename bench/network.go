package main

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// bridge measures launches with a network of their own, in turns with Docker's bridge.
func bridge(b *bench) {
	n := 30
	if b.short {
		n = 6
	}
	w := newWorkload(b, harness.Start(b, harness.Options{}))
	dock := startDocker(b, true)
	mapped := app("app", "stamp")
	mapped.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80)}}
	kinds := []struct {
		name, definition, network string
		options                   []string
	}{
		{"bridge", w.define(types.NetworkModeBridge, "stamp"), "bridge", nil},
		{"bridge with a port", w.defineAs("bridge-port", types.NetworkModeBridge, mapped), "bridge", []string{"--publish", "80"}},
		{"awsvpc", w.define(types.NetworkModeAwsvpc, "stamp"), "bridge", nil},
	}
	ours, theirs := make([][]time.Duration, len(kinds)), make([][]time.Duration, len(kinds))
	stages := make([]map[string][]time.Duration, len(kinds))
	for i := range n + 3 {
		for k, kind := range kinds {
			took, split := w.launchOf(kind.definition)
			docks := dock.launch(kind.network, kind.options...)
			if i < 3 {
				continue // warming up
			}
			ours[k], theirs[k] = append(ours[k], took), append(theirs[k], docks)
			if stages[k] == nil {
				stages[k] = map[string][]time.Duration{}
			}
			for stage, d := range split {
				stages[k][stage] = append(stages[k][stage], d)
			}
		}
	}
	for k, kind := range kinds {
		b.add(Figure{Name: "launch p50, network " + kind.name, Value: quantile(ours[k], 0.5), Unit: "ms", Peer: "docker run -d, bridge", PeerValue: quantile(theirs[k], 0.5), Bar: Bar{Most: 0.5}})
		b.add(Figure{Name: "launch p99, network " + kind.name, Value: quantile(ours[k], 0.99), Unit: "ms", Peer: "docker run -d, bridge", PeerValue: quantile(theirs[k], 0.99)})
		for _, stage := range launchStages {
			b.add(Figure{Name: "launch stage, network " + kind.name + ": " + stage, Value: quantile(stages[k][stage], 0.5), Unit: "ms"})
		}
	}
	b.note("Launch with a network: as the other launches, %d of each in turns. Docker has its default bridge here, in a network namespace of its own and without its iptables rules, which it would otherwise write too; a port of the host's choice is served by its proxy process.", n)
}

// chainLength is the most containers that a task can have.
const chainLength = 10

// chain measures a task whose containers start one after the other, beside as many docker run.
func chain(b *bench) {
	n := 10
	if b.short {
		n = 3
	}
	w := newWorkload(b, harness.Start(b, harness.Options{}))
	dock := startDocker(b, false)
	var containers []types.ContainerDefinition
	for i := range chainLength {
		name := string(rune('a' + i))
		c := app(name, "stay")
		if i > 0 {
			c.DependsOn = []types.ContainerDependency{{ContainerName: aws.String(string(rune('a' + i - 1))), Condition: types.ContainerConditionStart}}
		}
		containers = append(containers, c)
	}
	definition := w.defineAs("chain", types.NetworkModeNone, containers...)
	var ours, theirs []time.Duration
	for i := range n + 1 {
		sent := time.Now()
		arns := w.run(1, definition)
		w.pace = 100 * time.Millisecond
		task := w.wait(arns, "RUNNING")[0]
		took := task.StartedAt.Sub(sent) // when the last of them had started
		w.stop(arns)

		sent = time.Now()
		var ids []string
		for range chainLength {
			ids = append(ids, dock.docker("run", "--detach", "--network", "none", "--memory", "16m", imageName, "stay"))
		}
		docks := time.Since(sent)
		dock.docker(append([]string{"rm", "--force"}, ids...)...)
		if i > 0 {
			ours, theirs = append(ours, took), append(theirs, docks)
		}
	}
	b.add(Figure{Name: "task of 10 containers, a chain of dependencies, p50", Value: quantile(ours, 0.5), Unit: "ms", Peer: "10 docker run -d, one after the other", PeerValue: quantile(theirs, 0.5)})
	b.note("Chain: ten containers in one task of network mode none, each with dependsOn START on the one before; from RunTask sent to startedAt, when all run; %d times.", n)
}

// churn keeps a population of tasks and replaces them all the time, and compares the first minute with
// the last: what grows would not last.
func churn(b *bench) {
	population, span, window := 200, 5*time.Minute, time.Minute
	if b.short {
		population, span, window = 40, 40*time.Second, 10*time.Second
	}
	const step = 4
	berth := harness.Start(b, harness.Options{})
	w := newWorkload(b, berth)
	w.pace = 50 * time.Millisecond
	definition := w.define(types.NetworkModeNone, "stay")
	var alive []string
	for len(alive) < population {
		alive = append(alive, w.run(10, definition)...)
	}
	w.wait(alive, "RUNNING")

	type sample struct {
		at      time.Duration
		latency time.Duration
		memory  int64
		files   int
	}
	var samples []sample
	began := time.Now()
	replaced := 0
	for time.Since(began) < span && b.ctx.Err() == nil {
		old := alive[:step]
		for _, arn := range old {
			if _, err := w.ecs.StopTask(w.ctx, &ecs.StopTaskInput{Cluster: aws.String(cluster), Task: &arn}); err != nil {
				b.Fatalf("StopTask: %v", err)
			}
		}
		sent := time.Now()
		fresh := w.run(step, definition)
		w.wait(fresh, "RUNNING")
		s := sample{at: time.Since(began), latency: time.Since(sent)}
		w.wait(old, "STOPPED")
		for _, p := range harness.Processes(berth.DataDir) {
			if p.Pid == berth.Pid() {
				var err error
				if s.memory, err = p.PSS(); err != nil {
					b.Fatalf("PSS: %v", err)
				}
				if s.files, err = p.Files(); err != nil {
					b.Fatalf("count file descriptors: %v", err)
				}
			}
		}
		samples = append(samples, s)
		alive = append(alive[step:], fresh...)
		replaced += step
	}
	var early, late []sample
	for _, s := range samples {
		switch {
		case s.at < window:
			early = append(early, s)
		case s.at >= span-window:
			late = append(late, s)
		}
	}
	if len(early) == 0 || len(late) == 0 {
		b.Fatalf("churn: %d samples are too few", len(samples))
	}
	latency := func(of []sample) float64 {
		var d []time.Duration
		for _, s := range of {
			d = append(d, s.latency)
		}
		return quantile(d, 0.5)
	}
	last := func(of []sample) sample { return of[len(of)-1] }
	a, z := last(early), last(late)
	b.add(Figure{Name: "churn: tasks replaced", Value: float64(replaced) / span.Seconds(), Unit: "tasks/s"})
	b.add(Figure{Name: "churn: launch of 4, p50, last minute", Value: latency(late), Unit: "ms", Peer: "first minute", PeerValue: latency(early), Bar: Bar{Most: 1.2}})
	b.add(Figure{Name: "churn: memory of berth up, PSS, at the end", Value: float64(z.memory) / 1e6, Unit: "MB", Peer: "after the first minute", PeerValue: float64(a.memory) / 1e6, Bar: Bar{Most: 1.25}})
	b.add(Figure{Name: "churn: file descriptors of berth up, at the end", Value: float64(z.files), Unit: "files", Peer: "after the first minute", PeerValue: float64(a.files), Bar: Bar{Most: 1.05}})
	b.note("Churn: %d tasks run; four are stopped and four started all the time for %s, %d tasks in all. The rows of stopped tasks are kept for an hour, and so grow in this time; they are part of the memory.", population, span, replaced)
}
