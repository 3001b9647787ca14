package history

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/placement"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// recordWait bounds how long a client waits for the record of its run. A run without a record is worse
// explained than a client that waits is served.
const recordWait = 2 * time.Second

// Run is a call of RunTask or StartTask of which some task found no place.
type Run struct {
	ID         string    `json:"id"` // of the request, which the client sees as x-amzn-RequestId
	At         time.Time `json:"at"`
	Account    string    `json:"account"`
	Region     string    `json:"region"`
	Cluster    string    `json:"cluster"`
	Definition string    `json:"definition"` // family:revision
	LaunchType string    `json:"launchType"`
	Group      string    `json:"group,omitempty"`
	StartedBy  string    `json:"startedBy,omitempty"`
	By         string    `json:"by"`     // principal's ARN
	Asked      int       `json:"asked"`  // tasks
	Placed     int       `json:"placed"` // of them
	Needs      string    `json:"needs"`  // "256 CPU units, 512 MiB, port 80/tcp"
	// Verdicts are of the hosts that came closest, the closest first; Hosts is how many there are.
	Verdicts []Verdict `json:"verdicts"`
	Hosts    int       `json:"hosts"`
}

// Verdict is what became of one host as a place for the run's tasks.
type Verdict struct {
	HostID   string `json:"hostId"`
	Hostname string `json:"hostname,omitempty"`
	Instance string `json:"instance,omitempty"` // ARN; empty: the host has not been used by the cluster
	// Provider is the capacity provider of the tasks that the verdict is about; empty: they have none.
	Provider string  `json:"provider,omitempty"`
	Reason   string  `json:"reason"`           // as in RunTask's failures; empty: a task would fit
	Checks   []Check `json:"checks,omitempty"` // every filter, in the order in which they are applied
}

// Check is what one filter says of one host.
type Check struct {
	Filter string `json:"filter"` // "agent", "cpu", "memory", …
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // "needs 512, 256 free"
}

// Recorder keeps runs in an archive.
type Recorder struct {
	archive *Archive
	store   *store.Store
	log     *slog.Logger
}

var _ orchestrator.Recorder = (*Recorder)(nil)

// NewRecorder returns a recorder; the store is where it finds the hosts' names.
func NewRecorder(a *Archive, s *store.Store, log *slog.Logger) *Recorder { return &Recorder{a, s, log} }

// RunNotPlaced implements orchestrator.Recorder. A run that came from no call has no ID to ask for it by,
// and is not kept.
func (r *Recorder) RunNotPlaced(ctx context.Context, rec orchestrator.RunRecord) {
	if rec.RequestID == "" {
		return
	}
	snap := r.store.Snapshot()
	run := runOf(rec, func(hostID string) string {
		if h, ok := state.Hosts.Get(snap, state.HostKey(hostID)); ok {
			return h.Value.Hostname
		}
		return ""
	})
	// A client that leaves may ask later why.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordWait)
	defer cancel()
	if err := r.archive.PutRun(ctx, run); err != nil {
		r.log.Warn("why a run found no place was not kept", "run", rec.RequestID, "error", err)
	}
}

func runOf(rec orchestrator.RunRecord, hostname func(string) string) *Run {
	run := &Run{
		ID: rec.RequestID, At: rec.At, Account: rec.Cluster.Account, Region: rec.Cluster.Region, Cluster: rec.Cluster.ID,
		Definition: fmt.Sprintf("%s:%d", rec.Family, rec.Revision), LaunchType: rec.LaunchType, Group: rec.Group,
		StartedBy: rec.StartedBy, By: rec.CreatedBy, Asked: rec.Count, Placed: len(rec.Placed),
	}
	for _, e := range rec.Explanations {
		if run.Needs == "" {
			run.Needs = needs(e)
		}
		run.Hosts = max(run.Hosts, e.Total)
		for _, h := range e.Hosts {
			v := Verdict{
				HostID: h.HostID, Hostname: hostname(h.HostID), Instance: h.InstanceARN, Provider: e.CapacityProvider,
				Reason: strings.TrimSuffix(string(h.Reason), "."),
			}
			for _, c := range h.Checks {
				v.Checks = append(v.Checks, Check{Filter: c.Filter, OK: c.OK, Detail: checkDetail(c)})
			}
			run.Verdicts = append(run.Verdicts, v)
		}
	}
	return run
}

// needs says what each of the tasks asks of a host.
func needs(e orchestrator.Explanation) string {
	parts := []string{fmt.Sprintf("%d CPU units", e.CPUUnits), fmt.Sprintf("%d MiB", e.MemoryMiB)}
	if e.GPUs > 0 {
		parts = append(parts, fmt.Sprintf("%d GPUs", e.GPUs))
	}
	for _, p := range e.Ports {
		parts = append(parts, fmt.Sprintf("port %d/%s", p.Number, p.Protocol))
	}
	if e.Address {
		parts = append(parts, "an address of its own")
	}
	return strings.Join(parts, ", ")
}

// checkDetail says by how much a filter refused; empty where it did not.
func checkDetail(c placement.Check) string {
	switch {
	case c.OK:
		return ""
	case c.Filter == "ports":
		return c.Actual + " taken"
	case c.Filter == "agent":
		return "not connected"
	case c.Filter == "distinctInstance":
		return fmt.Sprintf("has %d of group %s", c.Free, c.Detail)
	case c.Filter == "attribute" && c.Actual == "":
		return "lacks " + c.Detail
	case c.Filter == "attribute":
		return fmt.Sprintf("wants %s, has %s", c.Detail, c.Actual)
	case c.Filter == "memberOf":
		var fail []string
		for _, t := range c.Terms {
			if !t.Holds {
				fail = append(fail, fmt.Sprintf("%s (it is %s)", t.Text, cmp.Or(t.Actual, "not set")))
			}
		}
		return cmp.Or(strings.Join(fail, ", "), c.Detail)
	case c.Needed > 0:
		return fmt.Sprintf("needs %d, %d free", c.Needed, max(c.Free, 0))
	}
	return c.Detail
}

// Explain explains why a run's tasks found no place.
func (r *Run) Explain() Explanation {
	e := Explanation{
		Kind: "run", ID: r.ID, Cluster: r.Cluster, Definition: r.Definition, LaunchType: r.LaunchType,
		State: "NOT PLACED", At: r.At, Needs: r.Needs, Verdicts: r.Verdicts,
	}
	what := fmt.Sprintf("none of %d tasks found a place", r.Asked)
	switch {
	case r.Asked == 1:
		what = "the task found no place"
	case r.Placed > 0:
		what = fmt.Sprintf("%d of %d tasks found no place", r.Asked-r.Placed, r.Asked)
	}
	if len(r.Verdicts) == 0 {
		e.Why = what + ": the cluster has no host"
		e.Hints = []string{"`berth status` shows which hosts are connected."}
		return e
	}
	if r.Hosts == 1 {
		e.Why = what + ": the only host, " + r.Verdicts[0].say()
	} else {
		e.Why = fmt.Sprintf("%s on %d hosts: the nearest, %s", what, r.Hosts, r.Verdicts[0].say())
	}
	if n := r.Hosts - len(r.Verdicts); n > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%d more hosts were farther from it", n))
	}
	seen := map[string]bool{}
	for _, v := range r.Verdicts {
		if h := placementHint(v.Reason); h != "" && !seen[h] {
			seen[h] = true
			e.Hints = append(e.Hints, h)
		}
	}
	return e
}

// refusals put reasons into words.
var refusals = map[string]string{
	"INACTIVE": "is not active in the cluster", "AGENT": "is not connected",
	"RESOURCE:CPU": "has too few CPU units left", "RESOURCE:MEMORY": "has too little memory left",
	"RESOURCE:GPU": "has too few GPUs left", "RESOURCE:PORTS": "has a port taken that the task needs",
	"RESOURCE:ENI": "has no address left", "ATTRIBUTE": "lacks an attribute", "EXCLUDED": "is not to be used",
	"DistinctInstance placement constraint unsatisfied": "has a task of the group already",
	"MemberOf placement constraint unsatisfied":         "does not satisfy a constraint",
	"MISSING": "does not exist", "": "has room for some of them and no more",
}

// say names the host and what it was refused for.
func (v Verdict) say() string {
	why, ok := refusals[v.Reason]
	if !ok {
		why = "refused: " + v.Reason
	}
	s := cmp.Or(v.Hostname, v.HostID) + ", " + why
	for _, c := range v.Checks {
		if !c.OK {
			if c.Detail != "" {
				s += " (" + c.Detail + ")"
			}
			return s
		}
	}
	return s
}
