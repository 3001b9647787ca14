package pattern

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthhq/berth/internal/logs/pattern/needle"
)

// condition is a node of the expression of a JSON or space-delimited pattern.
type condition interface {
	// holds asks about the values that were found in a message.
	holds(v values) bool
	// terms are as of matcher.
	terms() (plain, escaped []string)
}

// values answers what was found in a message.
type values interface {
	// each shows the values of a slot until one is accepted, and tells whether one was.
	each(slot int, accept func(scalar) bool) bool
}

// scalar is a value that was found.
type scalar struct {
	kind scalarKind
	text string
}

type scalarKind uint8

const (
	isText scalarKind = iota
	isNumber
	isNull
	isTrue
	isFalse
	isContainer
)

type conjunction []condition
type disjunction []condition

func join(list []condition, and bool) condition {
	if len(list) == 1 {
		return list[0]
	}
	if and {
		return conjunction(list)
	}
	return disjunction(list)
}

func (c conjunction) holds(v values) bool {
	for _, x := range c {
		if !x.holds(v) {
			return false
		}
	}
	return true
}

func (c conjunction) terms() (plain, escaped []string) {
	for _, x := range c {
		p, e := x.terms()
		plain, escaped = append(plain, p...), append(escaped, e...)
	}
	return plain, escaped
}

func (d disjunction) holds(v values) bool {
	for _, x := range d {
		if x.holds(v) {
			return true
		}
	}
	return false
}

// terms are those that every alternative has.
func (d disjunction) terms() (plain, escaped []string) {
	plain, escaped = d[0].terms()
	for _, x := range d[1:] {
		p, e := x.terms()
		plain, escaped = common(plain, p), common(escaped, e)
	}
	return plain, escaped
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

type operator uint8

const (
	equal operator = iota
	unequal
	less
	lessEqual
	greater
	greaterEqual
)

// operator reads one.
func (p *parser) operator() (operator, error) {
	p.space()
	switch {
	case p.take("!="):
		return unequal, nil
	case p.take("<="):
		return lessEqual, nil
	case p.take(">="):
		return greaterEqual, nil
	case p.take("<"):
		return less, nil
	case p.take(">"):
		return greater, nil
	case p.take("="):
		return equal, nil
	}
	return 0, p.refuse()
}

// comparison compares the values of a slot with a constant.
type comparison struct {
	slot     int
	operator operator
	operand  operand
	keys     []string // terms that the selector brings
	json     bool     // values may be written with escapes
}

// operand is the constant: a number, a text with wildcards at its ends, or a regular expression.
type operand struct {
	text             string // without the wildcards
	before, after    bool   // wildcards
	number           string // empty: it is none
	regex            *regexp.Regexp
	regexRequirement []string // substrings of whatever the regular expression matches
}

// operand reads one: a regular expression, a quoted string, or what ends before one of stops.
func (p *parser) operand(op operator, stops string) (operand, error) {
	p.space()
	start := p.pos
	var o operand
	switch p.peek() {
	case '%':
		re, required, err := p.regex()
		if err != nil {
			return o, err
		}
		o = operand{regex: re, regexRequirement: required}
	case '"':
		text, err := p.quoted()
		if err != nil {
			return o, err
		}
		o.wild(text)
	default:
		for p.pos < len(p.text) {
			c := p.text[p.pos]
			if isSpace(c) || strings.IndexByte(stops, c) >= 0 || c == '&' || c == '|' {
				break
			}
			if !isWord(c) && strings.IndexByte(".*+-", c) < 0 {
				return o, p.refuse()
			}
			p.pos++
		}
		text := p.text[start:p.pos]
		if text == "" {
			return o, p.refuse()
		}
		if isDecimal(text, true) {
			o.number = text
		}
		o.wild(text)
	}
	if op != equal && op != unequal && o.number == "" {
		return o, invalid(start)
	}
	return o, nil
}

func (o *operand) wild(text string) {
	o.text, o.before = strings.CutPrefix(text, "*")
	o.text, o.after = strings.CutSuffix(o.text, "*")
}

func (c *comparison) holds(v values) bool {
	return v.each(c.slot, c.accept)
}

func (c *comparison) accept(s scalar) bool {
	if s.kind != isText && s.kind != isNumber {
		return false
	}
	if c.operand.number != "" && (s.kind == isNumber || isDecimal(s.text, false)) {
		order, ok := compareNumbers(s.text, c.operand.number)
		switch c.operator {
		case equal:
			return ok && order == 0
		case unequal:
			return !ok || order != 0
		case less:
			return ok && order < 0
		case lessEqual:
			return ok && order <= 0
		case greater:
			return ok && order > 0
		default:
			return ok && order >= 0
		}
	}
	switch c.operator {
	case equal:
		return c.operand.fits(s.text)
	case unequal:
		return !c.operand.fits(s.text)
	}
	return false
}

func (o *operand) fits(s string) bool {
	switch {
	case o.regex != nil:
		return o.regex.MatchString(s)
	case o.before && o.after:
		return strings.Contains(s, o.text)
	case o.before:
		return strings.HasSuffix(s, o.text)
	case o.after:
		return strings.HasPrefix(s, o.text)
	}
	return s == o.text
}

func (c *comparison) terms() (plain, escaped []string) {
	escaped = c.keys
	if c.operator != equal || c.operand.number != "" {
		return nil, escaped
	}
	literals := c.operand.regexRequirement
	if c.operand.regex == nil && c.operand.text != "" {
		literals = []string{c.operand.text}
	}
	if !c.json {
		return slices.Clone(literals), nil
	}
	escaped = slices.Clone(escaped)
	for _, l := range literals {
		escaped = append(escaped, needle.JSON(l)...)
	}
	return nil, escaped
}

// isDecimal tells whether a text is a number: digits with a sign and a point, and an exponent if allowed.
func isDecimal(s string, exponent bool) bool {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	mantissa, exp := s, ""
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if !exponent {
			return false
		}
		mantissa, exp = s[:i], s[i+1:]
		if exp != "" && (exp[0] == '+' || exp[0] == '-') {
			exp = exp[1:]
		}
		if !allDigits(exp) {
			return false
		}
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	return allDigits(whole) && (!point || allDigits(fraction))
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// compareNumbers is exact between integers, whatever their length, and that of 64-bit floats otherwise.
func compareNumbers(a, b string) (int, bool) {
	if x, neg, ok := integer(a); ok {
		if y, negative, ok := integer(b); ok {
			switch {
			case neg && !negative:
				return -1, true
			case !neg && negative:
				return 1, true
			case neg:
				x, y = y, x
			}
			if len(x) != len(y) {
				return len(x) - len(y), true
			}
			return strings.Compare(x, y), true
		}
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil && !isRange(errX) || errY != nil && !isRange(errY) {
		return 0, false
	}
	switch {
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	}
	return 0, true
}

// isRange tells whether a number was only too large, and infinity took its place.
func isRange(err error) bool {
	e, ok := err.(*strconv.NumError)
	return ok && e.Err == strconv.ErrRange
}

// integer is the digits of an integer without leading zeros.
func integer(s string) (digits string, negative, ok bool) {
	digits = s
	if s != "" && (s[0] == '+' || s[0] == '-') {
		negative, digits = s[0] == '-', s[1:]
	}
	if !allDigits(digits) {
		return "", false, false
	}
	digits = strings.TrimLeft(digits, "0")
	return digits, negative && digits != "", true
}
