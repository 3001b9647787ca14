// Package jsonscan reads a JSON document once, from front to back, and shows a [Visitor] only the parts
// it asks for. The rest is checked but not decoded, so that finding two members in a log event costs
// little more than looking at its bytes.
//
// It accepts what RFC 8259 does, nested no deeper than [MaxDepth]. It is pure and allocates only for
// strings that hold escapes.
package jsonscan

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest. A deeper document counts as none.
const MaxDepth = 512

// Kind is what a value is.
type Kind uint8

// The kinds of values.
const (
	Null Kind = iota
	True
	False
	Number
	String
	Object
	Array
)

// Value is a value as it was written. Raw is the literal; of a string, what stands between its quotes;
// of objects and arrays, nothing.
type Value struct {
	Kind Kind
	Raw  string
}

// Text is the decoded string, or the literal of any other scalar.
func (v Value) Text() string {
	if v.Kind == String && strings.IndexByte(v.Raw, '\\') >= 0 {
		return unescape(v.Raw)
	}
	return v.Raw
}

// Visitor is shown a document in its order. Member and Element announce what comes next and answer
// whether it is wanted; if so, Value follows, then the members or elements of that value, then Leave.
type Visitor interface {
	Member(key string) bool
	Element(index int) bool
	Value(v Value)
	Leave()
}

// Scan shows a document to a visitor, its root first, and tells whether the text was one JSON document.
// If it was not, the visitor has seen a part of it.
func Scan(text string, v Visitor) bool {
	s := scanner{text: text, visitor: v}
	s.space()
	if !s.value(0, true) {
		return false
	}
	s.space()
	return s.pos == len(text)
}

type scanner struct {
	text    string
	pos     int
	visitor Visitor
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// take consumes a byte if it comes next.
func (s *scanner) take(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) value(depth int, wanted bool) bool {
	if depth > MaxDepth || s.pos == len(s.text) {
		return false
	}
	v := Value{}
	switch c := s.text[s.pos]; {
	case c == '{':
		if wanted {
			s.visitor.Value(Value{Kind: Object})
		}
		return s.object(depth, wanted)
	case c == '[':
		if wanted {
			s.visitor.Value(Value{Kind: Array})
		}
		return s.array(depth, wanted)
	case c == '"':
		raw, ok := s.str()
		if !ok {
			return false
		}
		v = Value{Kind: String, Raw: raw}
	case c == 't' && strings.HasPrefix(s.text[s.pos:], "true"):
		v = s.literal(True, 4)
	case c == 'f' && strings.HasPrefix(s.text[s.pos:], "false"):
		v = s.literal(False, 5)
	case c == 'n' && strings.HasPrefix(s.text[s.pos:], "null"):
		v = s.literal(Null, 4)
	default:
		start := s.pos
		if !s.number() {
			return false
		}
		v = Value{Kind: Number, Raw: s.text[start:s.pos]}
	}
	if wanted {
		s.visitor.Value(v)
	}
	return true
}

func (s *scanner) literal(k Kind, n int) Value {
	s.pos += n
	return Value{Kind: k, Raw: s.text[s.pos-n : s.pos]}
}

func (s *scanner) object(depth int, wanted bool) bool {
	s.pos++
	s.space()
	if s.take('}') {
		return true
	}
	for {
		raw, ok := s.str()
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		into := wanted && s.visitor.Member(Value{Kind: String, Raw: raw}.Text())
		if !s.value(depth+1, into) {
			return false
		}
		if into {
			s.visitor.Leave()
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

func (s *scanner) array(depth int, wanted bool) bool {
	s.pos++
	s.space()
	if s.take(']') {
		return true
	}
	for i := 0; ; i++ {
		into := wanted && s.visitor.Element(i)
		if !s.value(depth+1, into) {
			return false
		}
		if into {
			s.visitor.Leave()
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// str reads a string and answers what stands between its quotes.
func (s *scanner) str() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	start := s.pos
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return s.text[start : s.pos-1], true
		case c < ' ':
			return "", false
		case c == '\\':
			if !s.escape() {
				return "", false
			}
		default:
			s.pos++
		}
	}
	return "", false
}

func (s *scanner) escape() bool {
	if s.pos+1 == len(s.text) {
		return false
	}
	switch s.text[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return true
	case 'u':
		if s.pos+6 > len(s.text) {
			return false
		}
		for _, c := range []byte(s.text[s.pos+2 : s.pos+6]) {
			if !isHex(c) {
				return false
			}
		}
		s.pos += 6
		return true
	}
	return false
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// unescape decodes what stood between quotes and was found valid. A surrogate without its other half
// becomes U+FFFD.
func unescape(raw string) string {
	var b strings.Builder
	b.Grow(len(raw))
	for {
		i := strings.IndexByte(raw, '\\')
		if i < 0 {
			b.WriteString(raw)
			return b.String()
		}
		b.WriteString(raw[:i])
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r := hex4(raw)
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if strings.HasPrefix(raw, `\u`) {
					pair = utf16.DecodeRune(r, hex4(raw[2:]))
				}
				if r = pair; pair != utf8.RuneError {
					raw = raw[6:]
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
		}
	}
}

func hex4(s string) rune {
	n, err := strconv.ParseUint(s[:4], 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	return rune(n)
}
