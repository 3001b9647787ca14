package insights

import (
	"iter"
	"slices"
	"strings"

	"github.com/berthhq/berth/internal/logs/pattern/needle"
)

// Terms are substrings that the message of every event that passes the query's filters contains, letter
// for letter. There may be none.
func (q *Query) Terms() []string { return slices.Clone(q.plain) }

// JSONTerms are substrings that the message of every event that passes the query's filters contains
// unless it holds a \u escape, which can hide any of them.
func (q *Query) JSONTerms() []string { return slices.Clone(q.escaped) }

// mayPass tells whether a message has all of the terms. It is much cheaper than a row.
func (q *Query) mayPass(message string) bool {
	for _, t := range q.plain {
		if !strings.Contains(message, t) {
			return false
		}
	}
	for _, t := range q.escaped {
		if !strings.Contains(message, t) && !strings.Contains(message, `\u`) {
			return false
		}
	}
	return true
}

func (q *Query) needs() (plain, escaped []string) {
	for _, s := range q.phases[0].steps {
		if f, ok := s.(*filter); ok {
			p, e := needs(f.expr)
			plain, escaped = append(plain, p...), append(escaped, e...)
		}
	}
	return unique(plain), unique(escaped)
}

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// needs are terms of every message for which an expression is true.
func needs(n node) (plain, escaped []string) {
	switch n := n.(type) {
	case *logical:
		p1, e1 := needs(n.a)
		p2, e2 := needs(n.b)
		if n.and {
			return append(p1, p2...), append(e1, e2...)
		}
		return common(p1, p2), common(e1, e2)
	case *slotRef:
		return nil, n.keys()
	case *call:
		if ref, ok := n.args[0].(*slotRef); ok && n.fn == functions["ispresent"] {
			return nil, ref.keys()
		}
	case *inList:
		if ref, ok := n.of.(*slotRef); ok {
			return nil, ref.keys()
		}
	case *like:
		if ref, ok := n.of.(*slotRef); ok {
			return ref.holding(n.literal)
		}
	case *comparison:
		ref, ok := n.a.(*slotRef)
		lit, okLit := n.b.(*literal)
		if !ok {
			ref, ok = n.b.(*slotRef)
			lit, okLit = n.a.(*literal)
		}
		switch {
		case !ok || n.op == "!=":
			return nil, nil
		case n.op == "=" && okLit && lit.value.kind == text && !looseText(lit.value.text):
			return ref.holding([]string{lit.value.text})
		}
		return nil, ref.keys()
	}
	return nil, nil
}

// looseText tells whether a value can equal a text that is written otherwise.
func looseText(s string) bool {
	_, isNumber := parseNumber(s)
	_, isBool := boolText(s)
	return isNumber || isBool
}

// holding are the terms of messages in which the field holds some substrings.
func (n *slotRef) holding(literals []string) (plain, escaped []string) {
	if n.field != nil && n.field.auto == "@message" {
		return slices.Clone(literals), nil
	}
	escaped = n.keys()
	if n.field == nil || n.field.auto != "" {
		return nil, escaped
	}
	for _, l := range literals {
		if l != "0" && l != "1" { // which is what booleans become
			escaped = append(escaped, needle.JSON(l)...)
		}
	}
	return nil, escaped
}

// keys are the terms of messages that have the field.
func (n *slotRef) keys() []string {
	if n.field == nil || n.field.auto != "" {
		return nil
	}
	var out []string
	for part := range strings.SplitSeq(jsonPath(n.field.path), ".") {
		if strings.Trim(part, "0123456789") != "" { // others can be indexes
			out = append(out, needle.JSON(part)...)
		}
	}
	return out
}

func common(a, b []string) []string {
	var out []string
	for _, s := range a {
		if slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// children are the expressions that an expression is made of.
func children(n node) []node {
	switch n := n.(type) {
	case *negation:
		return []node{n.of}
	case *logical:
		return []node{n.a, n.b}
	case *comparison:
		return []node{n.a, n.b}
	case *arithmetic:
		return []node{n.a, n.b}
	case *like:
		return []node{n.of}
	case *inList:
		return append([]node{n.of}, n.list...)
	case *call:
		return n.args
	case *calendar:
		return []node{n.of}
	}
	return nil
}

// slotRefs are the references to rows in an expression.
func slotRefs(n node) iter.Seq[*slotRef] {
	return func(yield func(*slotRef) bool) {
		var walk func(n node) bool
		walk = func(n node) bool {
			switch n := n.(type) {
			case *slotRef:
				return yield(n)
			case *member:
				return yield(&slotRef{slot: n.slot})
			}
			for _, c := range children(n) {
				if !walk(c) {
					return false
				}
			}
			return true
		}
		walk(n)
	}
}
