package logs_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	logsapi "github.com/berthhq/berth/api/logs"
)

// query runs a query to its end.
func (w *world) query(t testing.TB, in *logsapi.StartQueryInput) *logsapi.GetQueryResultsOutput {
	t.Helper()
	started, err := w.StartQuery(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for t.Context().Err() == nil {
		out, err := w.GetQueryResults(t.Context(), &logsapi.GetQueryResultsInput{QueryId: started.QueryId})
		if err != nil {
			t.Fatal(err)
		}
		if out.Status != "Scheduled" && out.Status != "Running" {
			return out
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal(t.Context().Err())
	return nil
}

func TestQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.group(t, "a", "s")
	w.group(t, "b", "s")
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	w.put(t, "a", "s", at, `{"level":"error","ms":10}`, `{"level":"info","ms":20}`)
	w.put(t, "b", "s", at, `{"level":"error","ms":30}`)
	in := func(text string, groups ...string) *logsapi.StartQueryInput {
		return &logsapi.StartQueryInput{LogGroupNames: groups, QueryString: &text, StartTime: api.Ptr(at.Unix()), EndTime: api.Ptr(at.Unix())}
	}
	out := w.query(t, in("filter level = 'error' | stats sum(ms) as total by level", "a", "b"))
	if out.Status != "Complete" || len(out.Results) != 1 || *out.Results[0][1].Field != "total" || *out.Results[0][1].Value != "40" ||
		*out.Statistics.RecordsMatched != 2 || *out.Statistics.LogGroupsScanned != 2 {
		t.Errorf("%+v %+v", out, out.Statistics)
	}
	out = w.query(t, in("fields @message, @log | sort @timestamp asc | limit 1", "a"))
	if len(out.Results) != 1 || *out.Results[0][0].Value != `{"level":"error","ms":10}` || *out.Results[0][1].Value != account+":a" || *out.Results[0][2].Field != "@ptr" {
		t.Errorf("%+v", out)
	}
	past := in("fields @message", "a")
	past.StartTime, past.EndTime = api.Ptr(at.UnixMilli()-2), api.Ptr(at.UnixMilli()-1)
	if out = w.query(t, past); len(out.Results) != 0 {
		t.Errorf("of another time: %+v", out)
	}
	for _, c := range []struct {
		in         *logsapi.StartQueryInput
		code, text string
	}{
		{in("fields @message", "none"), "ResourceNotFoundException", "log group"},
		{in("fields @message"), "InvalidParameterException", "log groups"},
		{in("nonsense @message", "a"), "MalformedQueryException", ""},
		{&logsapi.StartQueryInput{LogGroupName: api.Ptr("a"), QueryString: api.Ptr("fields @message"), StartTime: api.Ptr(int64(2)), EndTime: api.Ptr(int64(1))}, "InvalidParameterException", "start time"},
		{&logsapi.StartQueryInput{LogGroupName: api.Ptr("a"), QueryLanguage: "SQL", QueryString: api.Ptr("x"), StartTime: api.Ptr(int64(1)), EndTime: api.Ptr(int64(1))}, "InvalidParameterException", "SQL"},
	} {
		_, err := w.StartQuery(ctx, c.in)
		wantError(t, err, c.code, c.text)
	}
	list, err := w.DescribeQueries(ctx, &logsapi.DescribeQueriesInput{LogGroupName: api.Ptr("a"), MaxResults: api.Ptr(int32(2))})
	if err != nil || len(list.Queries) != 2 || list.NextToken == nil || *list.Queries[0].QueryString != "fields @message" {
		t.Errorf("%v, %+v", err, list)
	}
	list, err = w.DescribeQueries(ctx, &logsapi.DescribeQueriesInput{LogGroupName: api.Ptr("a"), NextToken: list.NextToken})
	if err != nil || len(list.Queries) != 1 {
		t.Errorf("%v, %+v", err, list)
	}
	_, err = w.StopQuery(ctx, &logsapi.StopQueryInput{QueryId: list.Queries[0].QueryId})
	wantError(t, err, "InvalidParameterException", "not running")
	_, err = w.GetQueryResults(ctx, &logsapi.GetQueryResultsInput{QueryId: api.Ptr("none")})
	wantError(t, err, "ResourceNotFoundException", "query")
	page, err := w.GetQueryResults(ctx, &logsapi.GetQueryResultsInput{QueryId: api.Ptr(*w.all(t, at).QueryId), MaxItems: api.Ptr(int32(1))})
	if err != nil || len(page.Results) > 1 {
		t.Errorf("%v, %s", err, fmt.Sprint(page))
	}
}

// all starts a query for everything.
func (w *world) all(t testing.TB, at time.Time) *logsapi.StartQueryOutput {
	t.Helper()
	out, err := w.StartQuery(t.Context(), &logsapi.StartQueryInput{LogGroupName: api.Ptr("a"), QueryString: api.Ptr("fields @message"),
		StartTime: api.Ptr(at.Unix()), EndTime: api.Ptr(at.Unix())})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
