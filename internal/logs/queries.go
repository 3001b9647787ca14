package logs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/logs/insights"
	"github.com/berthhq/berth/internal/logs/segment"
	"github.com/berthhq/berth/internal/store"
)

// Limits of queries. Their results are in memory: they end with the process, and the oldest go when there
// are many.
const (
	maxQueryGroups = 50
	queriesAtOnce  = 2        // others are Scheduled
	queriesWaiting = 100      // then LimitExceededException
	queriesKept    = 200      // that have ended
	queryMemory    = 64 << 20 // bytes of what one may hold
	queryTime      = 15 * time.Minute
)

// query is one that was started.
type query struct {
	id        string
	scope     store.Scope
	by        string // ARN
	groups    []string
	text      string
	createdAt time.Time
	cancel    context.CancelFunc
	execution *insights.Execution

	mu     sync.Mutex
	status logs.QueryStatus
	took   time.Duration
	result *insights.Result // when it has ended
}

// queries runs them, a few at a time.
type queries struct {
	ctx     context.Context
	stop    context.CancelFunc
	slots   chan struct{}
	running sync.WaitGroup

	mu   sync.Mutex
	list []*query // in the order of their start
}

func newQueries() *queries {
	q := &queries{slots: make(chan struct{}, queriesAtOnce)}
	q.ctx, q.stop = context.WithCancel(context.Background())
	return q
}

// Close ends queries that are under way.
func (s *Service) Close() {
	s.queries.mu.Lock()
	s.queries.stop()
	s.queries.mu.Unlock()
	s.queries.running.Wait()
}

func (q *query) ended() bool {
	switch q.state() {
	case logs.QueryStatusScheduled, logs.QueryStatusRunning:
		return false
	}
	return true
}

func (q *query) state() logs.QueryStatus {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.status
}

// end says how it ended; the first to say so is right.
func (q *query) end(status logs.QueryStatus) bool {
	q.mu.Lock()
	execution := q.execution
	q.mu.Unlock()
	if execution == nil {
		return false
	}
	result := execution.Result() // without the lock: it may sort
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.result != nil {
		return false
	}
	q.status, q.took, q.result, q.execution = status, time.Since(q.createdAt), &result, nil
	return true
}

// add takes a query in, if there are not too many, and forgets the oldest that have ended.
func (qs *queries) add(q *query) error {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if qs.ctx.Err() != nil {
		return &logs.ServiceUnavailableException{Message: "The service cannot complete the request."}
	}
	ended := 0
	for _, other := range qs.list {
		if other.ended() {
			ended++
		}
	}
	if len(qs.list)-ended >= queriesWaiting {
		return &logs.LimitExceededException{Message: fmt.Sprintf("LogGroup query concurrency limit of %d is exceeded.", queriesWaiting)}
	}
	qs.list = slices.DeleteFunc(qs.list, func(other *query) bool {
		if ended > queriesKept && other.ended() {
			ended--
			return true
		}
		return false
	})
	qs.list = append(qs.list, q)
	qs.running.Add(1)
	return nil
}

// query finds one of the caller's.
func (s *Service) query(ctx context.Context, id *string) (*query, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	s.queries.mu.Lock()
	defer s.queries.mu.Unlock()
	for _, q := range s.queries.list {
		if q.id == api.Value(id) && q.scope == sc {
			return q, nil
		}
	}
	return nil, &logs.ResourceNotFoundException{Message: "The specified query does not exist."}
}

// millis reads a time of a query: seconds since 1970, or milliseconds, which the service takes as well.
func millis(t int64) int64 {
	if t < 100_000_000_000 {
		return t * 1000
	}
	return t
}

// StartQuery starts a query over groups, and answers its ID.
func (s *Service) StartQuery(ctx context.Context, in *logs.StartQueryInput) (*logs.StartQueryOutput, error) {
	by, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	sc := store.Scope{Account: by.AccountID, Region: by.Region}
	if in.QueryLanguage != "" && in.QueryLanguage != logs.QueryLanguageCwli {
		return nil, invalid("Berth runs queries in the query language of Logs Insights, CWLI, and not in %s.", in.QueryLanguage)
	}
	groups, err := s.queried(sc, in)
	if err != nil {
		return nil, err
	}
	parsed, err := insights.Parse(*in.QueryString)
	if err != nil {
		return nil, malformed(err)
	}
	from, to := millis(*in.StartTime), millis(*in.EndTime)
	if from > to {
		return nil, invalid("The start time of a query must not be after its end time.")
	}
	if to == *in.EndTime*1000 {
		to += 999 // all of that second
	}
	q := &query{
		id: uuid.NewString(), scope: sc, by: by.ARN, groups: groups, text: *in.QueryString, createdAt: time.Now(), status: logs.QueryStatusScheduled,
		execution: parsed.Start(insights.Options{From: from, To: to, Limit: int(min(api.Value(in.Limit), insights.MaxLimit)), MaxMemory: queryMemory, Now: now()}),
	}
	running, cancel := context.WithTimeout(s.queries.ctx, queryTime)
	q.cancel = cancel
	if err := s.queries.add(q); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer s.queries.running.Done()
		defer cancel()
		s.runQuery(running, q, parsed, from, to)
	}()
	return &logs.StartQueryOutput{QueryId: &q.id}, nil
}

// queried reads which groups a query is about.
func (s *Service) queried(sc store.Scope, in *logs.StartQueryInput) ([]string, error) {
	ways := 0
	var refs []string
	if in.LogGroupName != nil {
		ways, refs = ways+1, []string{*in.LogGroupName}
	}
	for _, list := range [][]string{in.LogGroupNames, in.LogGroupIdentifiers} {
		if list != nil {
			ways, refs = ways+1, list
		}
	}
	if ways != 1 || len(refs) == 0 || len(refs) > maxQueryGroups {
		return nil, invalid("A query must name 1 to %d log groups, in one of logGroupName, logGroupNames and logGroupIdentifiers.", maxQueryGroups)
	}
	var names []string
	for _, ref := range refs {
		name, ok := groupRef(sc, ref)
		if !ok {
			return nil, noGroup()
		}
		if _, err := findGroup(s.store.Snapshot(), sc, name); err != nil {
			return nil, err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func malformed(err error) error {
	at := &logs.QueryCompileErrorLocation{}
	wrong, missing := (*insights.Error)(nil), (*insights.UnsupportedError)(nil)
	switch {
	case errors.As(err, &wrong):
		at.StartCharOffset, at.EndCharOffset = api.Ptr(int32(wrong.Start)), api.Ptr(int32(wrong.End))
	case errors.As(err, &missing):
		at.StartCharOffset, at.EndCharOffset = api.Ptr(int32(missing.Start)), api.Ptr(int32(missing.End))
	}
	return &logs.MalformedQueryException{Message: err.Error(),
		QueryCompileError: &logs.QueryCompileError{Message: api.Ptr(err.Error()), Location: at}}
}

// runQuery feeds a query with what its groups hold.
func (s *Service) runQuery(ctx context.Context, q *query, parsed *insights.Query, from, to int64) {
	err := func() error {
		select {
		case s.queries.slots <- struct{}{}:
			defer func() { <-s.queries.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
		q.mu.Lock()
		execution := q.execution
		if q.result == nil {
			q.status = logs.QueryStatusRunning
		}
		q.mu.Unlock()
		if execution == nil {
			return nil
		}
		var terms []segment.Term
		for _, t := range parsed.Terms() {
			terms = append(terms, segment.Term{Text: t})
		}
		for _, name := range q.groups {
			row, err := findGroup(s.store.Snapshot(), q.scope, name)
			if err != nil {
				continue // deleted meanwhile
			}
			var full error
			err = s.segments.Scan(ctx, inSegments(row.Key), segment.ScanOptions{From: row.Value.from(&from), To: to + 1, Terms: terms}, func(e segment.Event) bool {
				full = execution.Add(insights.Event{
					Timestamp: e.ID.Timestamp, IngestionTime: e.IngestedAt, Message: string(e.Message), Stream: e.Stream,
					Log: q.scope.Account + ":" + name, Ptr: pointer(name, e.ID),
				})
				return full == nil
			})
			if err = errors.Join(err, full); err != nil {
				return err
			}
		}
		return nil
	}()
	switch {
	case err == nil:
		q.end(logs.QueryStatusComplete)
	case errors.Is(err, context.DeadlineExceeded):
		q.end(logs.QueryStatusTimeout)
	case ctx.Err() != nil:
		q.end(logs.QueryStatusCancelled)
	default:
		if q.end(logs.QueryStatusFailed) {
			s.log.Warn("a query failed", "query", q.id, "error", err)
		}
	}
}

// GetQueryResults answers what a query found so far.
func (s *Service) GetQueryResults(ctx context.Context, in *logs.GetQueryResultsInput) (*logs.GetQueryResultsOutput, error) {
	q, err := s.query(ctx, in.QueryId)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	status, result, execution := q.status, q.result, q.execution
	q.mu.Unlock()
	if result == nil {
		partial := execution.Result()
		result = &partial
	}
	out := &logs.GetQueryResultsOutput{QueryLanguage: logs.QueryLanguageCwli, Status: status, Results: [][]logs.ResultField{}}
	st := result.Statistics
	out.Statistics = &logs.QueryStatistics{
		RecordsMatched: api.Ptr(float64(st.RecordsMatched)), RecordsScanned: api.Ptr(float64(st.RecordsScanned)), BytesScanned: api.Ptr(float64(st.BytesScanned)),
		EstimatedRecordsSkipped: api.Ptr(0.0), EstimatedBytesSkipped: api.Ptr(0.0), LogGroupsScanned: api.Ptr(float64(len(q.groups))),
	}
	rows := result.Rows
	if in.NextToken != nil {
		after, err := readListToken(in.NextToken)
		n, bad := strconv.Atoi(after)
		if err != nil || bad != nil || n < 0 || n > len(rows) {
			return nil, invalid("The specified nextToken is invalid.")
		}
		rows = rows[n:]
	}
	if n := int(api.Value(in.MaxItems)); n > 0 && n < len(rows) {
		if status == logs.QueryStatusComplete {
			out.NextToken = listToken(strconv.Itoa(len(result.Rows) - len(rows) + n))
		}
		rows = rows[:n]
	}
	for _, row := range rows {
		fields := make([]logs.ResultField, len(row))
		for i, f := range row {
			fields[i] = logs.ResultField{Field: &f.Name, Value: &f.Value}
		}
		out.Results = append(out.Results, fields)
	}
	return out, nil
}

// StopQuery ends a query. What it found so far stays.
func (s *Service) StopQuery(ctx context.Context, in *logs.StopQueryInput) (*logs.StopQueryOutput, error) {
	q, err := s.query(ctx, in.QueryId)
	if err != nil {
		return nil, err
	}
	if q.ended() || !q.stop() {
		return nil, invalid("The specified query is not running.")
	}
	return &logs.StopQueryOutput{Success: api.Ptr(true)}, nil
}

// DescribeQueries lists queries, the latest first.
func (s *Service) DescribeQueries(ctx context.Context, in *logs.DescribeQueriesInput) (*logs.DescribeQueriesOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	after, err := readListToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := 1000
	if in.MaxResults != nil {
		limit = int(*in.MaxResults)
	}
	s.queries.mu.Lock()
	list := slices.Clone(s.queries.list)
	s.queries.mu.Unlock()
	slices.Reverse(list)
	if after != "" {
		i := slices.IndexFunc(list, func(q *query) bool { return q.id == after })
		if i < 0 {
			return nil, invalid("The specified nextToken is invalid.")
		}
		list = list[i+1:]
	}
	out := &logs.DescribeQueriesOutput{Queries: []logs.QueryInfo{}}
	for _, q := range list {
		q.mu.Lock()
		status, took, result := q.status, q.took, q.result
		q.mu.Unlock()
		if q.scope != sc || in.Status != "" && in.Status != status || in.LogGroupName != nil && !slices.Contains(q.groups, *in.LogGroupName) ||
			in.QueryLanguage != "" && in.QueryLanguage != logs.QueryLanguageCwli {
			continue
		}
		if len(out.Queries) == limit {
			out.NextToken = listToken(*out.Queries[limit-1].QueryId)
			break
		}
		info := logs.QueryInfo{QueryId: &q.id, QueryString: &q.text, Status: status, QueryLanguage: logs.QueryLanguageCwli,
			CreateTime: api.Ptr(q.createdAt.UnixMilli()), LogGroupName: &q.groups[0], UserIdentity: &q.by}
		if result != nil {
			info.QueryDuration, info.BytesScanned = api.Ptr(took.Milliseconds()), api.Ptr(float64(result.Statistics.BytesScanned))
		}
		out.Queries = append(out.Queries, info)
	}
	return out, nil
}

// stop ends a query that has not ended; false says that it had.
func (q *query) stop() bool {
	defer q.cancel()
	return q.end(logs.QueryStatusCancelled)
}

// pointer is what @ptr of an event is.
func pointer(group string, id segment.ID) string { return *listToken(group + ":" + id.String()) }
