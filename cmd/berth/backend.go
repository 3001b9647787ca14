package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/admin"
	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

var _ admin.Backend = (*stack)(nil)

// Status implements admin.Backend.
func (s *stack) Status(ctx context.Context) (admin.Status, error) {
	st := admin.Status{
		Version: version, Instance: s.in.ID, PID: os.Getpid(), StartedAt: s.started,
		Endpoint: "http://" + s.set.listen, Account: s.set.account, Region: s.set.region, Dev: s.set.dev,
		DataDir: s.in.DataDir, Subnet: s.host.network.Subnet().String(),
		Hosts: []admin.Host{}, Tasks: []admin.Task{},
	}
	usage, err := s.plane.orch.Usage(ctx)
	if err != nil {
		return st, err
	}
	for id, u := range usage {
		st.Hosts = append(st.Hosts, admin.Host{
			ID: id, Hostname: u.Host.Hostname, Connected: u.Connected, CPUUnits: u.Host.CPUUnits, MemoryMiB: u.Host.MemoryMiB,
			CPUReserved: u.Host.CPUUnits - u.CPUFree, MemoryReserved: u.Host.MemoryMiB - u.MemFree,
		})
	}
	slices.SortFunc(st.Hosts, func(a, b admin.Host) int { return strings.Compare(a.Hostname+a.ID, b.Hostname+b.ID) })
	snap := s.plane.store.Snapshot()
	for spec := range state.Specs.All(snap) {
		t, ok := state.Task(snap, spec.Key)
		if !ok {
			continue
		}
		line := admin.Task{
			ARN: *t.TaskArn, Cluster: spec.Value.Cluster, ID: spec.Value.ID,
			Definition: fmt.Sprintf("%s:%d", spec.Value.Family, spec.Value.Revision),
			LastStatus: *t.LastStatus, DesiredStatus: *t.DesiredStatus, LaunchType: string(t.LaunchType), CreatedAt: *t.CreatedAt,
		}
		if p, ok := state.Placements.Get(snap, spec.Key); ok {
			line.Address = p.Value.PrivateIPv4
		}
		if t.StoppedReason != nil {
			line.StoppedReason = *t.StoppedReason
		}
		st.Tasks = append(st.Tasks, line)
	}
	slices.SortFunc(st.Tasks, func(a, b admin.Task) int { return a.CreatedAt.Compare(b.CreatedAt) })
	if s.set.dev {
		st.Notices = append(st.Notices,
			"--dev: any credentials are accepted as root of the account they name",
			"--dev: FARGATE tasks share the host's kernel; without --dev they are refused")
	}
	return st, nil
}

// StopTasks implements admin.Backend.
func (s *stack) StopTasks(ctx context.Context, reason string, line func(string)) error {
	cause := lifecycle.Cause{Code: lifecycle.UserInitiated, Reason: reason}
	return s.plane.orch.StopAll(ctx, "", cause, func(left int) { line(count(left, "task", "tasks") + " to stop") })
}

// count says how many there are.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Exit implements admin.Backend.
func (s *stack) Exit() { s.exit() }

// Logs implements admin.Backend.
func (s *stack) Logs(ctx context.Context, q admin.LogQuery, line func(admin.LogLine) error) error {
	key, err := findTask(s.plane.store.Snapshot(), q.Task)
	if err != nil {
		return err
	}
	spec, _ := state.Specs.Get(s.plane.store.Snapshot(), key)
	req := &dispatchpb.LogRequest{TaskArn: spec.Value.ARN, Container: q.Container, Follow: q.Follow, Tail: q.Tail}
	if !q.Since.IsZero() {
		req.Since = timestamppb.New(q.Since)
	}
	if q.Container != "" && !slices.ContainsFunc(spec.Value.Containers, func(c state.SpecContainer) bool { return c.Name == q.Container }) {
		return fmt.Errorf("task %s has no container %q", spec.Value.ID, q.Container)
	}
	several := q.Container == "" && len(spec.Value.Containers) > 1
	return s.plane.dispatch.OpenLogs(ctx, req, func(l *dispatchpb.LogLine) error {
		return line(admin.LogLine{Time: l.Time.AsTime(), Container: l.Container, Stream: l.Stream, Text: l.Text,
			Partial: l.Partial, Several: several})
	})
}

// findTask finds a task by its ARN, its ID or the beginning of its ID.
func findTask(snap *store.Snapshot, ref string) (store.Key, error) {
	if strings.HasPrefix(ref, "arn:") {
		key, err := state.ParseTaskARN(ref)
		if err == nil {
			if _, ok := state.Specs.Get(snap, key); !ok {
				err = fmt.Errorf("there is no task %s", ref)
			}
		}
		return key, err
	}
	var found []store.Key
	for spec := range state.Specs.All(snap) {
		if ref != "" && strings.HasPrefix(spec.Value.ID, ref) {
			found = append(found, spec.Key)
		}
	}
	switch len(found) {
	case 0:
		return store.Key{}, fmt.Errorf("there is no task %s", ref)
	case 1:
		return found[0], nil
	}
	return store.Key{}, errors.New("more than one task begins with " + ref)
}

// Import implements admin.Backend.
func (s *stack) Import(ctx context.Context, r io.Reader, progress func(agent.ImageProgress)) ([]string, error) {
	return s.host.runtime.Import(ctx, r, progress)
}

// PullImage implements admin.Backend.
func (s *stack) PullImage(ctx context.Context, ref string, progress func(agent.ImageProgress)) (agent.Image, error) {
	return s.host.runtime.PullImage(ctx, ref, progress)
}

// ListImages implements admin.Backend.
func (s *stack) ListImages(ctx context.Context) ([]agent.ImageInfo, error) {
	return s.host.runtime.ListImages(ctx)
}

// RemoveImage implements admin.Backend.
func (s *stack) RemoveImage(ctx context.Context, ref string) error {
	return s.host.runtime.RemoveImage(ctx, ref)
}
