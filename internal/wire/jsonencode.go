package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
)

// encodeJSON writes a structure; nil, also a typed one, is an empty object.
func encodeJSON(s *api.Shape, in any) ([]byte, error) {
	v := reflect.ValueOf(in)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return []byte("{}"), nil
	}
	scratch := scratches.Get().(*[]byte)
	b, err := appendJSONStructure((*scratch)[:0], v.Elem(), s)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(b)
	if cap(b) <= maxScratch {
		*scratch = b
		scratches.Put(scratch)
	}
	return out, nil
}

// scratches are what answers are written in before they are copied at their size: growing a new slice
// for each costs more than the writing does. An unusually large one is left to the collector.
var scratches = sync.Pool{New: func() any { return new([]byte) }}

const maxScratch = 1 << 20

func appendJSONStructure(b []byte, v reflect.Value, s *api.Shape) ([]byte, error) {
	b = append(b, '{')
	empty := len(b)
	for i := range s.Members {
		var err error
		if b, err = appendJSONMember(b, v, &s.Members[i], len(b) == empty); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendJSONMember writes a member of the structure v, unless it is absent; first when it is the first.
func appendJSONMember(b []byte, v reflect.Value, m *api.Member, first bool) ([]byte, error) {
	f := v.Field(m.Index)
	if absent(f) {
		return b, nil
	}
	if !first {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, m.Name...) // an identifier: nothing to escape
	b = append(b, '"', ':')
	b, err := appendJSON(b, f, m.Shape, m.TimestampFormat)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	return b, nil
}

func appendJSON(b []byte, v reflect.Value, s *api.Shape, format api.TimestampFormat) ([]byte, error) {
	switch s.Kind {
	case api.Structure:
		return appendJSONStructure(b, indirect(v), s)
	case api.List:
		b = append(b, '[')
		for i, n := 0, v.Len(); i < n; i++ {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendJSON(b, v.Index(i), s.Elem.Shape, s.Elem.TimestampFormat); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case api.Map:
		b = append(b, '{')
		for i, key := range sortedKeys(v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONString(b, key)
			b = append(b, ':')
			var err error
			if b, err = appendJSON(b, v.MapIndex(reflect.ValueOf(key)), s.Elem.Shape, s.Elem.TimestampFormat); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case api.String:
		return appendJSONString(b, indirect(v).String()), nil
	case api.Boolean:
		return strconv.AppendBool(b, indirect(v).Bool()), nil
	case api.Integer, api.Long:
		return strconv.AppendInt(b, indirect(v).Int(), 10), nil
	case api.Float, api.Double:
		v = indirect(v)
		if name := specialName(v.Float()); name != "" {
			return appendJSONString(b, name), nil
		}
		return appendFloat(b, v.Float(), v.Type().Bits()), nil
	case api.Timestamp:
		if format == "" {
			format = s.TimestampFormat
		}
		if format == api.ISO8601 || format == api.RFC822 {
			b = append(b, '"')
			return append(appendTime(b, timeOf(v), format), '"'), nil
		}
		return appendTime(b, timeOf(v), api.UnixTimestamp), nil
	case api.Blob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"'), nil
	case api.Any:
		if !json.Valid(v.Bytes()) {
			return nil, fmt.Errorf("a document that is not JSON")
		}
		return append(b, v.Bytes()...), nil
	}
	panic(fmt.Sprintf("wire: shape %s has kind %d", s.Name, s.Kind))
}

func sortedKeys(m reflect.Value) []string {
	keys := make([]string, 0, m.Len())
	for it := m.MapRange(); it.Next(); {
		keys = append(keys, it.Key().String())
	}
	slices.Sort(keys)
	return keys
}

// appendJSONString writes a string with the escapes JSON demands and no others, as AWS does. What is
// not UTF-8 becomes U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			b = append(b, s[start:i]...)
			b = append(b, "\uFFFD"...)
		} else {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
