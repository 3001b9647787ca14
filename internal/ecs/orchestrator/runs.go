package orchestrator

import (
	"context"
	"time"

	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Recorder keeps what became of Runs.
type Recorder interface {
	// RunNotPlaced hears of a Run of which some task found no place, once its other tasks are durable,
	// before its caller is answered. It must not take long.
	RunNotPlaced(ctx context.Context, run RunRecord)
}

// RunRecord is a Run of which some task found no place.
type RunRecord struct {
	RequestID  string // empty: the Run came from no call
	At         time.Time
	Cluster    store.Key
	Definition string // its ARN
	Family     string
	Revision   int32
	LaunchType string
	Group      string
	StartedBy  string
	CreatedBy  string   // principal's ARN
	Count      int      // tasks asked for
	Placed     []string // IDs of those that found a place
	Failures   []placement.Verdict
	// Explanations are one for each kind of task that found no place.
	Explanations []Explanation
}

// Explanation says why a kind of task found no place.
type Explanation struct {
	// CapacityProvider of the tasks; empty: none.
	CapacityProvider string `json:"capacityProvider,omitempty"`
	// What each of the tasks asks of a host.
	CPUUnits  int64        `json:"cpuUnits"`
	MemoryMiB int64        `json:"memoryMiB"`
	GPUs      int          `json:"gpus,omitempty"`
	Ports     []state.Port `json:"ports,omitempty"`
	Address   bool         `json:"address,omitempty"` // an address of its own
	placement.Explanation
}

// explain adds to a plan why a task found no place on any host, or on the one that was named.
func (pl *plan) explain(l *placement.Ledger, spec *state.Spec, req placement.Request, hostID string) {
	if hostID == "" {
		pl.explanations = append(pl.explanations, explanation(spec, l.Explain(req)))
		return
	}
	v, _ := l.Examine(hostID, req)
	if len(pl.explanations) == 0 {
		pl.explanations = []Explanation{explanation(spec, placement.Explanation{Reasons: map[placement.Reason]int{}})}
	}
	of := &pl.explanations[0]
	of.Hosts = append(of.Hosts, v)
	of.Total++
	of.Reasons[v.Reason]++
}

func explanation(spec *state.Spec, e placement.Explanation) Explanation {
	return Explanation{
		CapacityProvider: spec.CapacityProvider, CPUUnits: spec.CPUUnits, MemoryMiB: spec.MemoryMiB, GPUs: spec.GPUs,
		Ports: spec.Ports, Address: spec.Attached(), Explanation: e,
	}
}

// runRecord puts a Run's record together.
func runRecord(run *Run, placed Placed, now time.Time) RunRecord {
	spec := run.Tasks[0] // all are of one kind
	return RunRecord{
		RequestID: run.RequestID, At: now, Cluster: run.Cluster,
		Definition: spec.TaskDefinitionARN, Family: spec.Family, Revision: spec.Revision,
		LaunchType: string(spec.LaunchType), Group: spec.Group, StartedBy: spec.StartedBy, CreatedBy: spec.CreatedBy,
		Count: len(run.Tasks), Placed: placed.TaskIDs, Failures: placed.Failures, Explanations: placed.Explanations,
	}
}
