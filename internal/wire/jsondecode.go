package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/berthhq/berth/api"
)

// jsonDecoder reads values of the schema. Its errors are worded as AWS words them where that is known.
type jsonDecoder struct {
	jsonReader
	budget budget
}

// budget counts what decoding allocates.
type budget struct{ spent uintptr }

var errTooLarge = inputError("The request holds too many values")

func (b *budget) spend(n uintptr) error {
	if b.spent += n; b.spent > MaxDecoded {
		return errTooLarge
	}
	return nil
}

// document reads the whole input as a structure.
func (d *jsonDecoder) document(v reflect.Value, s *api.Shape) error {
	if d.peek() != '{' {
		return d.mismatch("a structure")
	}
	if err := d.structure(v, s); err != nil {
		return err
	}
	if d.peek() != 0 || d.pos < len(d.data) {
		return d.unexpected()
	}
	return nil
}

// mismatch is the error for a value that is not of the kind the schema has.
func (d *jsonDecoder) mismatch(want string) error {
	switch c := d.peek(); {
	case c == '{':
		return inputError("Start of structure or map found where not expected.")
	case c == '[':
		return inputError("Start of list found where not expected")
	case c == '"':
		return inputErrorf("STRING_VALUE can not be converted to %s", want)
	case c == 't':
		return inputErrorf("TRUE_VALUE can not be converted to %s", want)
	case c == 'f':
		return inputErrorf("FALSE_VALUE can not be converted to %s", want)
	case c == '-' || c-'0' < 10:
		return inputErrorf("NUMBER_VALUE can not be converted to %s", want)
	}
	return d.unexpected()
}

// value reads a value into v, a field or an element; null leaves v as it is.
func (d *jsonDecoder) value(v reflect.Value, s *api.Shape, format api.TimestampFormat) error {
	c := d.peek()
	if c == 'n' {
		return d.literal("null")
	}
	switch s.Kind {
	case api.Structure:
		if c != '{' {
			return d.mismatch("a structure")
		}
		if v.Kind() == reflect.Pointer {
			if err := d.budget.spend(v.Type().Elem().Size()); err != nil {
				return err
			}
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		return d.structure(v, s)
	case api.List:
		if c != '[' {
			return d.mismatch("a list")
		}
		return d.list(v, s)
	case api.Map:
		if c != '{' {
			return d.mismatch("a map")
		}
		return d.mapping(v, s)
	case api.String:
		if c != '"' {
			return d.mismatch("a String")
		}
		b, err := d.stringBytes()
		if err != nil {
			return err
		}
		setString(v, string(b))
		return nil
	case api.Boolean:
		switch c {
		case 't':
			setBool(v, true)
			return d.literal("true")
		case 'f':
			setBool(v, false)
			return d.literal("false")
		}
		return d.mismatch("a Boolean")
	case api.Integer, api.Long:
		return d.integer(v, s.Kind)
	case api.Float, api.Double:
		return d.float(v, c)
	case api.Timestamp:
		return d.timestamp(v, s, format)
	case api.Blob:
		if c != '"' {
			return d.mismatch("a Blob")
		}
		b, err := d.stringBytes()
		if err != nil {
			return err
		}
		blob, err := decodeBase64(b)
		if err != nil {
			return err
		}
		v.SetBytes(blob)
		return nil
	case api.Any:
		start := d.pos
		if err := d.skip(); err != nil {
			return err
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, d.data[start:d.pos]); err != nil {
			return err
		}
		v.SetBytes(compact.Bytes())
		return nil
	}
	panic(fmt.Sprintf("wire: shape %s has kind %d", s.Name, s.Kind))
}

func (d *jsonDecoder) structure(v reflect.Value, s *api.Shape) error {
	if err := d.enter('{'); err != nil {
		return err
	}
	set, next := 0, 0
	for first := true; ; first = false {
		more, err := d.more(first, '}')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		key, err := d.key()
		if err != nil {
			return err
		}
		m := lookup(s, key, &next)
		if m == nil {
			if err := d.skip(); err != nil {
				return err
			}
			continue
		}
		if d.peek() == 'n' {
			if err := d.literal("null"); err != nil {
				return err
			}
			v.Field(m.Index).SetZero() // the last of a repeated name counts
			continue
		}
		set++
		if err := d.value(v.Field(m.Index), m.Shape, m.TimestampFormat); err != nil {
			return err
		}
	}
	if s.Union && set > 1 {
		return inputErrorf("Union %s has more than one member", s.Name)
	}
	return nil
}

// lookup finds a member by its name on the wire. Clients mostly write members in the schema's order, so
// the one after the last found, which next keeps, is tried first.
func lookup(s *api.Shape, key []byte, next *int) *api.Member {
	if i := *next; i < len(s.Members) && string(key) == s.Members[i].Name {
		*next = i + 1
		return &s.Members[i]
	}
	lo, hi := 0, len(s.Members)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.Members[mid].Name < string(key) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.Members) && s.Members[lo].Name == string(key) {
		*next = lo + 1
		return &s.Members[lo]
	}
	return nil
}

func (d *jsonDecoder) list(v reflect.Value, s *api.Shape) error {
	if err := d.enter('['); err != nil {
		return err
	}
	v.SetZero()
	elem, size := s.Elem, v.Type().Elem().Size()
	for n := 0; ; n++ {
		more, err := d.more(n == 0, ']')
		if err != nil {
			return err
		}
		if !more {
			if n == 0 {
				v.Set(reflect.MakeSlice(v.Type(), 0, 0))
			}
			return nil
		}
		if d.peek() == 'n' {
			return inputError("Null found in a list")
		}
		if err := d.budget.spend(size); err != nil {
			return err
		}
		v.Grow(1)
		v.SetLen(n + 1)
		if err := d.value(v.Index(n), elem.Shape, elem.TimestampFormat); err != nil {
			return err
		}
	}
}

func (d *jsonDecoder) mapping(v reflect.Value, s *api.Shape) error {
	if err := d.enter('{'); err != nil {
		return err
	}
	out := reflect.MakeMap(v.Type())
	typ := v.Type().Elem()
	size := typ.Size() + 16
	for first := true; ; first = false {
		more, err := d.more(first, '}')
		if err != nil {
			return err
		}
		if !more {
			v.Set(out)
			return nil
		}
		key, err := d.key()
		if err != nil {
			return err
		}
		name := string(key)
		if d.peek() == 'n' {
			return inputError("Null found in a map")
		}
		if err := d.budget.spend(size); err != nil {
			return err
		}
		e := reflect.New(typ).Elem()
		if err := d.value(e, s.Elem.Shape, s.Elem.TimestampFormat); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(name), e)
	}
}

func (d *jsonDecoder) integer(v reflect.Value, kind api.Kind) error {
	want, bits := "a Long", 64
	if kind == api.Integer {
		want, bits = "an Integer", 32
	}
	if c := d.peek(); c != '-' && c-'0' >= 10 {
		return d.mismatch(want)
	}
	text, integer, err := d.number()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(text), 10, bits)
	if !integer {
		// 256.0 and 2.56e2 are the integer they say; 256.5 is none.
		var f float64
		f, err = strconv.ParseFloat(string(text), 64)
		limit := math.Ldexp(1, bits-1)
		if err != nil || f != math.Trunc(f) || f < -limit || f >= limit {
			return inputErrorf("NUMBER_VALUE can not be converted to %s", want)
		}
		n = int64(f)
	}
	if err != nil {
		return inputErrorf("NUMBER_VALUE is out of range of %s", want)
	}
	setInt(v, n)
	return nil
}

func (d *jsonDecoder) float(v reflect.Value, c byte) error {
	bits := 64
	if t := v.Type(); t.Kind() == reflect.Float32 || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Float32 {
		bits = 32
	}
	if c == '"' {
		b, err := d.stringBytes()
		if err != nil {
			return err
		}
		f, ok := specialFloat(string(b))
		if !ok {
			return inputError("STRING_VALUE can not be converted to a Double")
		}
		setFloat(v, f)
		return nil
	}
	if c != '-' && c-'0' >= 10 {
		return d.mismatch("a Double")
	}
	text, _, err := d.number()
	if err != nil {
		return err
	}
	f, err := strconv.ParseFloat(string(text), bits)
	if err != nil {
		return inputError("NUMBER_VALUE is out of range of a Double")
	}
	setFloat(v, f)
	return nil
}

func (d *jsonDecoder) timestamp(v reflect.Value, s *api.Shape, format api.TimestampFormat) error {
	if format == "" {
		format = s.TimestampFormat
	}
	var t time.Time
	switch c := d.peek(); {
	case c == '"' && (format == api.ISO8601 || format == api.RFC822):
		b, err := d.stringBytes()
		if err != nil {
			return err
		}
		if t, err = parseTime(string(b)); err != nil {
			return err
		}
	case c == '-' || c-'0' < 10:
		text, _, err := d.number()
		if err != nil {
			return err
		}
		if t, err = parseEpoch(string(text)); err != nil {
			return err
		}
	default:
		return d.mismatch("milliseconds since epoch")
	}
	setTime(v, t)
	return nil
}

func decodeBase64(b []byte) ([]byte, error) {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Decode(out, b)
	if err != nil {
		return nil, inputError("Invalid base64 in a blob")
	}
	return out[:n], nil
}
