package logs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/logs/segment"
	"github.com/berthhq/berth/internal/store"
)

// registry knows which streams there are: those whose creation is an event of the group beside theirs,
// and those that hold something.
type registry struct {
	segments *segment.Store

	mu     sync.Mutex
	groups map[segment.Group]*members
}

// members are the streams of a group. Who puts holds the lock shared, so that nothing is put into what is
// being deleted.
type members struct {
	mu      sync.RWMutex
	loaded  bool
	created map[string]int64 // ms since 1970, by name
}

func newRegistry(s *segment.Store) *registry {
	return &registry{segments: s, groups: map[segment.Group]*members{}}
}

func segmentGroup(sc store.Scope, name string) segment.Group {
	return segment.Group{Account: sc.Account, Region: sc.Region, Name: name}
}

// beside is the group that has an event for each stream of a group. No client can name it: a group's name
// has no colon.
func beside(g segment.Group) segment.Group {
	g.Name = "streams:" + g.Name
	return g
}

func (r *registry) of(g segment.Group) *members {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.groups[g]
	if m == nil {
		m = &members{}
		r.groups[g] = m
	}
	return m
}

// load reads the group's streams once, under the lock.
func (r *registry) load(ctx context.Context, g segment.Group, m *members) error {
	if m.loaded {
		return nil
	}
	created := map[string]int64{}
	// What holds something comes first: its creation, if it is known, is better than its first event.
	for _, of := range []segment.Group{g, beside(g)} {
		infos, err := r.segments.Streams(ctx, of)
		if err != nil {
			return fmt.Errorf("read the streams of %s: %w", g.Name, fromSegments(err))
		}
		for _, i := range infos {
			created[i.Stream] = i.First
		}
	}
	m.created, m.loaded = created, true
	return nil
}

// shared calls f while no stream of the group is created or deleted.
func (r *registry) shared(ctx context.Context, g segment.Group, f func(created map[string]int64) error) error {
	m := r.of(g)
	m.mu.RLock()
	if !m.loaded {
		m.mu.RUnlock()
		m.mu.Lock()
		err := r.load(ctx, g, m)
		m.mu.Unlock()
		if err != nil {
			return err
		}
		m.mu.RLock()
	}
	defer m.mu.RUnlock()
	return f(m.created)
}

// exclusive calls f while nothing else happens to the group.
func (r *registry) exclusive(g segment.Group, f func() error) error {
	m := r.of(g)
	m.mu.Lock()
	defer m.mu.Unlock()
	return f()
}

// has tells whether there is such a stream.
func (r *registry) has(ctx context.Context, g segment.Group, stream string) (ok bool, err error) {
	err = r.shared(ctx, g, func(created map[string]int64) error {
		_, ok = created[stream]
		return nil
	})
	return ok, err
}

// create makes a stream, if check has nothing against it; made is false if it is there already.
func (r *registry) create(ctx context.Context, g segment.Group, stream string, check func() error) (made bool, err error) {
	m := r.of(g)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := check(); err != nil {
		return false, err
	}
	if err := r.load(ctx, g, m); err != nil {
		return false, err
	}
	if _, ok := m.created[stream]; ok {
		return false, nil
	}
	at := now()
	if _, err := r.segments.Append(ctx, beside(g), stream, []segment.Entry{{Timestamp: at}}); err != nil {
		return false, fromSegments(err)
	}
	m.created[stream] = at
	return true, nil
}

// remove deletes a stream and what it holds. Its creation goes last: a crash leaves an empty stream.
func (r *registry) remove(ctx context.Context, g segment.Group, stream string) error {
	m := r.of(g)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := r.load(ctx, g, m); err != nil {
		return err
	}
	if _, ok := m.created[stream]; !ok {
		return noStream()
	}
	for _, of := range []segment.Group{g, beside(g)} {
		if err := r.segments.DropStream(ctx, of, stream); err != nil {
			return fromSegments(err)
		}
	}
	delete(m.created, stream)
	return nil
}

// removeAll deletes all streams, and then what row deletes.
func (r *registry) removeAll(ctx context.Context, g segment.Group, row func() error) error {
	m := r.of(g)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loaded, m.created = false, nil
	for _, of := range []segment.Group{g, beside(g)} {
		if err := r.segments.DropGroup(ctx, of); err != nil {
			return fromSegments(err)
		}
	}
	return row()
}

// CreateLogStream makes a stream.
func (s *Service) CreateLogStream(ctx context.Context, in *logs.CreateLogStreamInput) (*logs.CreateLogStreamOutput, error) {
	g, err := s.group(ctx, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	made, err := s.streams.create(ctx, inSegments(g.Key), *in.LogStreamName, func() error {
		_, err := s.group(ctx, in.LogGroupName)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, &logs.ResourceAlreadyExistsException{Message: "The specified log stream already exists"}
	}
	return &logs.CreateLogStreamOutput{}, nil
}

// DeleteLogStream removes a stream and its events.
func (s *Service) DeleteLogStream(ctx context.Context, in *logs.DeleteLogStreamInput) (*logs.DeleteLogStreamOutput, error) {
	g, err := s.group(ctx, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if err := s.streams.remove(ctx, inSegments(g.Key), *in.LogStreamName); err != nil {
		return nil, err
	}
	return &logs.DeleteLogStreamOutput{}, nil
}

// described is a stream as it is listed.
type described struct {
	name    string
	created int64
	info    *segment.StreamInfo // nil: it holds nothing
	key     string              // in the order of the listing
}

func (d *described) last() int64 {
	if d.info == nil {
		return 0
	}
	return d.info.Last
}

// DescribeLogStreams describes the streams of a group, by name or by the time of their last event.
func (s *Service) DescribeLogStreams(ctx context.Context, in *logs.DescribeLogStreamsInput) (*logs.DescribeLogStreamsOutput, error) {
	g, err := s.identified(ctx, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	byTime := in.OrderBy == logs.OrderByLastEventTime
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	after, err := readListToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	all, err := s.list(ctx, inSegments(g.Key), api.Value(in.LogStreamNamePrefix))
	if err != nil {
		return nil, err
	}
	for i := range all {
		d := &all[i]
		if d.key = d.name; byTime {
			d.key = fmt.Sprintf("%020d/%s", d.last(), d.name)
		}
	}
	slices.SortFunc(all, func(a, b described) int {
		if api.Value(in.Descending) {
			a, b = b, a
		}
		return cmp.Compare(a.key, b.key)
	})
	limit := 50
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	out := &logs.DescribeLogStreamsOutput{LogStreams: []logs.LogStream{}}
	last := ""
	for i := range all {
		d := &all[i]
		if after != "" && (d.key == after || (d.key < after) != api.Value(in.Descending)) {
			continue
		}
		if len(out.LogStreams) == limit {
			out.NextToken = listToken(last)
			break
		}
		last = d.key
		stream := logs.LogStream{
			Arn: api.Ptr(streamARN(g.Key, d.name)), LogStreamName: &d.name, CreationTime: &d.created,
			// Of streams it has been zero since June 2019, says its reference; a group's is the sum.
			StoredBytes: api.Ptr(int64(0)),
		}
		if i := d.info; i != nil {
			stream.FirstEventTimestamp, stream.LastEventTimestamp, stream.LastIngestionTime = &i.First, &i.Last, &i.LastIngested
			stream.UploadSequenceToken = sequenceToken(i.LastIngested)
		}
		out.LogStreams = append(out.LogStreams, stream)
	}
	return out, nil
}

// list gathers a group's streams and what they hold.
func (s *Service) list(ctx context.Context, g segment.Group, prefix string) ([]described, error) {
	infos, err := s.segments.Streams(ctx, g)
	if err != nil {
		return nil, fromSegments(err)
	}
	holds := map[string]*segment.StreamInfo{}
	for i := range infos {
		holds[infos[i].Stream] = &infos[i]
	}
	var all []described
	err = s.streams.shared(ctx, g, func(created map[string]int64) error {
		for name, at := range created {
			if strings.HasPrefix(name, prefix) {
				all = append(all, described{name: name, created: at, info: holds[name]})
			}
		}
		return nil
	})
	return all, err
}

// sequenceToken is what PutLogEvents answered until it took any: clients of that time hand it back.
func sequenceToken(n int64) *string {
	return api.Ptr("49" + strings.Repeat("0", 34) + fmt.Sprintf("%020s", strconv.FormatInt(n, 10)))
}
