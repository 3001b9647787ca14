package insights

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

func mustParse(t testing.TB, query string) *Query {
	t.Helper()
	q, err := Parse(query)
	if err != nil {
		t.Fatalf("Parse(%q): %v", query, err)
	}
	return q
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 1000)
	for query, tooMuch := range map[string]bool{
		"fields @message | sort @message | limit 10":       false, // the best ten
		"stats count(*) by strlen(@message)":               false, // one group
		"stats count_distinct(concat(@message, @ptr))":     true,  // exact up to 16,384 texts
		"stats pct(toMillis(@timestamp), 90)":              false, // counts of buckets
		"fields @ptr | dedup @ptr":                         true,
		"stats count(*) by @ptr":                           true,
		"sort @timestamp | filter strlen(@message) > 5000": true, // any row can matter to the filter
	} {
		q := mustParse(t, query)
		x := q.Start(Options{MaxMemory: 1 << 20, Limit: 100})
		var err error
		for i := range 20_000 {
			if err = x.Add(Event{Timestamp: int64(i), Message: big, Ptr: fmt.Sprint(i)}); err != nil {
				break
			}
		}
		if tooMuch != errors.Is(err, ErrMemory) {
			t.Errorf("%s: %v", query, err)
		}
		if tooMuch && !errors.Is(x.Add(Event{Timestamp: 1, Message: "x", Ptr: "another"}), ErrMemory) {
			t.Errorf("%s takes events after it ran out of memory", query)
		}
	}
}

// TestTextsDoNotExplode doubles a text a hundred times.
func TestTextsDoNotExplode(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("fields concat(@message, 'x') as c0, concat(@message, 'xx') as r0")
	for i := range 100 {
		fmt.Fprintf(&b, ", concat(c%d, c%d) as c%d, replace(r%d, 'x', 'xx') as r%d", i, i, i+1, i, i+1)
	}
	b.WriteString("| display strlen(c15) as c, strlen(r15) as r, strlen(c100) as cc, strlen(r100) as rr")
	b.WriteString(", c100 = r100 as done")
	got := run(t, b.String(), Options{}, stream("x"))
	if want := "c=65536,r=98304,"; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want it to begin with %s", got, want)
	}
}

func TestRunStops(t *testing.T) {
	t.Parallel()
	q := mustParse(t, "stats count(*)")
	cause := errors.New("the query was stopped")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if _, err := q.Run(ctx, each(stream("a")), Options{}); !errors.Is(err, cause) {
		t.Errorf("stopped: %v", err)
	}
	broken := errors.New("a block is corrupt")
	res, err := q.Run(context.Background(), func(yield func(Event, error) bool) {
		_ = yield(Event{Message: "a"}, nil) && yield(Event{}, broken)
	}, Options{})
	if !errors.Is(err, broken) || render(res) != "count(*)=1" {
		t.Errorf("broken: %v, %s", err, render(res))
	}
}

func TestStatisticsRangeAndProgress(t *testing.T) {
	t.Parallel()
	q := mustParse(t, "filter @message like 'b' | stats count(*) as n")
	var seen []string
	res, err := q.Run(context.Background(), each(stream("a", "ab", "b", "c", "bb")), Options{From: 60_000, To: 180_000, ProgressEvery: 2,
		Progress: func(r Result) { seen = append(seen, render(r)) }})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Statistics{RecordsMatched: 2, RecordsScanned: 3, BytesScanned: 4}); res.Statistics != want {
		t.Errorf("statistics %+v, want %+v", res.Statistics, want)
	}
	if got := strings.Join(seen, "|"); got != "n=1|n=2" {
		t.Errorf("progress %s", got)
	}
}

func TestResultHasPointers(t *testing.T) {
	t.Parallel()
	q := mustParse(t, "fields nothing")
	res, err := q.Run(context.Background(), each(stream("a")), Options{})
	if err != nil || len(res.Rows) != 1 || len(res.Rows[0]) != 1 || res.Rows[0][0] != (Field{"@ptr", "p0"}) {
		t.Errorf("%v %v", res, err)
	}
}

func TestExecutionIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	x := mustParse(t, "filter ispresent(op) | sort ms desc | dedup op | limit 5").Start(Options{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				if err := x.Add(Event{Message: fmt.Sprintf(`{"op":"%d","ms":%d}`, i%7, i), Ptr: fmt.Sprint(w, i)}); err != nil {
					t.Error(err)
				}
				x.Result()
			}
		})
	}
	wg.Wait()
	if got := x.Result().Statistics.RecordsMatched; got != 800 {
		t.Errorf("%d matched", got)
	}
}

// TestApproximations holds the doc comment's bounds, for what is beyond the exact part.
func TestApproximations(t *testing.T) {
	t.Parallel()
	x := mustParse(t, "stats count_distinct(@message) as d, pct(@message, 50) as p50, pct(@message, 99) as p99, pct(@message - 100000, 1) as low, stddev(@message) as sd").Start(Options{})
	const n = 200_000
	for i := range n {
		if err := x.Add(Event{Message: fmt.Sprint(i * 7919 % n)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]float64{}
	for _, f := range x.Result().Rows[0] {
		v, ok := parseNumber(f.Value)
		if !ok {
			t.Fatalf("%v is no number", f)
		}
		got[f.Name] = v
	}
	for name, want := range map[string]float64{"d": n, "p50": n / 2, "p99": n * 0.99, "low": -98_000, "sd": n / math.Sqrt(12)} {
		tolerance := 0.011
		if name == "d" {
			tolerance = 0.025 // three standard errors of 16,384 registers
		}
		if math.Abs(got[name]/want-1) > tolerance {
			t.Errorf("%s is %v, want about %v", name, got[name], want)
		}
	}
}

func TestTerms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ query, plain, escaped string }{
		{"fields op | filter @message like 'a b' | filter @message like /x\\d+yz/", "a b|x|yz", ""},
		{"filter level = 'error' and a.b.0.`c-d` like /fo+o/ and ispresent(q)", "", "a|b|c-d|error|f|level|o|q"},
		{"filter level = 'error' or level = 'warn'", "", "level"},
		{"filter not (level = 'error') or x = 1", "", ""},
		{"filter status = 500 and status = '500' and ok = 'true' and z like '1' and y in ['v']", "", "ok|status|y|z"},
		{"fields concat(op, 'x') as op2 | filter op2 = 'ax' and x != 'y' and @logStream = 's'", "", ""},
		{"stats count(*) by op | filter op = 'x'", "", ""},
		{"filter `@@x` = 'v'", "", "@x|v"},
	} {
		q := mustParse(t, c.query)
		plain, escaped := strings.Join(q.Terms(), "|"), strings.Join(q.JSONTerms(), "|")
		if plain != c.plain || escaped != c.escaped {
			t.Errorf("%s: terms %q and %q, want %q and %q", c.query, plain, escaped, c.plain, c.escaped)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	object := `{"time":"2026-01-02T03:04:05.678Z","level":"info","msg":"http request","http":{"method":"GET","path":"/api/v1/orders/12345","status":200},"duration":12.5,"user":4711,"tags":["a","b","c"]}`
	line := `2026-01-02T03:04:05.678Z INFO http request method=GET path=/api/v1/orders/12345 status=200 duration=12ms user=4711 trace=abcdef0123456789`
	for _, c := range []struct{ name, query, message string }{
		{"like", "fields @timestamp, @message | filter @message like 'timeout' | sort @timestamp desc | limit 20", line},
		{"regex", `filter @message like /status=5\d\d/ | stats count(*) by bin(5m)`, line},
		{"latest", "fields @timestamp, @message | sort @timestamp desc | limit 20", line},
		{"parse", `parse @message "method=* path=* status=*" as m, p, s | stats count(*) by m`, line},
		{"json", "filter http.status >= 500 | stats count(*) by http.path", object},
		{"stats", "stats count(*), avg(duration), pct(duration, 99) by level, bin(1m)", object},
	} {
		b.Run(c.name, func(b *testing.B) {
			x := mustParse(b, c.query).Start(Options{})
			b.SetBytes(int64(len(c.message)))
			b.ReportAllocs()
			e := Event{Message: c.message, Stream: "s", Log: "1:g", Ptr: "p"}
			for b.Loop() {
				e.Timestamp++
				if err := x.Add(e); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
