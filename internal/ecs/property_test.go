package ecs_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// machine does to a world what clients and hosts do, and knows what must be true.
type machine struct {
	*world
	scope   store.Scope // each round has an account, and hosts, of its own
	active  map[string]bool
	defs    []string
	hosts   map[string]*follower // nil: disconnected
	acked   map[string]bool      // every task that RunTask has answered
	stopped map[string]bool
	asked   map[string]string // to stop, with the reason
	tokens  map[string][]string
	closed  map[string]bool // container instances that take no tasks: draining or deregistered
}

func (m *machine) clusterNames() []string { return slices.Sorted(maps.Keys(m.active)) }

func (m *machine) tasksOf(cluster string) (live []string) {
	for arn := range m.acked {
		if c, _, _ := splitTask(arn); c == cluster && !m.stopped[arn] {
			live = append(live, arn)
		}
	}
	slices.Sort(live)
	return live
}

func (m *machine) live() (live []string) {
	for arn := range m.acked {
		if !m.stopped[arn] {
			live = append(live, arn)
		}
	}
	slices.Sort(live)
	return live
}

func (m *machine) actions() map[string]func(*rapid.T) {
	host := func(t *rapid.T) string { return rapid.SampledFrom(slices.Sorted(maps.Keys(m.hosts))).Draw(t, "host") }
	cluster := func(t *rapid.T) string { return rapid.SampledFrom(m.clusterNames()).Draw(t, "cluster") }
	someTask := func(t *rapid.T) string {
		live := m.live()
		if len(live) == 0 {
			t.Skip("no task")
		}
		return rapid.SampledFrom(live).Draw(t, "task")
	}
	return map[string]func(*rapid.T){
		"create": func(t *rapid.T) {
			c := cluster(t)
			m.createCluster(c)
			m.active[c] = true
		},
		"delete": func(t *rapid.T) {
			c := cluster(t)
			_, err := m.ecs.DeleteCluster(m.ctx, &ecs.DeleteClusterInput{Cluster: &c})
			var busy *ecs.ClusterContainsTasksException
			var none *ecs.ClusterNotFoundException
			switch live := m.tasksOf(c); {
			case !m.active[c]:
				if !errors.As(err, &none) {
					t.Fatalf("delete of an inactive cluster: %v", err)
				}
			case len(live) > 0:
				if !errors.As(err, &busy) {
					t.Fatalf("delete of a cluster with %d tasks: %v", len(live), err)
				}
			case err != nil:
				t.Fatalf("delete of an empty cluster: %v", err)
			default:
				m.active[c] = false
				m.tokens = map[string][]string{}
			}
		},
		"run": func(t *rapid.T) {
			c, def := cluster(t), rapid.SampledFrom(m.defs).Draw(t, "definition")
			count := rapid.Int32Range(1, 4).Draw(t, "count")
			token := fmt.Sprintf("%s-%s-%d-%d", c, def[len(def)-6:], count, rapid.IntRange(0, 2).Draw(t, "token"))
			in := &ecs.RunTaskInput{Cluster: &c, TaskDefinition: &def, Count: &count}
			if rapid.Bool().Draw(t, "tokened") {
				in.ClientToken = &token
			}
			copies := rapid.IntRange(1, 3).Draw(t, "copies")
			answers := make([][]string, copies)
			var all sync.WaitGroup
			for i := range copies {
				all.Go(func() {
					mine := *in
					out, err := m.ecs.RunTask(m.ctx, &mine)
					if err != nil {
						if m.active[c] && (len(m.closed) == 0 || !strings.Contains(err.Error(), "No Container Instances were found")) {
							m.Errorf("RunTask: %v", err)
						}
						return
					}
					for _, task := range out.Tasks {
						answers[i] = append(answers[i], *task.TaskArn)
						// A repeated call answers what was placed before the instance was closed.
						if m.closed[*task.ContainerInstanceArn] && in.ClientToken == nil {
							m.Errorf("%s was placed on %s, which takes no tasks", *task.TaskArn, *task.ContainerInstanceArn)
						}
					}
					if len(out.Tasks) < int(count) && len(out.Failures) == 0 && in.ClientToken == nil {
						m.Errorf("%d of %d tasks and no failure", len(out.Tasks), count)
					}
				})
			}
			all.Wait()
			if in.ClientToken != nil && m.active[c] {
				first := m.tokens[token]
				for _, a := range answers {
					if len(first) == 0 {
						first = a
					}
					if len(a) > 0 && !slices.Equal(a, first) {
						t.Fatalf("one token, %v and %v", first, a)
					}
				}
				m.tokens[token] = first
			}
			for _, a := range answers {
				if len(a) > 0 && !m.active[c] {
					t.Fatalf("tasks in an inactive cluster: %v", a)
				}
				for _, arn := range a {
					m.acked[arn] = true
				}
			}
		},
		"stop": func(t *rapid.T) {
			task := someTask(t)
			c, _, _ := splitTask(task)
			reason := fmt.Sprint("reason ", len(m.asked))
			if _, err := m.ecs.StopTask(m.ctx, &ecs.StopTaskInput{Cluster: &c, Task: &task, Reason: &reason}); err != nil {
				t.Fatalf("StopTask: %v", err)
			}
			if _, before := m.asked[task]; !before {
				m.asked[task] = reason
			}
		},
		"report": func(t *rapid.T) {
			task := someTask(t)
			status := rapid.SampledFrom([]string{"PENDING", "ACTIVATING", "RUNNING", "STOPPED", "STOPPED"}).Draw(t, "status")
			m.report(task, status, nil)
			m.stopped[task] = m.stopped[task] || status == "STOPPED"
		},
		"connect": func(t *rapid.T) {
			h := host(t)
			m.connect(h, 2)
			if old := m.hosts[h]; old != nil {
				old.stream.Close()
			}
			m.hosts[h] = m.follow(h)
		},
		"disconnect": func(t *rapid.T) {
			h := host(t)
			if f := m.hosts[h]; f != nil {
				f.stream.Close()
				m.orch.HostDisconnected(m.ctx, h)
				m.hosts[h] = nil
			}
		},
		"drain": func(t *rapid.T) {
			c, arn := m.someInstance(t)
			status := rapid.SampledFrom([]ecs.ContainerInstanceStatus{"ACTIVE", "DRAINING"}).Draw(t, "status")
			out, err := m.ecs.UpdateContainerInstancesState(m.ctx, &ecs.UpdateContainerInstancesStateInput{Cluster: &c, ContainerInstances: []string{arn}, Status: status})
			if err != nil || len(out.ContainerInstances) != 1 {
				t.Fatalf("UpdateContainerInstancesState: %v %+v", err, out)
			}
			if delete(m.closed, arn); status == "DRAINING" {
				m.closed[arn] = true
			}
		},
		"deregister": func(t *rapid.T) {
			c, arn := m.someInstance(t)
			force := rapid.Bool().Draw(t, "force")
			var tasks []string
			for _, task := range m.live() {
				key, _ := state.ParseTaskARN(task)
				if pl, _ := state.Placements.Get(m.store.Snapshot(), key); pl.Value.ContainerInstanceARN == arn {
					tasks = append(tasks, task)
				}
			}
			_, err := m.ecs.DeregisterContainerInstance(m.ctx, &ecs.DeregisterContainerInstanceInput{Cluster: &c, ContainerInstance: &arn, Force: &force})
			if refused := len(tasks) > 0 && !force; refused != (err != nil) {
				t.Fatalf("deregistration of an instance with %d tasks, force %v: %v", len(tasks), force, err)
			}
			if err != nil {
				return
			}
			m.closed[arn] = true
			for _, task := range tasks {
				if _, before := m.asked[task]; !before {
					m.asked[task] = "Container instance deregistration forced by user"
				}
			}
		},
		"": func(t *rapid.T) { m.check(t) },
	}
}

// someInstance picks a container instance of a cluster.
func (m *machine) someInstance(t *rapid.T) (cluster, arn string) {
	cluster = rapid.SampledFrom(m.clusterNames()).Draw(t, "cluster")
	if !m.active[cluster] {
		t.Skip("no such cluster")
	}
	arns := m.instances(cluster)
	if len(arns) == 0 {
		t.Skip("no instances")
	}
	return cluster, rapid.SampledFrom(arns).Draw(t, "instance")
}

// check checks everything that is always true.
func (m *machine) check(t *rapid.T) {
	snap := m.store.Snapshot()
	for arn := range m.acked {
		key, _ := state.ParseTaskARN(arn)
		rec, ok := state.Record(snap, key)
		if !ok {
			t.Fatalf("%s was acknowledged and is not there", arn)
		}
		if m.stopped[arn] != (rec.Status.LastStatus == lifecycle.Stopped) {
			t.Fatalf("%s is %s", arn, rec.Status.LastStatus)
		}
		cause, ends := rec.Stop()
		if m.stopped[arn] && (!ends || cause.Code == "" || cause.Reason == "") {
			t.Fatalf("%s stopped without a cause: %+v", arn, cause)
		}
		if reason, asked := m.asked[arn]; asked && (!ends || cause.Reason != reason) {
			t.Fatalf("%s: cause %+v, want %q", arn, cause, reason)
		}
	}
	for spec := range state.Specs.List(snap, m.scope, "") {
		if !m.acked[spec.Value.ARN] {
			t.Fatalf("%s was never acknowledged", spec.Value.ARN)
		}
	}
	instances := map[string]string{}
	for ci := range state.ContainerInstances.List(snap, m.scope, "") {
		if ci.Value.Status == "INACTIVE" {
			continue
		}
		place := ci.Value.ClusterARN + " " + ci.Value.HostID
		if other, twice := instances[place]; twice {
			t.Fatalf("host %s is two instances of %s: %s and %s", ci.Value.HostID, ci.Value.ClusterARN, other, ci.Value.ARN)
		}
		instances[place] = ci.Value.ARN
	}
	for h := range m.hosts {
		u, ok := m.orch.UsageOf(snap, h)
		if !ok {
			continue
		}
		if u.CPUFree < 0 || u.MemFree < 0 {
			t.Fatalf("host %s is over capacity: %+v", h, u)
		}
		ports, addresses := map[state.Port]bool{}, map[string]bool{}
		for pl := range state.Placements.By(snap, "host", h) {
			spec, _ := state.Specs.Get(snap, pl.Key)
			if m.stopped[spec.Value.ARN] {
				continue
			}
			for _, p := range spec.Value.Ports {
				if ports[p] {
					t.Fatalf("host %s gives port %v twice", h, p)
				}
				ports[p] = true
			}
			if a := pl.Value.PrivateIPv4; a != "" && addresses[a] {
				t.Fatalf("host %s gives %s twice", h, a)
			} else {
				addresses[a] = true
			}
		}
	}
}

// settle has every connected host apply its payloads until it knows what it should.
func (m *machine) settle(t *rapid.T) {
	snap := m.store.Snapshot()
	for h, f := range m.hosts {
		if f == nil {
			continue
		}
		want := map[string]string{}
		for pl := range state.Placements.By(snap, "host", h) {
			spec, _ := state.Specs.Get(snap, pl.Key)
			if rec, _ := state.Record(snap, pl.Key); rec.Status.LastStatus != lifecycle.Stopped {
				want[spec.Value.ARN] = string(lifecycle.Running)
				if rec.Desired.Stop != nil {
					want[spec.Value.ARN] = string(lifecycle.Stopped)
				}
			}
		}
		f.until(m.world, "what host "+h+" should run", func(desired map[string]string) bool {
			for arn := range desired {
				if m.stopped[arn] { // the host said so itself
					delete(desired, arn)
				}
			}
			return maps.Equal(desired, want) && f.sequence > 0
		})
	}
}

func TestAnySequenceOfCallsAndReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rounds := 0
	rapid.Check(t, func(t *rapid.T) {
		rounds++
		m := &machine{
			world:  &world{tester: t, ctx: as(fmt.Sprintf("%012d", rounds), region), store: w.store, orch: w.orch, ecs: w.ecs},
			scope:  store.Scope{Account: fmt.Sprintf("%012d", rounds), Region: region},
			active: map[string]bool{"a": false, "b": false}, hosts: map[string]*follower{},
			acked: map[string]bool{}, stopped: map[string]bool{}, asked: map[string]string{}, tokens: map[string][]string{},
			closed: map[string]bool{},
		}
		for _, family := range []string{"small", "port", "big"} {
			m.defs = append(m.defs, m.register(family, map[string]func(*ecs.RegisterTaskDefinitionInput){
				"port": withPort(8080),
				"big":  func(in *ecs.RegisterTaskDefinitionInput) { in.ContainerDefinitions[0].Cpu = api.Ptr(int32(900)) },
			}[family]))
		}
		for i := range 3 {
			h := fmt.Sprintf("h%d-%d", rounds, i)
			m.connect(h, 2)
			m.hosts[h] = m.follow(h)
		}
		defer func() {
			for h, f := range m.hosts {
				if f != nil {
					f.stream.Close()
				}
				m.orch.HostDisconnected(m.ctx, h)
			}
		}()
		m.createCluster("a")
		m.active["a"] = true
		t.Repeat(m.actions())
		m.settle(t)
	})
}
