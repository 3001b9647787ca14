package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/failpoint"
)

// Restart runs a stopped container's process again. The record, the root filesystem, the FIFOs, the
// path of the cgroup and the namespaces that it joins by path are those it had; runc's container and
// the namespaces of its own are new, as with docker restart. Counters of its cgroup begin anew.
//
// Whatever moment Berth dies in, what the next one finds is a container that has stopped with its
// former exit, or one that is created or runs: calling Restart again goes on from there. The exit is
// recorded before the shim, which knows it, forgets the container.
func (r *Runtime) Restart(ctx context.Context, id string) (time.Time, error) {
	defer r.keys.lock(id)()
	ctx = r.call(ctx)
	record, err := r.engine.containers.Get(ctx, id)
	if err != nil {
		return time.Time{}, fmt.Errorf("restart the container: %w", err)
	}
	if record.Labels[labelGeneration] != r.generation {
		return time.Time{}, errors.New("restart the container: the host has restarted since it was created")
	}
	found, err := r.state(ctx, record)
	if err != nil {
		return time.Time{}, err
	}
	switch {
	case found.unfinished:
		return time.Time{}, fmt.Errorf("restart the container: %w", errdefs.ErrNotFound)
	case found.Phase == agent.PhaseRunning:
		return found.StartedAt, nil
	case found.Phase == agent.PhaseCreated:
		return r.start(ctx, id)
	}
	if err := r.recordExit(ctx, record, found.ExitCode, found.FinishedAt); err != nil {
		return time.Time{}, err
	}
	failpoint.Hit("runtime/restart/recorded")
	task := record.Labels[labelTask]
	if err := r.deleteTask(ctx, id, task); err != nil {
		return time.Time{}, err
	}
	// runc has removed the cgroup, unless its shim was lost.
	if err := r.cgroups.kill(r.cgroupPath(task, id)); err != nil {
		return time.Time{}, err
	}
	if err := r.cgroups.remove(ctx, r.cgroupPath(task, id)); err != nil {
		return time.Time{}, err
	}
	r.mu.Lock()
	delete(r.started, id)
	delete(r.kills, id)
	delete(r.created, id)
	delete(r.usage, id)
	r.mu.Unlock()
	r.watcher.renew(id, time.Now())
	mounts, err := r.engine.snapshots.Mounts(ctx, record.SnapshotKey)
	if err != nil {
		return time.Time{}, fmt.Errorf("find the container's file system: %w", err)
	}
	if err := r.createTask(ctx, record, mounts); err != nil {
		return time.Time{}, err
	}
	at, err := r.start(ctx, id)
	if err != nil {
		// As after a failed docker restart, the container is there and has stopped.
		return time.Time{}, errors.Join(err, r.unstart(context.WithoutCancel(ctx), record, found))
	}
	return at, nil
}

// unstart takes a container that could not be started again back to where it was: stopped, with the
// exit it had.
func (r *Runtime) unstart(ctx context.Context, record containerRecord, was foundState) error {
	got, err := r.engine.tasks.Get(ctx, &tasks.GetRequest{ContainerID: record.ID})
	if err = errgrpc.ToNative(err); err == nil && got.Process.Status == tasktypes.Status_RUNNING {
		return nil
	}
	if err := r.recordExit(ctx, record, was.ExitCode, was.FinishedAt); err != nil {
		return err
	}
	return r.deleteTask(ctx, record.ID, record.Labels[labelTask])
}

// forgetExit removes the recorded exit of a container that is about to run again, so that it cannot be
// taken for the next one's.
func (r *Runtime) forgetExit(ctx context.Context, id string) error {
	record, err := r.engine.containers.Get(ctx, id)
	if errdefs.IsNotFound(err) || err == nil && record.Labels[labelExit] == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the container: %w", err)
	}
	// Start is also called for a container that has stopped; its exit stays what it is.
	if state, err := r.state(ctx, record); err != nil || state.Phase != agent.PhaseCreated {
		return err
	}
	record.Labels[labelExit] = ""
	if _, err := r.engine.containers.Update(ctx, record, "labels."+labelExit); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("forget the container's former exit: %w", err)
	}
	failpoint.Hit("runtime/restart/forgotten")
	return nil
}
