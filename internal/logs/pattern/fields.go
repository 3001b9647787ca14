package pattern

import (
	"strconv"
	"strings"
	"sync"
)

// fieldMatcher is the form in brackets.
type fieldMatcher struct {
	names    []string // without the ellipsis; empty: the field has none
	ellipsis int      // how many fields come before it; negative: there is none
	expr     condition
	runs     *sync.Pool
}

// fields reads "[name, name = value && name > 5, ..., name]".
func (p *parser) fields() (matcher, error) {
	if !strings.HasSuffix(p.text, "]") {
		return nil, &Error{Message: "If a filter pattern starts with '[' it must end with ']'", Offset: len(p.text)}
	}
	m := &fieldMatcher{ellipsis: -1, runs: &sync.Pool{New: func() any { return &fieldRun{} }}}
	p.pos++
	if p.space(); p.pos == len(p.text)-1 {
		m.ellipsis = 0 // [] asks nothing and numbers the fields
		return m, nil
	}
	var all []condition
	for {
		start := p.pos
		p.space()
		switch c := p.peek(); {
		case p.take("...") || p.take("…"):
			if m.ellipsis >= 0 {
				return nil, invalid(start)
			}
			m.ellipsis = len(m.names)
		case c == ',' || c == ']':
			m.names = append(m.names, "")
		default:
			cond, err := p.field(m)
			if err != nil {
				return nil, err
			}
			if cond != nil {
				all = append(all, cond)
			}
		}
		p.space()
		if p.take(",") {
			continue
		}
		if p.peek() != ']' || p.pos != len(p.text)-1 {
			return nil, p.refuse()
		}
		break
	}
	if len(all) > 0 {
		m.expr = join(all, true)
	}
	return m, nil
}

// field reads a name, and what is asked of it if something is.
func (p *parser) field(m *fieldMatcher) (condition, error) {
	start, slot, name := p.pos, len(m.names), ""
	read := func() error {
		from := p.pos
		word := p.word()
		switch {
		case word == "":
			return p.refuse()
		case isDigit(word[0]):
			return invalid(from)
		case name == "":
			name = word
		case name != word:
			return invalid(from) // each field has conditions of its own
		}
		return nil
	}
	named := func() (condition, error) {
		for _, other := range m.names {
			if other == name {
				return nil, invalid(start)
			}
		}
		m.names = append(m.names, name)
		return nil, nil
	}
	if p.peek() != '(' {
		if err := read(); err != nil {
			return nil, err
		}
		if p.space(); p.peek() == ',' || p.peek() == ']' {
			return named()
		}
		p.pos = start
	}
	cond, err := p.logic(0, func() (condition, error) {
		if err := read(); err != nil {
			return nil, err
		}
		op, err := p.operator()
		if err != nil {
			return nil, err
		}
		o, err := p.operand(op, "),]")
		if err != nil {
			return nil, err
		}
		return &comparison{slot: slot, operator: op, operand: o}, nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := named(); err != nil {
		return nil, err
	}
	return cond, nil
}

// span is a field of a message: where it begins with its quote or bracket, and what it holds.
type span struct {
	start int
	text  string
}

// fieldRun is the fields of one message, and which of them the pattern's are.
type fieldRun struct {
	spans []span
	slots []string
}

func (r *fieldRun) each(slot int, accept func(scalar) bool) bool {
	return accept(scalar{kind: isText, text: r.slots[slot]})
}

// split takes a message apart: what stands between quotes or brackets is one field, as is everything else
// between white space. A quote or bracket that is not closed is a character like any other.
func (r *fieldRun) split(message string) {
	r.spans = r.spans[:0]
	for i := 0; i < len(message); {
		c := message[i]
		if isSpace(c) {
			i++
			continue
		}
		if c == '"' || c == '[' {
			closing := byte('"')
			if c == '[' {
				closing = ']'
			}
			if n := strings.IndexByte(message[i+1:], closing); n >= 0 {
				r.spans = append(r.spans, span{start: i, text: message[i+1 : i+1+n]})
				i += n + 2
				continue
			}
		}
		start := i
		for i++; i < len(message) && !isSpace(message[i]); i++ {
		}
		r.spans = append(r.spans, span{start: start, text: message[start:i]})
	}
}

// assign gives the pattern's fields their values, and tells whether the message has that many.
func (m *fieldMatcher) assign(r *fieldRun, message string) bool {
	r.split(message)
	r.slots = r.slots[:0]
	have, want := len(r.spans), len(m.names)
	if have < want {
		return false
	}
	for i := range m.names {
		at := i
		if m.ellipsis >= 0 && i >= m.ellipsis {
			at = have - want + i
		}
		r.slots = append(r.slots, r.spans[at].text)
	}
	if m.ellipsis < 0 && have > want {
		r.slots[want-1] = strings.TrimRight(message[r.spans[want-1].start:], " \t\n\v\f\r")
	}
	return true
}

func (m *fieldMatcher) match(message string) bool {
	if m.expr == nil && len(m.names) == 0 {
		return true
	}
	r := m.runs.Get().(*fieldRun)
	defer m.runs.Put(r)
	return m.assign(r, message) && (m.expr == nil || m.expr.holds(r))
}

func (m *fieldMatcher) extracted(message string) map[string]string {
	var r fieldRun
	out := map[string]string{}
	if !m.assign(&r, message) {
		return out
	}
	slot := 0
	for i := range r.spans {
		name, value := "", r.spans[i].text
		if m.ellipsis < 0 || i < m.ellipsis || i >= len(r.spans)-(len(m.names)-m.ellipsis) {
			if slot == len(m.names) {
				break // the last field took the rest
			}
			name, value = m.names[slot], r.slots[slot]
			slot++
		}
		if name == "" {
			name = strconv.Itoa(i + 1)
		}
		out["$"+name] = value
	}
	return out
}

func (m *fieldMatcher) refers(reference string) bool {
	name, ok := strings.CutPrefix(reference, "$")
	if !ok || name == "" {
		return false
	}
	if allDigits(name) {
		return name[0] != '0'
	}
	for _, n := range m.names {
		if n == name {
			return true
		}
	}
	return false
}

// value also answers the number of a field that has a name.
func (m *fieldMatcher) value(message, reference string) (string, bool) {
	if v, ok := m.extracted(message)[reference]; ok {
		return v, true
	}
	name, _ := strings.CutPrefix(reference, "$")
	n, err := strconv.Atoi(name)
	if err != nil || name == "" || !allDigits(name) {
		return "", false
	}
	var r fieldRun
	if r.split(message); n < 1 || n > len(r.spans) {
		return "", false
	}
	return r.spans[n-1].text, true
}

func (m *fieldMatcher) terms() (plain, escaped []string) {
	if m.expr == nil {
		return nil, nil
	}
	plain, _ = m.expr.terms()
	return plain, nil
}
