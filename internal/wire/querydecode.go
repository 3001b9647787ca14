package wire

import (
	"cmp"
	"net/http"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
)

// queryDecoder reads values of the schema from form fields. The fields are sorted, so that those below
// a name are one range: no tree is built, and what no member asks for costs nothing.
type queryDecoder struct {
	fields []formField
	budget budget
	depth  int
}

type formField struct{ key, value string }

var (
	errQueryEscape = inputError("Invalid URL escape in the request")
	errQueryUTF8   = inputError("Invalid UTF-8 in the request")
)

func decodeQuery(v reflect.Value, s *api.Shape, r *http.Request, body []byte) error {
	var d queryDecoder
	err := eachField(r, body, func(k, v string) error {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return errQueryUTF8
		}
		d.fields = append(d.fields, formField{k, v})
		return d.budget.spend(reflect.TypeFor[formField]().Size())
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(d.fields, func(a, b formField) int { return cmp.Compare(a.key, b.key) })
	return d.structure(v, s, "")
}

// at finds the field of exactly that key.
func (d *queryDecoder) at(key string) (string, bool) {
	i := d.search(key)
	if i < len(d.fields) && d.fields[i].key == key {
		return d.fields[i].value, true
	}
	return "", false
}

// below answers the fields whose keys begin with prefix.
func (d *queryDecoder) below(prefix string) []formField {
	from := d.search(prefix)
	n := sort.Search(len(d.fields)-from, func(i int) bool { return !strings.HasPrefix(d.fields[from+i].key, prefix) })
	return d.fields[from : from+n]
}

func (d *queryDecoder) search(key string) int {
	return sort.Search(len(d.fields), func(i int) bool { return d.fields[i].key >= key })
}

// structure reads the members; prefix is "" or ends in a dot.
func (d *queryDecoder) structure(v reflect.Value, s *api.Shape, prefix string) error {
	if d.depth++; d.depth > MaxDepth {
		return errDepth()
	}
	defer func() { d.depth-- }()
	for i := range s.Members {
		m := &s.Members[i]
		if err := d.member(v.Field(m.Index), m, prefix+m.Wire()); err != nil {
			return err
		}
	}
	return nil
}

// member reads the value at key into v, and leaves v alone when there is none.
func (d *queryDecoder) member(v reflect.Value, m *api.Member, key string) error {
	s := m.Shape
	switch s.Kind {
	case api.Structure:
		if len(d.below(key+".")) == 0 {
			return nil
		}
		if v.Kind() == reflect.Pointer {
			if err := d.budget.spend(v.Type().Elem().Size()); err != nil {
				return err
			}
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		return d.structure(v, s, key+".")
	case api.List:
		return d.list(v, m, key)
	case api.Map:
		return d.mapping(v, m, key)
	}
	text, ok := d.at(key)
	if !ok {
		return nil
	}
	if err := setText(v, m, text); err != nil {
		return inputErrorf("%v: %s", err, clip(key, 128))
	}
	return nil
}

func (d *queryDecoder) list(v reflect.Value, m *api.Member, key string) error {
	elem, base := m.Shape.Elem, key
	name := elem.LocationName
	switch {
	case m.Flattened || m.Shape.Flattened:
		if name != "" { // takes the place of the list's own name
			base = key[:strings.LastIndexByte(key, '.')+1] + name
		}
	case name != "":
		base = key + "." + name
	default:
		base = key + ".member"
	}
	indexes, err := d.indexes(base)
	if err != nil {
		return err
	}
	if indexes == nil {
		if text, ok := d.at(key); ok && text == "" { // how clients write an empty list
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		return nil
	}
	n := uintptr(len(indexes))
	if err := d.budget.spend(n * v.Type().Elem().Size()); err != nil {
		return err
	}
	out := reflect.MakeSlice(v.Type(), len(indexes), len(indexes))
	for i, index := range indexes {
		if err := d.member(out.Index(i), elem, base+"."+strconv.Itoa(index)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

func (d *queryDecoder) mapping(v reflect.Value, m *api.Member, key string) error {
	base := key
	if !m.Flattened && !m.Shape.Flattened {
		base = key + ".entry"
	}
	indexes, err := d.indexes(base)
	if err != nil || indexes == nil {
		return err
	}
	keyName, valueName := cmp.Or(m.Shape.Key.LocationName, "key"), cmp.Or(m.Shape.Elem.LocationName, "value")
	out := reflect.MakeMap(v.Type())
	typ := v.Type().Elem()
	for _, index := range indexes {
		entry := base + "." + strconv.Itoa(index) + "."
		k, ok := d.at(entry + keyName)
		if !ok {
			return inputErrorf("Map entry without a key: %s", clip(entry, 128))
		}
		if err := d.budget.spend(typ.Size() + 16); err != nil {
			return err
		}
		e := reflect.New(typ).Elem()
		if err := d.member(e, m.Shape.Elem, entry+valueName); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(k), e)
	}
	v.Set(out)
	return nil
}

// indexes answers the numbers N for which base.N or base.N.… is a field, ascending. Gaps do not matter:
// the order counts, not the number.
func (d *queryDecoder) indexes(base string) ([]int, error) {
	var out []int
	prefix := base + "."
	for _, f := range d.below(prefix) {
		text, _, _ := strings.Cut(f.key[len(prefix):], ".")
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || text[0] == '+' || text[0] == '0' {
			return nil, inputErrorf("Invalid index in %s", clip(f.key, 128))
		}
		if len(out) == 0 || out[len(out)-1] != n {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// setText reads a scalar from its textual form, as query, headers and XML have it.
func setText(v reflect.Value, m *api.Member, text string) error {
	switch m.Shape.Kind {
	case api.String:
		setString(v, text)
	case api.Boolean:
		switch {
		case strings.EqualFold(text, "true"):
			setBool(v, true)
		case strings.EqualFold(text, "false"):
			setBool(v, false)
		default:
			return inputError("Value is not a boolean")
		}
	case api.Integer, api.Long:
		bits := 64
		if m.Shape.Kind == api.Integer {
			bits = 32
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return inputError("Value is not an integer in range")
		}
		setInt(v, n)
	case api.Float, api.Double:
		f, ok := specialFloat(text)
		if !ok {
			if strings.Trim(text, "0123456789+-.eE") != "" { // ParseFloat takes hexadecimal and "inf" too
				return inputError("Value is not a number")
			}
			bits := 64
			if m.Shape.Kind == api.Float {
				bits = 32
			}
			var err error
			if f, err = strconv.ParseFloat(text, bits); err != nil {
				return inputError("Value is not a number in range")
			}
		}
		setFloat(v, f)
	case api.Timestamp:
		t, err := parseTime(text)
		if err != nil {
			return err
		}
		setTime(v, t)
	case api.Blob:
		blob, err := decodeBase64([]byte(text))
		if err != nil {
			return err
		}
		v.SetBytes(blob)
	default:
		return inputError("The protocol cannot carry this value")
	}
	return nil
}
