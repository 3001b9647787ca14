package pattern

import "strings"

// parser reads from the text directly: what a word is depends on the form of the pattern.
type parser struct {
	text    string
	pos     int
	regexes int
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) || c == '_'
}

func (p *parser) space() {
	for p.pos < len(p.text) && isSpace(p.text[p.pos]) {
		p.pos++
	}
}

// peek is the next byte, or zero at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// take consumes a symbol if it comes next.
func (p *parser) take(symbol string) bool {
	if strings.HasPrefix(p.text[p.pos:], symbol) {
		p.pos += len(symbol)
		return true
	}
	return false
}

// word consumes letters, digits and underscores.
func (p *parser) word() string {
	start := p.pos
	for p.pos < len(p.text) && isWord(p.text[p.pos]) {
		p.pos++
	}
	return p.text[start:p.pos]
}

// keyword consumes a word after white space if it is the one, in either case.
func (p *parser) keyword(want string) bool {
	start := p.pos
	p.space()
	if strings.EqualFold(p.word(), want) {
		return true
	}
	p.pos = start
	return false
}

// char is the next character, for errors.
func (p *parser) char() string {
	for _, r := range p.text[p.pos:] {
		return string(r)
	}
	return ""
}

// refuse is the error for what comes next where only letters and digits may.
func (p *parser) refuse() error {
	if p.pos == len(p.text) {
		return invalid(p.pos)
	}
	return invalidTerm(p.pos, p.char())
}

// quoted reads a string between quotes of the kind that comes next. A backslash takes the meaning from
// the quote or the backslash that follows, and stands for itself before anything else.
func (p *parser) quoted() (string, error) {
	quote, start := p.text[p.pos], p.pos
	p.pos++
	var b strings.Builder
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		switch {
		case c == quote:
			return b.String(), nil
		case c == '\\' && (p.peek() == quote || p.peek() == '\\'):
			b.WriteByte(p.text[p.pos])
			p.pos++
		default:
			b.WriteByte(c)
		}
	}
	return "", invalid(start)
}

// logic reads comparisons joined by && and ||, with parentheses; && binds tighter.
func (p *parser) logic(depth int, leaf func() (condition, error)) (condition, error) {
	if depth > maxDepth {
		return nil, invalid(p.pos)
	}
	var alternatives []condition
	for {
		var all []condition
		for {
			p.space()
			var c condition
			var err error
			if p.take("(") {
				if c, err = p.logic(depth+1, leaf); err != nil {
					return nil, err
				}
				if p.space(); !p.take(")") {
					return nil, p.refuse()
				}
			} else if c, err = leaf(); err != nil {
				return nil, err
			}
			all = append(all, c)
			if p.space(); !p.take("&&") {
				break
			}
		}
		alternatives = append(alternatives, join(all, true))
		if !p.take("||") {
			return join(alternatives, false), nil
		}
	}
}
