package wire

import (
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/berthhq/berth/api"
)

// The setters put a scalar where the generated types keep it: behind a pointer in a structure, by value
// in a list or a map, and enums by value everywhere. The type assertions are what keeps them cheap.

func setString(v reflect.Value, s string) {
	if p, ok := v.Addr().Interface().(**string); ok {
		*p = &s
		return
	}
	v.SetString(s)
}

func setBool(v reflect.Value, b bool) {
	if p, ok := v.Addr().Interface().(**bool); ok {
		*p = &b
		return
	}
	v.SetBool(b)
}

func setInt(v reflect.Value, n int64) {
	switch p := v.Addr().Interface().(type) {
	case **int32:
		n := int32(n)
		*p = &n
	case **int64:
		*p = &n
	default:
		v.SetInt(n)
	}
}

func setFloat(v reflect.Value, f float64) {
	switch p := v.Addr().Interface().(type) {
	case **float64:
		*p = &f
	case **float32:
		f := float32(f)
		*p = &f
	default:
		v.SetFloat(f)
	}
}

func setTime(v reflect.Value, t time.Time) {
	if p, ok := v.Addr().Interface().(**time.Time); ok {
		*p = &t
		return
	}
	*v.Addr().Interface().(*time.Time) = t
}

// absent tells whether a field holds nothing: a nil pointer, slice or map, or an enum's "".
func absent(v reflect.Value) bool {
	if v.Kind() == reflect.String {
		return v.Len() == 0
	}
	return v.IsNil()
}

// indirect follows a scalar's pointer.
func indirect(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		return v.Elem()
	}
	return v
}

func timeOf(v reflect.Value) time.Time {
	if v.Kind() == reflect.Pointer {
		return *v.Interface().(*time.Time)
	}
	return v.Interface().(time.Time)
}

func specialFloat(s string) (float64, bool) {
	switch s {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	return 0, false
}

// specialName is specialFloat's inverse, "" for an ordinary number.
func specialName(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return ""
}

// appendFloat writes a finite number as JSON and XML want it, in the shortest form that reads back.
func appendFloat(b []byte, f float64, bits int) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

var errTime = inputError("Invalid timestamp")

// The years 1 to 9999, which every format can write, in milliseconds since the epoch.
const (
	minTime = -62135596800_000
	maxTime = 253402300799_999
)

// parseEpoch reads seconds since the epoch, to the millisecond, which is as fine as AWS keeps time.
func parseEpoch(s string) (time.Time, error) {
	f, err := strconv.ParseFloat(s, 64)
	ms := math.Round(f * 1000)
	if err != nil || !(ms >= minTime && ms <= maxTime) {
		return time.Time{}, errTime
	}
	return time.UnixMilli(int64(ms)).UTC(), nil
}

// parseTime reads a timestamp in any of the textual formats.
func parseTime(s string) (time.Time, error) {
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04:05", time.RFC1123, "20060102T150405Z"} {
		if t, err := time.Parse(layout, s); err == nil {
			t = t.UTC().Truncate(time.Millisecond)
			if ms := t.UnixMilli(); ms < minTime || ms > maxTime {
				return time.Time{}, errTime
			}
			return t, nil
		}
	}
	return parseEpoch(s)
}

// appendTime writes a timestamp in the format; epoch is the number alone, with up to three decimals.
func appendTime(b []byte, t time.Time, format api.TimestampFormat) []byte {
	switch format {
	case api.ISO8601:
		return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.999Z")
	case api.RFC822:
		return t.UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 GMT")
	}
	ms := t.UnixMilli()
	if ms < 0 {
		b = append(b, '-')
		ms = -ms
	}
	b = strconv.AppendInt(b, ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		b = append(b, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
		for b[len(b)-1] == '0' {
			b = b[:len(b)-1]
		}
	}
	return b
}
