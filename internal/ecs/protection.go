package ecs

import (
	"context"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Limits of task protection, from the API reference.
const (
	maxProtect     = 10
	maxProtected   = 100
	defaultProtect = 120  // minutes
	longestProtect = 2880 // minutes
)

// UpdateTaskProtection protects tasks of services from scale-in and deployments for a time, or ends
// that. A task that is not a service's, or has stopped, is a failure TASK_NOT_VALID.
func (s *Service) UpdateTaskProtection(ctx context.Context, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
	if n := len(in.Tasks); n == 0 || n > maxProtect {
		return nil, invalid("Tasks must be between 1 and %d.", maxProtect)
	}
	if in.ProtectionEnabled == nil {
		return nil, invalid("ProtectionEnabled can not be blank.")
	}
	minutes := int32(defaultProtect)
	if in.ExpiresInMinutes != nil {
		minutes = *in.ExpiresInMinutes
	}
	if *in.ProtectionEnabled && (minutes < 1 || minutes > longestProtect) {
		return nil, invalid("expiresInMinutes must be between 1 and %d.", longestProtect)
	}
	out := &ecs.UpdateTaskProtectionOutput{}
	_, err := s.store.Update(ctx, func(tx *store.Tx) error {
		until := time.Now().UTC().Truncate(time.Second).Add(time.Duration(minutes) * time.Minute)
		change := func(key store.Key) {
			if *in.ProtectionEnabled {
				state.Protections.Put(tx, key, &state.Protection{Until: until})
			} else {
				state.Protections.Delete(tx, key)
			}
		}
		var err error
		out.ProtectedTasks, out.Failures, err = s.protected(ctx, tx, in.Cluster, in.Tasks, change)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetTaskProtection tells which tasks of services are protected, and until when.
func (s *Service) GetTaskProtection(ctx context.Context, in *ecs.GetTaskProtectionInput) (*ecs.GetTaskProtectionOutput, error) {
	if n := len(in.Tasks); n == 0 || n > maxProtected {
		return nil, invalid("Tasks must be between 1 and %d.", maxProtected)
	}
	tasks, failures, err := s.protected(ctx, s.store.Snapshot(), in.Cluster, in.Tasks, func(store.Key) {})
	if err != nil {
		return nil, err
	}
	return &ecs.GetTaskProtectionOutput{ProtectedTasks: tasks, Failures: failures}, nil
}

// protected goes through the tasks of a call, changes those that can be protected, and describes them.
func (s *Service) protected(ctx context.Context, v store.View, clusterRef *string, refs []string, change func(store.Key)) ([]ecs.ProtectedTask, []ecs.Failure, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, nil, err
	}
	cluster, err := s.cluster(v, sc, clusterRef)
	if err != nil {
		return nil, nil, err
	}
	tasks, failures := []ecs.ProtectedTask{}, []ecs.Failure{}
	for _, ref := range refs {
		if err := checkTaskID(cluster.ID, ref); err != nil {
			return nil, nil, err
		}
		id, ok := resourceID(sc, "task", cluster.ID, ref)
		key := state.TaskKey(sc, cluster.ID, id)
		spec, found := state.Specs.Get(v, key)
		if !ok || !found {
			arn := ref
			if !strings.HasPrefix(ref, "arn:") {
				arn = state.ARN(sc, "task", cluster.ID, ref)
			}
			failures = append(failures, missing(arn))
			continue
		}
		rec, _ := state.Record(v, key)
		if !strings.HasPrefix(spec.Value.Group, serviceGroup) || rec.DesiredStatus() == lifecycle.Stopped {
			failures = append(failures, failure(spec.Value.ARN, "TASK_NOT_VALID"))
			continue
		}
		change(key)
		t := ecs.ProtectedTask{TaskArn: &spec.Value.ARN, ProtectionEnabled: api.Ptr(false)}
		if until := state.ProtectedUntil(v, key, time.Now()); !until.IsZero() {
			t.ProtectionEnabled, t.ExpirationDate = api.Ptr(true), &until
		}
		tasks = append(tasks, t)
	}
	return tasks, failures, nil
}
