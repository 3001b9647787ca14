package insights

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// value is what a field or an expression has in a row.
type value struct {
	kind kind
	text string  // of text
	num  float64 // of the others; milliseconds since the epoch for a time
}

type kind uint8

const (
	absent kind = iota
	text
	number
	boolean
	moment
)

func textOf(s string) value    { return value{kind: text, text: s} }
func numberOf(f float64) value { return value{kind: number, num: f} }

func boolOf(b bool) value {
	if b {
		return value{kind: boolean, num: 1}
	}
	return value{kind: boolean}
}

// finite is a number, or nothing if arithmetic led nowhere.
func finite(f float64) value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return value{}
	}
	return numberOf(f)
}

// number is what a value is as one.
func (v value) number() (float64, bool) {
	switch v.kind {
	case absent:
		return 0, false
	case text:
		return parseNumber(v.text)
	}
	return v.num, true
}

// parseNumber reads decimals; not hexadecimal, infinities and the like.
func parseNumber(s string) (float64, bool) {
	if s == "" || len(s) > 64 {
		return 0, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && strings.IndexByte("+-.eE", c) < 0 {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// timeFormat is how results write times.
const timeFormat = "2006-01-02 15:04:05.000"

// String is the value as results show it.
func (v value) String() string {
	switch v.kind {
	case text:
		return v.text
	case number, boolean:
		return strconv.FormatFloat(v.num, 'f', -1, 64)
	case moment:
		return time.UnixMilli(int64(v.num)).UTC().Format(timeFormat)
	}
	return ""
}

// truth is whether a filter lets a row with this pass.
func (v value) truth() bool {
	if v.kind == text {
		f, ok := parseNumber(v.text)
		return ok && f != 0 || strings.EqualFold(v.text, "true")
	}
	return v.kind != absent && v.num != 0
}

// compare orders two values that are there: as numbers if both are, else as text.
func compare(a, b value) int {
	x, okX := a.number()
	y, okY := b.number()
	if a.kind == boolean && !okY {
		y, okY = boolText(b.text)
	}
	if b.kind == boolean && !okX {
		x, okX = boolText(a.text)
	}
	if okX && okY {
		return compareFloats(x, y)
	}
	return strings.Compare(a.String(), b.String())
}

func boolText(s string) (float64, bool) {
	switch {
	case strings.EqualFold(s, "true"):
		return 1, true
	case strings.EqualFold(s, "false"):
		return 0, true
	}
	return 0, false
}

func compareFloats(x, y float64) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// compareSorted is the order of the sort command, ascending: text before numbers, numbers by value, text
// by chunks of digits and of other characters, digits by their length first.
func compareSorted(a, b value) int {
	x, okX := a.number()
	y, okY := b.number()
	switch {
	case okX && okY:
		if c := compareFloats(x, y); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text) // 0, 01 and 1: still in one order
	case okX:
		return 1
	case okY:
		return -1
	}
	return compareNatural(a.text, b.text)
}

func compareNatural(a, b string) int {
	for a != "" && b != "" {
		ca, cb := chunk(a), chunk(b)
		if isDigit(a[0]) && isDigit(b[0]) && len(ca) != len(cb) {
			return len(ca) - len(cb)
		}
		if c := strings.Compare(ca, cb); c != 0 {
			return c
		}
		a, b = a[len(ca):], b[len(cb):]
	}
	return len(a) - len(b)
}

// chunk is the digits, or the other characters, that a text begins with.
func chunk(s string) string {
	i := 1
	for i < len(s) && isDigit(s[i]) == isDigit(s[0]) {
		i++
	}
	return s[:i]
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// period is a length of time as bin and datefloor take it.
type period struct {
	millis int64
	months int
}

// periodUnits are the units by all of their names, without the plural's s.
var periodUnits = map[string]period{
	"ms": {millis: 1}, "msec": {millis: 1}, "millisecond": {millis: 1},
	"s": {millis: 1000}, "sec": {millis: 1000}, "second": {millis: 1000},
	"m": {millis: 60_000}, "min": {millis: 60_000}, "minute": {millis: 60_000},
	"h": {millis: 3_600_000}, "hr": {millis: 3_600_000}, "hour": {millis: 3_600_000},
	"d": {millis: 86_400_000}, "day": {millis: 86_400_000},
	"w": {millis: 7 * 86_400_000}, "week": {millis: 7 * 86_400_000},
	"mo": {months: 1}, "mon": {months: 1}, "month": {months: 1},
	"q": {months: 3}, "qtr": {months: 3}, "quarter": {months: 3},
	"y": {months: 12}, "yr": {months: 12}, "year": {months: 12},
}

// parsePeriod reads a number and a unit.
func parsePeriod(s string) (period, bool) {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	n, err := strconv.ParseInt(s[:i], 10, 32)
	name := strings.ToLower(s[i:])
	unit, ok := periodUnits[name]
	if !ok && len(name) > 2 {
		unit, ok = periodUnits[strings.TrimSuffix(name, "s")]
	}
	if err != nil || !ok || n < 1 || n > 1_000_000 {
		return period{}, false
	}
	return period{millis: unit.millis * n, months: unit.months * int(n)}, true
}

// mondayMillis is the first Monday of the epoch, where weeks are counted from.
const mondayMillis = 4 * 86_400_000

// floor is the beginning of the period that a time is in.
func (p period) floor(millis int64) int64 {
	if p.months > 0 {
		t := time.UnixMilli(millis).UTC()
		month := (t.Year()-1970)*12 + int(t.Month()) - 1
		return monthMillis(month - mod(month, p.months))
	}
	origin := int64(0)
	if p.millis%(7*86_400_000) == 0 {
		origin = mondayMillis
	}
	return millis - mod(millis-origin, p.millis)
}

// ceil is the end of the period that a time is in, or the time itself if one begins there.
func (p period) ceil(millis int64) int64 {
	floor := p.floor(millis)
	switch {
	case floor == millis:
		return floor
	case p.months > 0:
		t := time.UnixMilli(floor).UTC()
		return monthMillis((t.Year()-1970)*12 + int(t.Month()) - 1 + p.months)
	}
	return floor + p.millis
}

func monthMillis(month int) int64 {
	return time.Date(1970, time.Month(month+1), 1, 0, 0, 0, 0, time.UTC).UnixMilli()
}

func mod[T int | int64](a, b T) T {
	if a %= b; a < 0 {
		a += b
	}
	return a
}
