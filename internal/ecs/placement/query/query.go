package query

import (
	"fmt"
	"iter"
	"time"
)

// MaxLength is how many characters an expression may have, from the API reference.
const MaxLength = 2000

// maxDepth bounds how deep parentheses and negations may nest.
const maxDepth = 64

// Subject is a container instance as an expression sees it.
type Subject struct {
	AgentConnected bool
	AgentVersion   string
	EC2InstanceID  string // empty: it has none
	RegisteredAt   time.Time
	RunningTasks   int
	// Groups are the groups of the cluster's tasks on it; nil: none.
	Groups iter.Seq[string]
	// Attribute answers the value of an attribute, and whether the instance has it; nil: it has none.
	Attribute func(name string) (string, bool)
}

// Expr is a valid expression. It is immutable.
type Expr struct {
	text  string
	root  node
	terms []*term // in the order of the text
}

// String is the text the expression was parsed from.
func (e *Expr) String() string { return e.text }

// Match tells whether the expression holds for a container instance.
func (e *Expr) Match(s Subject) bool { return e.root.match(&s) }

// Term is what became of one comparison of an expression.
type Term struct {
	Text   string `json:"text"`             // as it was written
	Actual string `json:"actual,omitempty"` // what the instance has of its subject; empty also if nothing
	Holds  bool   `json:"holds"`
}

// Terms evaluates each comparison of the expression by itself, whether or not the result of the whole
// depends on it.
func (e *Expr) Terms(s Subject) []Term {
	out := make([]Term, len(e.terms))
	for i, t := range e.terms {
		out[i] = Term{Text: t.text, Actual: t.actual(&s), Holds: t.match(&s)}
	}
	return out
}

// Error says what is wrong with an expression.
type Error struct {
	Offset int // in bytes
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s at character %d", e.Reason, e.Offset+1) }

// node is an expression or a part of one.
type node interface {
	match(*Subject) bool
}

type (
	and struct{ operands []node }
	or  struct{ operands []node }
	not struct{ operand node }
)

func (n and) match(s *Subject) bool {
	for _, o := range n.operands {
		if !o.match(s) {
			return false
		}
	}
	return true
}

func (n or) match(s *Subject) bool {
	for _, o := range n.operands {
		if o.match(s) {
			return true
		}
	}
	return false
}

func (n not) match(s *Subject) bool { return !n.operand.match(s) }
