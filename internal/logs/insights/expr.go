package insights

import (
	"math"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"

	"github.com/berthhq/berth/internal/logs/pattern/needle"
)

// node is an expression.
type node interface {
	eval(r *row) value
}

type literal struct{ value value }

// slotRef is a column, or a field of events.
type slotRef struct {
	slot  int
	field *source // nil: computed
}

// member is a part of a column that holds JSON.
type member struct {
	slot int
	path string
}

type negation struct{ of node }

type logical struct {
	and  bool
	a, b node
}

type comparison struct {
	op   string
	a, b node
}

type like struct {
	of      node
	regex   *regexp.Regexp // nil: a substring
	text    string
	literal []string // substrings of whatever matches
}

type inList struct {
	of   node
	list []node
}

type arithmetic struct {
	op   byte
	a, b node
}

func (n *literal) eval(*row) value   { return n.value }
func (n *slotRef) eval(r *row) value { return r.values[n.slot] }

func (n *member) eval(r *row) value {
	v := r.values[n.slot]
	if v.kind != text {
		return value{}
	}
	var w walker
	out := [1]value{}
	w.walk(v.text, []string{n.path}, out[:])
	return out[0]
}

func (n *negation) eval(r *row) value { return boolOf(!n.of.eval(r).truth()) }

func (n *logical) eval(r *row) value {
	if n.a.eval(r).truth() != n.and {
		return boolOf(!n.and)
	}
	return boolOf(n.b.eval(r).truth())
}

func (n *comparison) eval(r *row) value {
	a, b := n.a.eval(r), n.b.eval(r)
	if a.kind == absent || b.kind == absent {
		return boolOf(n.op == "!=")
	}
	c := compare(a, b)
	switch n.op {
	case "=":
		return boolOf(c == 0)
	case "!=":
		return boolOf(c != 0)
	case "<":
		return boolOf(c < 0)
	case "<=":
		return boolOf(c <= 0)
	case ">":
		return boolOf(c > 0)
	}
	return boolOf(c >= 0)
}

func (n *like) eval(r *row) value {
	v := n.of.eval(r)
	if v.kind == absent {
		return boolOf(false)
	}
	if n.regex != nil {
		return boolOf(n.regex.MatchString(v.String()))
	}
	return boolOf(strings.Contains(v.String(), n.text))
}

func (n *inList) eval(r *row) value {
	v := n.of.eval(r)
	if v.kind == absent {
		return boolOf(false)
	}
	for _, e := range n.list {
		if x := e.eval(r); x.kind != absent && compare(v, x) == 0 {
			return boolOf(true)
		}
	}
	return boolOf(false)
}

func (n *arithmetic) eval(r *row) value {
	a, okA := n.a.eval(r).number()
	b, okB := n.b.eval(r).number()
	if !okA || !okB {
		return value{}
	}
	switch n.op {
	case '+':
		return finite(a + b)
	case '-':
		return finite(a - b)
	case '*':
		return finite(a * b)
	case '/':
		return finite(a / b)
	case '%':
		return finite(math.Mod(a, b))
	}
	return finite(math.Pow(a, b))
}

// expression reads one. Binding, loosest first: or, and, not, comparisons, + -, * / %, ^, sign.
func (p *parser) expression(depth int) (node, error) {
	if depth > maxDepth {
		return nil, p.errorAt(p.pos, p.pos, "expression nests too deep")
	}
	a, err := p.conjunction(depth + 1)
	for err == nil && p.keyword("or") {
		var b node
		b, err = p.conjunction(depth + 1)
		a = &logical{a: a, b: b}
	}
	return a, err
}

func (p *parser) conjunction(depth int) (node, error) {
	a, err := p.not(depth)
	for err == nil && p.keyword("and") {
		var b node
		b, err = p.not(depth)
		a = &logical{and: true, a: a, b: b}
	}
	return a, err
}

func (p *parser) not(depth int) (node, error) {
	if depth > maxDepth {
		return nil, p.errorAt(p.pos, p.pos, "expression nests too deep")
	}
	if p.keyword("not") {
		e, err := p.not(depth + 1)
		return &negation{of: e}, err
	}
	return p.comparison(depth)
}

func (p *parser) comparison(depth int) (node, error) {
	a, err := p.sum(depth)
	if err != nil {
		return nil, err
	}
	negated := false
	start := p.pos
	if p.keyword("not") {
		negated = true
	}
	var out node
	switch {
	case p.keyword("like") || !negated && p.take("=~"):
		out, err = p.like(a)
	case p.keyword("in"):
		out, err = p.in(a, depth)
	case negated:
		p.pos = start
		return nil, p.unexpected()
	default:
		for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
			if p.take(op) {
				b, err := p.sum(depth)
				return &comparison{op: op, a: a, b: b}, err
			}
		}
		return a, nil
	}
	if negated {
		out = &negation{of: out}
	}
	return out, err
}

func (p *parser) like(of node) (node, error) {
	switch p.peek() {
	case '/':
		re, needles, err := p.regex()
		return &like{of: of, regex: re, literal: needles}, err
	case '"', '\'':
		s, err := p.quoted()
		return &like{of: of, text: s, literal: []string{s}}, err
	}
	return nil, p.unexpected()
}

func (p *parser) in(of node, depth int) (node, error) {
	if err := p.expect("["); err != nil {
		return nil, err
	}
	n := &inList{of: of}
	err := p.list(func() error {
		e, err := p.sum(depth + 1)
		n.list = append(n.list, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return n, p.expect("]")
}

// regex reads /…/; a backslash before a slash makes it a part of the expression.
func (p *parser) regex() (*regexp.Regexp, []string, error) {
	start := p.pos
	for p.pos++; p.pos < len(p.text) && p.text[p.pos] != '/'; p.pos++ {
		if p.text[p.pos] == '\\' {
			p.pos++
		}
	}
	if p.pos >= len(p.text) {
		p.pos = len(p.text)
		return nil, nil, p.errorAt(start, p.pos, "unterminated regular expression")
	}
	source := strings.ReplaceAll(p.text[start+1:p.pos], `\/`, `/`)
	p.pos++
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, nil, p.errorAt(start, p.pos, "invalid regular expression: %v", err)
	}
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, nil, p.errorAt(start, p.pos, "invalid regular expression: %v", err)
	}
	return re, needle.Regexp(tree), nil
}

func (p *parser) sum(depth int) (node, error) {
	return p.chain(depth, "+-", p.product)
}

func (p *parser) product(depth int) (node, error) {
	return p.chain(depth, "*/%", p.power)
}

// chain reads operands of one binding, joined from the left.
func (p *parser) chain(depth int, ops string, operand func(int) (node, error)) (node, error) {
	a, err := operand(depth)
	for err == nil {
		c := p.peek()
		if c == 0 || strings.IndexByte(ops, c) < 0 {
			break
		}
		p.pos++
		var b node
		b, err = operand(depth)
		a = &arithmetic{op: c, a: a, b: b}
	}
	return a, err
}

func (p *parser) power(depth int) (node, error) {
	if depth > maxDepth {
		return nil, p.errorAt(p.pos, p.pos, "expression nests too deep")
	}
	a, err := p.unary(depth)
	if err == nil && p.take("^") {
		var b node
		b, err = p.power(depth + 1)
		a = &arithmetic{op: '^', a: a, b: b}
	}
	return a, err
}

func (p *parser) unary(depth int) (node, error) {
	if depth > maxDepth {
		return nil, p.errorAt(p.pos, p.pos, "expression nests too deep")
	}
	if p.take("-") {
		e, err := p.unary(depth + 1)
		return &arithmetic{op: '-', a: &literal{numberOf(0)}, b: e}, err
	}
	return p.primary(depth)
}

func (p *parser) primary(depth int) (node, error) {
	c := p.peek()
	start := p.pos
	switch {
	case c == '(':
		p.pos++
		e, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	case c == '"' || c == '\'':
		s, err := p.quoted()
		return &literal{textOf(s)}, err
	case isDigit(c):
		return p.number()
	}
	name, err := p.name()
	if err != nil {
		return nil, err
	}
	if p.peek() == '(' && p.text[start] != '`' {
		return p.call(name, start, depth)
	}
	if slot, ok := p.scope.names[normal(name)]; ok {
		return p.ref(slot), nil
	}
	switch strings.ToLower(name) {
	case "true":
		return &literal{boolOf(true)}, nil
	case "false":
		return &literal{boolOf(false)}, nil
	}
	return p.lookup(name, start)
}

func (p *parser) number() (node, error) {
	start := p.pos
	digits := func() {
		for p.pos < len(p.text) && isDigit(p.text[p.pos]) {
			p.pos++
		}
	}
	digits()
	if p.pos < len(p.text) && p.text[p.pos] == '.' {
		p.pos++
		digits()
	}
	if p.pos < len(p.text) && p.text[p.pos]|0x20 == 'e' {
		at := p.pos
		p.pos++
		if p.pos < len(p.text) && (p.text[p.pos] == '+' || p.text[p.pos] == '-') {
			p.pos++
		}
		from := p.pos
		if digits(); p.pos == from {
			p.pos = at // a letter that belongs to something else
		}
	}
	f, err := strconv.ParseFloat(p.text[start:p.pos], 64)
	if err != nil || p.nameLength() > 0 {
		p.pos = start
		return nil, p.unexpected()
	}
	return &literal{numberOf(f)}, nil
}
