package insights

import (
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// function is one that looks at a row only through its arguments.
type function struct {
	least, most int // arguments; most negative: any number
	apply       func(args []value) value
}

type call struct {
	fn   *function
	args []node
}

func (c *call) eval(r *row) value {
	var few [4]value
	args := few[:0]
	for _, a := range c.args {
		args = append(args, a.eval(r))
	}
	return c.fn.apply(args)
}

// calendar is bin, datefloor and dateceil.
type calendar struct {
	of     node
	period period
	ceil   bool
}

func (c *calendar) eval(r *row) value {
	f, ok := c.of.eval(r).number()
	if !ok || math.Abs(f) > maxMillis {
		return value{}
	}
	if c.ceil {
		return value{kind: moment, num: float64(c.period.ceil(int64(f)))}
	}
	return value{kind: moment, num: float64(c.period.floor(int64(f)))}
}

// maxMillis is the end of the year 9999.
const maxMillis = 253402300799999

// now is when the query began, in seconds, as the guide says.
type now struct{}

func (now) eval(r *row) value { return numberOf(math.Floor(float64(r.now) / 1000)) }

// call reads the arguments of a function, its name already read.
func (p *parser) call(name string, start, depth int) (node, error) {
	fname := strings.ToLower(name)
	if p.aggs == nil { // what a stats command computed can be written again to mean its column
		if node, ok := p.again(start); ok {
			return node, nil
		}
	}
	p.pos++ // the parenthesis
	if kind, ok := aggregations[fname]; ok {
		return p.aggregation(kind, fname, start, depth)
	}
	switch fname {
	case "bin", "datefloor", "dateceil":
		c := &calendar{ceil: fname == "dateceil"}
		var err error
		if fname == "bin" {
			c.of, err = p.lookup("@timestamp", start)
		} else if c.of, err = p.expression(depth + 1); err == nil {
			err = p.expect(",")
		}
		if err != nil {
			return nil, err
		}
		w := p.word()
		var ok bool
		if c.period, ok = parsePeriod(w); !ok {
			return nil, p.unexpected()
		}
		p.pos += len(w)
		return c, p.expect(")")
	case "now":
		return now{}, p.expect(")")
	}
	fn, ok := functions[fname]
	if !ok {
		return nil, p.errorAt(start, start+len(name), "unknown function %s", name)
	}
	c := &call{fn: fn}
	if !p.take(")") {
		err := p.list(func() error {
			e, err := p.expression(depth + 1)
			c.args = append(c.args, e)
			return err
		})
		if err == nil {
			err = p.expect(")")
		}
		if err != nil {
			return nil, err
		}
	}
	if n := len(c.args); n < fn.least || fn.most >= 0 && n > fn.most {
		return nil, p.errorAt(start, p.pos, "%s does not take %d arguments", name, n)
	}
	return c, nil
}

// again finds the column that the call at start is the text of, and consumes it.
func (p *parser) again(start int) (node, bool) {
	level := 0
	for i := p.pos; i < len(p.text); i++ {
		switch p.text[i] {
		case '(':
			level++
		case ')':
			if level--; level == 0 {
				slot, ok := p.scope.names[normal(p.text[start:i+1])]
				if ok {
					p.pos = i + 1
					return p.ref(slot), true
				}
				return nil, false
			}
		}
	}
	return nil, false
}

// aggregation reads the arguments of one.
func (p *parser) aggregation(kind aggKind, name string, start, depth int) (node, error) {
	if p.aggs == nil {
		return nil, p.errorAt(start, start+len(name), "the function %s can be used only in stats", name)
	}
	spec := p.aggs
	p.aggs = nil // aggregations do not nest
	defer func() { p.aggs = spec }()
	a := aggregation{kind: kind}
	var err error
	switch {
	case kind == aggCount && p.take("*"):
	case kind == aggCount && p.peek() == ')':
	default:
		if a.of, err = p.expression(depth + 1); err != nil {
			return nil, err
		}
	}
	if kind == aggPct {
		if err = p.expect(","); err != nil {
			return nil, err
		}
		p.space()
		at := p.pos
		n, err := p.sum(depth + 1)
		if err != nil {
			return nil, err
		}
		lit, ok := n.(*literal)
		if !ok || lit.value.kind != number || lit.value.num < 0 || lit.value.num > 100 {
			return nil, p.errorAt(at, p.pos, "pct needs a number between 0 and 100")
		}
		a.percent = lit.value.num
	}
	if err = p.expect(")"); err != nil {
		return nil, err
	}
	a.slot = p.newSlot()
	spec.aggs = append(spec.aggs, a)
	return &slotRef{slot: a.slot}, nil
}

func numeric(f func(float64) float64) *function {
	return &function{least: 1, most: 1, apply: func(args []value) value {
		x, ok := args[0].number()
		if !ok {
			return value{}
		}
		return finite(f(x))
	}}
}

func textual(f func(string) value) *function {
	return &function{least: 1, most: 1, apply: func(args []value) value {
		if args[0].kind == absent {
			return value{}
		}
		return f(args[0].String())
	}}
}

// test is a function that says no of what is missing.
func test(f func(string) bool) *function {
	return &function{least: 1, most: 1, apply: func(args []value) value {
		return boolOf(args[0].kind != absent && f(args[0].String()))
	}}
}

// extreme is greatest or least: of what is a number.
func extreme(sign int) *function {
	return &function{least: 1, most: -1, apply: func(args []value) value {
		out := value{}
		for _, a := range args {
			x, ok := a.number()
			if ok && (out.kind == absent || sign*compareFloats(x, out.num) > 0) {
				out = numberOf(x)
			}
		}
		return out
	}}
}

func trimmer(left, right bool) *function {
	return &function{least: 1, most: 2, apply: func(args []value) value {
		if args[0].kind == absent {
			return value{}
		}
		s, set := args[0].String(), " \t\n\v\f\r"
		if len(args) == 2 {
			set = args[1].String()
		}
		if left {
			s = strings.TrimLeft(s, set)
		}
		if right {
			s = strings.TrimRight(s, set)
		}
		return textOf(s)
	}}
}

// subnet tests addresses of some families.
func subnet(v4, v6 bool) *function {
	return &function{least: 2, most: 2, apply: func(args []value) value {
		ip, errA := netip.ParseAddr(args[0].String())
		net, errN := netip.ParsePrefix(args[1].String())
		return boolOf(errA == nil && errN == nil && (v4 && ip.Is4() || v6 && ip.Is6()) && net.Contains(ip))
	}}
}

func address(v4, v6 bool) *function {
	return test(func(s string) bool {
		ip, err := netip.ParseAddr(s)
		return err == nil && ip.Zone() == "" && (v4 && ip.Is4() || v6 && ip.Is6())
	})
}

var functions = map[string]*function{
	"abs": numeric(math.Abs), "ceil": numeric(math.Ceil), "floor": numeric(math.Floor),
	"log": numeric(math.Log), "sqrt": numeric(math.Sqrt),
	"greatest": extreme(1), "least": extreme(-1),

	"ispresent": {least: 1, most: 1, apply: func(args []value) value { return boolOf(args[0].kind != absent) }},
	"isempty":   {least: 1, most: 1, apply: func(args []value) value { return boolOf(args[0].String() == "") }},
	"isblank": {least: 1, most: 1, apply: func(args []value) value {
		return boolOf(strings.TrimSpace(args[0].String()) == "")
	}},
	"coalesce": {least: 1, most: -1, apply: func(args []value) value {
		for _, a := range args {
			if a.kind != absent {
				return a
			}
		}
		return value{}
	}},
	"if": {least: 3, most: 3, apply: func(args []value) value {
		if args[0].truth() {
			return args[1]
		}
		return args[2]
	}},

	"concat": {least: 1, most: -1, apply: func(args []value) value {
		var b strings.Builder
		for _, a := range args {
			s := a.String()
			if b.Len()+len(s) > maxText {
				return value{} // doubling a text again and again must come to an end
			}
			b.WriteString(s)
		}
		return textOf(b.String())
	}},
	"ltrim": trimmer(true, false), "rtrim": trimmer(false, true), "trim": trimmer(true, true),
	"strlen":  textual(func(s string) value { return numberOf(float64(utf8.RuneCountInString(s))) }),
	"toupper": textual(func(s string) value { return textOf(strings.ToUpper(s)) }),
	"tolower": textual(func(s string) value { return textOf(strings.ToLower(s)) }),
	"substr":  {least: 2, most: 3, apply: substr},
	"replace": {least: 3, most: 3, apply: func(args []value) value {
		if args[0].kind == absent || args[1].String() == "" {
			return args[0]
		}
		s, from, to := args[0].String(), args[1].String(), args[2].String()
		if strings.Count(s, from)*len(to) > maxText {
			return value{}
		}
		return textOf(strings.ReplaceAll(s, from, to))
	}},
	"strcontains": {least: 2, most: 2, apply: func(args []value) value {
		ok := args[0].kind != absent && args[1].kind != absent && strings.Contains(args[0].String(), args[1].String())
		return numberOf(boolOf(ok).num)
	}},

	"frommillis": {least: 1, most: 1, apply: func(args []value) value {
		f, ok := args[0].number()
		if !ok || math.Abs(f) > maxMillis {
			return value{}
		}
		return value{kind: moment, num: math.Trunc(f)}
	}},
	"tomillis": {least: 1, most: 1, apply: func(args []value) value {
		if args[0].kind != moment {
			return value{}
		}
		return numberOf(args[0].num)
	}},

	"isvalidip": address(true, true), "isvalidipv4": address(true, false), "isvalidipv6": address(false, true),
	"isipinsubnet": subnet(true, true), "isipv4insubnet": subnet(true, false), "isipv6insubnet": subnet(false, true),

	"jsonparse": textual(func(s string) value {
		if !json.Valid([]byte(s)) {
			return value{}
		}
		return textOf(s)
	}),
	"jsonstringify": textual(textOf),
}

// maxText is how long a text functions may make, in bytes; an event is never longer. Beyond, they give nothing.
const maxText = 1 << 20

// substr counts characters from zero.
func substr(args []value) value {
	from, ok := args[1].number()
	if args[0].kind == absent || !ok {
		return value{}
	}
	s := []rune(args[0].String())
	size := float64(len(s))
	from = max(0, min(math.Trunc(from), size))
	to := size
	if len(args) == 3 {
		n, ok := args[2].number()
		if !ok {
			return value{}
		}
		to = max(from, min(from+math.Trunc(n), size))
	}
	return textOf(string(s[int(from):int(to)]))
}
