package pattern

import (
	"strconv"
	"strings"
	"sync"

	"github.com/berthhq/berth/internal/logs/pattern/jsonscan"
	"github.com/berthhq/berth/internal/logs/pattern/needle"
)

// jsonMatcher is the form in braces.
type jsonMatcher struct {
	root  *node
	wild  []bool // of each slot: its selector has a wildcard
	expr  condition
	needs []string // a message without a \u escape that lacks one of them does not match
	runs  *sync.Pool
}

// node is where selectors can be after some of their steps.
type node struct {
	members    map[string]*node
	elements   map[int]*node
	anyMember  *node
	anyElement *node
	slot       int // of the selector that ends here; negative: none does
}

func newNode() *node { return &node{slot: -1} }

// step is a part of a selector.
type step struct {
	member  string
	index   int
	element bool // it selects from an array
	any     bool
}

type selector []step

func (s selector) wildcard() bool {
	for _, st := range s {
		if st.any {
			return true
		}
	}
	return false
}

// keys are terms that a message with what the selector selects contains, unless it holds \u.
func (s selector) keys() []string {
	var out []string
	for _, st := range s {
		if !st.element && !st.any {
			out = append(out, needle.JSON(st.member)...)
		}
	}
	return out
}

// add makes a path for a selector and answers its slot.
func (n *node) add(s selector, wild *[]bool) int {
	for _, st := range s {
		next := &n.anyMember
		switch {
		case st.any && st.element:
			next = &n.anyElement
		case st.any:
		case st.element:
			if n.elements[st.index] == nil {
				if n.elements == nil {
					n.elements = map[int]*node{}
				}
				n.elements[st.index] = newNode()
			}
			n = n.elements[st.index]
			continue
		default:
			if n.members[st.member] == nil {
				if n.members == nil {
					n.members = map[string]*node{}
				}
				n.members[st.member] = newNode()
			}
			n = n.members[st.member]
			continue
		}
		if *next == nil {
			*next = newNode()
		}
		n = *next
	}
	if n.slot < 0 {
		n.slot = len(*wild)
		*wild = append(*wild, s.wildcard())
	}
	return n.slot
}

// json reads "{ expression }".
func (p *parser) json() (matcher, error) {
	if !strings.HasSuffix(p.text, "}") {
		return nil, &Error{Message: "If a filter pattern starts with '{' it must end with '}'", Offset: len(p.text)}
	}
	p.pos++
	m := &jsonMatcher{root: newNode()}
	wildcards := 0
	expr, err := p.logic(0, func() (condition, error) {
		start := p.pos
		s, err := p.selector()
		if err != nil {
			return nil, err
		}
		if s.wildcard() {
			if wildcards++; wildcards > MaxWildcards {
				return nil, invalid(start)
			}
		}
		return p.leaf(m.root.add(s, &m.wild), s.keys())
	})
	if err != nil {
		return nil, err
	}
	if p.space(); p.peek() != '}' || p.pos != len(p.text)-1 {
		return nil, p.refuse()
	}
	m.expr = expr
	_, m.needs = expr.terms()
	wild := m.wild
	m.runs = &sync.Pool{New: func() any { return newRun(wild) }}
	return m, nil
}

// leaf reads what is asked of a selector.
func (p *parser) leaf(slot int, keys []string) (condition, error) {
	if p.keyword("IS") {
		is := &identity{slot: slot, keys: keys}
		switch {
		case p.keyword("NULL"):
			is.kind = isNull
		case p.keyword("TRUE"):
			is.kind = isTrue
		case p.keyword("FALSE"):
			is.kind = isFalse
		default:
			return nil, invalid(p.pos)
		}
		return is, nil
	}
	if p.keyword("NOT") {
		if !p.keyword("EXISTS") {
			return nil, invalid(p.pos)
		}
		return absence(slot), nil
	}
	op, err := p.operator()
	if err != nil {
		return nil, err
	}
	o, err := p.operand(op, ")}")
	if err != nil {
		return nil, err
	}
	return &comparison{slot: slot, operator: op, operand: o, keys: keys, json: true}, nil
}

// selector reads $.member[0].*['any name'].
func (p *parser) selector() (selector, error) {
	start := p.pos
	if !p.take("$") {
		return nil, p.refuse()
	}
	refuse := func() error {
		if p.pos == len(p.text) {
			return invalid(p.pos)
		}
		return invalidTerm(p.pos, p.text[start:p.pos]+p.char())
	}
	var out selector
	wildcards := 0
	for {
		dot := p.take(".")
		var st step
		switch {
		case p.take("["):
			switch c := p.peek(); {
			case c == '\'' || c == '"':
				name, err := p.quoted()
				if err != nil {
					return nil, err
				}
				st.member = name
			case p.take("*"):
				st.any, st.element = true, true
			default:
				from := p.pos
				for isDigit(p.peek()) {
					p.pos++
				}
				n, err := strconv.ParseUint(p.text[from:p.pos], 10, 31)
				if err != nil {
					return nil, refuse()
				}
				st.index, st.element = int(n), true
			}
			if !p.take("]") || st.element && len(out) == 0 {
				return nil, refuse()
			}
		case dot && p.take("*"):
			st.any = true
		case dot:
			from := p.pos
			for isWord(p.peek()) || p.peek() == '-' {
				p.pos++
			}
			if st.member = p.text[from:p.pos]; st.member == "" {
				return nil, refuse()
			}
		default:
			if len(out) == 0 {
				return nil, refuse()
			}
			return out, nil
		}
		if st.any {
			if wildcards++; wildcards > 1 {
				return nil, invalid(start)
			}
		}
		out = append(out, st)
	}
}

// identity asks for null, true or false.
type identity struct {
	slot int
	kind scalarKind
	keys []string
}

func (i *identity) holds(v values) bool {
	return v.each(i.slot, func(s scalar) bool { return s.kind == i.kind })
}

func (i *identity) terms() (plain, escaped []string) {
	word := map[scalarKind]string{isNull: "null", isTrue: "true", isFalse: "false"}[i.kind]
	return []string{word}, i.keys
}

// absence asks that nothing be there.
type absence int

func (a absence) holds(v values) bool {
	return !v.each(int(a), func(scalar) bool { return true })
}

func (a absence) terms() (plain, escaped []string) { return nil, nil }

// run is one walk through a message. It collects what the selectors select.
type run struct {
	active []*node            // of all frames
	frames []int              // where in active each begins
	found  [][]jsonscan.Value // of each slot: the last value of a plain path, all that a wildcard selects
	wild   []bool
}

func newRun(wild []bool) *run {
	return &run{found: make([][]jsonscan.Value, len(wild)), wild: wild}
}

func (r *run) reset(root *node) {
	r.active = append(r.active[:0], root)
	r.frames = append(r.frames[:0], 0)
	for i := range r.found {
		clear(r.found[i]) // lets the last message go
		r.found[i] = r.found[i][:0]
	}
}

func (r *run) frame() []*node { return r.active[r.frames[len(r.frames)-1]:] }

// enter opens a frame with what next answers for the nodes of the present one.
func (r *run) enter(next func(n *node) (exact, any *node)) bool {
	size := len(r.active)
	for _, n := range r.frame() {
		exact, wild := next(n)
		if exact != nil {
			r.active = append(r.active, exact)
		}
		if wild != nil {
			r.active = append(r.active, wild)
		}
	}
	if len(r.active) == size {
		return false
	}
	r.frames = append(r.frames, size)
	return true
}

func (r *run) Member(key string) bool {
	return r.enter(func(n *node) (*node, *node) { return n.members[key], n.anyMember })
}

func (r *run) Element(index int) bool {
	return r.enter(func(n *node) (*node, *node) { return n.elements[index], n.anyElement })
}

func (r *run) Value(v jsonscan.Value) {
	for _, n := range r.frame() {
		if n.slot < 0 {
			continue
		}
		if !r.wild[n.slot] {
			r.found[n.slot] = r.found[n.slot][:0]
		}
		r.found[n.slot] = append(r.found[n.slot], v)
	}
}

func (r *run) Leave() {
	last := len(r.frames) - 1
	r.active = r.active[:r.frames[last]]
	r.frames = r.frames[:last]
}

func (r *run) each(slot int, accept func(scalar) bool) bool {
	for _, v := range r.found[slot] {
		if accept(toScalar(v)) {
			return true
		}
	}
	return false
}

func toScalar(v jsonscan.Value) scalar {
	switch v.Kind {
	case jsonscan.String:
		return scalar{kind: isText, text: v.Text()}
	case jsonscan.Number:
		return scalar{kind: isNumber, text: v.Raw}
	case jsonscan.Null:
		return scalar{kind: isNull}
	case jsonscan.True:
		return scalar{kind: isTrue, text: v.Raw}
	case jsonscan.False:
		return scalar{kind: isFalse, text: v.Raw}
	}
	return scalar{kind: isContainer}
}

func (m *jsonMatcher) match(message string) bool {
	for _, need := range m.needs {
		if !strings.Contains(message, need) && !strings.Contains(message, `\u`) {
			return false
		}
	}
	r := m.runs.Get().(*run)
	defer m.runs.Put(r)
	r.reset(m.root)
	return isObject(message) && jsonscan.Scan(message, r) && m.expr.holds(r)
}

// isObject tells whether a message can be a JSON object at all.
func isObject(message string) bool {
	for i := range len(message) {
		if c := message[i]; !isSpace(c) {
			return c == '{'
		}
	}
	return false
}

func (m *jsonMatcher) extracted(string) map[string]string { return nil }

func (m *jsonMatcher) refers(reference string) bool {
	_, ok := parseSelector(reference)
	return ok
}

func parseSelector(reference string) (selector, bool) {
	p := &parser{text: reference}
	s, err := p.selector()
	return s, err == nil && p.pos == len(reference)
}

func (m *jsonMatcher) value(message, reference string) (string, bool) {
	s, ok := parseSelector(reference)
	if !ok {
		return "", false
	}
	root, wild := newNode(), []bool(nil)
	slot := root.add(s, &wild)
	r := newRun(wild)
	r.reset(root)
	if !jsonscan.Scan(message, r) {
		return "", false
	}
	text := ""
	ok = r.each(slot, func(s scalar) bool {
		text = s.text
		return s.kind != isNull && s.kind != isContainer
	})
	return text, ok
}

func (m *jsonMatcher) terms() (plain, escaped []string) { return m.expr.terms() }
