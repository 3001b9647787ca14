package query

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads an expression. Its errors are of type *Error.
//
//	expression = conjunction { ("||" | "or") conjunction }
//	conjunction = negation { ("&&" | "and") negation }
//	negation = ("!" | "not") negation | "(" expression ")" | term
//	term = subject operator [argument]
func Parse(text string) (*Expr, error) {
	if n := utf8.RuneCountInString(text); n > MaxLength {
		return nil, &Error{Reason: fmt.Sprintf("expression has %d characters, more than %d,", n, MaxLength)}
	}
	if !utf8.ValidString(text) {
		return nil, &Error{Reason: "expression is not valid UTF-8"}
	}
	p := &parser{text: text}
	root, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.pos < len(text) {
		return nil, p.errorf("unexpected %q", p.glimpse())
	}
	return &Expr{text: text, root: root, terms: p.terms}, nil
}

// parser reads from the text directly: what a word is depends on whether a subject, an operator, a
// value or a pattern is due.
type parser struct {
	text  string
	pos   int
	terms []*term
}

func (p *parser) errorf(format string, args ...any) error {
	return &Error{Offset: p.pos, Reason: fmt.Sprintf(format, args...)}
}

// glimpse is a bit of what comes next, for errors.
func (p *parser) glimpse() string {
	const most = 20
	rest := []rune(p.text[p.pos:min(len(p.text), p.pos+4*most)])
	return string(rest[:min(len(rest), most)])
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func (p *parser) space() {
	for p.pos < len(p.text) && isSpace(p.text[p.pos]) {
		p.pos++
	}
}

// symbol takes a symbol if it comes next.
func (p *parser) symbol(s string) bool {
	p.space()
	if strings.HasPrefix(p.text[p.pos:], s) {
		p.pos += len(s)
		return true
	}
	return false
}

// keyword takes a word if it comes next, in either case.
func (p *parser) keyword(word string) bool {
	p.space()
	end := p.pos
	for end < len(p.text) && isKeywordByte(p.text[end]) {
		end++
	}
	if !strings.EqualFold(p.text[p.pos:end], word) {
		return false
	}
	p.pos = end
	return true
}

func isKeywordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '.' || c == '-'
}

func (p *parser) expression(depth int) (node, error) {
	return p.chain(depth, p.conjunction, "||", "or", func(operands []node) node { return or{operands} })
}

func (p *parser) conjunction(depth int) (node, error) {
	return p.chain(depth, p.negation, "&&", "and", func(operands []node) node { return and{operands} })
}

// chain reads operands joined by an operator.
func (p *parser) chain(depth int, operand func(int) (node, error), symbol, word string, join func([]node) node) (node, error) {
	first, err := operand(depth)
	if err != nil {
		return nil, err
	}
	operands := []node{first}
	for p.symbol(symbol) || p.keyword(word) {
		next, err := operand(depth)
		if err != nil {
			return nil, err
		}
		operands = append(operands, next)
	}
	if len(operands) == 1 {
		return first, nil
	}
	return join(operands), nil
}

func (p *parser) negation(depth int) (node, error) {
	if depth > maxDepth {
		return nil, p.errorf("expression nests deeper than %d", maxDepth)
	}
	if p.symbol("!") || p.keyword("not") {
		operand, err := p.negation(depth + 1)
		return not{operand}, err
	}
	if !p.symbol("(") {
		return p.term()
	}
	inner, err := p.expression(depth + 1)
	if err != nil {
		return nil, err
	}
	if !p.symbol(")") {
		return nil, p.errorf("missing ')'")
	}
	return inner, nil
}

func (p *parser) term() (node, error) {
	p.space()
	start := p.pos
	name, err := p.subjectName()
	if err != nil {
		return nil, err
	}
	t := &term{}
	if t.subject, t.attribute, err = subjectOf(name); err != nil {
		return nil, &Error{Offset: start, Reason: err.Error()}
	}
	p.space()
	at := p.pos
	var ok bool
	if t.operator, ok = p.operator(); !ok {
		return nil, p.errorf("expected an operator after %q", name)
	}
	if !t.subject.allows(t.operator) {
		return nil, &Error{Offset: at, Reason: fmt.Sprintf("operator %s does not apply to %s", t.operator, name)}
	}
	p.space()
	at = p.pos
	switch {
	case t.operator.takesNothing():
	case t.operator.takesList():
		t.arguments, err = p.list()
	case t.operator.takesPattern():
		t.arguments, err = p.single(isPatternEnd)
	default:
		t.arguments, err = p.single(isValueEnd)
	}
	if err != nil {
		return nil, err
	}
	if err := t.prepare(); err != nil {
		return nil, &Error{Offset: at, Reason: err.Error()}
	}
	t.text = strings.TrimSpace(p.text[start:p.pos])
	p.terms = append(p.terms, t)
	return t, nil
}

func (p *parser) subjectName() (string, error) {
	start := p.pos
	for p.pos < len(p.text) && !isSpace(p.text[p.pos]) && !strings.ContainsRune("=!<>~()[],&|'\"", rune(p.text[p.pos])) {
		p.pos++
	}
	if p.pos == start {
		if p.pos == len(p.text) {
			return "", p.errorf("expression ends where a subject should follow")
		}
		return "", p.errorf("expected a subject, found %q", p.glimpse())
	}
	return p.text[start:p.pos], nil
}

func (p *parser) operator() (operator, bool) {
	for _, s := range symbols { // the longer ones first
		if s.word {
			if before := p.pos; strings.HasPrefix(s.text, "!") {
				if p.symbol("!") && p.keyword(s.text[1:]) {
					return s.operator, true
				}
				p.pos = before
			} else if p.keyword(s.text) {
				return s.operator, true
			}
			continue
		}
		if p.symbol(s.text) {
			return s.operator, true
		}
	}
	return 0, false
}

// list reads "[a, b, 'c']".
func (p *parser) list() ([]string, error) {
	if !p.symbol("[") {
		return nil, p.errorf("expected a list in brackets")
	}
	var items []string
	for {
		item, err := p.single(isValueEnd)
		if err != nil {
			return nil, err
		}
		items = append(items, item...)
		if p.symbol("]") {
			return items, nil
		}
		if !p.symbol(",") {
			return nil, p.errorf("expected ',' or ']' in the list")
		}
	}
}

// single reads one argument: in quotes, or up to where a bare one ends.
func (p *parser) single(ends func(rest string) bool) ([]string, error) {
	p.space()
	if p.pos < len(p.text) && (p.text[p.pos] == '\'' || p.text[p.pos] == '"') {
		quote := p.text[p.pos]
		n := strings.IndexByte(p.text[p.pos+1:], quote)
		if n < 0 {
			return nil, p.errorf("quoted argument does not end")
		}
		value := p.text[p.pos+1 : p.pos+1+n]
		p.pos += n + 2
		return []string{value}, nil
	}
	start := p.pos
	for p.pos < len(p.text) && !ends(p.text[p.pos:]) {
		p.pos++
	}
	if p.pos == start {
		if p.pos == len(p.text) {
			return nil, p.errorf("expression ends where an argument should follow")
		}
		return nil, p.errorf("expected an argument, found %q", p.glimpse())
	}
	if p.pos < len(p.text) && p.text[p.pos] == '(' {
		return nil, p.errorf("an argument with parentheses must be quoted; unexpected '('")
	}
	return []string{p.text[start:p.pos]}, nil
}

// isValueEnd tells whether a bare value ends before the rest.
func isValueEnd(rest string) bool {
	switch rest[0] {
	case '[', ']', ',', '\'', '"', '=', '<', '>', '!', '~':
		return true
	}
	return isPatternEnd(rest)
}

// isPatternEnd is isValueEnd for a pattern, in which brackets, commas and comparisons stand for
// themselves.
func isPatternEnd(rest string) bool {
	return isSpace(rest[0]) || rest[0] == '(' || rest[0] == ')' || strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||")
}
