package insights

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// parser reads from the text directly: a slash divides or begins a regular expression, depending on what
// is due.
type parser struct {
	text   string
	pos    int
	behind int // the end of the last symbol, if pos is blanks
	blanks int // the end of the white space and comments behind it
	scope  *scope
	query  *Query
	stats  int        // commands so far
	aggs   *statsSpec // of the stats command being read; nil outside
	shown  []column   // by fields commands
	chosen []column   // by the last display command
}

// errorAt is an error about a part of the text, in bytes.
func (p *parser) errorAt(start, end int, format string, args ...any) error {
	return &Error{
		Message: fmt.Sprintf(format, args...),
		Start:   utf8.RuneCountInString(p.text[:start]),
		End:     utf8.RuneCountInString(p.text[:end]),
	}
}

// unexpected is the error for what comes next.
func (p *parser) unexpected() error {
	p.space()
	start, end := p.pos, p.pos
	if start == len(p.text) {
		return p.errorAt(start, end, "unexpected end of query")
	}
	if end += p.nameLength(); end == start {
		_, n := utf8.DecodeRuneInString(p.text[start:])
		end += n
	}
	line := 1 + strings.Count(p.text[:start], "\n")
	column := utf8.RuneCountInString(p.text[strings.LastIndexByte(p.text[:start], '\n')+1 : start])
	return p.errorAt(start, end, "unexpected symbol found %s at line %d and position %d", p.text[start:end], line, column)
}

// space skips white space and comments.
func (p *parser) space() {
	if p.pos != p.blanks {
		p.behind = p.pos
	}
	defer func() { p.blanks = p.pos }()
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			p.pos++
		case c == '#':
			if n := strings.IndexByte(p.text[p.pos:], '\n'); n >= 0 {
				p.pos += n + 1
			} else {
				p.pos = len(p.text)
			}
		default:
			return
		}
	}
}

// since is the text from start to the end of the last symbol.
func (p *parser) since(start int) string {
	p.space()
	return p.text[start:max(start, p.behind)]
}

func (p *parser) peek() byte {
	p.space()
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// take consumes a symbol if it comes next.
func (p *parser) take(symbol string) bool {
	p.space()
	if strings.HasPrefix(p.text[p.pos:], symbol) {
		p.pos += len(symbol)
		return true
	}
	return false
}

func (p *parser) expect(symbol string) error {
	if !p.take(symbol) {
		return p.unexpected()
	}
	return nil
}

func isNameRune(r rune) bool {
	return r == '_' || r == '@' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

// nameLength is how many bytes of letters, digits, @ and _ come next.
func (p *parser) nameLength() int {
	rest := p.text[p.pos:]
	if n := strings.IndexFunc(rest, func(r rune) bool { return !isNameRune(r) }); n >= 0 {
		return n
	}
	return len(rest)
}

// word is the letters and digits that come next; they are not consumed.
func (p *parser) word() string {
	p.space()
	return p.text[p.pos : p.pos+p.nameLength()]
}

// keyword consumes a word if it comes next, in any case.
func (p *parser) keyword(want string) bool {
	w := p.word()
	if !strings.EqualFold(w, want) {
		return false
	}
	p.pos += len(w)
	return true
}

// quoted reads a string between the quotes that come next. A backslash takes the meaning from a quote or
// a backslash, and stands for itself before anything else.
func (p *parser) quoted() (string, error) {
	quote, start := p.text[p.pos], p.pos
	var b strings.Builder
	for p.pos++; p.pos < len(p.text); p.pos++ {
		c := p.text[p.pos]
		if c == quote {
			p.pos++
			return b.String(), nil
		}
		if c == '\\' && p.pos+1 < len(p.text) && strings.IndexByte("\\\"'", p.text[p.pos+1]) >= 0 {
			p.pos++
			c = p.text[p.pos]
		}
		b.WriteByte(c)
	}
	return "", p.errorAt(start, len(p.text), "unterminated string")
}

// name reads a field: letters, digits, @, dots, indexes in brackets, and parts of any kind in backticks.
func (p *parser) name() (string, error) {
	p.space()
	start := p.pos
	var b strings.Builder
	if start == len(p.text) {
		return "", p.unexpected()
	}
	for p.pos < len(p.text) {
		if p.text[p.pos] == '`' {
			n := strings.IndexByte(p.text[p.pos+1:], '`')
			if n < 1 {
				return "", p.errorAt(p.pos, len(p.text), "unterminated field name")
			}
			b.WriteString(p.text[p.pos+1 : p.pos+1+n])
			p.pos += n + 2
		} else if n := p.nameLength(); n > 0 {
			b.WriteString(p.text[p.pos : p.pos+n])
			p.pos += n
		} else {
			p.pos = start
			return "", p.unexpected()
		}
		for p.pos < len(p.text) && p.text[p.pos] == '[' {
			n := strings.IndexByte(p.text[p.pos:], ']')
			if n < 2 || strings.Trim(p.text[p.pos+1:p.pos+n], "0123456789") != "" {
				return "", p.unexpected()
			}
			b.WriteString("." + p.text[p.pos+1:p.pos+n])
			p.pos += n + 1
		}
		if p.pos+1 >= len(p.text) || p.text[p.pos] != '.' {
			break
		}
		b.WriteByte('.')
		p.pos++
	}
	return b.String(), nil
}

// unsupported are the commands of the service that are refused.
var unsupported = map[string]bool{
	"pattern": true, "diff": true, "unmask": true, "anomaly": true, "filterindex": true, "join": true,
	"lookup": true, "unnest": true, "addtotals": true, "source": true, "flatten": true, "search": true,
}

// commands reads the query.
func (p *parser) commands() error {
	q := p.query
	q.ptr = true
	q.phases = []phase{{}}
	if p.peek() == 0 {
		return p.unexpected()
	}
	for {
		if err := p.command(); err != nil {
			return err
		}
		if p.peek() == 0 {
			break
		}
		if err := p.expect("|"); err != nil {
			return err
		}
	}
	if last := &q.phases[len(q.phases)-1]; last.stats != nil {
		q.phases = append(q.phases, phase{})
	}
	switch {
	case p.chosen != nil:
		q.columns = p.chosen
	case len(p.shown) > 0:
		q.columns = p.shown
	default:
		for _, name := range []string{"@timestamp", "@message"} {
			q.columns = append(q.columns, column{name: name, slot: p.slotOf(name)})
		}
	}
	return nil
}

func (p *parser) command() error {
	w := strings.ToLower(p.word())
	start := p.pos
	p.pos += len(p.word())
	if p.phase().deduped && w != "limit" {
		p.pos = start
		return p.unexpected()
	}
	switch w {
	case "fields":
		return p.fields()
	case "display":
		return p.display()
	case "filter":
		return p.filter()
	case "parse":
		return p.parse()
	case "stats":
		return p.statistics(start)
	case "sort":
		return p.sort()
	case "dedup":
		return p.dedup()
	case "limit", "head": // the old name
		return p.limit()
	}
	if unsupported[w] {
		return &UnsupportedError{Command: w, Start: utf8.RuneCountInString(p.text[:start]), End: utf8.RuneCountInString(p.text[:p.pos])}
	}
	p.pos = start
	return p.unexpected()
}

func (p *parser) phase() *phase { return &p.query.phases[len(p.query.phases)-1] }

// add appends a step; after a collector it begins a phase.
func (p *parser) add(s step) {
	ph := p.phase()
	if ph.collects() {
		p.query.phases = append(p.query.phases, phase{})
		ph = p.phase()
	}
	ph.steps = append(ph.steps, s)
}

// collects tells whether the phase has its collector already.
func (ph *phase) collects() bool {
	return ph.stats != nil || ph.sorted || ph.deduped || ph.limit > 0
}

func (p *parser) newSlot() int {
	p.query.slots++
	return p.query.slots - 1
}

// slotOf is where a name's value is in a row; for one that is not known yet, events are asked for it.
// The name must be one that lookup accepts.
func (p *parser) slotOf(name string) int {
	if slot, ok := p.scope.names[normal(name)]; ok {
		return slot
	}
	slot := p.newSlot()
	p.scope.names[normal(name)] = slot
	src := source{slot: slot, path: name}
	switch lower := strings.ToLower(name); lower {
	case "@timestamp", "@message", "@logstream", "@log", "@ingestiontime", "@ptr":
		src.auto = lower
	}
	p.query.fields = append(p.query.fields, src)
	return slot
}

// lookup is what a name means: a column, a member of a column that holds JSON, or a field of events.
func (p *parser) lookup(name string, start int) (node, error) {
	if slot, ok := p.scope.names[normal(name)]; ok {
		return p.ref(slot), nil
	}
	for i := strings.LastIndexByte(name, '.'); i > 0; i = strings.LastIndexByte(name[:i], '.') {
		if slot, ok := p.scope.names[normal(name[:i])]; ok && p.isComputed(slot) {
			return &member{slot: slot, path: name[i+1:]}, nil
		}
	}
	if p.scope.closed {
		return nil, p.errorAt(start, p.pos, "Unknown symbols found in or after stats: %s", name)
	}
	return p.ref(p.slotOf(name)), nil
}

// isComputed tells whether a slot is not a field of events.
func (p *parser) isComputed(slot int) bool {
	for _, f := range p.query.fields {
		if f.slot == slot {
			return false
		}
	}
	return true
}

func (p *parser) ref(slot int) node {
	n := &slotRef{slot: slot}
	for i := range p.query.fields {
		if f := p.query.fields[i]; f.slot == slot {
			n.field = &f
		}
	}
	return n
}

// named is an expression with what it is called.
type named struct {
	expr node
	name string
	text string // as it was written
}

// item reads "expression [as name]".
func (p *parser) item() (named, error) {
	p.space()
	start := p.pos
	e, err := p.expression(0)
	if err != nil {
		return named{}, err
	}
	n := named{expr: e, text: p.since(start)}
	n.name = strings.ReplaceAll(n.text, "`", "")
	if p.keyword("as") {
		if n.name, err = p.name(); err != nil {
			return named{}, err
		}
	}
	return n, nil
}

// bind gives an expression a slot under its name.
func (p *parser) bind(n named) column {
	if ref, ok := n.expr.(*slotRef); ok {
		p.scope.names[normal(n.name)] = ref.slot
		return column{name: n.name, slot: ref.slot}
	}
	slot := p.newSlot()
	p.add(&compute{slot: slot, expr: n.expr})
	p.scope.names[normal(n.name)] = slot
	return column{name: n.name, slot: slot}
}

// list reads what each reads, separated by commas.
func (p *parser) list(each func() error) error {
	for {
		if err := each(); err != nil {
			return err
		}
		if !p.take(",") {
			return nil
		}
	}
}

// show adds a column; one of the same name is replaced.
func show(columns []column, c column) []column {
	for i := range columns {
		if columns[i].name == c.name {
			columns[i] = c
			return columns
		}
	}
	return append(columns, c)
}

func (p *parser) fields() error {
	return p.list(func() error {
		n, err := p.item()
		if err == nil {
			p.shown = show(p.shown, p.bind(n))
		}
		return err
	})
}

func (p *parser) display() error {
	p.chosen = nil
	return p.list(func() error {
		n, err := p.item()
		if err == nil {
			p.chosen = show(p.chosen, p.bind(n))
		}
		return err
	})
}

func (p *parser) filter() error {
	e, err := p.expression(0)
	if err == nil {
		p.add(&filter{expr: e})
	}
	return err
}

// parse reads "[field] 'glob' as name, name" or "[field] /regex/".
func (p *parser) parse() error {
	c := p.peek()
	start, name := p.pos, "@message"
	var err error
	if c != '"' && c != '\'' && c != '/' {
		if name, err = p.name(); err != nil {
			return err
		}
	}
	from, err := p.lookup(name, start)
	if err != nil {
		return err
	}
	c = p.peek()
	start = p.pos
	switch c {
	case '/':
		return p.parseRegex(from)
	case '"', '\'':
	default:
		return p.unexpected()
	}
	glob, err := p.quoted()
	if err != nil {
		return err
	}
	x := &extractGlob{from: from, parts: strings.Split(glob, "*")}
	end := p.pos
	if !p.keyword("as") {
		return p.unexpected()
	}
	err = p.list(func() error {
		name, err := p.name()
		x.slots = append(x.slots, p.define(name))
		return err
	})
	if err == nil && len(x.slots) != len(x.parts)-1 {
		err = p.errorAt(start, end, "parse has %d wildcards and %d names", len(x.parts)-1, len(x.slots))
	}
	if err == nil {
		p.add(x)
	}
	return err
}

func (p *parser) parseRegex(from node) error {
	start := p.pos
	re, _, err := p.regex()
	if err != nil {
		return err
	}
	x := &extractRegex{from: from, regex: re}
	for i, name := range re.SubexpNames() {
		if name != "" {
			x.groups, x.slots = append(x.groups, i), append(x.slots, p.define(name))
		}
	}
	if len(x.slots) == 0 {
		return p.errorAt(start, p.pos, "parse needs a named capturing group")
	}
	p.add(x)
	return nil
}

// define makes a slot for a name, which hides what it was before.
func (p *parser) define(name string) int {
	slot := p.newSlot()
	p.scope.names[normal(name)] = slot
	return slot
}

// statistics reads "expression [as name], ... [by expression [as name], ...]".
func (p *parser) statistics(start int) error {
	if p.stats++; p.stats > maxStats {
		return p.errorAt(start, p.pos, "a query can have at most %d stats commands", maxStats)
	}
	for i := range p.query.phases {
		if ph := &p.query.phases[i]; ph.sorted || ph.deduped || ph.limit > 0 {
			return p.errorAt(start, p.pos, "sort, dedup and limit must come after the last stats command")
		}
	}
	if p.phase().collects() {
		p.query.phases = append(p.query.phases, phase{})
	}
	spec := &statsSpec{}
	p.aggs = spec
	inner := p.scope
	// Aliases of this command can be used in its later expressions.
	p.scope = &scope{names: maps.Clone(inner.names), closed: inner.closed}
	var columns, keys []column
	var texts []column // the same expression again means the column
	own := map[int]bool{}
	err := p.list(func() error {
		p.space()
		at := p.pos
		n, err := p.item()
		if err != nil {
			return err
		}
		for _, a := range spec.aggs {
			own[a.slot] = true
		}
		for ref := range slotRefs(n.expr) {
			if !own[ref.slot] {
				return p.errorAt(at, p.pos, "stats needs an aggregation function: %s", n.text)
			}
		}
		c := column{name: n.name, slot: p.newSlot()}
		own[c.slot] = true
		spec.results = append(spec.results, compute{slot: c.slot, expr: n.expr})
		p.scope.names[normal(n.name)] = c.slot
		columns, texts = append(columns, c), append(texts, column{name: n.text, slot: c.slot})
		return nil
	})
	p.scope, p.aggs = inner, nil
	if err == nil && p.keyword("by") {
		err = p.list(func() error {
			n, err := p.item()
			c := column{name: n.name, slot: p.newSlot()}
			spec.keys = append(spec.keys, compute{slot: c.slot, expr: n.expr})
			keys, texts = append(keys, c), append(texts, column{name: n.text, slot: c.slot})
			return err
		})
	}
	if err != nil {
		return err
	}
	p.scope = newScope()
	p.scope.closed = true
	p.shown, p.chosen = nil, nil
	for _, c := range texts {
		p.scope.names[normal(c.name)] = c.slot
	}
	for _, c := range append(keys, columns...) {
		p.scope.names[normal(c.name)] = c.slot
		p.shown = show(p.shown, c)
	}
	p.query.ptr = false
	p.phase().stats = spec
	return nil
}

func (p *parser) sort() error {
	ph := p.phase()
	if ph.collects() {
		p.query.phases = append(p.query.phases, phase{})
		ph = p.phase()
	}
	var keys []sortKey
	err := p.list(func() error {
		n, err := p.item()
		if err != nil {
			return err
		}
		k := sortKey{expr: n.expr}
		if p.keyword("desc") {
			k.desc = true
		} else {
			p.keyword("asc")
		}
		keys = append(keys, k)
		return nil
	})
	ph.sorted, ph.keys = true, keys
	return err
}

func (p *parser) dedup() error {
	ph := p.phase()
	if ph.stats != nil || ph.limit > 0 {
		p.query.phases = append(p.query.phases, phase{})
		ph = p.phase()
	}
	var exprs []node
	err := p.list(func() error {
		e, err := p.expression(0)
		exprs = append(exprs, e)
		return err
	})
	ph.deduped, ph.dedup = true, exprs
	return err
}

func (p *parser) limit() error {
	w := p.word()
	n, err := strconv.Atoi(w)
	if err != nil {
		return p.unexpected()
	}
	if n < 1 || n > MaxLimit {
		return p.errorAt(p.pos, p.pos+len(w), "limit must be between 1 and %d", MaxLimit)
	}
	p.pos += len(w)
	ph := p.phase()
	if ph.stats != nil || ph.limit > 0 {
		p.query.phases = append(p.query.phases, phase{})
		ph = p.phase()
	}
	ph.limit = n
	p.query.limit = n
	return nil
}
