package history

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

var (
	// ErrNotFound says that nothing of that name is in the archive.
	ErrNotFound = errors.New("not in the archive")
	// ErrAmbiguous says that several records begin with the name.
	ErrAmbiguous = errors.New("more than one begins so")
)

// Keys in the blob store. A record is found by its ID; the order in time is kept by empty objects beside,
// which are written before the record and deleted after it, so that no record is without.
//
//	ecs/history/task/<task ID>
//	ecs/history/run/<request ID>
//	ecs/history/time/<yyyymmdd>/<hhmmss.mmm>-<task or run>-<ok or failed>-<ID>
const (
	root       = "ecs/history/"
	timePrefix = root + "time/"
	dayLayout  = "20060102"
	timeLayout = "150405.000"
)

// maxRecord bounds what is read of one record.
const maxRecord = 8 << 20

type kind string

const (
	taskKind kind = "task"
	runKind  kind = "run"
)

func recordKey(k kind, id string) string { return root + string(k) + "/" + id }

// mark is an entry of the order in time.
type mark struct {
	key    string
	kind   kind
	id     string
	failed bool
}

func markKey(k kind, id string, at time.Time, failed bool) string {
	outcome := "ok"
	if failed {
		outcome = "failed"
	}
	at = at.UTC()
	return fmt.Sprintf("%s%s/%s-%s-%s-%s", timePrefix, at.Format(dayLayout), at.Format(timeLayout), k, outcome, id)
}

func parseMark(key string) (mark, bool) {
	day, rest, ok := strings.Cut(strings.TrimPrefix(key, timePrefix), "/")
	parts := strings.SplitN(rest, "-", 4)
	if !ok || len(parts) != 4 || len(day) != len(dayLayout) {
		return mark{}, false
	}
	return mark{key: key, kind: kind(parts[1]), failed: parts[2] == "failed", id: parts[3]}, true
}

// validID is what an ID, or the beginning of one, looks like: a task's 32 hexadecimal digits, a
// request's UUID.
var validID = regexp.MustCompile(`^[0-9a-f-]{1,36}$`)

// Archive keeps the records.
type Archive struct{ blob blob.Store }

// NewArchive returns an archive in the blob store.
func NewArchive(b blob.Store) *Archive { return &Archive{b} }

// PutTask keeps a task. It returns when the record is durable.
func (a *Archive) PutTask(ctx context.Context, t *Task) error {
	return a.put(ctx, taskKind, t.Spec.ID, t.Status.StoppedAt, t.Failed(), t)
}

// PutRun keeps a run. It returns when the record is durable.
func (a *Archive) PutRun(ctx context.Context, r *Run) error {
	return a.put(ctx, runKind, r.ID, r.At, true, r)
}

func (a *Archive) put(ctx context.Context, k kind, id string, at time.Time, failed bool, record any) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("archive %s %q: not an ID", k, id)
	}
	raw, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("archive %s %s: %w", k, id, err)
	}
	if _, err := a.blob.Put(ctx, markKey(k, id, at, failed), strings.NewReader(""), blob.PutOptions{}); err != nil {
		return fmt.Errorf("archive %s %s: %w", k, id, err)
	}
	o := blob.PutOptions{ContentType: "application/json"}
	if _, err := a.blob.Put(ctx, recordKey(k, id), bytes.NewReader(raw), o); err != nil {
		return fmt.Errorf("archive %s %s: %w", k, id, err)
	}
	return nil
}

// Archived tells whether a task's record is there.
func (a *Archive) Archived(ctx context.Context, taskID string) (bool, error) {
	_, err := a.blob.Stat(ctx, recordKey(taskKind, taskID))
	switch {
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrCorrupt):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for task %s in the archive: %w", taskID, err)
	}
	return true, nil
}

// Task finds a task by its ID or the beginning of it.
func (a *Archive) Task(ctx context.Context, id string) (*Task, error) {
	t := new(Task)
	return t, a.find(ctx, taskKind, id, t)
}

// Run finds a run by its ID or the beginning of it.
func (a *Archive) Run(ctx context.Context, id string) (*Run, error) {
	r := new(Run)
	return r, a.find(ctx, runKind, id, r)
}

func (a *Archive) find(ctx context.Context, k kind, id string, into any) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("%s %q: %w", k, id, ErrNotFound)
	}
	var found []string
	for info, err := range a.blob.List(ctx, recordKey(k, id), "") {
		if err != nil {
			return fmt.Errorf("look for %s %s in the archive: %w", k, id, err)
		}
		if found = append(found, info.Key); len(found) > 1 {
			return fmt.Errorf("%s %s: %w", k, id, ErrAmbiguous)
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s %s: %w", k, id, ErrNotFound)
	}
	return a.get(ctx, found[0], into)
}

func (a *Archive) get(ctx context.Context, key string, into any) error {
	r, err := a.blob.Get(ctx, key)
	if errors.Is(err, blob.ErrNotFound) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("read %s from the archive: %w", key, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxRecord))
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fmt.Errorf("read %s from the archive: %w", key, err)
	}
	return nil
}

// Failures are the newest failures, newest first: tasks or runs, at most limit of them.
func (a *Archive) Failures(ctx context.Context, now time.Time, limit int) ([]Explanation, error) {
	var out []Explanation
	for day := now.UTC(); len(out) < limit && now.Sub(day) <= Retention+24*time.Hour; day = day.Add(-24 * time.Hour) {
		var marks []mark
		for info, err := range a.blob.List(ctx, timePrefix+day.Format(dayLayout)+"/", "") {
			if err != nil {
				return nil, fmt.Errorf("list the archive: %w", err)
			}
			if m, ok := parseMark(info.Key); ok && m.failed {
				if marks = append(marks, m); len(marks) > 4*limit {
					marks = slices.Clone(marks[len(marks)-limit:])
				}
			}
		}
		for _, m := range slices.Backward(marks) {
			e, err := a.explain(ctx, m, now)
			if errors.Is(err, ErrNotFound) {
				continue // being written, or being forgotten
			}
			if err != nil {
				return nil, err
			}
			if out = append(out, e); len(out) == limit {
				return out, nil
			}
		}
	}
	return out, nil
}

func (a *Archive) explain(ctx context.Context, m mark, now time.Time) (Explanation, error) {
	if m.kind == runKind {
		var r Run
		if err := a.get(ctx, recordKey(runKind, m.id), &r); err != nil {
			return Explanation{}, err
		}
		return r.Explain(), nil
	}
	var t Task
	if err := a.get(ctx, recordKey(taskKind, m.id), &t); err != nil {
		return Explanation{}, err
	}
	return t.Explain(nil, now), nil
}

// Prune forgets what is past its retention.
func (a *Archive) Prune(ctx context.Context, now time.Time) error {
	limit := timePrefix + now.Add(-Retention).UTC().Format(dayLayout+"/"+timeLayout)
	for info, err := range a.blob.List(ctx, timePrefix, "") {
		if err != nil {
			return fmt.Errorf("list the archive: %w", err)
		}
		if info.Key >= limit {
			return nil
		}
		if m, ok := parseMark(info.Key); ok {
			if err := a.blob.Delete(ctx, recordKey(m.kind, m.id)); err != nil {
				return fmt.Errorf("forget %s %s: %w", m.kind, m.id, err)
			}
		}
		if err := a.blob.Delete(ctx, info.Key); err != nil {
			return fmt.Errorf("forget %s: %w", info.Key, err)
		}
	}
	return nil
}
