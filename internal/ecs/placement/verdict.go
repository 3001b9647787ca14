package placement

import (
	"cmp"
	"slices"
)

// Reason says why a host cannot take a task, in the words of RunTask's failures and of ECS's service
// events. Empty: it can.
type Reason string

const (
	Inactive  Reason = "INACTIVE" // draining, or left the cluster
	Excluded  Reason = "EXCLUDED" // the request itself ruled the host out; not one of AWS's words
	Agent     Reason = "AGENT"    // the host's agent is not connected
	CPU       Reason = "RESOURCE:CPU"
	GPU       Reason = "RESOURCE:GPU"
	Memory    Reason = "RESOURCE:MEMORY"
	Ports     Reason = "RESOURCE:PORTS"
	ENI       Reason = "RESOURCE:ENI" // no address left in the host's subnet
	Attribute Reason = "ATTRIBUTE"
	// Distinct: the host has a task of the group already.
	Distinct Reason = "DistinctInstance placement constraint unsatisfied."
	MemberOf Reason = "MemberOf placement constraint unsatisfied."
	Missing  Reason = "MISSING" // no such host
)

// order is that in which fits checks.
var order = []Reason{Missing, Excluded, Inactive, Agent, CPU, GPU, Memory, Ports, ENI, Attribute, Distinct, MemberOf, ""}

// rank orders reasons by how far a host got through fits: resources come before attributes, as in
// ECS, so a host that only lacks an attribute came closest.
func (r Reason) rank() int { return slices.Index(order, r) }

// Verdict is what fits found for one host.
type Verdict struct {
	HostID      string
	InstanceARN string // of its container instance in the request's cluster; empty: none yet
	Reason      Reason // empty: the task fits
	// Needed and Free are CPU units, MiB or GPUs, with Reason CPU, Memory or GPU.
	Needed, Free int64
	// Lacks is the attribute, with Reason Attribute; the expression, with Reason MemberOf.
	Lacks string
}

// OK tells whether the task fits.
func (v Verdict) OK() bool { return v.Reason == "" }

// Considered tells whether ECS would list the host among a RunTask's failures. A draining instance
// is not looked at: a cluster of nothing else answers "No Container Instances were found in your
// cluster.", as one without any does.
func (v Verdict) Considered() bool {
	return v.Reason != Inactive && v.Reason != Excluded && v.Reason != Missing
}

// Clause ends the sentence "The closest matching (container-instance …)" of a service event, in
// ECS's words.
func (v Verdict) Clause() string {
	switch v.Reason {
	case "":
		return "meets all requirements"
	case CPU:
		return "has insufficient CPU units available"
	case Memory:
		return "has insufficient memory available"
	case Ports:
		return "is already using a port required by your task"
	case Attribute:
		return "is missing an attribute required by your task"
	default:
		return `encountered error "` + string(v.Reason) + `"`
	}
}

// Closest returns the refusal that came nearest to taking the task: the one that passed most checks,
// and among those of CPU or memory the one that is short of least. It answers false when no host was
// considered.
func Closest(verdicts []Verdict) (Verdict, bool) {
	var best Verdict
	found := false
	for _, v := range verdicts {
		if !v.Considered() {
			continue
		}
		if !found || closer(v, best) {
			best, found = v, true
		}
	}
	return best, found
}

func closer(v, than Verdict) bool {
	return cmp.Or(
		cmp.Compare(than.Reason.rank(), v.Reason.rank()),
		cmp.Compare(v.Needed-v.Free, than.Needed-than.Free),
		cmp.Compare(v.HostID, than.HostID),
	) < 0
}
