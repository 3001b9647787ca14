package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// launch measures from RunTask sent to the container's first instruction, in turns with the peers, so
// that what else the machine does meets all alike.
func launch(b *bench) {
	n := 40
	if b.short {
		n = 8
	}
	w := newWorkload(b, harness.Start(b, harness.Options{}))
	bare := startContainerd(b)
	dock := startDocker(b, false)
	for _, network := range []string{"none", "host"} {
		var ours, theirs, filtered, dockers []time.Duration
		stages := map[string][]time.Duration{}
		for i := range n + 3 {
			took, split := w.launch(types.NetworkMode(network))
			his, filters, docks := bare.launch(network, false), bare.launch(network, true), dock.launch(network)
			if i < 3 {
				continue // warming up
			}
			ours, theirs, filtered, dockers = append(ours, took), append(theirs, his), append(filtered, filters), append(dockers, docks)
			for stage, d := range split {
				stages[stage] = append(stages[stage], d)
			}
		}
		p50 := quantile(ours, 0.5)
		b.add(Figure{Name: "launch p50, network " + network, Value: p50, Unit: "ms", Peer: "bare containerd", PeerValue: quantile(theirs, 0.5), Bar: Bar{Most: 1.6}})
		b.add(Figure{Name: "launch p50, network " + network, Value: p50, Unit: "ms", Peer: "bare containerd with seccomp", PeerValue: quantile(filtered, 0.5)})
		b.add(Figure{Name: "launch p50, network " + network, Value: p50, Unit: "ms", Peer: "docker run -d", PeerValue: quantile(dockers, 0.5), Bar: Bar{Most: 0.5}})
		b.add(Figure{Name: "launch p99, network " + network, Value: quantile(ours, 0.99), Unit: "ms", Peer: "bare containerd", PeerValue: quantile(theirs, 0.99)})
		for _, stage := range launchStages {
			b.add(Figure{Name: "launch stage, network " + network + ": " + stage, Value: quantile(stages[stage], 0.5), Unit: "ms"})
		}
	}
	b.note("Launch: from RunTask sent (Berth), NewContainer called (containerd), the docker command started (Docker) to the time that the container's program notes first; %d of each, in turns, after 3 to warm up. All sides run the same image, imported beforehand, with the same runc and a memory limit. Output goes through FIFOs into a file for Berth and containerd; Docker uses its json-file. Berth and Docker filter system calls, containerd's default does not: it is also measured with containerd's own filter. No side's client asks for anything while the launch is under way.", n)
	b.note("Stages: RunTask's answer; from there (createdAt) to the agent's start of the pull; the pull, which finds everything present; from the pull's end to the first instruction: cgroup, network, create, start. Times in DescribeTasks have milliseconds.")
}

// launchQuiet is longer than launches take on a machine that is not busy.
const launchQuiet = 250 * time.Millisecond

var launchStages = []string{"RunTask answered", "assigned to the agent", "image", "create and start"}

// launch runs one task that ends by itself.
func (w *workload) launch(network types.NetworkMode) (time.Duration, map[string]time.Duration) {
	return w.launchOf(w.define(network, "stamp"))
}

// launchOf is launch for a definition whose container is "app".
func (w *workload) launchOf(definition string) (time.Duration, map[string]time.Duration) {
	sent := time.Now()
	arns := w.run(1, definition)
	answered := time.Now()
	// Like the peers' clients, this one asks for nothing while the launch is under way: each question
	// would take its time from it.
	time.Sleep(launchQuiet)
	task := w.wait(arns, "STOPPED")[0]
	at := w.stamp(arns[0])
	if task.CreatedAt == nil || task.PullStartedAt == nil || task.PullStoppedAt == nil {
		w.Fatalf("task without its times: %s %s", aws.ToString(task.StoppedReason), arns[0])
	}
	return at.Sub(sent), map[string]time.Duration{
		"RunTask answered":      answered.Sub(sent),
		"assigned to the agent": task.PullStartedAt.Sub(*task.CreatedAt),
		"image":                 task.PullStoppedAt.Sub(*task.PullStartedAt),
		"create and start":      at.Sub(*task.PullStoppedAt),
	}
}

// hundredPace is how often the hundred are looked at, on both sides: to read of a hundred tasks 50 times
// a second would take a good part of a core from what is measured. The rates do not depend on it: they come
// from the times that the containers noted. When all are RUNNING is known to that precision.
const hundredPace = 250 * time.Millisecond

// hundred measures a hundred tasks from zero, beside a Swarm service of a hundred replicas.
func hundred(b *bench) {
	const n = 100
	w := newWorkload(b, harness.Start(b, harness.Options{}))
	definition := w.define(types.NetworkModeHost, "stay")
	w.stop(w.run(1, definition)) // the image's first use
	w.pace = hundredPace
	sent := time.Now()
	var mu sync.Mutex
	var arns []string
	var calls sync.WaitGroup
	for range n / 10 {
		calls.Go(func() {
			some := w.run(10, definition)
			mu.Lock()
			defer mu.Unlock()
			arns = append(arns, some...)
		})
	}
	calls.Wait()
	w.wait(arns, "RUNNING")
	told := time.Since(sent)
	var last time.Time
	for _, arn := range arns {
		if at := w.stamp(arn); at.After(last) {
			last = at
		}
	}
	ours := last.Sub(sent)
	w.stop(arns)

	d := startDocker(b, false)
	d.docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
	sent = time.Now()
	d.docker("service", "create", "--detach", "--name", "hundred", "--network", "host", "--replicas", "100",
		"--no-resolve-image", "--limit-memory", "16m", imageName, "stay")
	theirs := d.lastStamp(n).Sub(sent)
	d.docker("service", "rm", "hundred")
	d.docker("swarm", "leave", "--force")

	b.add(Figure{Name: "100 tasks from zero", Value: n / ours.Seconds(), Unit: "tasks/s", Peer: "Swarm", PeerValue: n / theirs.Seconds(), Bar: Bar{Least: 4}})
	b.add(Figure{Name: "100 tasks, all RUNNING in DescribeTasks", Value: told.Seconds(), Unit: "s"})
	b.note("100 tasks: ten concurrent RunTask of ten, beside a Swarm service of 100 replicas, both on the host's network; from the first request to the last container's first instruction, which took Berth %.2f s and Swarm %.2f s.", ours.Seconds(), theirs.Seconds())
}

// lastStamp waits until n containers have noted their first instruction, and answers the last. It
// reads Docker's log files, as asking Docker for each would slow it down.
func (d *docker) lastStamp(n int) time.Time {
	var last time.Time
	harness.Poll(d, 3*time.Minute, "Swarm's containers", func() bool {
		files, _ := filepath.Glob(filepath.Join(d.dir, "data/containers/*/*-json.log"))
		if len(files) < n {
			time.Sleep(hundredPace)
			return false
		}
		seen := 0
		for _, f := range files {
			raw, err := os.ReadFile(f)
			var line struct {
				Log string `json:"log"`
			}
			if err != nil || json.Unmarshal([]byte(strings.TrimSpace(string(raw))), &line) != nil {
				continue
			}
			if at, ok := parseStamp(line.Log); ok {
				seen++
				if at.After(last) {
					last = at
				}
			}
		}
		if seen < n {
			time.Sleep(hundredPace)
		}
		return seen >= n
	})
	return last
}
