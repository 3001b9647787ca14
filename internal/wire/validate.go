package wire

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
)

// Violation is one constraint of the model that a value does not satisfy.
type Violation struct {
	Path       string // as AWS writes it: tags.1.member.key
	Value      string // as AWS writes it, clipped
	Sensitive  bool   // Value is withheld
	Constraint string // "Member must not be null"
}

func (v Violation) String() string {
	if v.Sensitive {
		return fmt.Sprintf("Value at '%s' failed to satisfy constraint: %s", v.Path, v.Constraint)
	}
	value := "'" + v.Value + "'"
	if v.Constraint == notNull {
		value = "null"
	}
	return fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, v.Path, v.Constraint)
}

const notNull = "Member must not be null"

// maxViolations bounds a report: who has sent a million wrong tags is told of some.
const maxViolations = 20

// ViolationsMessage is the message AWS's common ValidationError has for violations.
func ViolationsMessage(vs []Violation) string {
	texts := make([]string, len(vs))
	for i, v := range vs {
		texts[i] = v.String()
	}
	errors := "errors"
	if len(vs) == 1 {
		errors = "error"
	}
	return fmt.Sprintf("%d validation %s detected: %s", len(vs), errors, strings.Join(texts, "; "))
}

// Validate judges an input, a pointer to a generated structure, by what the model says of its members:
// required, lengths and ranges, enums, patterns. It is pure and complete up to 20 violations. Services
// differ in whether AWS itself enforces these before its own checks: STS and IAM do, ECS does not.
func Validate(s *api.Shape, in any) []Violation {
	v := reflect.ValueOf(in)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return nil
	}
	var w validator
	w.members(v.Elem(), s)
	return w.found
}

type validator struct {
	found []Violation
	path  []string // where the value is; put together only for a report
}

func (w *validator) push(steps ...string) { w.path = append(w.path, steps...) }
func (w *validator) pop(n int)            { w.path = w.path[:len(w.path)-n] }

func (w *validator) report(v reflect.Value, s *api.Shape, constraint string) {
	if len(w.found) >= maxViolations {
		return
	}
	violation := Violation{Path: strings.Join(w.path, "."), Constraint: constraint}
	switch {
	case !v.IsValid():
	case scalar(s) || s.Kind == api.List && scalar(s.Elem.Shape):
		violation.Value = clip(fmt.Sprint(v.Interface()), 256)
	default: // what is inside may be secret
		violation.Sensitive = true
	}
	w.found = append(w.found, violation)
}

// scalar tells a shape whose values may be repeated in a message.
func scalar(s *api.Shape) bool {
	switch s.Kind {
	case api.String, api.Integer, api.Long, api.Float, api.Double, api.Boolean:
		return !s.Sensitive
	}
	return false
}

func (w *validator) members(v reflect.Value, s *api.Shape) {
	for i := range s.Members {
		m := &s.Members[i]
		f := v.Field(m.Index)
		if missing := absent(f); missing && !m.Required {
			continue
		} else if w.push(lowerFirst(m.Name)); missing {
			w.report(reflect.Value{}, m.Shape, notNull)
		} else {
			w.value(f, m.Shape)
		}
		w.pop(1)
	}
}

func (w *validator) value(v reflect.Value, s *api.Shape) {
	if len(w.found) >= maxViolations {
		return
	}
	v = indirect(v)
	switch s.Kind {
	case api.Structure:
		w.members(v, s)
	case api.List:
		w.limits(v, s, float64(v.Len()), "length")
		if !constrained(s.Elem.Shape) {
			return
		}
		for i, n := 0, v.Len(); i < n; i++ {
			w.push(strconv.Itoa(i+1), "member")
			w.value(v.Index(i), s.Elem.Shape)
			w.pop(2)
		}
	case api.Map:
		w.limits(v, s, float64(v.Len()), "length")
		for _, key := range sortedKeys(v) {
			w.push("key")
			w.value(reflect.ValueOf(key), s.Key.Shape)
			w.pop(1)
			w.push(key, "member")
			w.value(v.MapIndex(reflect.ValueOf(key)), s.Elem.Shape)
			w.pop(2)
		}
	case api.String:
		text := v.String()
		w.limits(v, s, float64(utf8.RuneCountInString(text)), "length")
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
			w.report(v, s, "Member must satisfy enum value set: ["+strings.Join(s.Enum, ", ")+"]")
		}
		if s.Pattern != "" && !pattern(s.Pattern).MatchString(text) {
			w.report(v, s, "Member must satisfy regular expression pattern: "+s.Pattern)
		}
	case api.Blob:
		if v.Kind() == reflect.Interface { // a stream, whose length nobody knows
			return
		}
		w.limits(v, s, float64(v.Len()), "length")
	case api.Integer, api.Long:
		w.limits(v, s, float64(v.Int()), "value")
	case api.Float, api.Double:
		w.limits(v, s, v.Float(), "value")
	}
}

// constrained is false for scalars that have no constraint, whose lists need no walk.
func constrained(s *api.Shape) bool {
	switch s.Kind {
	case api.Structure, api.List, api.Map:
		return true
	}
	return s.Min.Set || s.Max.Set || s.Pattern != "" || len(s.Enum) > 0
}

func (w *validator) limits(v reflect.Value, s *api.Shape, n float64, what string) {
	if s.Min.Set && n < s.Min.Value {
		w.report(v, s, "Member must have "+what+" greater than or equal to "+number(s.Min.Value))
	}
	if s.Max.Set && n > s.Max.Value {
		w.report(v, s, "Member must have "+what+" less than or equal to "+number(s.Max.Value))
	}
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// patterns holds each pattern of the models compiled, from its first use on: compiling them all at
// start would cost every start of the binary.
var patterns sync.Map // string → *regexp.Regexp

func pattern(p string) *regexp.Regexp {
	if re, ok := patterns.Load(p); ok {
		return re.(*regexp.Regexp)
	}
	re := regexp.MustCompile(`^(?:` + p + `)$`) // the generator compiled it before
	patterns.Store(p, re)
	return re
}

func lowerFirst(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	if !unicode.IsUpper(r) {
		return s
	}
	return string(unicode.ToLower(r)) + s[size:]
}
