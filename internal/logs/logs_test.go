package logs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	logsapi "github.com/berthhq/berth/api/logs"
)

func outputs(e *logsapi.OutputLogEvent) *string    { return e.Message }
func filtered(e *logsapi.FilteredLogEvent) *string { return e.Message }
func named(s *logsapi.LogStream) *string           { return s.LogStreamName }

// Limits and errors of PutLogEvents, as its reference has them.
func TestPutLogEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.group(t, "/g", "s")
	w.group(t, "/short", "s")
	if _, err := w.PutRetentionPolicy(t.Context(), &logsapi.PutRetentionPolicyInput{LogGroupName: api.Ptr("/short"), RetentionInDays: api.Ptr(int32(1))}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	hour := time.Hour
	at := func(ages ...time.Duration) (events []logsapi.InputLogEvent) {
		for _, age := range ages {
			events = append(events, logsapi.InputLogEvent{Timestamp: api.Ptr(now.Add(-age).UnixMilli()), Message: api.Ptr("m")})
		}
		return events
	}
	fill := func(n int) string { return strings.Repeat("x", n) }
	many := func(n int) []logsapi.InputLogEvent { return at(make([]time.Duration, n)...) }
	index := func(expired, old, fresh int32) *logsapi.RejectedLogEventsInfo {
		info := &logsapi.RejectedLogEventsInfo{}
		if expired > 0 {
			info.ExpiredLogEventEndIndex = &expired
		}
		if old > 0 {
			info.TooOldLogEventEndIndex = &old
		}
		if fresh >= 0 {
			info.TooNewLogEventStartIndex = &fresh
		}
		return info
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		name, group, stream string
		events              []logsapi.InputLogEvent
		rejected            *logsapi.RejectedLogEventsInfo
		code, text          string
	}{
		{name: "plain", events: batch(now, "a", "b")},
		{name: "no group", group: "/none", events: batch(now, "a"), code: "ResourceNotFoundException", text: "The specified log group does not exist."},
		{name: "no stream", stream: "none", events: batch(now, "a"), code: "ResourceNotFoundException", text: "The specified log stream does not exist."},
		{name: "bad group", group: "a b", events: batch(now, "a"), code: "InvalidParameterException", text: "logGroupName"},
		{name: "bad stream", stream: "a:b", events: batch(now, "a"), code: "InvalidParameterException", text: "logStreamName"},
		{name: "none", events: []logsapi.InputLogEvent{}, code: "InvalidParameterException", text: "logEvents"},
		{name: "empty message", events: batch(now, ""), code: "InvalidParameterException", text: "message"},
		{name: "10,000", events: many(10_000)},
		{name: "10,001", events: many(10_001), code: "InvalidParameterException", text: "Member must have length less than or equal to 10000"},
		{name: "1 MiB", events: batch(now, fill(1<<20-26))},
		{name: "1 MiB and 1", events: batch(now, fill(1<<20-25)), code: "InvalidParameterException", text: "Upload too large: 1048577 bytes exceeds limit of 1048576"},
		{name: "1 MiB in two", events: batch(now, fill(1<<19-26), fill(1<<19-26))},
		{name: "1 MiB and 1 in two", events: batch(now, fill(1<<19-26), fill(1<<19-25)), code: "InvalidParameterException", text: "Upload too large"},
		{name: "in disorder", events: at(hour, 2*hour), code: "InvalidParameterException", text: "Log events in a single PutLogEvents request must be in chronological order."},
		{name: "same time", events: at(hour, hour)},
		{name: "24 h", events: at(day, 0)},
		{name: "more than 24 h", events: at(day+time.Millisecond, 0), code: "InvalidParameterException", text: "cannot span more than 24 hours"},
		{name: "too old", events: at(14*day+hour, 14*day+time.Minute, 14*day-hour), rejected: index(0, 2, -1)},
		{name: "all too old", events: at(15*day, 15*day), rejected: index(0, 2, -1)},
		{name: "too new", events: at(0, -hour, -3*hour, -4*hour), rejected: index(0, 0, 2)},
		{name: "expired", group: "/short", events: at(day+hour, day-hour), rejected: index(1, 0, -1)},
	} {
		in := &logsapi.PutLogEventsInput{LogGroupName: api.Ptr("/g"), LogStreamName: api.Ptr("s"), LogEvents: c.events, SequenceToken: api.Ptr("any")}
		if c.group != "" {
			in.LogGroupName = &c.group
		}
		if c.stream != "" {
			in.LogStreamName = &c.stream
		}
		out, err := w.PutLogEvents(t.Context(), in)
		t.Run(c.name, func(t *testing.T) {
			if wantError(t, err, c.code, c.text); err != nil {
				return
			}
			if len(*out.NextSequenceToken) != 56 {
				t.Errorf("sequence token %q", *out.NextSequenceToken)
			}
			if got, want := fmt.Sprint(show(out.RejectedLogEventsInfo)), fmt.Sprint(show(c.rejected)); got != want {
				t.Errorf("rejected %s, want %s", got, want)
			}
		})
	}
	out, err := w.GetLogEvents(t.Context(), &logsapi.GetLogEventsInput{LogGroupName: api.Ptr("/short"), LogStreamName: api.Ptr("s")})
	if err != nil || len(out.Events) != 1 {
		t.Errorf("of a batch with one expired event: %v, %v", err, out)
	}
}

func show(i *logsapi.RejectedLogEventsInfo) []int32 {
	if i == nil {
		return nil
	}
	fresh := int32(-1)
	if i.TooNewLogEventStartIndex != nil {
		fresh = *i.TooNewLogEventStartIndex
	}
	return []int32{api.Value(i.ExpiredLogEventEndIndex), api.Value(i.TooOldLogEventEndIndex), fresh}
}

// A group from its creation to its end.
func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	name := api.Ptr("/ecs/web")
	arn := "arn:aws:logs:eu-central-1:123456789012:log-group:/ecs/web"
	_, err := w.CreateLogGroup(ctx, &logsapi.CreateLogGroupInput{LogGroupName: name, Tags: map[string]string{"a": "1"}})
	wantError(t, err, "", "")
	_, err = w.CreateLogGroup(ctx, &logsapi.CreateLogGroupInput{LogGroupName: name})
	wantError(t, err, "ResourceAlreadyExistsException", "The specified log group already exists")
	_, err = w.CreateLogGroup(ctx, &logsapi.CreateLogGroupInput{LogGroupName: api.Ptr("x"), KmsKeyId: api.Ptr("k")})
	wantError(t, err, "InvalidParameterException", "KMS")
	w.group(t, "/ecs/api", "s1")
	w.group(t, "other")

	_, err = w.PutRetentionPolicy(ctx, &logsapi.PutRetentionPolicyInput{LogGroupName: name, RetentionInDays: api.Ptr(int32(2))})
	wantError(t, err, "InvalidParameterException", "retentionInDays")
	_, err = w.PutRetentionPolicy(ctx, &logsapi.PutRetentionPolicyInput{LogGroupName: name, RetentionInDays: api.Ptr(int32(7))})
	wantError(t, err, "", "")
	_, err = w.TagResource(ctx, &logsapi.TagResourceInput{ResourceArn: &arn, Tags: map[string]string{"b": "2"}})
	wantError(t, err, "", "")
	//lint:ignore SA1019 older clients call it
	_, err = w.UntagLogGroup(ctx, &logsapi.UntagLogGroupInput{LogGroupName: name, Tags: []string{"a"}})
	wantError(t, err, "", "")
	//lint:ignore SA1019 likewise
	_, err = w.TagLogGroup(ctx, &logsapi.TagLogGroupInput{LogGroupName: name, Tags: map[string]string{"aws:x": "2"}})
	wantError(t, err, "InvalidParameterException", "aws:")
	tags, err := w.ListTagsForResource(ctx, &logsapi.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil || fmt.Sprint(tags.Tags) != "map[b:2]" {
		t.Errorf("%v, %v", err, tags)
	}

	out, err := w.DescribeLogGroups(ctx, &logsapi.DescribeLogGroupsInput{LogGroupNamePrefix: api.Ptr("/ecs/"), Limit: api.Ptr(int32(1))})
	if err != nil || len(out.LogGroups) != 1 || *out.LogGroups[0].LogGroupName != "/ecs/api" || out.NextToken == nil {
		t.Fatalf("%v, %+v", err, out)
	}
	out, err = w.DescribeLogGroups(ctx, &logsapi.DescribeLogGroupsInput{LogGroupNamePrefix: api.Ptr("/ecs/"), NextToken: out.NextToken})
	if err != nil || len(out.LogGroups) != 1 || out.NextToken != nil {
		t.Fatalf("%v, %+v", err, out)
	}
	g := out.LogGroups[0]
	if *g.Arn != arn+":*" || *g.LogGroupArn != arn || *g.RetentionInDays != 7 || g.LogGroupClass != "STANDARD" || *g.StoredBytes != 0 ||
		time.Since(time.UnixMilli(*g.CreationTime)) > time.Minute {
		t.Errorf("%+v", g)
	}
	out, err = w.DescribeLogGroups(ctx, &logsapi.DescribeLogGroupsInput{LogGroupNamePattern: api.Ptr("the")})
	if err != nil || len(out.LogGroups) != 1 || *out.LogGroups[0].LogGroupName != "other" {
		t.Errorf("%v, %+v", err, out)
	}
	_, err = w.DescribeLogGroups(ctx, &logsapi.DescribeLogGroupsInput{NextToken: api.Ptr("x")})
	wantError(t, err, "InvalidParameterException", "nextToken")

	// Who makes the group again finds nothing of the old one in it, also after a restart.
	w.put(t, "/ecs/api", "s1", time.Now(), "old")
	for _, again := range []bool{false, true} {
		_, err = w.DeleteLogGroup(ctx, &logsapi.DeleteLogGroupInput{LogGroupName: api.Ptr("/ecs/api")})
		wantError(t, err, "", "")
		_, err = w.DescribeLogStreams(ctx, &logsapi.DescribeLogStreamsInput{LogGroupName: api.Ptr("/ecs/api")})
		wantError(t, err, "ResourceNotFoundException", "log group")
		w.group(t, "/ecs/api")
		if again {
			w.open(t)
		}
		streams, err := w.DescribeLogStreams(ctx, &logsapi.DescribeLogStreamsInput{LogGroupIdentifier: api.Ptr("arn:aws:logs:eu-central-1:123456789012:log-group:/ecs/api")})
		if err != nil || len(streams.LogStreams) != 0 {
			t.Errorf("%v, %+v", err, streams)
		}
		events, err := w.FilterLogEvents(ctx, &logsapi.FilterLogEventsInput{LogGroupName: api.Ptr("/ecs/api")})
		if err != nil || len(events.Events) != 0 {
			t.Errorf("%v, %+v", err, events)
		}
	}
	_, err = w.PutLogGroupDeletionProtection(ctx, &logsapi.PutLogGroupDeletionProtectionInput{LogGroupIdentifier: name, DeletionProtectionEnabled: api.Ptr(true)})
	wantError(t, err, "", "")
	_, err = w.DeleteLogGroup(ctx, &logsapi.DeleteLogGroupInput{LogGroupName: name})
	wantError(t, err, "ValidationException", "protection")
	if err := w.service.Clear(ctx, account); err != nil {
		t.Error(err)
	}
	if out, err := w.ListLogGroups(ctx, &logsapi.ListLogGroupsInput{}); err != nil || len(out.LogGroups) != 0 {
		t.Errorf("after Clear: %v, %+v", err, out)
	}
	_, err = w.StartQuery(ctx, &logsapi.StartQueryInput{StartTime: api.Ptr(int64(0)), EndTime: api.Ptr(int64(0)), QueryString: api.Ptr("fields @message")})
	if err == nil {
		t.Error("StartQuery without a group")
	}
}

// Streams are listed by name or by their last event, empty ones too, and outlive a restart.
func TestStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	g := api.Ptr("g")
	w.group(t, "g", "b", "a/1", "a/2", "c")
	_, err := w.CreateLogStream(ctx, &logsapi.CreateLogStreamInput{LogGroupName: g, LogStreamName: api.Ptr("b")})
	wantError(t, err, "ResourceAlreadyExistsException", "The specified log stream already exists")
	_, err = w.CreateLogStream(ctx, &logsapi.CreateLogStreamInput{LogGroupName: api.Ptr("none"), LogStreamName: api.Ptr("b")})
	wantError(t, err, "ResourceNotFoundException", "The specified log group does not exist.")
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	w.put(t, "g", "c", at, "1", "2")
	w.put(t, "g", "a/2", at.Add(time.Minute), "1")
	all := func(in logsapi.DescribeLogStreamsInput) (names []string) {
		in.LogGroupName = g
		for range 10 {
			out, err := w.DescribeLogStreams(ctx, &in)
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, messages(out.LogStreams, named)...); out.NextToken == nil {
				return names
			}
			in.NextToken = out.NextToken
		}
		t.Fatal("no end of pages")
		return nil
	}
	for range 2 {
		for _, c := range []struct {
			in   logsapi.DescribeLogStreamsInput
			want []string
		}{
			{logsapi.DescribeLogStreamsInput{}, []string{"a/1", "a/2", "b", "c"}},
			{logsapi.DescribeLogStreamsInput{Limit: api.Ptr(int32(1)), Descending: api.Ptr(true)}, []string{"c", "b", "a/2", "a/1"}},
			{logsapi.DescribeLogStreamsInput{LogStreamNamePrefix: api.Ptr("a/")}, []string{"a/1", "a/2"}},
			{logsapi.DescribeLogStreamsInput{OrderBy: "LastEventTime", Descending: api.Ptr(true), Limit: api.Ptr(int32(3))}, []string{"a/2", "c", "b", "a/1"}},
			{logsapi.DescribeLogStreamsInput{OrderBy: "LastEventTime", Limit: api.Ptr(int32(1))}, []string{"a/1", "b", "c", "a/2"}},
		} {
			if got := all(c.in); !slices.Equal(got, c.want) {
				t.Errorf("%+v: %q, want %q", c.in, got, c.want)
			}
		}
		w.open(t)
	}
	out, err := w.DescribeLogStreams(ctx, &logsapi.DescribeLogStreamsInput{LogGroupName: g, LogStreamNamePrefix: api.Ptr("c")})
	if err != nil {
		t.Fatal(err)
	}
	s := out.LogStreams[0]
	if *s.Arn != "arn:aws:logs:eu-central-1:123456789012:log-group:g:log-stream:c" || *s.FirstEventTimestamp != at.UnixMilli() ||
		*s.LastEventTimestamp != at.UnixMilli()+1 || *s.StoredBytes != 0 || *s.LastIngestionTime < *s.LastEventTimestamp {
		t.Errorf("%+v", s)
	}
	_, err = w.DescribeLogStreams(ctx, &logsapi.DescribeLogStreamsInput{LogGroupName: g, LogStreamNamePrefix: api.Ptr("c"), OrderBy: "LastEventTime"})
	wantError(t, err, "InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
	_, err = w.DeleteLogStream(ctx, &logsapi.DeleteLogStreamInput{LogGroupName: g, LogStreamName: api.Ptr("c")})
	wantError(t, err, "", "")
	_, err = w.DeleteLogStream(ctx, &logsapi.DeleteLogStreamInput{LogGroupName: g, LogStreamName: api.Ptr("c")})
	wantError(t, err, "ResourceNotFoundException", "The specified log stream does not exist.")
	_, err = w.GetLogEvents(ctx, &logsapi.GetLogEventsInput{LogGroupName: g, LogStreamName: api.Ptr("c")})
	wantError(t, err, "ResourceNotFoundException", "The specified log stream does not exist.")
	w.open(t)
	if got := all(logsapi.DescribeLogStreamsInput{}); !slices.Equal(got, []string{"a/1", "a/2", "b"}) {
		t.Errorf("after a delete and a restart: %q", got)
	}
	_, err = w.CreateLogStream(ctx, &logsapi.CreateLogStreamInput{LogGroupName: g, LogStreamName: api.Ptr("c")})
	wantError(t, err, "", "")
	if out, err := w.GetLogEvents(ctx, &logsapi.GetLogEventsInput{LogGroupName: g, LogStreamName: api.Ptr("c")}); err != nil || len(out.Events) != 0 {
		t.Errorf("made again it holds %v, %v", out, err)
	}
}

// The tokens of GetLogEvents at both ends, and reading on when events come.
func TestReadOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.group(t, "g", "s")
	get := func(in logsapi.GetLogEventsInput) *logsapi.GetLogEventsOutput {
		in.LogGroupName, in.LogStreamName = api.Ptr("g"), api.Ptr("s")
		out, err := w.GetLogEvents(t.Context(), &in)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	empty := get(logsapi.GetLogEventsInput{StartFromHead: api.Ptr(true)})
	at := time.Now().Add(-time.Minute)
	w.put(t, "g", "s", at, "1", "2", "3", "4", "5")
	for _, c := range []struct {
		in   logsapi.GetLogEventsInput
		want string
	}{
		{logsapi.GetLogEventsInput{}, "[1 2 3 4 5]"},
		{logsapi.GetLogEventsInput{Limit: api.Ptr(int32(2))}, "[4 5]"},
		{logsapi.GetLogEventsInput{Limit: api.Ptr(int32(2)), StartFromHead: api.Ptr(true)}, "[1 2]"},
		{logsapi.GetLogEventsInput{NextToken: empty.NextForwardToken, StartFromHead: api.Ptr(true)}, "[1 2 3 4 5]"},
		{logsapi.GetLogEventsInput{StartTime: api.Ptr(at.UnixMilli() + 1), EndTime: api.Ptr(at.UnixMilli() + 3)}, "[2 3]"},
		{logsapi.GetLogEventsInput{StartTime: api.Ptr(at.UnixMilli() + 3), EndTime: api.Ptr(at.UnixMilli() + 1)}, "[]"},
		{logsapi.GetLogEventsInput{EndTime: api.Ptr(int64(0))}, "[]"},
	} {
		if got := fmt.Sprint(messages(get(c.in).Events, outputs)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.in, got, c.want)
		}
	}
	page := get(logsapi.GetLogEventsInput{})
	end := get(logsapi.GetLogEventsInput{NextToken: page.NextForwardToken})
	if len(end.Events) != 0 || *end.NextForwardToken != *page.NextForwardToken {
		t.Errorf("at the end: %+v", end)
	}
	head := get(logsapi.GetLogEventsInput{NextToken: page.NextBackwardToken})
	if len(head.Events) != 0 || *head.NextBackwardToken != *page.NextBackwardToken {
		t.Errorf("at the head: %+v", head)
	}
	w.put(t, "g", "s", time.Now(), "6")
	if got := get(logsapi.GetLogEventsInput{NextToken: end.NextForwardToken}); fmt.Sprint(messages(got.Events, outputs)) != "[6]" {
		t.Errorf("later: %+v", got)
	}
	for _, token := range []string{"x", "f/1/s", "g/" + strings.Repeat("0", 40) + "/s", "f/" + strings.Repeat("0", 40) + "/e"} {
		_, err := w.GetLogEvents(t.Context(), &logsapi.GetLogEventsInput{LogGroupName: api.Ptr("g"), LogStreamName: api.Ptr("s"), NextToken: &token})
		wantError(t, err, "InvalidParameterException", "The specified nextToken is invalid.")
	}
	// A megabyte ends a page.
	for range 3 {
		w.put(t, "g", "s", time.Now(), strings.Repeat("x", 600<<10))
	}
	if n := len(get(logsapi.GetLogEventsInput{}).Events); n != 1 {
		t.Errorf("%d events of 600 KiB in a page", n)
	}
}

func TestFilterLogEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.group(t, "g", "web/1", "web/2", "db")
	at := time.Now().Add(-time.Minute)
	w.put(t, "g", "web/1", at, "ERROR one", "info two", `{"level":"error","n":7}`)
	w.put(t, "g", "web/2", at, "ERROR three")
	w.put(t, "g", "db", at.Add(time.Second), "ERROR four", "slow query")
	for _, c := range []struct {
		in   logsapi.FilterLogEventsInput
		want []string
	}{
		{logsapi.FilterLogEventsInput{FilterPattern: api.Ptr("ERROR")}, []string{"ERROR one", "ERROR three", "ERROR four"}},
		{logsapi.FilterLogEventsInput{FilterPattern: api.Ptr("ERROR"), Limit: api.Ptr(int32(1))}, []string{"ERROR one"}},
		{logsapi.FilterLogEventsInput{FilterPattern: api.Ptr("ERROR -three"), LogStreamNamePrefix: api.Ptr("web/")}, []string{"ERROR one"}},
		{logsapi.FilterLogEventsInput{FilterPattern: api.Ptr(`{ $.level = "error" && $.n > 5 }`)}, []string{`{"level":"error","n":7}`}},
		{logsapi.FilterLogEventsInput{LogStreamNames: []string{"db"}}, []string{"ERROR four", "slow query"}},
		{logsapi.FilterLogEventsInput{StartTime: api.Ptr(at.UnixMilli() + 1), EndTime: api.Ptr(at.UnixMilli() + 1)}, []string{"info two"}},
		{logsapi.FilterLogEventsInput{FilterPattern: api.Ptr("nothing")}, nil},
	} {
		c.in.LogGroupIdentifier = api.Ptr("g")
		out, err := w.FilterLogEvents(t.Context(), &c.in)
		if err != nil || !slices.Equal(messages(out.Events, filtered), c.want) || len(out.SearchedLogStreams) != 0 || (c.in.Limit != nil) != (out.NextToken != nil) {
			t.Errorf("%+v: %v, %+v, want %q", c.in, err, out, c.want)
		}
	}
	for _, c := range []struct {
		in         logsapi.FilterLogEventsInput
		code, text string
	}{
		{logsapi.FilterLogEventsInput{FilterPattern: api.Ptr("{ $.a")}, "InvalidParameterException", ""},
		{logsapi.FilterLogEventsInput{LogStreamNames: []string{"none"}}, "ResourceNotFoundException", "log stream"},
		{logsapi.FilterLogEventsInput{LogStreamNames: []string{"db"}, LogStreamNamePrefix: api.Ptr("web")}, "InvalidParameterException", "mutually exclusive"},
		{logsapi.FilterLogEventsInput{NextToken: api.Ptr("x")}, "InvalidParameterException", "nextToken"},
		{logsapi.FilterLogEventsInput{LogGroupIdentifier: api.Ptr("g")}, "InvalidParameterException", "mutually exclusive"},
	} {
		c.in.LogGroupName = api.Ptr("g")
		_, err := w.FilterLogEvents(t.Context(), &c.in)
		wantError(t, err, c.code, c.text)
	}
	_, err := w.FilterLogEvents(t.Context(), &logsapi.FilterLogEventsInput{})
	wantError(t, err, "InvalidParameterException", "required")
}

func TestMetricFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.group(t, "g")
	metric := func(value string) []logsapi.MetricTransformation {
		return []logsapi.MetricTransformation{{MetricName: api.Ptr("m"), MetricNamespace: api.Ptr("n"), MetricValue: &value}}
	}
	for _, c := range []struct{ group, name, pattern, value, code, text string }{
		{"g", "a", "ERROR", "1", "", ""},
		{"g", "a", "[ip, size]", "$size", "", ""},
		{"g", "b", "{ $.n > 1 }", "$.n", "", ""},
		{"g", "c", "ERROR", "$size", "InvalidParameterException", "not in the filter pattern"},
		{"g", "c", "ERROR", "x", "InvalidParameterException", "must be a number"},
		{"g", "c", "[a", "1", "InvalidParameterException", ""},
		{"none", "c", "ERROR", "1", "ResourceNotFoundException", "log group"},
	} {
		_, err := w.PutMetricFilter(ctx, &logsapi.PutMetricFilterInput{LogGroupName: &c.group, FilterName: &c.name, FilterPattern: &c.pattern, MetricTransformations: metric(c.value)})
		wantError(t, err, c.code, c.text)
	}
	out, err := w.DescribeMetricFilters(ctx, &logsapi.DescribeMetricFiltersInput{LogGroupName: api.Ptr("g"), FilterNamePrefix: api.Ptr("a")})
	if err != nil || len(out.MetricFilters) != 1 || *out.MetricFilters[0].FilterPattern != "[ip, size]" {
		t.Errorf("%v, %+v", err, out)
	}
	out, err = w.DescribeMetricFilters(ctx, &logsapi.DescribeMetricFiltersInput{MetricName: api.Ptr("m"), MetricNamespace: api.Ptr("n"), Limit: api.Ptr(int32(1))})
	if err != nil || len(out.MetricFilters) != 1 || out.NextToken == nil {
		t.Errorf("%v, %+v", err, out)
	}
	_, err = w.DeleteMetricFilter(ctx, &logsapi.DeleteMetricFilterInput{LogGroupName: api.Ptr("g"), FilterName: api.Ptr("b")})
	wantError(t, err, "", "")
	_, err = w.DeleteMetricFilter(ctx, &logsapi.DeleteMetricFilterInput{LogGroupName: api.Ptr("g"), FilterName: api.Ptr("b")})
	wantError(t, err, "ResourceNotFoundException", "The specified metric filter does not exist.")
	if _, err = w.DeleteLogGroup(ctx, &logsapi.DeleteLogGroupInput{LogGroupName: api.Ptr("g")}); err != nil {
		t.Fatal(err)
	}
	if out, err = w.DescribeMetricFilters(ctx, &logsapi.DescribeMetricFiltersInput{}); err != nil || len(out.MetricFilters) != 0 {
		t.Errorf("of a group that is gone: %v, %+v", err, out)
	}
	test, err := w.TestMetricFilter(ctx, &logsapi.TestMetricFilterInput{FilterPattern: api.Ptr("[ip, size > 5]"), LogEventMessages: []string{"a 1", "b 9"}})
	if err != nil || len(test.Matches) != 1 || *test.Matches[0].EventNumber != 2 || test.Matches[0].ExtractedValues["$size"] != "9" {
		t.Errorf("%v, %+v", err, test)
	}
}
