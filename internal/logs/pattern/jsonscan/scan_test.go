package jsonscan

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// builder makes of a document what encoding/json makes of it.
type builder struct {
	stack []any // the containers that are open
	keys  []any // what each value will be called in its container
	root  any
}

func (b *builder) Member(key string) bool { b.keys = append(b.keys, key); return true }
func (b *builder) Element(i int) bool     { b.keys = append(b.keys, i); return true }

func (b *builder) Value(v Value) {
	var out any
	switch v.Kind {
	case Null:
	case True, False:
		out = v.Kind == True
	case Number:
		out = json.Number(v.Raw)
	case String:
		out = v.Text()
	case Object:
		out = map[string]any{}
	case Array:
		out = &[]any{}
	}
	b.stack = append(b.stack, out)
	if len(b.keys) == 0 {
		b.root = out
	}
}

func (b *builder) Leave() {
	v := plain(b.stack[len(b.stack)-1])
	b.stack = b.stack[:len(b.stack)-1]
	key := b.keys[len(b.keys)-1]
	b.keys = b.keys[:len(b.keys)-1]
	switch c := b.stack[len(b.stack)-1].(type) {
	case map[string]any:
		c[key.(string)] = v
	case *[]any:
		*c = append(*c, v)
	}
}

func plain(v any) any {
	if list, ok := v.(*[]any); ok {
		return *list
	}
	return v
}

func decode(text string) (any, bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var out any
	if d.Decode(&out) != nil || !json.Valid([]byte(text)) {
		return nil, false
	}
	return out, true
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{"a":{"b":[1,2.5e-3,-0,true,false,null,"x"]},"":""}`, ` [ ] `, `{}`, `"\u00e9\ud83d\ude00\ud83d \n"`,
		`{"a":1,"a":2}`, `01`, `1.`, `{"a" 1}`, `[1,]`, `{"a":1,}`, "\"\x01\"", `"\x"`, `tru`, ``, `1 2`, `"\ud800\ud800"`,
		`"\udc00\ud83d\ude00"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := &builder{}
		ok := Scan(text, b)
		want, valid := decode(text)
		if strings.Count(text, "[")+strings.Count(text, "{") > MaxDepth {
			return
		}
		if ok != valid {
			t.Fatalf("Scan(%q) = %v, encoding/json says %v", text, ok, valid)
		}
		if ok && strings.ToValidUTF8(text, "") == text && !reflect.DeepEqual(plain(b.root), want) {
			t.Fatalf("Scan(%q) saw %#v, want %#v", text, plain(b.root), want)
		}
	})
}

func TestDeepDocumentIsNone(t *testing.T) {
	t.Parallel()
	for depth, want := range map[int]bool{MaxDepth: true, MaxDepth + 2: false, 1 << 20: false} {
		text := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		if got := Scan(text, &builder{}); got != want {
			t.Errorf("%d deep: %v, want %v", depth, got, want)
		}
	}
}
