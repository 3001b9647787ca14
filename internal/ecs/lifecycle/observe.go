package lifecycle

import (
	"slices"
	"strconv"
	"time"
)

// Restarted is what an entry of a timeline says of a container that was run again in its place.
const Restarted = "RESTARTED"

// ContainerObservation is what a host sees of a container and a report does not say. In AWS it goes another
// way than state changes do: health by the telemetry channel, the rest not at all.
type ContainerObservation struct {
	Name string

	Health         Health // empty or not a health: no news
	HealthSince    time.Time
	HealthExitCode int32  // of the check that made it so
	HealthOutput   string // likewise

	RestartCount int64
	RestartedAt  time.Time // the last time

	CreatedAt, StartedAt, FinishedAt time.Time
}

// Observe takes in what a host sees of a task's containers. Observations may be repeated and may come out
// of order: the later health counts, and the greater number of restarts. It answers false, and an equal
// record, if there is no news. Only a change of health is one that clients see, and counts.
func Observe(r Record, seen []ContainerObservation, now time.Time) (Record, bool) {
	old := r.Status
	s := &r.Status
	s.Containers = r.Facts.containers(s.Containers)
	healths, news := false, false
	for _, o := range seen {
		i := slices.IndexFunc(s.Containers, func(have Container) bool { return have.Name == o.Name })
		if i < 0 {
			continue
		}
		c := &s.Containers[i]
		before := *c
		setTime(&c.CreatedAt, o.CreatedAt)
		setTime(&c.StartedAt, o.StartedAt)
		setTime(&c.FinishedAt, o.FinishedAt)
		if o.RestartCount > c.RestartCount {
			c.RestartCount, c.RestartedAt = o.RestartCount, o.RestartedAt
			s.add(Entry{At: o.RestartedAt, Container: c.Name, What: Restarted, Cause: "restart " + strconv.FormatInt(o.RestartCount, 10)})
		}
		if o.Health.known() && !o.HealthSince.Before(c.HealthSince) {
			healths = healths || o.Health != c.Health
			c.Health, c.HealthSince = o.Health, o.HealthSince
			c.HealthExitCode, c.HealthOutput = o.HealthExitCode, TrimReason(o.HealthOutput)
		}
		news = news || c.differs(before)
	}
	switch {
	case healths:
		r.countChange(old, now)
	case !news:
		r.Status = old
	}
	return r, news
}

// differs tells whether an observation has changed the container. Times are compared as instants.
func (c *Container) differs(d Container) bool {
	return c.RestartCount != d.RestartCount || c.Health != d.Health || !c.HealthSince.Equal(d.HealthSince) ||
		!c.CreatedAt.Equal(d.CreatedAt) || !c.StartedAt.Equal(d.StartedAt) || !c.FinishedAt.Equal(d.FinishedAt)
}
