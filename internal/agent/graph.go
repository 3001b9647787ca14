package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// The conditions of ECS's dependsOn. CREATE is not a client's: it is what volumesFrom comes to.
const (
	conditionCreate   = "CREATE"
	conditionStart    = "START"
	conditionComplete = "COMPLETE"
	conditionSuccess  = "SUCCESS"
	conditionHealthy  = "HEALTHY"
)

// ECS's health statuses.
const (
	healthHealthy   = "HEALTHY"
	healthUnhealthy = "UNHEALTHY"
	healthUnknown   = "UNKNOWN"
)

// need is one dependency of a container.
type need struct {
	on        int // index of the other container
	condition string
}

// graph is which containers of a task wait for which. It has no cycle.
type graph struct {
	needs [][]need // of each container, in the definition's order
	users [][]int  // of each container, those that need it, once each
}

// newGraph reads a task's dependencies: what dependsOn says, a CREATE for each volumesFrom and a START
// for each link, as Amazon's agent has it.
func newGraph(t *dispatchpb.Task) (graph, error) {
	index := make(map[string]int, len(t.Containers))
	for i, c := range t.Containers {
		index[c.Name] = i
	}
	g := graph{needs: make([][]need, len(t.Containers)), users: make([][]int, len(t.Containers))}
	add := func(i int, name, condition string) error {
		on, ok := index[name]
		switch {
		case !ok:
			return fmt.Errorf("container %s depends on %q, which the task does not have", t.Containers[i].Name, name)
		case on == i:
			return fmt.Errorf("container %s depends on itself", name)
		}
		g.needs[i] = append(g.needs[i], need{on, condition})
		if !slices.Contains(g.users[on], i) {
			g.users[on] = append(g.users[on], i)
		}
		return nil
	}
	for i, c := range t.Containers {
		for _, d := range c.DependsOn {
			switch d.Condition {
			case conditionStart, conditionComplete, conditionSuccess, conditionHealthy:
			default:
				return graph{}, fmt.Errorf("container %s has the unknown condition %q", c.Name, d.Condition)
			}
			if err := add(i, d.Container, d.Condition); err != nil {
				return graph{}, err
			}
		}
		for _, v := range c.VolumesFrom {
			if err := add(i, v.Container, conditionCreate); err != nil {
				return graph{}, err
			}
		}
		for _, l := range c.Links {
			name, _, _ := strings.Cut(l, ":")
			if err := add(i, name, conditionStart); err != nil {
				return graph{}, err
			}
		}
	}
	if !g.acyclic() {
		return graph{}, fmt.Errorf("the containers of task %s depend on each other in a circle", t.Arn)
	}
	return g, nil
}

// acyclic takes away containers that need nothing, until none is left or none can be taken.
func (g graph) acyclic() bool {
	open := make([]int, len(g.needs))
	var free []int
	for _, users := range g.users {
		for _, u := range users {
			open[u]++
		}
	}
	for i, n := range open {
		if n == 0 {
			free = append(free, i)
		}
	}
	for k := 0; k < len(free); k++ {
		for _, u := range g.users[free[k]] {
			if open[u]--; open[u] == 0 {
				free = append(free, u)
			}
		}
	}
	return len(free) == len(g.needs)
}

// standing is what the graph has to know of a container that others need.
type standing struct {
	created, started bool
	ended            bool // it will not run again, or never will
	exitCode         int  // once ended; negative: there is none
	health           string
	startedAt        time.Time
	startTimeout     time.Duration // zero: none
}

// outlook is whether a container may begin.
type outlook struct {
	ready bool
	never string // why it never may, in the words of Amazon's agent; empty: it still might
	on    need   // what it waits for, or what will never be
	// until is when the wait ends in never; zero: there is no such time.
	until time.Time
}

// Why a dependency will never be met, as Amazon's agent ends its sentences.
const (
	neverTimedOut = "has timed out."
	neverExited   = "as dependency did not exit successfully."
	neverStarts   = "because dependency will never start"
	neverHealthy  = "because dependency stopped before it was healthy"
)

// outlook says whether container i may begin, given how the others stand now.
func (g graph) outlook(i int, of func(int) standing, now time.Time) outlook {
	result := outlook{ready: true}
	for _, n := range g.needs[i] {
		s := of(n.on)
		if n.met(s) {
			continue
		}
		result.ready = false
		if never := n.never(s); never != "" {
			return outlook{never: never, on: n}
		}
		until := n.deadline(s)
		if !until.IsZero() && !now.Before(until) {
			return outlook{never: neverTimedOut, on: n}
		}
		if result.on.condition == "" {
			result.on = n
		}
		if result.until.IsZero() || !until.IsZero() && until.Before(result.until) {
			result.until = until
		}
	}
	return result
}

func (n need) met(s standing) bool {
	switch n.condition {
	case conditionCreate:
		return s.created || s.started
	case conditionStart:
		return s.started
	case conditionComplete:
		return s.started && s.ended
	case conditionSuccess:
		return s.started && s.ended && s.exitCode == 0
	default:
		return s.health == healthHealthy
	}
}

// never says why a dependency that is not met cannot be met any more.
func (n need) never(s standing) string {
	switch {
	case !s.ended:
		return ""
	case !s.started:
		return neverStarts
	case n.condition == conditionSuccess:
		return neverExited
	default:
		return neverHealthy // of the conditions, the only one that an end does not settle
	}
}

// deadline is when the startTimeout of the container that is needed ends the wait for it. It counts from
// the start, so it says nothing of how long the start may take.
func (n need) deadline(s standing) time.Time {
	switch n.condition {
	case conditionComplete, conditionSuccess, conditionHealthy:
		if s.startTimeout > 0 && s.started && !s.startedAt.IsZero() {
			return s.startedAt.Add(s.startTimeout)
		}
	}
	return time.Time{}
}

// mayStop says whether container i may be told to stop: those that need it go first.
func (g graph) mayStop(i int, down func(int) bool) bool {
	for _, u := range g.users[i] {
		if !down(u) {
			return false
		}
	}
	return true
}
