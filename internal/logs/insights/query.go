package insights

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits, from the API reference and the user guide.
const (
	// MaxLength is how many characters a query may have.
	MaxLength = 10_000
	// MaxLimit is how many rows a query may ask for, and the default.
	MaxLimit = 10_000
	// maxStats is how many stats commands a query may have.
	maxStats = 2
)

// maxDepth bounds how deep expressions may nest.
const maxDepth = 64

// DefaultMemory is the bound on what an execution holds, in bytes, if its options set none.
const DefaultMemory = 256 << 20

// ErrMemory says that a query would have to hold more than Options.MaxMemory.
var ErrMemory = errors.New("query holds more rows or groups than its memory allows")

// Error says what is wrong with a query. The API answers it as MalformedQueryException, with the offsets
// in queryCompileError.location.
type Error struct {
	Message string
	Start   int // in characters, from the beginning of the query
	End     int // behind the last character
}

func (e *Error) Error() string { return e.Message }

// UnsupportedError refuses a command of the language that is not built. The API answers it like [Error].
type UnsupportedError struct {
	Command    string
	Start, End int // as of Error
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the command %s is not supported", e.Command)
}

// Query is a valid query. It is immutable and safe for concurrent use.
type Query struct {
	text    string
	fields  []source // of the slots that events fill
	slots   int
	phases  []phase
	columns []column
	ptr     bool // rows are events, so results have @ptr
	limit   int  // zero: the query sets none

	plain, escaped []string // Terms and JSONTerms
}

// source is where a slot's value is in an event: an automatic field, or a member of a JSON message.
type source struct {
	slot int
	auto string // lower case; empty: discovered
	path string
}

// column is what results show of a row.
type column struct {
	name string
	slot int
}

// phase works row by row, then collects.
type phase struct {
	steps   []step
	stats   *statsSpec // nil: order, drop duplicates, limit
	keys    []sortKey
	dedup   []node
	deduped bool
	limit   int // zero: none
	sorted  bool
}

// step computes, extracts or filters.
type step interface {
	// apply changes a row and tells whether it stays.
	apply(r *row) bool
}

type sortKey struct {
	expr node
	desc bool
}

// String is the text the query was parsed from.
func (q *Query) String() string { return q.text }

// Limit is what the query's own limit command says; zero if there is none.
func (q *Query) Limit() int { return q.limit }

// Columns are the names of what results show, without @ptr.
func (q *Query) Columns() []string {
	out := make([]string, len(q.columns))
	for i, c := range q.columns {
		out[i] = c.name
	}
	return out
}

// Parse reads a query. Its errors are of type *Error or *UnsupportedError.
func Parse(query string) (*Query, error) {
	if n := utf8.RuneCountInString(query); n > MaxLength {
		return nil, &Error{Message: fmt.Sprintf("1 validation error detected: Value at 'queryString' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d", MaxLength), Start: MaxLength, End: n}
	}
	if !utf8.ValidString(query) {
		return nil, &Error{Message: "query is not valid UTF-8"}
	}
	p := &parser{text: query, scope: newScope(), query: &Query{text: query}}
	if err := p.commands(); err != nil {
		return nil, err
	}
	p.query.plain, p.query.escaped = p.query.needs()
	return p.query, nil
}

// scope is what names mean at a place of the query.
type scope struct {
	names  map[string]int // columns, aliases and extracted fields, by what normal answers
	closed bool           // after stats: there is nothing else
}

func newScope() *scope { return &scope{names: map[string]int{}} }

// normal is a name or an expression without what does not matter: white space and letter case of
// functions. Names keep their case.
func normal(s string) string {
	s = strings.Join(strings.Fields(s), "")
	if i := strings.IndexByte(s, '('); i > 0 {
		s = strings.ToLower(s[:i]) + s[i:]
	}
	return s
}
