package query

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

type operator int

const (
	equals operator = iota
	notEquals
	greater
	greaterEqual
	less
	lessEqual
	exists
	notExists
	in
	notIn
	matches
	notMatches
)

func (o operator) String() string {
	return [...]string{"==", "!=", ">", ">=", "<", "<=", "exists", "!exists", "in", "!in", "=~", "!~"}[o]
}

func (o operator) takesNothing() bool { return o == exists || o == notExists }
func (o operator) takesList() bool    { return o == in || o == notIn }
func (o operator) takesPattern() bool { return o == matches || o == notMatches }

// symbols are the ways to write the operators. One that begins another comes after it.
var symbols = []struct {
	text     string
	operator operator
	word     bool
}{
	{"==", equals, false}, {"=~", matches, false}, {"!=", notEquals, false}, {"!~", notMatches, false},
	{">=", greaterEqual, false}, {"<=", lessEqual, false}, {">", greater, false}, {"<", less, false},
	{"!exists", notExists, true}, {"!in", notIn, true},
	{"equals", equals, true}, {"not_equals", notEquals, true},
	{"greater_than", greater, true}, {"greater_than_equal", greaterEqual, true},
	{"less_than", less, true}, {"less_than_equal", lessEqual, true},
	{"exists", exists, true}, {"not_exists", notExists, true},
	{"in", in, true}, {"not_in", notIn, true},
	{"matches", matches, true}, {"not_matches", notMatches, true},
}

type subject int

const (
	agentConnected subject = iota
	agentVersion
	ec2InstanceID
	registeredAt
	runningTasksCount
	taskGroup
	attribute
)

var subjectNames = map[string]subject{
	"agentConnected": agentConnected, "agentVersion": agentVersion, "ec2InstanceId": ec2InstanceID,
	"registeredAt": registeredAt, "runningTasksCount": runningTasksCount, "task:group": taskGroup,
}

// attributeName is a name as PutAttributes takes it.
var attributeName = regexp.MustCompile(`^[A-Za-z0-9_./\\-]{1,128}$`)

func subjectOf(name string) (subject, string, error) {
	if s, ok := subjectNames[name]; ok {
		return s, "", nil
	}
	attr, ok := strings.CutPrefix(name, "attribute:")
	if !ok {
		return 0, "", fmt.Errorf("unknown subject %q", name)
	}
	if !attributeName.MatchString(attr) {
		return 0, "", fmt.Errorf("%q is not an attribute's name", attr)
	}
	return attribute, attr, nil
}

// allows tells whether the guide lists the operator for the subject.
func (s subject) allows(o operator) bool {
	ordered := o == equals || o == notEquals || o >= greater && o <= lessEqual
	switch s {
	case agentVersion, registeredAt, runningTasksCount:
		return ordered
	case agentConnected, ec2InstanceID:
		return o == equals || o == notEquals || o >= in
	}
	return true
}

// term is one comparison. Of the arguments' readings only that which the subject needs is set.
type term struct {
	text      string
	subject   subject
	attribute string // name, for subject attribute
	operator  operator
	arguments []string // one, or those of a list

	pattern *regexp.Regexp
	version version
	instant time.Time
	number  float64
	numeric bool // number is set
}

// prepare reads the arguments as what the subject is.
func (t *term) prepare() error {
	if t.operator.takesNothing() {
		return nil
	}
	if t.operator.takesPattern() {
		var err error
		t.pattern, err = compile(t.arguments[0])
		return err
	}
	arg := t.arguments[0]
	switch t.subject {
	case agentVersion:
		var ok bool
		if t.version, ok = parseVersion(arg); !ok {
			return fmt.Errorf("%q is not a version", arg)
		}
	case registeredAt:
		var ok bool
		if t.instant, ok = parseTime(arg); !ok {
			return fmt.Errorf("%q is not a date", arg)
		}
	case runningTasksCount:
		n, err := strconv.ParseInt(arg, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", arg)
		}
		t.number = float64(n)
	default:
		t.number, t.numeric = parseNumber(arg)
	}
	return nil
}

func (t *term) match(s *Subject) bool {
	switch t.subject {
	case agentVersion:
		have, ok := parseVersion(s.AgentVersion)
		return ok && t.ordered(have.compare(t.version))
	case registeredAt:
		return !s.RegisteredAt.IsZero() && t.ordered(s.RegisteredAt.Truncate(time.Second).Compare(t.instant))
	case runningTasksCount:
		return t.ordered(cmp.Compare(float64(s.RunningTasks), t.number))
	case taskGroup:
		return t.matchGroups(s)
	case attribute:
		if s.Attribute == nil {
			return t.operator == notExists
		}
		value, has := s.Attribute(t.attribute)
		if !has {
			return t.operator == notExists
		}
		return t.operator == exists || t.operator != notExists && t.holds(t.operator, value)
	case ec2InstanceID:
		return s.EC2InstanceID != "" && t.holds(t.operator, s.EC2InstanceID)
	default:
		return t.holds(t.operator, strconv.FormatBool(s.AgentConnected))
	}
}

// matchGroups asks whether some group is as the operator says; the negative operators, whether none is
// as their opposites say.
func (t *term) matchGroups(s *Subject) bool {
	op, want := t.operator, true
	switch op {
	case notEquals, notExists, notIn, notMatches:
		op, want = op-1, false // the opposites stand side by side
	}
	if s.Groups != nil {
		for g := range s.Groups {
			if op == exists || t.holds(op, g) {
				return want
			}
		}
	}
	return !want
}

// ordered applies the operator to the outcome of a comparison.
func (t *term) ordered(c int) bool { return orders(t.operator, c) }

func orders(o operator, c int) bool {
	switch o {
	case equals:
		return c == 0
	case notEquals:
		return c != 0
	case greater:
		return c > 0
	case greaterEqual:
		return c >= 0
	case less:
		return c < 0
	default:
		return c <= 0
	}
}

// holds compares one string. Equality is that of strings; more and less is that of numbers if both
// sides are some, and of strings otherwise.
func (t *term) holds(o operator, value string) bool {
	switch o {
	case in:
		return slices.Contains(t.arguments, value)
	case notIn:
		return !slices.Contains(t.arguments, value)
	case matches:
		return t.pattern.MatchString(value)
	case notMatches:
		return !t.pattern.MatchString(value)
	case equals, notEquals:
		return orders(o, cmp.Compare(value, t.arguments[0]))
	}
	if t.numeric {
		if n, ok := parseNumber(value); ok {
			return orders(o, cmp.Compare(n, t.number))
		}
	}
	return orders(o, cmp.Compare(value, t.arguments[0]))
}

// maxActual bounds what Terms tells of a subject with many values.
const maxActual = 256

func (t *term) actual(s *Subject) string {
	switch t.subject {
	case agentVersion:
		return s.AgentVersion
	case registeredAt:
		if s.RegisteredAt.IsZero() {
			return ""
		}
		return s.RegisteredAt.UTC().Format(time.RFC3339)
	case runningTasksCount:
		return strconv.Itoa(s.RunningTasks)
	case ec2InstanceID:
		return s.EC2InstanceID
	case attribute:
		if s.Attribute == nil {
			return ""
		}
		value, _ := s.Attribute(t.attribute)
		return value
	case taskGroup:
		if s.Groups == nil {
			return ""
		}
		all := strings.Join(slices.Sorted(s.Groups), ", ")
		if len(all) > maxActual {
			return strings.ToValidUTF8(all[:maxActual], "") + "…"
		}
		return all
	default:
		return strconv.FormatBool(s.AgentConnected)
	}
}

// parseNumber reads a decimal number, and nothing else that Go would take for one.
func parseNumber(s string) (float64, bool) {
	if s == "" || len(s) > 32 || strings.Trim(s, "0123456789.+-") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}

// timeLayouts are the guide's date formats; those without a zone are UTC.
var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"}

func parseTime(s string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC().Truncate(time.Second), true
		}
	}
	return time.Time{}, false
}

// version is an agent's: numbers with dots, and perhaps what makes it a prerelease.
type version struct {
	numbers    [4]int
	prerelease string
}

func parseVersion(s string) (version, bool) {
	var v version
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "+")
	s, v.prerelease, _ = strings.Cut(s, "-")
	parts := strings.Split(s, ".")
	if len(parts) > len(v.numbers) {
		return v, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return v, false
		}
		v.numbers[i] = int(n)
	}
	return v, true
}

// compare orders versions; a prerelease comes before its release.
func (v version) compare(w version) int {
	if c := slices.Compare(v.numbers[:], w.numbers[:]); c != 0 {
		return c
	}
	if v.prerelease == "" || w.prerelease == "" {
		return cmp.Compare(len(w.prerelease), len(v.prerelease))
	}
	return cmp.Compare(v.prerelease, w.prerelease)
}

var errPattern = errors.New("pattern is not supported")

// compile makes a pattern that must match a value as a whole, as Java's matches does. It refuses what
// RE2 does not have, and what RE2 would take for something else than Java does.
func compile(pattern string) (*regexp.Regexp, error) {
	if err := sameInJava(pattern); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	// Compiled by itself first: in a group, an unbalanced parenthesis could close it.
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return re, nil
}

// repetition is what may stand after a literal brace that repeats.
var repetition = regexp.MustCompile(`^\{[0-9]+(,[0-9]*)?\}`)

// sameInJava finds what both languages accept and read differently: unions and intersections in
// character classes, numbered escapes, \v, the flag U, named groups with P, and braces that do not
// repeat.
func sameInJava(pattern string) error {
	inClass, first := false, 0
	for i := 0; i < len(pattern); i++ {
		rest := pattern[i:]
		switch c := pattern[i]; {
		case c == '\\':
			i++
			switch {
			case i == len(pattern):
				return errors.New("trailing backslash")
			case pattern[i] >= '0' && pattern[i] <= '9' || pattern[i] == 'v':
				return fmt.Errorf("%w: \\%c", errPattern, pattern[i])
			case pattern[i] == 'Q' || pattern[i] == 'E':
				return fmt.Errorf("%w: quotation with \\Q", errPattern)
			}
		case inClass && c == ']' && i > first:
			inClass = false
		case inClass && c == '[':
			return fmt.Errorf("%w: a class within a class", errPattern)
		case inClass && strings.HasPrefix(rest, "&&"):
			return fmt.Errorf("%w: an intersection of classes", errPattern)
		case inClass:
		case c == '[':
			inClass, first = true, i+1
			if strings.HasPrefix(rest, "[^") {
				first, i = i+2, i+1
			}
		case strings.HasPrefix(rest, "(?P"):
			return fmt.Errorf("%w: (?P", errPattern)
		case strings.HasPrefix(rest, "(?") && hasFlagU(rest[2:]):
			return fmt.Errorf("%w: flag U", errPattern)
		case c == '{' && !repetition.MatchString(rest):
			return fmt.Errorf("%w: a brace that does not repeat", errPattern)
		}
	}
	return nil
}

func hasFlagU(flags string) bool {
	end := strings.IndexAny(flags, ":)<=!")
	return end >= 0 && strings.Contains(flags[:end], "U")
}
