package insights

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
)

// stream makes events of messages, a minute apart, the first at the epoch.
func stream(messages ...string) []Event {
	out := make([]Event, len(messages))
	for i, m := range messages {
		out[i] = Event{Timestamp: int64(i) * 60_000, IngestionTime: int64(i)*60_000 + 5, Message: m,
			Stream: "s", Log: "1:g", Ptr: fmt.Sprintf("p%d", i)}
	}
	return out
}

func each(events []Event) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// run answers rows as "name=value,name=value" without @ptr, one a line.
func run(t *testing.T, query string, o Options, events []Event) string {
	t.Helper()
	q, err := Parse(query)
	if err != nil {
		t.Fatalf("Parse(%q): %v", query, err)
	}
	res, err := q.Run(context.Background(), each(events), o)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return render(res)
}

func render(res Result) string {
	var lines []string
	for _, r := range res.Rows {
		var cells []string
		for _, f := range r {
			if f.Name != "@ptr" {
				cells = append(cells, f.Name+"="+f.Value)
			}
		}
		lines = append(lines, strings.Join(cells, ","))
	}
	return strings.Join(lines, "\n")
}

const trail = `{"eventName":"StartInstances","userIdentity":{"type":"IAMUser"},"a.b":{"c":1},"ok":true,"none":null,"n":"7","@x":"at",` +
	`"requestParameters":{"instancesSet":{"items":[{"instanceId":"i-abcde123"}]}}}`

// TestQueries holds examples of the user guide, and what they leave open.
func TestQueries(t *testing.T) {
	t.Parallel()
	requests := stream(
		`{"op":"GET","status":200,"ms":10,"ip":"10.0.0.1"}`,
		`{"op":"PUT","status":500,"ms":30,"ip":"10.0.0.2"}`,
		`{"op":"GET","status":404,"ms":20,"ip":"192.0.2.7"}`,
		`{"op":"GET","status":"503","ms":40}`,
		`plain text [ERROR] Exception here`,
	)
	const last = "@timestamp=1970-01-01 00:04:00.000,@message=plain text [ERROR] Exception here"
	for _, c := range []struct {
		query  string
		events []Event
		want   string
	}{
		{"fields @timestamp, @message | sort @timestamp desc | limit 1", requests, last},
		{"limit 1", requests, last},
		{"filter @message like /Exception/", requests, last},
		{"filter @message like 'Exception' # comment | with a pipe\n | filter @message =~ /(?i)EXCEPTION/", requests, last},
		{"fields @logStream, @log, @ingestionTime, @ptr | limit 1", requests, "@logStream=s,@log=1:g,@ingestionTime=1970-01-01 00:04:00.005"},
		{"fields op | filter @message not like /Exception/ and op not in ['PUT', 'x']", requests, "op=GET\nop=GET\nop=GET"},
		{"fields ms | filter status in [404, 500, \"503\"] | sort ms asc", requests, "ms=20\nms=30\nms=40"},
		{"fields ms | filter (status >= 500 or ms = 10) and not (op = 'PUT') | sort ms", requests, "ms=10\nms=40"},
		{"fields ms | filter status like /5\\d\\d/ | sort ms", requests, "ms=30\nms=40"},
		{"filter ispresent(op) | stats count(*)", requests, "count(*)=4"},
		{"filter op != 'GET' | stats count() as n", requests, "n=2"},
		{"filter isIpv4InSubnet(ip, '10.0.0.0/8') | stats count(ip)", requests, "count(ip)=2"},
		{"STATS sum(ms) AS total, avg(ms), max(ms) - min(ms) as spread, total / count(*) as mean BY op | SORT total", requests,
			"op=PUT,total=30,avg(ms)=30,spread=0,mean=30\nop=GET,total=70,avg(ms)=23.333333333333332,spread=30,mean=23.333333333333332\n"},
		{"stats count(*) as c by bin(2m) | sort c desc, bin(2m)", requests,
			"bin(2m)=1970-01-01 00:00:00.000,c=2\nbin(2m)=1970-01-01 00:02:00.000,c=2\nbin(2m)=1970-01-01 00:04:00.000,c=1"},
		{"stats count(*) by bin(2m)", requests,
			"bin(2m)=1970-01-01 00:04:00.000,count(*)=1\nbin(2m)=1970-01-01 00:02:00.000,count(*)=2\nbin(2m)=1970-01-01 00:00:00.000,count(*)=2"},
		{"stats pct(ms, 50), pct(ms, 95) as p95, stddev(ms), count_distinct(op), earliest(op), latest(op), sortsFirst(op), sortsLast(op)", requests,
			"pct(ms, 50)=20,p95=40,stddev(ms)=12.909944487358056,count_distinct(op)=2,earliest(op)=GET,latest(op)=GET,sortsFirst(op)=GET,sortsLast(op)=PUT"},
		{"filter ms > 0 | stats sum(ms) as s by op, status | stats max(s) as m, count(*) by op | sort m desc | limit 1", requests, "op=GET,m=40,count(*)=3"},
		{"stats count(*) by op | filter count(*) > 2 | display op", requests, "op=GET"},
		{"fields strlen(@message) as l | stats sum(l) / 1024 as kb by bin(5m) as @t | stats max(kb) as peak by dateceil(@t, 10m)", requests,
			"dateceil(@t, 10m)=1970-01-01 00:00:00.000,peak=0.2109375"},
		{"fields op | sort ms | dedup op | limit 2", requests, "op=GET\nop=PUT"},
		{"fields op | filter ispresent(op) | dedup op, status", requests, "op=GET\nop=GET\nop=PUT\nop=GET"},
		{`parse @message "[*] *" as level, rest | filter level = "ERROR" | display rest`, requests, "rest=Exception here"},
		{`parse "* text" as first | filter ispresent(first) | display first`, requests, "first=plain"},
		{`parse @message /\[(?<level>\S+)\]\s+(?P<what>\w+)/ | filter what = 'Exception' | display level, what`, requests, "level=ERROR,what=Exception"},
		{`parse @message "user=*, method:*, latency := *" as @user, @method, @latency | stats avg(@latency) by @method, @user`,
			stream("user=u, method:m, latency := 4", "user=u, method:m, latency := 8"), "@method=m,@user=u,avg(@latency)=6"},
		{`parse @message "[*] * The error was: *" as level, config, exception | display level, config, exception`,
			stream("25 May 2019 10:24:39,474 [ERROR] {foo=2, bar=data} The error was: DataIntegrityException"),
			"level=ERROR,config={foo=2, bar=data},exception=DataIntegrityException"},
		{"fields eventName, userIdentity.type, requestParameters.instancesSet.items.0.instanceId, `a.b`.c, ok, none, @@x", stream(trail),
			"eventName=StartInstances,userIdentity.type=IAMUser,requestParameters.instancesSet.items.0.instanceId=i-abcde123,a.b.c=1,ok=1,@@x=at"},
		{"fields requestParameters.instancesSet.items[0].instanceId as id | filter ok = true and ok = 1 and not (ok = false)", stream(trail), "id=i-abcde123"},
		{"fields jsonParse(@message) as j | display j.userIdentity.type, j.requestParameters.instancesSet.items[0].instanceId as i", stream(trail),
			"j.userIdentity.type=IAMUser,i=i-abcde123"},
		{"fields concat(eventName, '-', n) as x, abs(n - 10) as d, `n` + 1 as m, 2 ^ 3 ^ 2 as p, 10 % 3, -n as neg, n / 0 as z", stream(trail),
			"x=StartInstances-7,d=3,m=8,p=512,10 % 3=1,neg=-7"},
		{`fields ltrim("xyZfooxyZ","xyZ") as a, rtrim("xyZfooxyZ","xyZ") as b, trim("xyZfooxyZ","xyZ") as c, trim("  x ") as d, substr("xyZfooxyZ",3,3) as e,
			substr("héllo",1) as f, replace("foo","o","0") as g, strcontains("foo","oo") as h, strlen("héllo") as i, toupper("aé") as j, tolower("AÉ") as k`,
			stream(""), "a=fooxyZ,b=xyZfoo,c=foo,d=x,e=foo,f=éllo,g=f00,h=1,i=5,j=AÉ,k=aé"},
		{`fields isempty(x) as a, isblank("  ") as b, isempty(" ") as c, coalesce(x, y, "z") as d, if(ispresent(x), "p", "q") as e, greatest(1, 3, 2) as f,
			least(1, 3, 2) as g, ceil(1.2) as h, floor(-1.2) as i, sqrt(9) as j, log(1) as k, isRes, ispresent(@message) as l`,
			stream(""), "a=1,b=1,c=0,d=z,e=q,f=3,g=1,h=2,i=-2,j=3,k=0,l=1"},
		{`fields isValidIp("::1") as a, isValidIpV4("::1") as b, isValidIpV6("::1") as c, isIpInSubnet("2001:db8::5", "2001:db8::/32") as d, isIpv6InSubnet("10.0.0.1", "10.0.0.0/8") as e`,
			stream(""), "a=1,b=0,c=1,d=1,e=0"},
		{"fields datefloor(@timestamp, 1h) as a, dateceil(@timestamp, 1hr) as b, fromMillis(0) as c, toMillis(@timestamp) as d, bin(1mo) as e, bin(1w) as f, dateceil(@timestamp, 1quarter) as g, now() as h | limit 1",
			requests, "a=1970-01-01 00:00:00.000,b=1970-01-01 01:00:00.000,c=1970-01-01 00:00:00.000,d=240000,e=1970-01-01 00:00:00.000,f=1969-12-29 00:00:00.000,g=1970-04-01 00:00:00.000,h=1"},
		{"filter @timestamp >= 180000 | stats count(*)", requests, "count(*)=2"},
		{"fields op | filter op = 'nothing'", requests, ""},
		{"stats count(*)", nil, ""},
		{"fields v | sort v", stream(`{"v":"111A"}`, `{"v":"5A"}`, `{"v":"12"}`, `{"v":"9"}`, `{"v":"#"}`, `{"v":"A"}`, `{"v":"@"}`, `{}`, `{"v":"0#"}`, `{"v":"2345_"}`),
			"v=#\nv=0#\nv=5A\nv=111A\nv=2345_\nv=@\nv=A\nv=9\nv=12\n"},
	} {
		if got := run(t, c.query, Options{Now: 1500}, c.events); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query, want string
		start, end  int
	}{
		{"", "unexpected end of query", 0, 0},
		{"fields @timestamp | count()", "unexpected symbol found count at line 1 and position 20", 20, 25},
		{"fields a\n| dedup a | sort a", "unexpected symbol found sort at line 2 and position 12", 21, 25},
		{"fields é | x y", "unexpected symbol found x at line 1 and position 11", 11, 12},
		{"dedup op | display op", "unexpected symbol found display at line 1 and position 11", 11, 18},
		{"limit 0x", "unexpected symbol found 0x at line 1 and position 6", 6, 8},
		{"| fields a", "unexpected symbol found | at line 1 and position 0", 0, 1},
		{"fields a b", "unexpected symbol found b at line 1 and position 9", 9, 10},
		{"fields a |", "unexpected end of query", 10, 10},
		{"filter a = ", "unexpected end of query", 11, 11},
		{"filter a not b", "unexpected symbol found not at line 1 and position 9", 9, 12},
		{"filter a like b", "unexpected symbol found b at line 1 and position 14", 14, 15},
		{"filter a like /(/", "invalid regular expression: error parsing regexp: missing closing ): `(`", 14, 17},
		{"filter a like /x", "unterminated regular expression", 14, 16},
		{"filter a = 'x", "unterminated string", 11, 13},
		{"fields `a", "unterminated field name", 7, 9},
		{"fields foo(a)", "unknown function foo", 7, 10},
		{"fields abs(a, b)", "abs does not take 2 arguments", 7, 16},
		{"filter count(*) > 1", "the function count can be used only in stats", 7, 12},
		{"stats a", "stats needs an aggregation function: a", 6, 7},
		{"stats sum(avg(a))", "the function avg can be used only in stats", 10, 13},
		{"stats pct(a, 101)", "pct needs a number between 0 and 100", 13, 16},
		{"stats count(*) by bin(5x)", "unexpected symbol found 5x at line 1 and position 22", 22, 24},
		{"stats count(*) | stats count(*) | stats count(*)", "a query can have at most 2 stats commands", 34, 39},
		{"limit 5 | stats count(*)", "sort, dedup and limit must come after the last stats command", 10, 15},
		{"stats sum(Fault) by Op | stats max(strlen(@message))", "Unknown symbols found in or after stats: @message", 42, 50},
		{"stats sum(x) as b by @logStream | stats avg(b) by bin(5m)", "Unknown symbols found in or after stats: @timestamp", 50, 54},
		{"limit 10001", "limit must be between 1 and 10000", 6, 11},
		{"limit 0", "limit must be between 1 and 10000", 6, 7},
		{`parse @message "* *" as a`, "parse has 2 wildcards and 1 names", 15, 20},
		{"parse @message /x/", "parse needs a named capturing group", 15, 18},
		{"pattern @message", "the command pattern is not supported", 0, 7},
		{"fields a | diff", "the command diff is not supported", 11, 15},
		{"filter " + strings.Repeat("(", 5000), "expression nests too deep", 0, 0},
		{"filter " + strings.Repeat("not ", 2000) + "a", "expression nests too deep", 0, 0},
		{"fields " + strings.Repeat("-", 5000) + "a", "expression nests too deep", 0, 0},
		{strings.Repeat(" ", MaxLength) + "limit 1", "1 validation error detected: Value at 'queryString' failed to satisfy constraint: Member must have length less than or equal to 10000", 10000, 10007},
	} {
		_, err := Parse(c.query)
		if err == nil || err.Error() != c.want {
			t.Errorf("Parse(%q): %v, want %s", c.query, err, c.want)
			continue
		}
		start, end := c.start, c.end
		var e *Error
		var u *UnsupportedError
		switch {
		case errors.As(err, &e):
			start, end = e.Start, e.End
		case errors.As(err, &u):
			start, end = u.Start, u.End
		default:
			t.Errorf("Parse(%q): %T", c.query, err)
		}
		if c.want != "expression nests too deep" && (start != c.start || end != c.end) {
			t.Errorf("Parse(%q): error is at %d to %d, want %d to %d", c.query, start, end, c.start, c.end)
		}
	}
}
