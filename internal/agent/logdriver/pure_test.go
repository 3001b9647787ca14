package logdriver

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

func TestDatetimePattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format, matches, not string
	}{
		{`%Y-%m-%d %H:%M:%S`, "2026-11-23 06:40:01 started", "2026-13-23 06:40:01"},
		{`\[%b %d, %Y %H:%M:%S\]`, "[Nov 23, 2026 06:40:01] up", "Nov 23, 2026 06:40:01 up"},
		{`%a %A %w %j`, "Mon Monday 1 327", "Mon Monday 7 327"},
		{`%y%m%d %I:%M %p`, "261123 06:40 AM", "261123 13:40 AM"},
		{`%S%L`, "01.123", "01,123"},
		{`%f%z`, "123456+0100", "123456Z"},
		{`%B %Z`, "November CET", "November utc"},
		{`%q-`, "-", "q"}, // an unknown conversion is nothing
	} {
		re, err := regexp.Compile(datetimePattern(c.format))
		if err != nil {
			t.Errorf("%s: %v", c.format, err)
			continue
		}
		if !re.MatchString(c.matches) || re.MatchString(c.not) {
			t.Errorf("%s: %s matches %q: %v, %q: %v", c.format, re, c.matches, re.MatchString(c.matches), c.not, re.MatchString(c.not))
		}
	}
}

func TestAwslogsOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options map[string]string
		err     string
	}{
		{map[string]string{"awslogs-group": "g"}, ""},
		{map[string]string{"awslogs-group": "g", "mode": "blocking"}, ""},
		{map[string]string{"awslogs-group": "g", "mode": "non-blocking", "max-buffer-size": "25m"}, ""},
		{map[string]string{"awslogs-group": "g", "max-buffer-size": "1.5 GiB"}, ""},
		{map[string]string{"awslogs-group": "g", "awslogs-create-group": "true", "awslogs-datetime-format": "%Y"}, ""},
		{map[string]string{}, "must specify a value for log opt 'awslogs-group'"},
		{map[string]string{"awslogs-group": "g", "awslogs-create-group": "yes"},
			`must specify valid value for log opt 'awslogs-create-group': strconv.ParseBool: parsing "yes": invalid syntax`},
		{map[string]string{"awslogs-group": "g", "awslogs-datetime-format": "%Y", "awslogs-multiline-pattern": "^x"},
			"you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time"},
		{map[string]string{"awslogs-group": "g", "awslogs-multiline-pattern": "("},
			"awslogs could not parse multiline pattern key \"(\": error parsing regexp: missing closing ): `(`"},
		{map[string]string{"awslogs-group": "g", "mode": "fast"}, "logger: logging mode not supported: fast"},
		{map[string]string{"awslogs-group": "g", "mode": "blocking", "max-buffer-size": "1m"},
			"logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{map[string]string{"awslogs-group": "g", "max-buffer-size": "much"}, "error parsing option max-buffer-size: invalid size: 'much'"},
		{map[string]string{"awslogs-group": "g", "tagged": "x"}, "unknown log opt 'tagged' for awslogs log driver"},
	} {
		_, _, err := (&Drivers{}).driver(record{Driver: "awslogs", Options: c.options})
		if got := errorText(err); got != c.err {
			t.Errorf("%v: %s, want %s", c.options, got, c.err)
		}
	}
	if _, _, err := (&Drivers{}).driver(record{Driver: "nothing"}); errorText(err) != "logger: no log driver named 'nothing' is registered" {
		t.Error(err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{"10": 10, "1k": 1 << 10, "25m": 25 << 20, "1.5GiB": 3 << 29, "2 TB": 2 << 40, "0b": 0} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-1", "1x", "1mm", "99999999999999999999p"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestStreamName(t *testing.T) {
	t.Parallel()
	if got := streamName(map[string]string{"awslogs-stream-prefix": "web"}, "nginx", "ecs-x", "abc"); got != "web/nginx/abc" {
		t.Error(got)
	}
	if got := streamName(nil, "nginx", "ecs-x", "abc"); got != "ecs-x" {
		t.Error(got)
	}
}

// lines feeds a collector whole lines of stdout, a byte of cursor each.
func lines(c *collector, texts ...string) {
	for _, s := range texts {
		after := c.at
		after.Stdout += uint64(len(s)) + 1
		after.Stderr = after.Stdout
		c.add(spool.Line{Time: time.UnixMilli(int64(after.Stdout)), Stream: spool.Stdout, Text: []byte(s)}, after, time.Time{})
	}
}

func texts(events []event) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = string(e.text)
	}
	return out
}

func TestMultiline(t *testing.T) {
	t.Parallel()
	c := &collector{shape: shape{boundary: regexp.MustCompile(`^\S`), limit: 40}}
	lines(c, "panic: x", "  at a", "  at b", "next", "  "+strings.Repeat("y", 37))
	if got := strings.Join(texts(c.events), "|"); got != "panic: x\n  at a\n  at b\n|next\n" {
		t.Errorf("before the end: %q", got)
	}
	// Behind the first event is the place before "next".
	if got := c.events[0].after.Stdout; got != uint64(len("panic: x\n  at a\n  at b\n")) {
		t.Errorf("resumes at %d", got)
	}
	lines(c, "  z")
	c.flush()
	if got := texts(c.events[2:]); len(got) != 2 || got[0] != "  "+strings.Repeat("y", 37)+"\n" || got[1] != "  z\n" {
		t.Errorf("an event longer than the limit: %q", got)
	}
	if c.done != c.at || c.events[3].after != c.at {
		t.Error("after the end it does not resume at the end")
	}
}

func TestLostIsAnEvent(t *testing.T) {
	t.Parallel()
	c := &collector{shape: shape{boundary: regexp.MustCompile(`^\S`), limit: 100}}
	lines(c, "a", " b")
	c.add(spool.Line{Lost: 7, Text: []byte("[berth: 7 bytes …]"), Stream: spool.Stderr}, spool.Cursor{Stdout: 20, Stderr: 20}, time.Time{})
	if got := strings.Join(texts(c.events), "|"); got != "a\n b\n|[berth: 7 bytes …]" {
		t.Errorf("%q", got)
	}
}

// TestSplit: events are within the limit as CloudWatch counts, break no character, and together are the
// line with each bad byte replaced.
func TestSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "line")
		if rapid.Bool().Draw(t, "text") {
			line = []byte(rapid.String().Draw(t, "string"))
		}
		limit := rapid.IntRange(4, 64).Draw(t, "limit")
		c := &collector{shape: shape{limit: limit}}
		c.add(spool.Line{Text: line}, spool.Cursor{Stdout: 1}, time.Time{})
		var all []byte
		for i, e := range c.events {
			if len(e.text) == 0 || len(e.text) > limit || !utf8.Valid(e.text) {
				t.Fatalf("event %q of %d bytes", e.text, len(e.text))
			}
			if last := i == len(c.events)-1; last != (e.after == spool.Cursor{Stdout: 1}) {
				t.Fatalf("event %d resumes at %v", i, e.after)
			}
			all = append(all, e.text...)
		}
		if want := []byte(string([]rune(string(line)))); !bytes.Equal(all, want) {
			t.Fatalf("%q, want %q", all, want)
		}
	})
}

func TestBatchLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := limits{bytes: rapid.IntRange(50, 300).Draw(t, "bytes"), events: rapid.IntRange(1, 8).Draw(t, "events"),
			overhead: 26, span: time.Hour}
		var b batch
		at := time.Unix(0, 0)
		for range rapid.IntRange(1, 30).Draw(t, "n") {
			at = at.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "minutes")) * time.Minute)
			e := event{time: at, text: make([]byte, rapid.IntRange(1, l.bytes-26).Draw(t, "size"))}
			if !b.add(e, l) {
				size := b.bytes + len(e.text) + 26
				if size <= l.bytes && len(b.events) < l.events && at.Sub(b.events[0].time) < l.span {
					t.Fatal("refused what fits")
				}
				b.reset()
				if !b.add(e, l) {
					t.Fatal("an empty batch refuses an event")
				}
			}
			total := 0
			for _, e := range b.events {
				total += len(e.text) + 26
			}
			if total > l.bytes || len(b.events) > l.events || at.Sub(b.events[0].time) >= l.span {
				t.Fatalf("beyond the limits: %d bytes, %d events", total, len(b.events))
			}
		}
	})
}

func FuzzAwslogsOptions(f *testing.F) {
	f.Add("%Y-%m-%d", "", "true", "non-blocking", "25m")
	f.Add("", "^(INFO|WARN)", "false", "blocking", "")
	f.Add("%%%", "(", "x", "", "1.5gib")
	f.Fuzz(func(t *testing.T, format, pattern, create, mode, size string) {
		options := map[string]string{"awslogs-group": "g", "awslogs-create-group": create, "mode": mode}
		if format != "" {
			options["awslogs-datetime-format"] = format
		}
		if pattern != "" {
			options["awslogs-multiline-pattern"] = pattern
		}
		if size != "" {
			options["max-buffer-size"] = size
		}
		s, _, err := (&Drivers{}).driver(record{Driver: "awslogs", Options: options})
		if err == nil && (s.boundary == nil) != (format == "" && pattern == "") {
			t.Errorf("%v: boundary %v", options, s.boundary)
		}
		if err == nil && s.boundary != nil {
			c := &collector{shape: s}
			lines(c, format, pattern, create)
			c.flush()
			for _, e := range c.events {
				if len(e.text) > maxEventBytes || !utf8.Valid(e.text) {
					t.Errorf("event %q", e.text)
				}
			}
		}
	})
}
