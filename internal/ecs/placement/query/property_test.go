package query

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// This is the language once more, written plainly: a tree that is made first and then put into words,
// and an evaluator that knows nothing of the parser.

type tree struct {
	kind     string // and, or, not, leaf
	children []tree
	subject  string // with the attribute's name
	op       string // as symbols
	args     []string
}

var aliases = map[string][]string{
	"==": {"==", "equals"}, "!=": {"!=", "not_equals"}, ">": {">", "greater_than"}, ">=": {">=", "greater_than_equal"},
	"<": {"<", "less_than"}, "<=": {"<=", "less_than_equal"}, "exists": {"exists"}, "!exists": {"!exists", "not_exists", "! exists"},
	"in": {"in"}, "!in": {"!in", "not_in", "! in"}, "=~": {"=~", "matches"}, "!~": {"!~", "not_matches"},
}

var (
	opsOrdered = []string{"==", "!=", ">", ">=", "<", "<="}
	opsNamed   = []string{"==", "!=", "in", "!in", "=~", "!~"}
	opsAll     = []string{"==", "!=", ">", ">=", "<", "<=", "exists", "!exists", "in", "!in", "=~", "!~"}
	values     = []string{"a", "b", "prod", "10", "9", "9.5", "-1", "us-east-1a", "i-1", "true", "false", "service:web", "a b", "x,y", "or", "not", "in"}
	patterns   = []string{"a", "[ab]", "a|b", "pr.*", ".*o.*", "[0-9.]+", "us-east-1[a-c]", "(a|prod)", "(?i)PROD", "x,y", "^a$", `\d{1,2}`}
)

func drawTree(t *rapid.T, depth int) tree {
	kind := "leaf"
	if depth > 0 {
		kind = rapid.SampledFrom([]string{"leaf", "leaf", "and", "or", "not"}).Draw(t, "kind")
	}
	switch kind {
	case "and", "or":
		n := tree{kind: kind}
		for range rapid.IntRange(2, 3).Draw(t, "operands") {
			n.children = append(n.children, drawTree(t, depth-1))
		}
		return n
	case "not":
		return tree{kind: kind, children: []tree{drawTree(t, depth-1)}}
	}
	leaf := tree{kind: kind}
	draw := func(from []string) string { return rapid.SampledFrom(from).Draw(t, "pick") }
	leaf.subject = draw([]string{"agentConnected", "agentVersion", "ec2InstanceId", "registeredAt", "runningTasksCount", "task:group",
		"attribute:x", "attribute:ecs.y-z", "attribute:none"})
	args := values
	switch leaf.subject {
	case "agentVersion":
		leaf.op, args = draw(opsOrdered), []string{"1", "1.9", "1.10.0", "v1.10", "2.0.0-rc1", "2"}
	case "registeredAt":
		leaf.op, args = draw(opsOrdered), []string{"2020-01-01", "2020-01-01T00:00:00", "2020-01-01T01:00:00+01:00", "2021-05-05T05:05:05Z"}
	case "runningTasksCount":
		leaf.op, args = draw(opsOrdered), []string{"0", "1", "2", "10"}
	case "agentConnected", "ec2InstanceId":
		leaf.op = draw(opsNamed)
	default:
		leaf.op = draw(opsAll)
	}
	switch leaf.op {
	case "exists", "!exists":
	case "in", "!in":
		for range rapid.IntRange(1, 3).Draw(t, "items") {
			leaf.args = append(leaf.args, draw(args))
		}
	case "=~", "!~":
		leaf.args = []string{draw(patterns)}
	default:
		leaf.args = []string{draw(args)}
	}
	return leaf
}

// words renders a tree with any aliases, spaces and superfluous parentheses.
func (n tree) words(t *rapid.T) string {
	some := func() string { return rapid.SampledFrom([]string{"", " ", "\t ", "\n"}).Draw(t, "space") }
	one := func() string { return rapid.SampledFrom([]string{" ", "  ", "\t"}).Draw(t, "space") }
	var text string
	switch n.kind {
	case "not":
		inner := n.children[0].words(t)
		if k := n.children[0].kind; k == "and" || k == "or" {
			inner = "(" + some() + inner + some() + ")"
		}
		if rapid.Bool().Draw(t, "word") {
			text = "not" + one() + inner
		} else {
			text = "!" + some() + inner
		}
	case "and", "or":
		symbols := map[string][]string{"and": {" and ", " && ", " AND "}, "or": {" or ", " || ", "\tOr\t"}}
		for i, c := range n.children {
			inner := c.words(t)
			if c.kind == "or" && n.kind == "and" || c.kind == n.kind {
				inner = "(" + inner + ")"
			}
			if i > 0 {
				text += rapid.SampledFrom(symbols[n.kind]).Draw(t, "join")
			}
			text += inner
		}
	default:
		op := rapid.SampledFrom(aliases[n.op]).Draw(t, "alias")
		text = n.subject + one() + op
		quoted := make([]string, len(n.args))
		for i, a := range n.args {
			quoted[i] = a
			pattern := n.op == "=~" || n.op == "!~"
			if strings.ContainsAny(a, " (") || !pattern && strings.ContainsAny(a, ",[") || rapid.Bool().Draw(t, "quote") {
				quoted[i] = rapid.SampledFrom([]string{"'" + a + "'", `"` + a + `"`}).Draw(t, "quotes")
			}
		}
		switch {
		case n.op == "in" || n.op == "!in":
			text += some() + "[" + some() + strings.Join(quoted, some()+","+some()) + some() + "]"
		case len(quoted) > 0:
			text += one() + quoted[0]
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "wrap") == 0 {
		return "(" + some() + text + some() + ")"
	}
	return text
}

// naive is an instance with everything in plain form.
type naive struct {
	connected  bool
	version    string
	ec2        string
	registered time.Time
	running    int
	groups     []string
	attributes map[string]string
}

func drawNaive(t *rapid.T) naive {
	n := naive{
		connected:  rapid.Bool().Draw(t, "connected"),
		version:    rapid.SampledFrom([]string{"1.9", "1.10.0", "2.0.0", "2.0.0-rc1", "", "dev"}).Draw(t, "version"),
		ec2:        rapid.SampledFrom([]string{"", "i-1", "a"}).Draw(t, "ec2"),
		running:    rapid.IntRange(0, 3).Draw(t, "running"),
		groups:     rapid.SliceOfNDistinct(rapid.SampledFrom(values), 0, 3, rapid.ID).Draw(t, "groups"),
		attributes: map[string]string{},
	}
	n.registered = time.Date(rapid.IntRange(2019, 2021).Draw(t, "year"), 1, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"x", "ecs.y-z"} {
		if rapid.Bool().Draw(t, "has") {
			n.attributes[name] = rapid.SampledFrom(append([]string{""}, values...)).Draw(t, "value")
		}
	}
	return n
}

func (n naive) subject() Subject {
	return Subject{
		AgentConnected: n.connected, AgentVersion: n.version, EC2InstanceID: n.ec2, RegisteredAt: n.registered,
		RunningTasks: n.running, Groups: slices.Values(n.groups),
		Attribute: func(name string) (string, bool) { v, ok := n.attributes[name]; return v, ok },
	}
}

// versionRank puts the versions that the test uses in order; equal ones have equal ranks.
var versionRank = map[string]int{
	"1": 1, "1.9": 2, "1.10.0": 3, "v1.10": 3, "2.0.0-rc1": 4, "2": 5, "2.0.0": 5,
}

func (n naive) eval(e tree) bool {
	switch e.kind {
	case "and":
		return !slices.ContainsFunc(e.children, func(c tree) bool { return !n.eval(c) })
	case "or":
		return slices.ContainsFunc(e.children, n.eval)
	case "not":
		return !n.eval(e.children[0])
	}
	switch e.subject {
	case "agentConnected":
		return compareStrings(e, strconv.FormatBool(n.connected))
	case "agentVersion":
		have, ok := versionRank[n.version]
		return ok && compareInts(e.op, have, versionRank[e.args[0]])
	case "ec2InstanceId":
		return n.ec2 != "" && compareStrings(e, n.ec2)
	case "registeredAt":
		seconds := map[string]int64{"2021-05-05T05:05:05Z": time.Date(2021, 5, 5, 5, 5, 5, 0, time.UTC).Unix()}
		want, ok := seconds[e.args[0]]
		if !ok {
			want = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
		}
		return compareInts(e.op, int(n.registered.Unix()), int(want))
	case "runningTasksCount":
		want, _ := strconv.Atoi(e.args[0])
		return compareInts(e.op, n.running, want)
	case "task:group":
		positive := e
		negative := map[string]string{"!=": "==", "!exists": "exists", "!in": "in", "!~": "=~"}
		if op, is := negative[e.op]; is {
			positive.op = op
			return !n.eval(positive)
		}
		return slices.ContainsFunc(n.groups, func(g string) bool { return compareStrings(e, g) })
	}
	value, has := n.attributes[strings.TrimPrefix(e.subject, "attribute:")]
	if e.op == "!exists" {
		return !has
	}
	return has && compareStrings(e, value)
}

func compareInts(op string, a, b int) bool {
	return map[string]bool{"==": a == b, "!=": a != b, ">": a > b, ">=": a >= b, "<": a < b, "<=": a <= b}[op]
}

func compareStrings(e tree, value string) bool {
	switch e.op {
	case "exists":
		return true
	case "in":
		return slices.Contains(e.args, value)
	case "!in":
		return !slices.Contains(e.args, value)
	case "=~":
		return regexp.MustCompile("^(" + e.args[0] + ")$").MatchString(value)
	case "!~":
		return !regexp.MustCompile("^(" + e.args[0] + ")$").MatchString(value)
	case "==":
		return value == e.args[0]
	case "!=":
		return value != e.args[0]
	}
	a, erra := strconv.ParseFloat(value, 64)
	b, errb := strconv.ParseFloat(e.args[0], 64)
	if erra == nil && errb == nil {
		return compareInts(e.op, int(a*2), int(b*2)) // halves are the finest that the test uses
	}
	return compareInts(e.op, strings.Compare(value, e.args[0]), 0)
}

func TestAgainstPlainEvaluator(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawTree(t, 4)
		text := e.words(t)
		if len(text) > MaxLength {
			return
		}
		parsed, err := Parse(text)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		for range 5 {
			n := drawNaive(t)
			if got, want := parsed.Match(n.subject()), n.eval(e); got != want {
				t.Fatalf("%s\nof %+v: %v, want %v", text, n, got, want)
			}
		}
	})
}

// FuzzParse: whatever the text, Parse ends; what it accepts can be asked of any instance, and each term
// it tells of is an expression of its own.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d`,
		`ec2InstanceId in ['i-abcd1234', "i-wxyx7890"]`, `not(task:group == database)||!!agentVersion<1.14.5`,
		`registeredAt < 2018-02-13T00:00:00+00:00`, `runningTasksCount greater_than_equal 1`, `attribute:a =~ '[^]x&&[y]'`,
		`((attribute:a !exists))`, `attribute:a =~ \Q`, `attribute:a =~ (?U`, "attribute:a == \x80", `attribute:a in [`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			var known *Error
			if !errors.As(err, &known) || known.Offset < 0 || known.Offset > len(text) {
				t.Fatalf("error %#v", err)
			}
			return
		}
		e.Match(Subject{})
		got := e.Match(instance)
		for _, term := range e.Terms(instance) {
			one, err := Parse(term.Text)
			if err != nil {
				t.Fatalf("term %q of %q: %v", term.Text, text, err)
			}
			if one.Match(instance) != term.Holds {
				t.Fatalf("term %q of %q differs alone", term.Text, text)
			}
		}
		if again, err := Parse("!(" + text + ")"); err == nil && again.Match(instance) == got {
			t.Fatalf("the negation of %q is the same", text)
		}
	})
}
