package pattern

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a pattern, from the API reference and the user guide.
const (
	// MaxLength is how many characters a pattern may have.
	MaxLength = 1024
	// MaxRegexes is how many regular expressions a pattern may hold.
	MaxRegexes = 2
	// MaxWildcards is how many wildcard selectors a JSON pattern may hold; a single selector one.
	MaxWildcards = 3
)

// maxDepth bounds how deep parentheses may nest.
const maxDepth = 64

// Error says why a pattern is refused. The API answers it as InvalidParameterException.
type Error struct {
	Message string // in the words of the service
	Offset  int    // in bytes; where the reader stopped
}

func (e *Error) Error() string { return e.Message }

func invalid(offset int) error {
	return &Error{Message: "Invalid filter pattern", Offset: offset}
}

func invalidTerm(offset int, term string) error {
	return &Error{Message: fmt.Sprintf("Invalid character(s) in term '%s'", term), Offset: offset}
}

// Kind is the form of a pattern.
type Kind int

// The forms of patterns.
const (
	All    Kind = iota // empty; matches every message
	Terms              // words, phrases and regular expressions
	JSON               // { $.selector = value }
	Fields             // [field, field = value, ...]
)

// Pattern is a valid filter pattern. It is immutable and safe for concurrent use.
type Pattern struct {
	text    string
	kind    Kind
	regexes int
	matcher matcher
}

// matcher is one of the three forms.
type matcher interface {
	match(message string) bool
	// extracted are the values of named and numbered fields.
	extracted(message string) map[string]string
	// value is what a reference stands for in a message that matched.
	value(message, reference string) (string, bool)
	// refers tells whether a reference can stand for something.
	refers(reference string) bool
	// terms are substrings of every message that matches; those in escaped may be written with \u escapes.
	terms() (plain, escaped []string)
}

// Parse reads a pattern. Its errors are of type *Error.
func Parse(text string) (*Pattern, error) {
	if utf8.RuneCountInString(text) > MaxLength {
		return nil, &Error{Message: fmt.Sprintf("1 validation error detected: Value '%s' at 'filterPattern' failed to satisfy "+
			"constraint: Member must have length less than or equal to %d", text, MaxLength), Offset: MaxLength}
	}
	if !utf8.ValidString(text) {
		return nil, invalid(0)
	}
	p := &parser{text: strings.TrimRight(text, " \t\r\n")}
	p.space()
	out := &Pattern{text: text}
	var err error
	switch {
	case p.pos == len(p.text):
		out.kind, out.matcher = All, termMatcher{}
	case p.text[p.pos] == '{':
		out.kind = JSON
		out.matcher, err = p.json()
	case p.text[p.pos] == '[':
		out.kind = Fields
		out.matcher, err = p.fields()
	default:
		out.kind = Terms
		out.matcher, err = p.terms()
	}
	if err != nil {
		return nil, err
	}
	out.regexes = p.regexes
	return out, nil
}

// String is the text the pattern was parsed from.
func (p *Pattern) String() string { return p.text }

// Kind is the form of the pattern.
func (p *Pattern) Kind() Kind { return p.kind }

// Regexes is how many regular expressions the pattern holds. A log group may have five filters that hold any.
func (p *Pattern) Regexes() int { return p.regexes }

// Match tells whether a message matches.
func (p *Pattern) Match(message string) (Match, bool) {
	if !p.matcher.match(message) {
		return Match{}, false
	}
	return Match{pattern: p, message: message}, true
}

// Terms are substrings that every matching message contains, letter for letter. There may be none.
func (p *Pattern) Terms() []string {
	plain, _ := p.matcher.terms()
	return plain
}

// JSONTerms are substrings that every matching message contains unless it holds a \u escape, which can
// hide any of them. Only JSON patterns have some.
func (p *Pattern) JSONTerms() []string {
	_, escaped := p.matcher.terms()
	return escaped
}

// Refers tells whether a reference as a metric filter's value or dimension names it, "$.selector" or
// "$field", can stand for something in messages that match.
func (p *Pattern) Refers(reference string) bool { return p.matcher.refers(reference) }

// Match is a message that matched.
type Match struct {
	pattern *Pattern
	message string
}

// Extracted are TestMetricFilter's extractedValues: of a space-delimited pattern the value of each field
// by "$name", or "$n" counted from one if it has no name; of the other forms none, as the service does.
func (m Match) Extracted() map[string]string { return m.pattern.matcher.extracted(m.message) }

// Value is what a reference ("$.selector", "$field", "$3") stands for in the message, as text. Of null,
// objects and arrays there is no value. A selector with a wildcard stands for the first value it selects.
func (m Match) Value(reference string) (string, bool) {
	return m.pattern.matcher.value(m.message, reference)
}
