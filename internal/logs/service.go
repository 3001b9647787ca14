package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/logs/segment"
	"github.com/berthhq/berth/internal/store"
)

// MaxBody bounds a request: a batch of PutLogEvents of 1 MiB with every byte escaped.
const MaxBody = 8 << 20

// Tables of the service.
var (
	// Groups by name.
	Groups = store.DefineTable[Group]("logs-groups", 1)
	// MetricFilters by group:filter; a group's name has no colon.
	MetricFilters = store.DefineTable[logs.MetricFilter]("logs-metric-filters", 1)
)

// Tables lists all of them, for opening the store.
func Tables() []store.TableDef { return []store.TableDef{Groups, MetricFilters} }

// Group is a log group's row.
type Group struct {
	Name      string             `json:"name"`
	Class     logs.LogGroupClass `json:"class"`
	CreatedAt int64              `json:"createdAt"` // ms since 1970
	Retention int32              `json:"retention,omitempty"`
	Tags      map[string]string  `json:"tags,omitempty"`
	// Protected groups cannot be deleted.
	Protected bool `json:"protected,omitempty"`
}

// from is where a read begins that asks for what is since start: not before retention does.
func (g *Group) from(start *int64) int64 {
	if g.Retention == 0 {
		return api.Value(start)
	}
	return max(api.Value(start), time.Now().Add(-days(g.Retention)).UnixMilli())
}

// days are of 24 hours, whatever the clocks do.
func days(n int32) time.Duration { return time.Duration(n) * 24 * time.Hour }

// Config is what the service needs.
type Config struct {
	Store    *store.Store
	Segments *segment.Store
	Logger   *slog.Logger
}

// Service implements the logs API. Operations it does not have are answered by Unimplemented.
type Service struct {
	logs.Unimplemented
	store    *store.Store
	segments *segment.Store
	streams  *registry
	queries  *queries
	log      *slog.Logger
}

var _ logs.API = (*Service)(nil)

// New makes the service. It must be closed, before the segments are.
func New(cfg Config) *Service {
	return &Service{store: cfg.Store, segments: cfg.Segments, streams: newRegistry(cfg.Segments), queries: newQueries(), log: cfg.Logger}
}

// Clear removes all groups of an account, with what they hold.
func (s *Service) Clear(ctx context.Context, account string) error {
	var errs []error
	for row := range Groups.All(s.store.Snapshot()) {
		if row.Scope.Account == account {
			errs = append(errs, s.remove(ctx, row.Key, true))
		}
	}
	return errors.Join(errs...)
}

// scope says where the call works: the caller's account, in the region it named.
func scope(ctx context.Context) (store.Scope, error) {
	p, err := caller.From(ctx)
	if err != nil {
		return store.Scope{}, err
	}
	return store.Scope{Account: p.AccountID, Region: p.Region}, nil
}

// inSegments is the name of a row's group there.
func inSegments(k store.Key) segment.Group {
	return segment.Group{Account: k.Scope.Account, Region: k.Scope.Region, Name: k.ID}
}

// group finds the group of that name.
func (s *Service) group(ctx context.Context, name *string) (store.Row[Group], error) {
	sc, err := scope(ctx)
	if err != nil {
		return store.Row[Group]{}, err
	}
	return findGroup(s.store.Snapshot(), sc, api.Value(name))
}

func findGroup(v store.View, sc store.Scope, name string) (store.Row[Group], error) {
	if name == "" {
		return store.Row[Group]{}, noGroup()
	}
	row, ok := Groups.Get(v, store.K(sc, name))
	if !ok {
		return row, noGroup()
	}
	return row, nil
}

// identified finds the group of a call that names it by name or by identifier, which is a name or an ARN.
func (s *Service) identified(ctx context.Context, name, identifier *string) (store.Row[Group], error) {
	sc, err := scope(ctx)
	if err != nil {
		return store.Row[Group]{}, err
	}
	ref := name
	switch {
	case name != nil && identifier != nil:
		return store.Row[Group]{}, invalid("LogGroup name and LogGroup identifier are mutually exclusive parameters.")
	case name == nil && identifier == nil:
		return store.Row[Group]{}, invalid("LogGroup name or LogGroup identifier is required.")
	case identifier != nil:
		n, ok := groupRef(sc, *identifier)
		if !ok {
			return store.Row[Group]{}, noGroup()
		}
		ref = &n
	}
	return findGroup(s.store.Snapshot(), sc, *ref)
}

// groupRef reads a group's name out of a name or an ARN of this account and region, with or without the
// ":*" at its end.
func groupRef(sc store.Scope, ref string) (string, bool) {
	if !strings.HasPrefix(ref, "arn:") {
		return ref, ref != ""
	}
	name, ok := strings.CutPrefix(ref, arnPrefix(sc))
	name = strings.TrimSuffix(name, ":*")
	return name, ok && name != "" && !strings.Contains(name, ":")
}

func arnPrefix(sc store.Scope) string {
	return fmt.Sprintf("arn:aws:logs:%s:%s:log-group:", sc.Region, sc.Account)
}

func groupARN(k store.Key) string { return arnPrefix(k.Scope) + k.ID }

func streamARN(k store.Key, stream string) string { return groupARN(k) + ":log-stream:" + stream }

func now() int64 { return time.Now().UnixMilli() }

func invalid(format string, args ...any) error {
	return &logs.InvalidParameterException{Message: fmt.Sprintf(format, args...)}
}

func noGroup() error {
	return &logs.ResourceNotFoundException{Message: "The specified log group does not exist."}
}

func noStream() error {
	return &logs.ResourceNotFoundException{Message: "The specified log stream does not exist."}
}

// fromSegments gives the event store's errors their form in the API.
func fromSegments(err error) error {
	switch {
	case errors.Is(err, segment.ErrFull):
		return &logs.ServiceUnavailableException{Message: "There is no space left for log events. Free space on the volume of Berth's data directory, or shorten retention."}
	case errors.Is(err, segment.ErrClosed), errors.Is(err, segment.ErrBroken):
		return &logs.ServiceUnavailableException{Message: "The service cannot complete the request."}
	}
	return err
}
