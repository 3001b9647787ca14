package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func TestJSONDecoding(t *testing.T) {
	t.Parallel()
	p := api.Ptr[string]
	for _, tt := range []struct {
		body string
		want thing
	}{
		{``, thing{}},
		{" \n", thing{}},
		{`{}`, thing{}},
		{` { "text" : null , "lists": null, "next":null} `, thing{}},
		{`{"unknown":{"a":[1,2.5e-3,"x",{"b":null}],"c":true},"text":"x","Text":"y"}`, thing{Text: p("x")}},
		{`{"text":"a\u00e9\ud83d\ude00\n\"\\\/"}`, thing{Text: p("aé😀\n\"\\/")}},
		{`{"te\u0078t":"x"}`, thing{Text: p("x")}},
		{`{"text":""}`, thing{Text: p("")}},
		{`{"text":"x","text":"y"}`, thing{Text: p("y")}},
		{`{"text":"x","text":null}`, thing{}},
		{`{"flags":[true],"flags":[]}`, thing{Flags: []bool{}}},
		{`{"int":-2147483648,"long":9223372036854775807}`, thing{Int: api.Ptr(int32(math.MinInt32)), Long: api.Ptr(int64(math.MaxInt64))}},
		{`{"int":256.0,"long":2.5e2}`, thing{Int: api.Ptr(int32(256)), Long: api.Ptr(int64(250))}},
		{`{"double":1e3,"float":0.5}`, thing{Double: api.Ptr(1000.0), Float: api.Ptr(float32(0.5))}},
		{`{"double":"Infinity"}`, thing{Double: api.Ptr(math.Inf(1))}},
		{`{"blob":"AAEC"}`, thing{Blob: []byte{0, 1, 2}}},
		{`{"blob":""}`, thing{Blob: []byte{}}},
		{`{"enum":"PINK","enums":["RED","PINK"]}`, thing{Enum: "PINK", Enums: []color{"RED", "PINK"}}},
		{`{"flatMap":{"a":"1","b":""},"map":{}}`, thing{FlatMap: map[string]string{"a": "1", "b": ""}, Map: map[string]thing{}}},
		{`{"children":[{},{"text":"x"}],"next":{"next":{}}}`, thing{Children: []thing{{}, {Text: p("x")}}, Next: &thing{Next: &thing{}}}},
		{`{"lists":[[],[1,2]]}`, thing{Lists: [][]int64{{}, {1, 2}}}},
		{`{"time":1.504123456789E9}`, thing{Time: api.Ptr(time.UnixMilli(1504123456789).UTC())}},
		{`{"time":-1.5,"times":[0]}`, thing{Time: api.Ptr(time.UnixMilli(-1500).UTC()), Times: []time.Time{time.UnixMilli(0).UTC()}}},
		{`{"date":"2026-02-03T04:05:06.789Z"}`, thing{Date: api.Ptr(time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC))}},
		{`{"choice":{"a":"x","b":null}}`, thing{Choice: &choice{A: p("x")}}},
	} {
		in, err := awsJSON11.DecodeRequest(syntheticOperation, nil, []byte(tt.body))
		if err != nil {
			t.Errorf("%s: %v", tt.body, err)
		} else if !reflect.DeepEqual(in, &tt.want) {
			t.Errorf("%s: decoded %+v", tt.body, in)
		}
	}
}

func TestJSONRefusal(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"next":`, MaxDepth+1) + `{}` + strings.Repeat(`}`, MaxDepth+1)
	for body, want := range map[string]string{
		`null`:                            "",
		`[]`:                              "Start of list found where not expected",
		`"x"`:                             "STRING_VALUE can not be converted to a structure",
		`{`:                               "Unexpected end of input",
		`{"text":"x"`:                     "Unexpected end of input",
		`{"text":"x"}}`:                   "Unexpected character '}' at byte 12",
		`{"text":"x"} x`:                  "Unexpected character",
		"{}\x00":                          "Unexpected character",
		`{"text":"x",}`:                   "Unexpected character",
		`{,}`:                             "",
		`{"flags":[true,]}`:               "",
		`{"flags":[,true]}`:               "",
		`{"flags":[true false]}`:          "",
		`{text:"x"}`:                      "",
		`{"text" "x"}`:                    "",
		`{"text":'x'}`:                    "",
		`{"text":1}`:                      "NUMBER_VALUE can not be converted to a String",
		`{"text":true}`:                   "TRUE_VALUE can not be converted to a String",
		`{"text":{}}`:                     "Start of structure or map found where not expected.",
		`{"text":["x"]}`:                  "Start of list found where not expected",
		`{"int":"1"}`:                     "STRING_VALUE can not be converted to an Integer",
		`{"int":2147483648}`:              "NUMBER_VALUE is out of range of an Integer",
		`{"int":1.5}`:                     "NUMBER_VALUE can not be converted to an Integer",
		`{"int":1e99}`:                    "NUMBER_VALUE can not be converted to an Integer",
		`{"int":01}`:                      "",
		`{"int":+1}`:                      "",
		`{"int":-}`:                       "",
		`{"int":1.}`:                      "",
		`{"long":9223372036854775808}`:    "NUMBER_VALUE is out of range of a Long",
		`{"long":9.3e18}`:                 "NUMBER_VALUE can not be converted to a Long",
		`{"double":NaN}`:                  "",
		`{"double":"nan"}`:                "STRING_VALUE can not be converted to a Double",
		`{"double":1e999}`:                "NUMBER_VALUE is out of range of a Double",
		`{"bool":"true"}`:                 "STRING_VALUE can not be converted to a Boolean",
		`{"bool":tru}`:                    "",
		`{"flags":{}}`:                    "Start of structure or map found where not expected.",
		`{"flags":[null]}`:                "Null found in a list",
		`{"flatMap":{"a":null}}`:          "Null found in a map",
		`{"flatMap":[]}`:                  "Start of list found where not expected",
		`{"next":"x"}`:                    "STRING_VALUE can not be converted to a structure",
		`{"time":"2026-02-03T04:05:06Z"}`: "STRING_VALUE can not be converted to milliseconds since epoch",
		`{"time":1e15}`:                   "Invalid timestamp",
		`{"blob":"*"}`:                    "Invalid base64 in a blob",
		`{"choice":{"a":"x","b":1}}`:      "Union Choice has more than one member",
		"{\"text\":\"\xff\"}":             "Invalid UTF-8 in a string",
		"{\"text\":\"a\nb\"}":             "Control character in a string",
		`{"text":"\x"}`:                   "Invalid escape in a string",
		`{"text":"\ud800"}`:               "Invalid escape in a string",
		`{"text":"\ud800\u0041"}`:         "Invalid escape in a string",
		`{"unknown":tru}`:                 "",
		`{"unknown":"\u12"}`:              "Invalid escape in a string",
		deep:                              "nests deeper",
		`{"unknown":` + strings.Repeat("[", 1<<20):              "nests deeper",
		`{"children":[` + strings.Repeat("{},", 1<<20) + `{}]}`: "too many values",
	} {
		in, err := awsJSON11.DecodeRequest(syntheticOperation, nil, []byte(body))
		if len(body) > 100 {
			body = body[:100] + "…"
		}
		if err == nil {
			t.Errorf("%s: accepted as %+v", body, in)
			continue
		}
		e, ok := err.(api.Error)
		if !ok || e.ErrorCode() != "SerializationException" || e.HTTPStatusCode() != 400 || e.ErrorFault() != api.FaultClient {
			t.Errorf("%s: %#v", body, err)
		} else if !strings.Contains(e.ErrorMessage(), want) {
			t.Errorf("%s: %q, want %q", body, e.ErrorMessage(), want)
		}
	}
}

func TestJSONEncoding(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 3, 4, 5, 6, 780e6, time.FixedZone("", 3600))
	for want, out := range map[string]any{
		`{}`:                                     (*thing)(nil),
		`{"children":[],"flatMap":{},"text":""}`: &thing{Children: []thing{}, FlatMap: map[string]string{}, Text: api.Ptr("")},
		`{"text":"<&>\u0000\u001f\"\\\n\r\té` + "\u2028" + `"}`:   &thing{Text: api.Ptr("<&>\x00\x1f\"\\\n\r\té\u2028")},
		`{"text":"a` + "\uFFFD" + `b"}`:                           &thing{Text: api.Ptr("a\xffb")},
		`{"date":"2026-02-03T03:05:06.78Z","time":1770087906.78}`: &thing{Date: &at, Time: &at},
		`{"time":-1.005}`:                      &thing{Time: api.Ptr(time.UnixMilli(-1005))},
		`{"double":"NaN","float":0.1}`:         &thing{Double: api.Ptr(math.NaN()), Float: api.Ptr(float32(0.1))},
		`{"double":1e-07,"int":0}`:             &thing{Double: api.Ptr(1e-7), Int: api.Ptr(int32(0))},
		`{"enums":[""],"map":{"a":{},"b":{}}}`: &thing{Enums: []color{""}, Map: map[string]thing{"b": {}, "a": {}}},
		`{"blob":"AAEC","bool":false}`:         &thing{Blob: []byte{0, 1, 2}, Bool: api.Ptr(false)},
	} {
		resp, err := awsJSON10.EncodeResponse(synthetic, syntheticOperation, out, "the-id")
		if err != nil {
			t.Error(err)
			continue
		}
		if string(resp.Body) != want || resp.Status != 200 || resp.Header.Get("Content-Type") != "application/x-amz-json-1.0" ||
			resp.Header.Get("x-amzn-RequestId") != "the-id" {
			t.Errorf("encoded %+v\n%s\nwant %s", resp, resp.Body, want)
		}
	}
}

func TestDocumentsPassThrough(t *testing.T) {
	t.Parallel()
	op := ecs.Descriptor.Operation("CreateService")
	const body = `{"deploymentConfiguration":{"lifecycleHooks":[{"hookDetails":{"b":1.50,"a":[null,"x"]}}]}}`
	in, err := awsJSON11.DecodeRequest(op, nil, []byte(strings.ReplaceAll(body, ":", " : ")))
	if err != nil {
		t.Fatal(err)
	}
	hook := &in.(*ecs.CreateServiceInput).DeploymentConfiguration.LifecycleHooks[0]
	if string(hook.HookDetails) != `{"b":1.50,"a":[null,"x"]}` {
		t.Errorf("decoded %s", hook.HookDetails)
	}
	if out, err := encodeJSON(op.Input, in); err != nil || string(out) != body {
		t.Errorf("encoded %s, %v", out, err)
	}
	hook.HookDetails = api.Document(`{"a":`)
	if _, err := encodeJSON(op.Input, in); err == nil {
		t.Error("a broken document was written")
	}
}

func TestJSONErrors(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]api.Error{
		`{"__type":"ConflictException","resourceIds":["a"],"message":"m"}`: &ecs.ConflictException{Message: "m", ResourceIds: []string{"a"}},
		`{"__type":"ClientException","message":""}`:                        &ecs.ClientException{},
		`{"__type":"X","message":"\"quoted\""}`:                            &api.CommonError{Code: "X", Message: `"quoted"`},
	} {
		if resp := awsJSON11.EncodeError(nil, e, "id"); string(resp.Body) != want || resp.Status != 400 {
			t.Errorf("%d %s, want %s", resp.Status, resp.Body, want)
		}
	}
	if resp := awsJSON11.EncodeError(nil, &ecs.ServerException{}, "id"); resp.Status != 500 {
		t.Errorf("status %d", resp.Status)
	}
}

// TestPersistence: the store keeps the generated types with encoding/json, which must keep what the
// protocol keeps, nil and empty apart.
func TestPersistence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom(ecs.Descriptor.Operations).Draw(t, "operation")
		out := op.NewOutput()
		fill(t, reflect.ValueOf(out).Elem(), op.Output, 4)
		stored, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		again := op.NewOutput()
		if err := json.Unmarshal(stored, again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again, out) {
			t.Fatalf("stored %s", stored)
		}
	})
}

func TestJSONRoundTrip(t *testing.T) {
	t.Parallel()
	ops := append([]*api.Operation{syntheticOperation}, ecs.Descriptor.Operations...)
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom(ops).Draw(t, "operation")
		in := op.NewInput()
		fill(t, reflect.ValueOf(in).Elem(), op.Input, 4)
		body, err := encodeJSON(op.Input, in)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(body) {
			t.Fatalf("not JSON: %s", body)
		}
		again, err := awsJSON11.DecodeRequest(op, nil, body)
		if err != nil || !reflect.DeepEqual(again, in) {
			t.Fatalf("%s\ndecoded as %+v: %v", body, again, err)
		}
	})
}

// fill sets v to anything its shape allows on the wire, nil and empty included.
func fill(t *rapid.T, v reflect.Value, s *api.Shape, depth int) {
	switch s.Kind {
	case api.Structure:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		if s.Union {
			m := rapid.SampledFrom(s.Members).Draw(t, "choice")
			fill(t, v.Field(m.Index), m.Shape, depth)
			return
		}
		for i := range s.Members {
			m := &s.Members[i]
			nested := m.Shape.Kind <= api.Map
			if nested && depth == 0 || rapid.IntRange(0, 2).Draw(t, m.Name) == 0 {
				continue
			}
			fill(t, v.Field(m.Index), m.Shape, depth-1)
		}
	case api.List:
		n := rapid.IntRange(0, 3).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), s.Elem.Shape, max(depth-1, 0))
		}
	case api.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 2).Draw(t, "size") {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(t, e, s.Elem.Shape, max(depth-1, 0))
			v.SetMapIndex(reflect.ValueOf(rapid.String().Draw(t, "key")), e)
		}
	case api.String:
		text := rapid.String().Draw(t, "string")
		if v.Kind() == reflect.String && text == "" {
			text = "ENUM" // "" is absent
		}
		setString(v, text)
	case api.Boolean:
		setBool(v, rapid.Bool().Draw(t, "bool"))
	case api.Integer:
		setInt(v, int64(rapid.Int32().Draw(t, "int")))
	case api.Long:
		setInt(v, rapid.Int64().Draw(t, "long"))
	case api.Float:
		setFloat(v, float64(rapid.Float32Range(-math.MaxFloat32, math.MaxFloat32).Draw(t, "float")))
	case api.Double:
		setFloat(v, rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, "double"))
	case api.Timestamp:
		// Not the zero time, which encoding/json's omitzero takes for absent.
		setTime(v, time.UnixMilli(rapid.Int64Range(minTime+1, maxTime).Draw(t, "time")).UTC())
	case api.Blob:
		v.SetBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "blob"))
	case api.Any:
		v.SetBytes([]byte(rapid.SampledFrom([]string{`{}`, `[1,"x"]`, `{"a":null}`, `0.10`}).Draw(t, "document")))
	}
}

func FuzzJSON(f *testing.F) {
	f.Add(uint16(0), []byte(`{"text":"a\u00e9","int":1,"next":{"lists":[[1]],"map":{"k":{}}},"time":1.5,"blob":"AA=="}`))
	f.Add(uint16(1), []byte(`{"x":[{}],"tasks":["a"],"count":1e1}`))
	ops := append([]*api.Operation{syntheticOperation}, ecs.Descriptor.Operations...)
	for i, op := range ecs.Descriptor.Operations {
		_, body := requestFixture(f, fixtures(f, "ecs", "request_snapshot", ".request.snap")[op.Name])
		f.Add(uint16(i+1), body)
	}
	f.Fuzz(func(t *testing.T, n uint16, body []byte) {
		op := ops[int(n)%len(ops)]
		in, err := awsJSON11.DecodeRequest(op, nil, body)
		if err != nil {
			return
		}
		if !json.Valid(body) && len(bytes.TrimSpace(body)) > 0 {
			t.Fatalf("accepted what is not JSON: %q", body)
		}
		Validate(op.Input, in)
		once, err := encodeJSON(op.Input, in)
		if err != nil {
			t.Fatal(err)
		}
		again, err := awsJSON11.DecodeRequest(op, nil, once)
		if err != nil {
			t.Fatalf("refused what it wrote, %s: %v", once, err)
		}
		if twice, err := encodeJSON(op.Input, again); err != nil || !bytes.Equal(twice, once) {
			t.Fatalf("%q\n%s\n%s\n%v", body, once, twice, err)
		}
	})
}

// FuzzJSONSyntax holds the reader against encoding/json: an unknown member is skipped exactly when it
// is JSON (of UTF-8, which encoding/json does not insist on).
func FuzzJSONSyntax(f *testing.F) {
	for _, s := range []string{`1`, `-0.0e+1`, `"\ud83d\ude00"`, `[{"a":[]},null,true,false]`, `01`, `"`, `{"a":1,}`, "\"\t\"", `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		body := append(append([]byte(`{"unknown":`), value...), '}')
		_, err := awsJSON11.DecodeRequest(syntheticOperation, httptest.NewRequest("POST", "/", nil), body)
		valid := json.Valid(body)
		if err == nil && !valid {
			t.Fatalf("accepted %q", body)
		}
		if err == nil || !valid {
			return
		}
		switch m := err.(api.Error).ErrorMessage(); {
		case strings.Contains(m, "UTF-8"), strings.Contains(m, "nests deeper"), strings.Contains(m, "escape") && bytes.Contains(bytes.ToLower(body), []byte(`\ud`)):
		case bytes.Contains(body, []byte(`":`)): // further members, known ones even
		default:
			t.Fatalf("refused %q: %v", body, err)
		}
	})
}
