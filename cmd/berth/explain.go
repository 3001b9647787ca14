package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/ecs/history"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// shownFailures is how many failures are listed.
const shownFailures = 20

// Explain implements admin.Backend.
func (s *stack) Explain(ctx context.Context, ref string) ([]history.Explanation, error) {
	now := time.Now()
	if ref == "" {
		return s.plane.archive.Failures(ctx, now, shownFailures)
	}
	id := ref
	if strings.HasPrefix(ref, "arn:") {
		arn, err := state.ParseARN(ref)
		if err != nil {
			return nil, err
		}
		switch arn.Type {
		case "task":
			id = arn.Path[len(arn.Path)-1]
		case "service":
			return nil, errors.New("there is no such service: Berth has no services yet")
		default:
			return nil, fmt.Errorf("%s is a %s: tasks and runs can be explained", ref, arn.Type)
		}
	}
	e, err := s.explain(ctx, strings.ToLower(id), now)
	if errors.Is(err, history.ErrNotFound) {
		return nil, fmt.Errorf("there is no task and no run %s; what is older than 7 days is forgotten, and there are no services yet. `berth explain` alone lists the newest failures", ref)
	}
	if errors.Is(err, history.ErrAmbiguous) {
		return nil, fmt.Errorf("more than one task or run begins with %s: give more of it", ref)
	}
	if err != nil {
		return nil, err
	}
	return []history.Explanation{e}, nil
}

// explain finds a task that lives, a task in the archive, or a run, of which there must be one.
func (s *stack) explain(ctx context.Context, id string, now time.Time) (history.Explanation, error) {
	snap := s.plane.store.Snapshot()
	keys := tasksBeginning(snap, id)
	archived, err := s.plane.archive.Task(ctx, id)
	if err != nil && !errors.Is(err, history.ErrNotFound) {
		return history.Explanation{}, err
	}
	haveTask := err == nil
	run, err := s.plane.archive.Run(ctx, id)
	if err != nil && !errors.Is(err, history.ErrNotFound) {
		return history.Explanation{}, err
	}
	haveRun := err == nil
	both := haveTask && (len(keys) > 1 || len(keys) == 1 && keys[0] != archived.Key)
	if len(keys) > 1 || both || haveRun && (haveTask || len(keys) > 0) {
		return history.Explanation{}, history.ErrAmbiguous
	}
	if haveRun {
		return run.Explain(), nil
	}
	if len(keys) == 1 {
		t, ok := history.FromRows(snap, keys[0])
		if ok && (t.Status.LastStatus != lifecycle.Stopped || !haveTask || archived.Status.Changes < t.Status.Changes) {
			live := s.plane.archiver.Complete(ctx, t)
			if t.Status.LastStatus == lifecycle.Stopped {
				live = nil
			}
			return t.Explain(live, now), nil
		}
	}
	if haveTask {
		return archived.Explain(nil, now), nil
	}
	return history.Explanation{}, history.ErrNotFound
}

// tasksBeginning finds the tasks whose ID begins so.
func tasksBeginning(snap *store.Snapshot, id string) []store.Key {
	var found []store.Key
	for spec := range state.Specs.All(snap) {
		if strings.HasPrefix(spec.Value.ID, id) {
			found = append(found, spec.Key)
		}
	}
	slices.SortFunc(found, func(a, b store.Key) int { return strings.Compare(a.ID, b.ID) })
	return found
}

func explainCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain [TASK|RUN-ID]",
		Short: "Say why a task stopped or waits, or why a run found no place; alone, list the newest failures",
		Long: "Say why a task is as it is: by its ARN, its ID or the beginning of its ID, also days after it stopped.\n" +
			"Or why RunTask placed nothing: by the ID of the request, which clients show as x-amzn-RequestId.\n" +
			"Without a name, list the newest failures of the last 7 days.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			ref := ""
			if len(args) == 1 {
				if ref = args[0]; ref == "" {
					return errors.New("an empty name explains nothing; without one, the newest failures are listed")
				}
			}
			found, err := client.Explain(c.Context(), ref)
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				if ref != "" {
					return enc.Encode(found[0])
				}
				return enc.Encode(append([]history.Explanation{}, found...))
			}
			r := renderer{w: out, paint: newPaint(out), now: time.Now(), zone: time.Local}
			if ref == "" {
				r.list(found)
			} else {
				r.explanation(found[0])
			}
			return r.err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
