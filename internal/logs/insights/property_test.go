package insights

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The reference evaluator below knows queries as the generator made them, not as text. Rows are maps, every
// command works on all rows at once, and nothing is shared with the package.

type refRow struct {
	fields map[string]any // string, float64, bool or refTime; a missing one is not there
	event  Event
}

type refTime int64

// refExpr is an expression: how it is written, and what it comes to.
type refExpr struct {
	source string
	eval   func(map[string]any) any
}

func refText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		if v {
			return "1"
		}
		return "0"
	case refTime:
		return time.UnixMilli(int64(v)).UTC().Format("2006-01-02 15:04:05.000")
	}
	return ""
}

var refNumber = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

func refFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case string:
		if refNumber.MatchString(v) {
			f, err := strconv.ParseFloat(v, 64)
			return f, err == nil
		}
	case float64:
		return v, true
	case bool:
		return map[bool]float64{true: 1}[v], true
	case refTime:
		return float64(v), true
	}
	return 0, false
}

// refCompare answers the order of two values, or that one is missing.
func refCompare(a, b any) (int, bool) {
	if a == nil || b == nil {
		return 0, false
	}
	x, okX := refFloat(a)
	y, okY := refFloat(b)
	for _, side := range []struct {
		is   any
		text any
		f    *float64
		ok   *bool
	}{{a, b, &y, &okY}, {b, a, &x, &okX}} {
		if _, isBool := side.is.(bool); isBool && !*side.ok {
			switch strings.ToLower(refText(side.text)) {
			case "true":
				*side.f, *side.ok = 1, true
			case "false":
				*side.f, *side.ok = 0, true
			}
		}
	}
	if okX && okY {
		return cmp.Compare(x, y), true
	}
	return cmp.Compare(refText(a), refText(b)), true
}

var refChunks = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// refSorted is the guide's order: text before numbers; chunks of digits by length, then value.
func refSorted(a, b any) int {
	x, okX := refFloat(a)
	y, okY := refFloat(b)
	if okX && okY {
		if x != y {
			return cmp.Compare(x, y)
		}
		sa, _ := a.(string)
		sb, _ := b.(string)
		return cmp.Compare(sa, sb)
	}
	if okX != okY {
		if okX {
			return 1
		}
		return -1
	}
	ca, cb := refChunks.FindAllString(refText(a), -1), refChunks.FindAllString(refText(b), -1)
	for i := 0; i < len(ca) && i < len(cb); i++ {
		digits := func(s string) bool { return s[0] >= '0' && s[0] <= '9' }
		if digits(ca[i]) && digits(cb[i]) && len(ca[i]) != len(cb[i]) {
			return len(ca[i]) - len(cb[i])
		}
		if ca[i] != cb[i] {
			return cmp.Compare(ca[i], cb[i])
		}
	}
	return len(ca) - len(cb)
}

func refTruth(v any) bool {
	if s, ok := v.(string); ok && strings.EqualFold(s, "true") {
		return true
	}
	f, ok := refFloat(v)
	return ok && f != 0
}

func refFinite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return f
}

// gap is white space and comments, which change nothing.
func gap(t *rapid.T) string {
	return rapid.SampledFrom([]string{" ", "  ", "\n\t", " # a | comment 'x\n"}).Draw(t, "gap")
}

func anyCase(t *rapid.T, word string) string {
	b := []byte(word)
	for i := range b {
		if rapid.Bool().Draw(t, "upper") {
			b[i] = strings.ToUpper(string(b[i]))[0]
		}
	}
	return string(b)
}

func drawField(t *rapid.T, names []string) refExpr {
	name := rapid.SampledFrom(names).Draw(t, "field")
	source := name
	if strings.Contains(name, "-") || rapid.IntRange(0, 4).Draw(t, "backticks") == 0 {
		source = "`" + name + "`"
	}
	return refExpr{source, func(r map[string]any) any { return r[name] }}
}

var refWords = []string{"a", "b", "a1", "a10", "a9", "10", "9", "2.5", "true", "x y", "é"}

func drawLiteral(t *rapid.T) refExpr {
	if rapid.Bool().Draw(t, "number") {
		n := rapid.SampledFrom([]string{"0", "1", "10", "2.5", "9e0"}).Draw(t, "n")
		f, _ := strconv.ParseFloat(n, 64)
		return refExpr{n, func(map[string]any) any { return f }}
	}
	w := rapid.SampledFrom(refWords).Draw(t, "w")
	q := rapid.SampledFrom([]string{"'", `"`}).Draw(t, "quote")
	return refExpr{q + w + q, func(map[string]any) any { return w }}
}

// drawValue is an expression that is not a condition.
func drawValue(t *rapid.T, names []string, depth int) refExpr {
	kind := rapid.IntRange(0, 9).Draw(t, "value")
	if depth == 0 {
		kind %= 4
	}
	switch {
	case kind < 3:
		return drawField(t, names)
	case kind == 3:
		return drawLiteral(t)
	case kind < 7:
		a, b := drawValue(t, names, depth-1), drawValue(t, names, depth-1)
		op := rapid.SampledFrom([]string{"+", "-", "*", "/", "%", "^"}).Draw(t, "op")
		return refExpr{"(" + a.source + gap(t) + op + gap(t) + b.source + ")", func(r map[string]any) any {
			x, okX := refFloat(a.eval(r))
			y, okY := refFloat(b.eval(r))
			if !okX || !okY {
				return nil
			}
			return refFinite(map[string]func() float64{
				"+": func() float64 { return x + y }, "-": func() float64 { return x - y }, "*": func() float64 { return x * y },
				"/": func() float64 { return x / y }, "%": func() float64 { return math.Mod(x, y) }, "^": func() float64 { return math.Pow(x, y) },
			}[op]())
		}}
	case kind == 7:
		a, b := drawValue(t, names, depth-1), drawValue(t, names, depth-1)
		return refExpr{anyCase(t, "concat") + "(" + a.source + "," + gap(t) + b.source + gap(t) + ")", func(r map[string]any) any {
			return refText(a.eval(r)) + refText(b.eval(r))
		}}
	case kind == 8:
		a, b := drawValue(t, names, depth-1), drawValue(t, names, depth-1)
		return refExpr{anyCase(t, "coalesce") + "(" + a.source + "," + b.source + ")", func(r map[string]any) any {
			if v := a.eval(r); v != nil {
				return v
			}
			return b.eval(r)
		}}
	default:
		a := drawValue(t, names, depth-1)
		return refExpr{anyCase(t, "strlen") + gap(t) + "(" + a.source + ")", func(r map[string]any) any {
			v := a.eval(r)
			if v == nil {
				return nil
			}
			return float64(len([]rune(refText(v))))
		}}
	}
}

// drawCondition is an expression as filters take it.
func drawCondition(t *rapid.T, names []string, depth int) refExpr {
	kind := rapid.IntRange(0, 7).Draw(t, "condition")
	if depth == 0 && kind < 3 {
		kind += 3
	}
	switch kind {
	case 0, 1:
		a, b := drawCondition(t, names, depth-1), drawCondition(t, names, depth-1)
		word := map[int]string{0: "and", 1: "or"}[kind]
		return refExpr{"(" + a.source + ")" + gap(t) + anyCase(t, word) + gap(t) + "(" + b.source + ")", func(r map[string]any) any {
			x, y := refTruth(a.eval(r)), refTruth(b.eval(r))
			return word == "and" && x && y || word == "or" && (x || y)
		}}
	case 2:
		a := drawCondition(t, names, depth-1)
		return refExpr{anyCase(t, "not") + gap(t) + "(" + a.source + ")", func(r map[string]any) any { return !refTruth(a.eval(r)) }}
	case 3:
		a := drawField(t, names)
		return refExpr{anyCase(t, "ispresent") + "(" + a.source + ")", func(r map[string]any) any { return a.eval(r) != nil }}
	case 4:
		a := drawField(t, names)
		re := rapid.SampledFrom([]string{"a", "^a\\d+$", "x.y|b", "(?i)A", "\"op\"", "1"}).Draw(t, "regex")
		negate := rapid.Bool().Draw(t, "negate")
		word := anyCase(t, "like")
		if negate {
			word = anyCase(t, "not") + gap(t) + word
		} else if rapid.Bool().Draw(t, "tilde") {
			word = "=~"
		}
		return refExpr{a.source + gap(t) + word + gap(t) + "/" + re + "/", func(r map[string]any) any {
			v := a.eval(r)
			return (v != nil && regexp.MustCompile(re).MatchString(refText(v))) != negate
		}}
	case 5:
		a, x, y := drawField(t, names), drawLiteral(t), drawLiteral(t)
		negate := rapid.Bool().Draw(t, "negate")
		word := anyCase(t, "in")
		if negate {
			word = anyCase(t, "not") + gap(t) + word
		}
		return refExpr{a.source + gap(t) + word + "[" + x.source + gap(t) + "," + y.source + "]", func(r map[string]any) any {
			v := a.eval(r)
			cx, okX := refCompare(v, x.eval(r))
			cy, okY := refCompare(v, y.eval(r))
			return (okX && cx == 0 || okY && cy == 0) != negate
		}}
	default:
		a, b := drawValue(t, names, depth), drawValue(t, names, 0)
		if rapid.Bool().Draw(t, "literal") {
			b = drawLiteral(t)
		}
		op := rapid.SampledFrom([]string{"=", "=", "!=", "<", "<=", ">", ">="}).Draw(t, "op")
		return refExpr{a.source + gap(t) + op + gap(t) + b.source, func(r map[string]any) any {
			c, ok := refCompare(a.eval(r), b.eval(r))
			if !ok {
				return op == "!="
			}
			return map[string]bool{"=": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[op]
		}}
	}
}

func drawEvents(t *rapid.T) []refRow {
	out := make([]refRow, rapid.IntRange(0, 12).Draw(t, "events"))
	for i := range out {
		e := Event{Timestamp: int64(rapid.IntRange(0, 5).Draw(t, "time")) * 30_000, Stream: rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "stream"),
			Log: "1:g", Ptr: fmt.Sprintf("p%03d", i)}
		fields := map[string]any{"@timestamp": refTime(e.Timestamp), "@logStream": e.Stream}
		if rapid.IntRange(0, 4).Draw(t, "plain") == 0 {
			e.Message = "plain [" + rapid.SampledFrom(refWords).Draw(t, "word") + "] a1"
		} else {
			doc := map[string]any{}
			put := func(path string, v any, into map[string]any, key string) {
				if !rapid.Bool().Draw(t, "present") {
					return
				}
				into[key] = v
				if n, ok := v.(json.Number); ok {
					v = n.String()
				}
				fields[path] = v
			}
			put("op", rapid.SampledFrom(refWords).Draw(t, "op"), doc, "op")
			put("ms", json.Number(rapid.SampledFrom([]string{"1", "2.5", "10", "9", "1e1"}).Draw(t, "ms")), doc, "ms")
			put("x-y", rapid.Bool().Draw(t, "flag"), doc, "x-y")
			inner := map[string]any{}
			put("d.e", rapid.SampledFrom(refWords).Draw(t, "e"), inner, "e")
			doc["d"] = inner
			if rapid.Bool().Draw(t, "list") {
				w := rapid.SampledFrom(refWords).Draw(t, "element")
				doc["list"], fields["list.0"] = []any{w, nil}, w
			}
			b, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			e.Message = string(b)
			if rapid.IntRange(0, 3).Draw(t, "escaped") == 0 {
				e.Message = strings.ReplaceAll(e.Message, "op", `\u006fp`)
			}
		}
		fields["@message"] = e.Message
		out[i] = refRow{fields, e}
	}
	return out
}

// refGroup is a stats command: rows of groups in the default order of groups.
func refGroup(rows []refRow, keys []refExpr, names []string, aggs []refAgg) []refRow {
	groups := map[string][]refRow{}
	var order []string
	for _, r := range rows {
		id := ""
		for _, k := range keys {
			v := k.eval(r.fields)
			id += fmt.Sprintf("%v%q,", v == nil, refText(v))
		}
		if _, ok := groups[id]; !ok {
			order = append(order, id)
		}
		groups[id] = append(groups[id], r)
	}
	var out []refRow
	for _, id := range order {
		fields := map[string]any{}
		for i, k := range keys {
			if v := k.eval(groups[id][0].fields); v != nil {
				fields[names[i]] = v
			}
		}
		for _, a := range aggs {
			if v := a.apply(groups[id]); v != nil {
				fields[a.name] = v
			}
		}
		out = append(out, refRow{fields: fields})
	}
	slices.SortStableFunc(out, func(a, b refRow) int {
		for _, n := range names {
			x, y := a.fields[n], b.fields[n]
			d := 0
			tx, okX := x.(refTime)
			ty, okY := y.(refTime)
			switch {
			case x == nil && y == nil:
			case x == nil:
				d = 1
			case y == nil:
				d = -1
			case okX && okY:
				d = cmp.Compare(ty, tx)
			default:
				d = refSorted(x, y)
			}
			if d != 0 {
				return d
			}
		}
		return 0
	})
	return out
}

type refAgg struct {
	name, source string
	apply        func([]refRow) any
}

func drawAgg(t *rapid.T, names []string, name string) refAgg {
	of := drawValue(t, names, 1)
	fn := rapid.SampledFrom([]string{"count", "count_distinct", "sum", "avg", "min", "max", "pct", "sortsfirst"}).Draw(t, "aggregation")
	source := anyCase(t, fn) + "(" + of.source + ")"
	if fn == "pct" {
		source = anyCase(t, fn) + "(" + of.source + ", 50)"
	}
	return refAgg{name, source + gap(t) + anyCase(t, "as") + " " + name, func(rows []refRow) any {
		var values []any
		var numbers []float64
		different := map[string]bool{}
		sum := 0.0
		for _, r := range rows {
			v := of.eval(r.fields)
			if v == nil {
				continue
			}
			values = append(values, v)
			different[refText(v)] = true
			if f, ok := refFloat(v); ok {
				numbers = append(numbers, f)
				sum += f
			}
		}
		switch fn {
		case "count":
			return float64(len(values))
		case "count_distinct":
			return float64(len(different))
		case "min", "max", "sortsfirst":
			if len(values) == 0 {
				return nil
			}
			if fn == "max" {
				return slices.MaxFunc(values, refSorted)
			}
			return slices.MinFunc(values, refSorted)
		}
		if len(numbers) == 0 {
			return nil
		}
		slices.Sort(numbers)
		return map[string]any{"sum": refFinite(sum), "avg": refFinite(sum / float64(len(numbers))), "pct": numbers[(len(numbers)+1)/2-1]}[fn]
	}}
}

func TestAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rows := drawEvents(t)
		events := make([]Event, len(rows))
		for i := range rows {
			events[i] = rows[i].event
		}
		names := []string{"op", "ms", "x-y", "d.e", "list.0", "@logStream", "@message", "missing"}
		var commands []string
		columns := []string{"op", "@timestamp"}
		matched := map[string]bool{} // by pointer
		filterRows := func() {
			c := drawCondition(t, names, 2)
			commands = append(commands, anyCase(t, "filter")+gap(t)+c.source)
			rows = slices.DeleteFunc(slices.Clone(rows), func(r refRow) bool { return !refTruth(c.eval(r.fields)) })
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				filterRows()
			case 1:
				v, name := drawValue(t, names, 2), fmt.Sprintf("f%d", i)
				commands = append(commands, anyCase(t, "fields")+gap(t)+v.source+" "+anyCase(t, "as")+gap(t)+name)
				for j := range rows {
					if x := v.eval(rows[j].fields); x != nil {
						rows[j].fields[name] = x
					}
				}
				names, columns = append(names, name), append(columns, name)
			default:
				a, b := fmt.Sprintf("g%d", i), fmt.Sprintf("h%d", i)
				commands = append(commands, anyCase(t, "parse")+` @message "[*] *"`+gap(t)+"as "+a+","+gap(t)+b)
				for j := range rows {
					if m := regexp.MustCompile(`(?s)^.*?\[(.*?)\] (.*)$`).FindStringSubmatch(rows[j].event.Message); m != nil {
						rows[j].fields[a], rows[j].fields[b] = m[1], m[2]
					}
				}
				names, columns = append(names, a), append(columns, a, b)
			}
		}
		for _, r := range rows {
			matched[r.event.Ptr] = true
		}

		grouped := rapid.Bool().Draw(t, "stats")
		if grouped {
			var keys []refExpr
			var keyNames, by []string
			for i := range rapid.IntRange(0, 2).Draw(t, "keys") {
				k, name := drawValue(t, names, 1), fmt.Sprintf("k%d", i)
				if rapid.Bool().Draw(t, "bin") {
					k = refExpr{anyCase(t, "bin") + "(1" + rapid.SampledFrom([]string{"m", "min", "Minutes"}).Draw(t, "unit") + ")", func(r map[string]any) any {
						at := r["@timestamp"].(refTime)
						return at - at%60_000
					}}
				}
				keys, keyNames, by = append(keys, k), append(keyNames, name), append(by, k.source+" as "+name)
			}
			aggs := []refAgg{drawAgg(t, names, "a0"), drawAgg(t, names, "a1")}
			command := anyCase(t, "stats") + gap(t) + aggs[0].source + "," + aggs[1].source
			if len(by) > 0 {
				command += gap(t) + anyCase(t, "by") + gap(t) + strings.Join(by, ",")
			}
			commands = append(commands, command)
			rows = refGroup(rows, keys, keyNames, aggs)
			names = append(keyNames, "a0", "a1")
			columns = names
			if rapid.Bool().Draw(t, "having") {
				filterRows()
			}
		} else {
			slices.SortFunc(rows, func(a, b refRow) int {
				return cmp.Or(cmp.Compare(b.event.Timestamp, a.event.Timestamp), cmp.Compare(a.event.Stream, b.event.Stream), cmp.Compare(a.event.Ptr, b.event.Ptr))
			})
		}
		if rapid.Bool().Draw(t, "sort") {
			k := drawValue(t, names, 1)
			desc := rapid.Bool().Draw(t, "desc")
			commands = append(commands, anyCase(t, "sort")+gap(t)+k.source+gap(t)+map[bool]string{true: anyCase(t, "desc"), false: ""}[desc])
			slices.SortStableFunc(rows, func(a, b refRow) int {
				x, y := k.eval(a.fields), k.eval(b.fields)
				switch {
				case x == nil && y == nil:
					return 0
				case x == nil:
					return 1
				case y == nil:
					return -1
				case desc:
					return -refSorted(x, y)
				}
				return refSorted(x, y)
			})
		}
		commands = append(commands, anyCase(t, "display")+gap(t)+strings.Join(columns, ","))
		if rapid.Bool().Draw(t, "dedup") {
			k := drawField(t, names)
			commands = append(commands, anyCase(t, "dedup")+gap(t)+k.source)
			seen := map[string]bool{}
			rows = slices.DeleteFunc(slices.Clone(rows), func(r refRow) bool {
				v := k.eval(r.fields)
				dropped := v != nil && seen[refText(v)]
				seen[refText(v)] = seen[refText(v)] || v != nil
				return dropped
			})
		}
		options := Options{}
		if limit := rapid.IntRange(1, 6).Draw(t, "limit"); rapid.Bool().Draw(t, "limited") {
			if rapid.Bool().Draw(t, "command") {
				commands = append(commands, fmt.Sprintf("%s %d", anyCase(t, "limit"), limit))
			} else {
				options.Limit = limit
			}
			rows = rows[:min(limit, len(rows))]
		}
		var want []string
		for _, r := range rows {
			var cells []string
			for _, c := range columns {
				if v := r.fields[c]; v != nil {
					cells = append(cells, c+"="+refText(v))
				}
			}
			want = append(want, strings.Join(cells, ","))
		}

		query := strings.Join(commands, gap(t)+"|"+gap(t))
		q, err := Parse(query)
		if err != nil {
			t.Fatalf("Parse(%q): %v", query, err)
		}
		res, err := q.Run(context.Background(), each(events), options)
		if err != nil {
			t.Fatal(err)
		}
		if got := render(res); got != strings.Join(want, "\n") {
			t.Fatalf("%s\non %v\n got %s\nwant %s", query, events, got, strings.Join(want, "\n"))
		}
		if res.Statistics.RecordsMatched != int64(len(matched)) {
			t.Fatalf("%s: %d matched, want %d", query, res.Statistics.RecordsMatched, len(matched))
		}
		for _, e := range events {
			if !matched[e.Ptr] {
				continue
			}
			for _, term := range q.Terms() {
				if !strings.Contains(e.Message, term) {
					t.Fatalf("%s takes %q, which lacks the term %q", query, e.Message, term)
				}
			}
			for _, term := range q.JSONTerms() {
				if !strings.Contains(e.Message, term) && !strings.Contains(e.Message, `\u`) {
					t.Fatalf("%s takes %q, which lacks the JSON term %q", query, e.Message, term)
				}
			}
		}
		// What is shown on the way is the result of the events until then, and showing it changes nothing.
		cut := rapid.IntRange(0, len(events)).Draw(t, "cut")
		until, err := q.Run(context.Background(), each(events[:cut]), options)
		if err != nil {
			t.Fatal(err)
		}
		x := q.Start(options)
		for i, e := range events {
			if i == cut && render(x.Result()) != render(until) {
				t.Fatalf("%s: after %d events %s, want %s", query, cut, render(x.Result()), render(until))
			}
			if err := x.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if render(x.Result()) != render(res) {
			t.Fatalf("%s: the result changed by being looked at", query)
		}
		if !grouped { // the order of arrival does not matter
			slices.Reverse(events)
			again, err := q.Run(context.Background(), each(events), options)
			if err != nil || render(again) != render(res) {
				t.Fatalf("%s: backwards %s (%v), want %s", query, render(again), err, render(res))
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"fields @timestamp, @message | sort @timestamp desc | limit 25",
		"filter @message like /x\\/y/ and not (a.b[0] >= 5.5e3 or `c-d` in ['x', \"y\"]) # c\n| stats count(*) as n, pct(a, 99) by bin(5m), op | sort n desc",
		"parse @message \"[*] * x: *\" as level, `a b`, c | parse /(?<u>\\w+)/ | dedup u, level | limit 3",
		"stats sum(x)/count(*) as r by k | filter r > 1 | stats max(r) by dateceil(k, 1h) | display jsonparse(k).a",
		"fields if(ispresent(a), substr(a, 1, 2), -2^3^2 % 4) as z, concat(a, 'b', 1)",
	} {
		f.Add(s, `{"a":{"b":["x"]},"k":"{\"a\":1}","op":"y"}`)
		f.Add(s, `[info] user x: y`)
	}
	f.Fuzz(func(t *testing.T, query, message string) {
		q, err := Parse(query)
		if err != nil {
			var e *Error
			var u *UnsupportedError
			if !errors.As(err, &e) && !errors.As(err, &u) {
				t.Fatalf("Parse(%q): %T", query, err)
			}
			if e != nil && (e.Start < 0 || e.End < e.Start) {
				t.Fatalf("Parse(%q): error at %d to %d", query, e.Start, e.End)
			}
			return
		}
		events := stream(message, "other", message, `{"a":1}`)
		res, err := q.Run(context.Background(), each(events), Options{Now: 1, MaxMemory: 1 << 20})
		if err != nil && !errors.Is(err, ErrMemory) {
			t.Fatal(err)
		}
		again, _ := q.Run(context.Background(), each(events), Options{Now: 1, MaxMemory: 1 << 20})
		if render(res) != render(again) {
			t.Fatalf("%q answers %s, then %s", query, render(res), render(again))
		}
	})
}
