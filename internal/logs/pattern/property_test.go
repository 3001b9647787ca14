package pattern

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The reference evaluators below know a pattern as the generators made it, not as text, and work on
// messages with encoding/json, maps and slices. They share nothing with the package but the types of rapid.

var words = []string{"a", "b", "ab", "aB", "error", "x1", "é", "404", "10", "-3.5", "1e3", "a b", "GET /", `q"`, "*", `\n`, ""}

func drawWord(t *rapid.T, label string) string { return rapid.SampledFrom(words).Draw(t, label) }

// gap is white space that changes nothing.
func gap(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", " ", "  ", "\t"}).Draw(t, "gap")
}

// anyCase writes a keyword in any case.
func anyCase(t *rapid.T, word string) string {
	b := []byte(strings.ToLower(word))
	for i := range b {
		if rapid.Bool().Draw(t, "upper") {
			b[i] = strings.ToUpper(string(b[i]))[0]
		}
	}
	return string(b)
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// refRegexes are expressions as patterns write them and as Go does.
var refRegexes = map[string]string{`a`: `a`, `^[ab]+$`: `^[ab]+$`, `\d{2,}`: `\d{2,}`, `er{,3}or|b\x20?`: `er{0,3}or|b\x20?`, `.b`: `(?s).b`}

var refRegexNames = []string{`a`, `^[ab]+$`, `\d{2,}`, `er{,3}or|b\x20?`, `.b`}

func check(t *rapid.T, text, message string, want bool) {
	p, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	if _, ok := p.Match(message); ok != want {
		t.Fatalf("%s on %q: %v, want %v", text, message, ok, want)
	}
	if !want {
		return
	}
	for _, term := range p.Terms() {
		if !strings.Contains(message, term) {
			t.Fatalf("%s matches %q, which lacks the term %q", text, message, term)
		}
	}
	for _, term := range p.JSONTerms() {
		if !strings.Contains(message, term) && !strings.Contains(message, `\u`) {
			t.Fatalf("%s matches %q, which lacks the JSON term %q", text, message, term)
		}
	}
}

func TestTermsAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		message := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 6).Draw(t, "message"), " ")
		var text strings.Builder
		var required, excluded, optional []bool
		regexes := 0
		for range rapid.IntRange(0, 4).Draw(t, "terms") {
			var source string
			var holds bool
			if regexes < MaxRegexes && rapid.Bool().Draw(t, "regex") {
				regexes++
				name := rapid.SampledFrom(refRegexNames).Draw(t, "re")
				source, holds = "%"+name+"%", regexp.MustCompile(refRegexes[name]).MatchString(message)
			} else if w := drawWord(t, "word"); strings.Trim(w, "abcdefghijklmnopqrstuvwxyzB0123456789") == "" && w != "" && rapid.Bool().Draw(t, "bare") {
				source, holds = w, strings.Contains(message, w)
			} else {
				source, holds = quote(w), len(strings.Fields(w)) == 0 || len(strings.SplitN(message, w, 2)) == 2
			}
			switch rapid.IntRange(0, 2).Draw(t, "role") {
			case 0:
				required = append(required, holds)
			case 1:
				excluded, source = append(excluded, holds), "-"+source
			default:
				optional, source = append(optional, holds), "?"+source
			}
			text.WriteString(gap(t) + source + " ")
		}
		want := true
		if len(required)+len(excluded) > 0 {
			for _, h := range required {
				want = want && h
			}
			for _, h := range excluded {
				want = want && !h
			}
		} else if len(optional) > 0 {
			want = false
			for _, h := range optional {
				want = want || h
			}
		}
		check(t, text.String(), message, want)
	})
}

// refCompare is a comparison as the generator made it.
type refCompare struct {
	op, bare, quoted, regex string // one of the last three
	isBare, isRegex         bool
}

func drawCompare(t *rapid.T, regexes *int) refCompare {
	c := refCompare{op: rapid.SampledFrom([]string{"=", "!=", "<", "<=", ">", ">="}).Draw(t, "op")}
	switch kind := rapid.IntRange(0, 3).Draw(t, "operand"); {
	case kind == 0 || c.op[0] == '<' || c.op[0] == '>':
		c.isBare, c.bare = true, rapid.SampledFrom([]string{"10", "404", "-3.5", "+10", "1e1", "0.404e+3", "99999999999999999999"}).Draw(t, "number")
	case kind == 1:
		c.isBare, c.bare = true, rapid.SampledFrom([]string{"a", "4*", "*b", "*", "*a*", "a.b", "a*b"}).Draw(t, "bare")
	case kind == 2 && *regexes < MaxRegexes:
		*regexes++
		c.isRegex, c.regex = true, rapid.SampledFrom(refRegexNames).Draw(t, "re")
	default:
		c.quoted = drawWord(t, "quoted")
		if rapid.Bool().Draw(t, "prefix") {
			c.quoted += "*"
		}
	}
	return c
}

func (c refCompare) source(t *rapid.T) string {
	switch {
	case c.isBare:
		return c.op + gap(t) + c.bare
	case c.isRegex:
		return c.op + gap(t) + "%" + c.regex + "%"
	}
	return c.op + gap(t) + quote(c.quoted)
}

// holds compares a string or a json.Number.
func (c refCompare) holds(v any) bool {
	var text string
	numeric := false
	switch v := v.(type) {
	case json.Number:
		text, numeric = v.String(), true
	case string:
		text = v
		numeric = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?$`).MatchString(text)
	default:
		return false
	}
	if n, err := strconv.ParseFloat(c.bare, 64); c.isBare && err == nil && numeric {
		x, _ := strconv.ParseFloat(text, 64)
		return map[string]bool{"=": x == n, "!=": x != n, "<": x < n, "<=": x <= n, ">": x > n, ">=": x >= n}[c.op]
	}
	var is bool
	if c.isRegex {
		is = regexp.MustCompile(refRegexes[c.regex]).MatchString(text)
	} else {
		glob := c.bare + c.quoted
		re := "(?s)^"
		if strings.HasPrefix(glob, "*") {
			re, glob = re+".*", glob[1:]
		}
		end := "$"
		if strings.HasSuffix(glob, "*") {
			end, glob = ".*$", glob[:len(glob)-1]
		}
		is = regexp.MustCompile(re + regexp.QuoteMeta(glob) + end).MatchString(text)
	}
	return c.op == "=" && is || c.op == "!=" && !is
}

// refTree writes a random expression over leaves, and what it comes to.
func refTree(t *rapid.T, depth int, leaf func() (string, bool)) (string, bool) {
	source, holds := "", false
	for i := range rapid.IntRange(1, 2).Draw(t, "or") {
		all := true
		for j := range rapid.IntRange(1, 2).Draw(t, "and") {
			if j > 0 {
				source += gap(t) + "&&"
			} else if i > 0 {
				source += "||"
			}
			var s string
			var h bool
			if depth > 0 && rapid.Bool().Draw(t, "parentheses") {
				s, h = refTree(t, depth-1, leaf)
				s = "(" + s + gap(t) + ")"
			} else {
				s, h = leaf()
			}
			source += gap(t) + s + gap(t)
			all = all && h
		}
		holds = holds || all
	}
	return source, holds
}

var refKeys = []string{"a", "b", "long_key", "x-y", "a.b", `q"r`, "é"}

func drawJSON(t *rapid.T, depth int) any {
	kind := rapid.IntRange(0, 7).Draw(t, "kind")
	if depth == 0 {
		kind %= 5
	}
	switch kind {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return json.Number(rapid.SampledFrom([]string{"10", "404", "-3.5", "0", "1E1", "99999999999999999999"}).Draw(t, "number"))
	case 3, 4:
		return drawWord(t, "string")
	case 5:
		out := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			out = append(out, drawJSON(t, depth-1))
		}
		return out
	default:
		out := map[string]any{}
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			out[rapid.SampledFrom(refKeys).Draw(t, "key")] = drawJSON(t, depth-1)
		}
		return out
	}
}

// refSelect follows steps: strings are members, ints elements, "*" and -1 all of them.
func refSelect(v any, steps []any) []any {
	if len(steps) == 0 {
		return []any{v}
	}
	var out []any
	switch v := v.(type) {
	case map[string]any:
		if name, ok := steps[0].(string); ok {
			for k, x := range v {
				if k == name || name == "*" {
					out = append(out, refSelect(x, steps[1:])...)
				}
			}
		}
	case []any:
		if index, ok := steps[0].(int); ok {
			for i, x := range v {
				if i == index || index < 0 {
					out = append(out, refSelect(x, steps[1:])...)
				}
			}
		}
	}
	return out
}

func drawSelector(t *rapid.T, wildcards *int) (string, []any) {
	source := "$"
	var steps []any
	wild := false
	for i := range rapid.IntRange(1, 3).Draw(t, "steps") {
		may := !wild && *wildcards < MaxWildcards
		switch kind := rapid.IntRange(0, 4).Draw(t, "step"); {
		case kind == 0 && i > 0:
			n := rapid.IntRange(0, 2).Draw(t, "index")
			source, steps = source+fmt.Sprintf("[%d]", n), append(steps, n)
		case kind == 1 && i > 0 && may:
			source, steps, wild = source+"[*]", append(steps, -1), true
		case kind == 2 && may:
			source, steps, wild = source+".*", append(steps, "*"), true
		default:
			key := rapid.SampledFrom(refKeys).Draw(t, "key")
			if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz-_") != "" || kind == 3 {
				source += rapid.SampledFrom([]string{".", ""}).Draw(t, "dot") + "[" + quote(key) + "]"
			} else {
				source += "." + key
			}
			steps = append(steps, key)
		}
	}
	if wild {
		*wildcards++
	}
	return source, steps
}

func TestJSONAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		root := drawJSON(t, 3)
		encoded, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		message := string(encoded)
		if rapid.Bool().Draw(t, "escapes") {
			message = strings.ReplaceAll(message, "a", `\u0061`)
			message = strings.ReplaceAll(message, `f\u0061lse`, "false")
		}
		message = gap(t) + message + gap(t)
		_, object := root.(map[string]any)
		if rapid.IntRange(0, 9).Draw(t, "broken") == 0 {
			message, object = message+"x", false
		}
		wildcards, regexes := 0, 0
		source, want := refTree(t, 2, func() (string, bool) {
			selector, steps := drawSelector(t, &wildcards)
			found := refSelect(root, steps)
			holds := false
			switch kind := rapid.IntRange(0, 6).Draw(t, "leaf"); kind {
			case 0:
				return selector + " " + anyCase(t, "not") + "  " + anyCase(t, "exists"), len(found) == 0
			case 1, 2, 3:
				want := map[int]any{1: nil, 2: true, 3: false}[kind]
				for _, v := range found {
					holds = holds || v == want
				}
				return selector + " " + anyCase(t, "is") + " " + anyCase(t, map[int]string{1: "null", 2: "true", 3: "false"}[kind]), holds
			default:
				c := drawCompare(t, &regexes)
				for _, v := range found {
					holds = holds || c.holds(v)
				}
				return selector + gap(t) + c.source(t), holds
			}
		})
		check(t, gap(t)+"{"+source+"}"+gap(t), message, want && object)
	})
}

// refSplit takes a message apart with one regular expression.
var refSplit = regexp.MustCompile(`"[^"]*"|\[[^\]]*\]|\S+`)

func TestFieldsAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var parts []string
		for range rapid.IntRange(0, 6).Draw(t, "parts") {
			w := rapid.SampledFrom([]string{"a", "ab", "404", "-3.5", "x*", "10.0", "é"}).Draw(t, "part")
			switch rapid.IntRange(0, 3).Draw(t, "wrap") {
			case 0:
				w = `"` + w + " b" + `"`
			case 1:
				w = "[" + w + "]"
			}
			parts = append(parts, w)
		}
		message := gap(t) + strings.Join(parts, " "+gap(t))
		found := refSplit.FindAllStringIndex(message, -1)
		values := make([]string, len(found))
		for i, f := range found {
			values[i] = message[f[0]:f[1]]
			if c := values[i][0]; c == '"' || c == '[' {
				values[i] = values[i][1 : len(values[i])-1]
			}
		}

		fields := rapid.IntRange(1, 5).Draw(t, "fields")
		ellipsis := rapid.IntRange(-3, fields).Draw(t, "ellipsis")
		want := len(values) >= fields
		mine := map[int]string{}
		for i := range fields {
			switch {
			case !want:
			case ellipsis >= 0 && i >= ellipsis:
				mine[i] = values[len(values)-fields+i]
			case ellipsis < 0 && i == fields-1 && len(values) > fields:
				mine[i] = strings.TrimSpace(message[found[i][0]:])
			default:
				mine[i] = values[i]
			}
		}
		var items []string
		regexes := 0
		for i := range fields {
			if i == ellipsis {
				items = append(items, gap(t)+"..."+gap(t))
			}
			name := fmt.Sprintf("w%d", i)
			if rapid.Bool().Draw(t, "condition") {
				source, holds := refTree(t, 1, func() (string, bool) {
					c := drawCompare(t, &regexes)
					return name + gap(t) + c.source(t), c.holds(mine[i])
				})
				items, want = append(items, source), want && holds
			} else {
				items = append(items, gap(t)+name+gap(t))
			}
		}
		if ellipsis == fields {
			items = append(items, "…")
		}
		text := "[" + strings.Join(items, ",") + "]"
		check(t, text, message, want)
		if !want {
			return
		}
		p, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := p.Match(message)
		for i, v := range mine {
			if got, _ := m.Value(fmt.Sprintf("$w%d", i)); got != v {
				t.Fatalf("%s on %q: field %d is %q, want %q", text, message, i, got, v)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "ERROR ?warn -\"x y\" %a+%", `{ $.a.b[0] = "x*" && ($.n >= 5e3 || $.c IS NULL) && $.['d.e'] NOT EXISTS }`,
		"[ip, user, ..., status_code = 4*, bytes > 1000]", "[]", "{$.*=*}", "[a=1||a=2&&(a!=3),]",
	} {
		f.Add(s, `{"a":{"b":["xy"]},"n":5000,"c":null}`)
		f.Add(s, `127.0.0.1 - [x y] "GET /" 404 2000`)
	}
	f.Fuzz(func(t *testing.T, text, message string) {
		p, err := Parse(text)
		if err != nil {
			if _, ok := err.(*Error); !ok {
				t.Fatalf("Parse(%q): %T", text, err)
			}
			return
		}
		m, ok := p.Match(message)
		if !ok {
			return
		}
		m.Extracted()
		m.Value("$.a.b[0]")
		m.Value("$2")
		for _, term := range p.Terms() {
			if !strings.Contains(message, term) {
				t.Fatalf("%q matches %q, which lacks the term %q", text, message, term)
			}
		}
		for _, term := range p.JSONTerms() {
			if !strings.Contains(message, term) && !strings.Contains(message, `\u`) {
				t.Fatalf("%q matches %q, which lacks the JSON term %q", text, message, term)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	line := `2026-01-02T03:04:05.678Z INFO http request method=GET path=/api/v1/orders/12345 status=200 duration=12ms user=4711 trace=abcdef0123456789`
	object := `{"time":"2026-01-02T03:04:05.678Z","level":"info","msg":"http request","http":{"method":"GET","path":"/api/v1/orders/12345","status":200},"duration":12.5,"user":4711,"tags":["a","b","c"]}`
	for _, c := range []struct{ name, pattern, message string }{
		{"terms/hit", `INFO "http request" -ERROR`, line},
		{"terms/miss", `ERROR timeout`, line},
		{"regex", `%status=[45][0-9]{2}%`, line},
		{"json/hit", `{ $.http.status >= 200 && $.level = "info" }`, object},
		{"json/no", `{ $.http.status >= 500 }`, object},
		{"json/skipped", `{ $.errorCode = "AccessDenied*" }`, object},
		{"fields", `[ip, user, name, time, request, status = 4*, bytes > 1000]`, access},
	} {
		b.Run(c.name, func(b *testing.B) {
			p, err := Parse(c.pattern)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(c.message)))
			b.ReportAllocs()
			for b.Loop() {
				p.Match(c.message)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "matches/s")
		})
	}
}
