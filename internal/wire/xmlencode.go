package wire

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
)

// The XML that awsQuery, ec2Query and restXml answer in.

func appendXMLStart(b []byte, name, namespace string) []byte {
	b = append(b, '<')
	b = append(b, name...)
	if namespace != "" {
		b = append(b, ` xmlns="`...)
		b = appendXMLText(b, namespace)
		b = append(b, '"')
	}
	return append(b, '>')
}

func appendXMLEnd(b []byte, name string) []byte {
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

func appendXMLElement(b []byte, name, text string) []byte {
	b = appendXMLStart(b, name, "")
	b = appendXMLText(b, text)
	return appendXMLEnd(b, name)
}

// appendXMLMembers writes the members of a structure that are elements.
func appendXMLMembers(b []byte, v reflect.Value, s *api.Shape) ([]byte, error) {
	for i := range s.Members {
		if s.Members[i].XMLAttribute {
			continue // written with the start tag
		}
		var err error
		if b, err = appendXMLMember(b, v, &s.Members[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// appendXMLMember writes a member of the structure v, unless it is absent.
func appendXMLMember(b []byte, v reflect.Value, m *api.Member) ([]byte, error) {
	f := v.Field(m.Index)
	if absent(f) {
		return b, nil
	}
	b, err := appendXML(b, f, m, m.Wire())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	return b, nil
}

// appendXML writes a value as an element called name, or as several when it is flattened.
func appendXML(b []byte, v reflect.Value, m *api.Member, name string) ([]byte, error) {
	s := m.Shape
	flattened := m.Flattened || s.Flattened
	namespace := cmp.Or(m.XMLNamespace, s.XMLNamespace)
	switch s.Kind {
	case api.Structure:
		v = indirect(v)
		b = append(b, '<')
		b = append(b, name...)
		if namespace != "" {
			b = append(b, ` xmlns="`...)
			b = append(appendXMLText(b, namespace), '"')
		}
		for i := range s.Members {
			a := &s.Members[i]
			if f := v.Field(a.Index); a.XMLAttribute && !absent(f) {
				b = append(b, ' ')
				b = append(b, a.Wire()...)
				b = append(b, '=', '"')
				b = append(appendXMLScalar(b, f, a), '"')
			}
		}
		b = append(b, '>')
		var err error
		if b, err = appendXMLMembers(b, v, s); err != nil {
			return nil, err
		}
		return appendXMLEnd(b, name), nil

	case api.List:
		elemName := cmp.Or(s.Elem.LocationName, "member")
		if flattened {
			elemName = cmp.Or(s.Elem.LocationName, name)
		} else {
			b = appendXMLStart(b, name, namespace)
		}
		for i, n := 0, v.Len(); i < n; i++ {
			var err error
			if b, err = appendXML(b, v.Index(i), s.Elem, elemName); err != nil {
				return nil, err
			}
		}
		if !flattened {
			b = appendXMLEnd(b, name)
		}
		return b, nil

	case api.Map:
		entry := name
		if !flattened {
			entry = "entry"
			b = appendXMLStart(b, name, namespace)
		}
		keyName, valueName := cmp.Or(s.Key.LocationName, "key"), cmp.Or(s.Elem.LocationName, "value")
		for _, key := range sortedKeys(v) {
			b = appendXMLStart(b, entry, "")
			b = appendXMLElement(b, keyName, key)
			var err error
			if b, err = appendXML(b, v.MapIndex(reflect.ValueOf(key)), s.Elem, valueName); err != nil {
				return nil, err
			}
			b = appendXMLEnd(b, entry)
		}
		if !flattened {
			b = appendXMLEnd(b, name)
		}
		return b, nil

	case api.Any:
		return nil, fmt.Errorf("a document has no form in XML")
	}
	b = appendXMLStart(b, name, namespace)
	b = appendXMLScalar(b, v, m)
	return appendXMLEnd(b, name), nil
}

func appendXMLScalar(b []byte, v reflect.Value, m *api.Member) []byte {
	s := m.Shape
	switch s.Kind {
	case api.String:
		return appendXMLText(b, indirect(v).String())
	case api.Boolean:
		return strconv.AppendBool(b, indirect(v).Bool())
	case api.Integer, api.Long:
		return strconv.AppendInt(b, indirect(v).Int(), 10)
	case api.Float, api.Double:
		v = indirect(v)
		if name := specialName(v.Float()); name != "" {
			return append(b, name...)
		}
		return appendFloat(b, v.Float(), v.Type().Bits())
	case api.Timestamp:
		return appendTime(b, timeOf(v), cmp.Or(m.TimestampFormat, s.TimestampFormat, api.ISO8601))
	case api.Blob:
		return base64.StdEncoding.AppendEncode(b, v.Bytes())
	}
	panic(fmt.Sprintf("wire: shape %s has kind %d", s.Name, s.Kind))
}

// appendXMLText writes character data, good for an attribute too. What XML 1.0 cannot hold becomes
// U+FFFD; a carriage return is escaped, or every parser would make a line feed of it.
func appendXMLText(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '&':
			b = append(b, "&amp;"...)
		case r == '<':
			b = append(b, "&lt;"...)
		case r == '>':
			b = append(b, "&gt;"...)
		case r == '"':
			b = append(b, "&quot;"...)
		case r == '\r' || r == '\n' || r == '\t':
			b = append(b, "&#x"...)
			b = append(b, "0123456789ABCDEF"[r], ';')
		case r < ' ' || r == 0xFFFE || r == 0xFFFF || r == utf8.RuneError && size == 1:
			b = append(b, "\uFFFD"...)
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return b
}
