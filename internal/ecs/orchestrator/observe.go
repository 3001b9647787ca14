package orchestrator

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Observe implements dispatch.Observer: it writes what a host sees of its task's containers into the
// task's status, if it is news.
func (o *Orchestrator) Observe(ctx context.Context, hostID string, st *dispatchpb.TaskStatus) error {
	key, err := state.ParseTaskARN(st.GetArn())
	if err != nil {
		return nil
	}
	seen := make([]lifecycle.ContainerObservation, 0, len(st.Containers))
	for _, c := range st.Containers {
		seen = append(seen, lifecycle.ContainerObservation{
			Name: c.Name, Health: lifecycle.Health(c.HealthStatus), HealthSince: instant(c.HealthSince),
			HealthExitCode: c.HealthExitCode, HealthOutput: c.HealthOutput,
			RestartCount: c.RestartCount, RestartedAt: instant(c.RestartedAt),
			CreatedAt: instant(c.CreatedAt), StartedAt: instant(c.StartedAt), FinishedAt: instant(c.FinishedAt),
		})
	}
	observe := func(v store.View) (lifecycle.Record, bool) {
		rec, ok := state.Record(v, key)
		if pl, placed := state.Placements.Get(v, key); !ok || !placed || pl.Value.HostID != hostID {
			return rec, false
		}
		return lifecycle.Observe(rec, seen, time.Now().UTC())
	}
	// Most observations say what is known already.
	if _, news := observe(o.store.Snapshot()); !news {
		return nil
	}
	_, err = o.store.Update(ctx, func(tx *store.Tx) error {
		if rec, news := observe(tx); news {
			state.Statuses.Put(tx, key, &rec.Status)
		}
		return nil
	})
	return err
}

func instant(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
