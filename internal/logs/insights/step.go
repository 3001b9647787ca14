package insights

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/berthhq/berth/internal/logs/pattern/jsonscan"
)

// row is what a query works on: the values of its slots, and where the row stands if nothing else says.
type row struct {
	values []value
	rank   rank
	ptr    string
	now    int64 // milliseconds since the epoch
}

// rank orders events: latest first, then by log, stream and pointer, then as they came. Rows of later
// phases only have the last.
type rank struct {
	time             int64
	log, stream, ptr string
	seq              int64
}

func (a *rank) compare(b *rank) int {
	switch {
	case a.time != b.time:
		if a.time > b.time {
			return -1
		}
		return 1
	case a.log != b.log:
		return strings.Compare(a.log, b.log)
	case a.stream != b.stream:
		return strings.Compare(a.stream, b.stream)
	case a.ptr != b.ptr:
		return strings.Compare(a.ptr, b.ptr)
	}
	return int(max(-1, min(1, a.seq-b.seq)))
}

type compute struct {
	slot int
	expr node
}

func (c *compute) apply(r *row) bool {
	r.values[c.slot] = c.expr.eval(r)
	return true
}

type filter struct{ expr node }

func (f *filter) apply(r *row) bool { return f.expr.eval(r).truth() }

// extractRegex gives named groups their slots.
type extractRegex struct {
	from   node
	regex  *regexp.Regexp
	groups []int
	slots  []int
}

func (x *extractRegex) apply(r *row) bool {
	v := x.from.eval(r)
	var found []int
	s := v.String()
	if v.kind != absent {
		found = x.regex.FindStringSubmatchIndex(s)
	}
	for i, slot := range x.slots {
		r.values[slot] = value{}
		if g := 2 * x.groups[i]; found != nil && found[g] >= 0 {
			r.values[slot] = textOf(s[found[g]:found[g+1]])
		}
	}
	return true
}

// extractGlob gives wildcards their slots: each takes what stands between the texts around it, as little
// as possible; one at the end takes the rest.
type extractGlob struct {
	from  node
	parts []string // what stands between the wildcards
	slots []int
}

func (x *extractGlob) apply(r *row) bool {
	v := x.from.eval(r)
	for _, slot := range x.slots {
		r.values[slot] = value{}
	}
	if v.kind == absent {
		return true
	}
	s := v.String()
	start := strings.Index(s, x.parts[0])
	if start < 0 {
		return true
	}
	s = s[start+len(x.parts[0]):]
	found := make([]string, 0, 8)
	for i, part := range x.parts[1:] {
		end := strings.Index(s, part)
		if part == "" && i == len(x.slots)-1 {
			end = len(s)
		}
		if end < 0 {
			return true
		}
		found = append(found, s[:end])
		s = s[end+len(part):]
	}
	for i, slot := range x.slots {
		r.values[slot] = textOf(found[i])
	}
	return true
}

// walker finds members of a JSON document by dotted paths. A key with dots in it is found too.
type walker struct {
	wants  []want
	frames []int
	out    []value
}

// want is what is left of a path.
type want struct {
	rest string
	done bool
	at   int
}

// walk fills out, one value a path, and tells whether the text was JSON. If not, out is all absent.
func (w *walker) walk(text string, paths []string, out []value) bool {
	w.wants, w.frames, w.out = w.wants[:0], append(w.frames[:0], 0), out
	for i, p := range paths {
		w.wants = append(w.wants, want{rest: p, at: i})
	}
	clear(out)
	if !jsonscan.Scan(text, w) {
		clear(out)
		return false
	}
	return true
}

func (w *walker) enter(key string) bool {
	size := len(w.wants)
	for _, x := range w.wants[w.frames[len(w.frames)-1]:] {
		if x.done {
			continue
		}
		if rest, ok := strings.CutPrefix(x.rest, key); ok {
			if rest == "" {
				w.wants = append(w.wants, want{done: true, at: x.at})
			} else if rest[0] == '.' {
				w.wants = append(w.wants, want{rest: rest[1:], at: x.at})
			}
		}
	}
	if len(w.wants) == size {
		return false
	}
	w.frames = append(w.frames, size)
	return true
}

func (w *walker) Member(key string) bool { return w.enter(key) }
func (w *walker) Element(i int) bool     { return w.enter(strconv.Itoa(i)) }

func (w *walker) Value(v jsonscan.Value) {
	for _, x := range w.wants[w.frames[len(w.frames)-1]:] {
		if !x.done {
			continue
		}
		switch v.Kind {
		case jsonscan.String, jsonscan.Number:
			w.out[x.at] = textOf(v.Text())
		case jsonscan.True, jsonscan.False:
			w.out[x.at] = boolOf(v.Kind == jsonscan.True)
		default:
			w.out[x.at] = value{}
		}
	}
}

func (w *walker) Leave() {
	last := len(w.frames) - 1
	w.wants = w.wants[:w.frames[last]]
	w.frames = w.frames[:last]
}

// jsonPath is the path in a message that a field's name stands for: names that begin with @ are written
// with another one before it.
func jsonPath(name string) string {
	if strings.HasPrefix(name, "@@") {
		return name[1:]
	}
	return name
}
