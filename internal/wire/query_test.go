package wire

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/sts"
)

func post(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	return r
}

func decodeForm(op *api.Operation, body string) (any, error) {
	return awsQuery{}.DecodeRequest(op, post(body), []byte(body))
}

func TestQueryDecoding(t *testing.T) {
	t.Parallel()
	p := api.Ptr[string]
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, tt := range []struct {
		body string
		want thing
	}{
		{``, thing{}},
		{`Action=DoThing&Version=1&unknown.member.x=1&X-Amz-Date=2`, thing{}},
		{`text=a%26b+c%C3%A9`, thing{Text: p("a&b cé")}},
		{`text=`, thing{Text: p("")}},
		{`text=first&text=second`, thing{Text: p("first")}},
		{`Number=-3&long=9223372036854775807&bool=TRUE&double=1.5&float=-Infinity`, thing{Int: api.Ptr(int32(-3)), Long: api.Ptr(int64(math.MaxInt64)), Bool: api.Ptr(true), Double: api.Ptr(1.5), Float: api.Ptr(float32(math.Inf(-1)))}},
		{`date=2026-02-03T04%3A05%3A06Z&time=20260203T040506Z&times.member.1=1770091506&times.member.2=2026-02-03T05%3A05%3A06%2B01%3A00`, thing{Date: &at, Time: &at, Times: []time.Time{at, at}}},
		{`blob=AAEC&enum=PINK`, thing{Blob: []byte{0, 1, 2}, Enum: "PINK"}},
		{`flags.member.10=true&flags.member.2=false&flags.member.1=true`, thing{Flags: []bool{true, false, true}}},
		{`flags=`, thing{Flags: []bool{}}},
		{`Item.1=a&Item.2=b&renamedList.entry.1=c`, thing{FlatList: []string{"a", "b"}, RenamedList: []string{"c"}}},
		{`flatMap.1.key=a&flatMap.1.value=1`, thing{FlatMap: map[string]string{"a": "1"}}},
		{`map.entry.1.key=a&map.entry.1.value.text=1&map.entry.2.key=b`, thing{Map: map[string]thing{"a": {Text: p("1")}, "b": {}}}},
		{`children.member.1.text=a&children.member.3.next.text=b`, thing{Children: []thing{{Text: p("a")}, {Next: &thing{Text: p("b")}}}}},
		{`lists.member.1.member.1=1&lists.member.1.member.2=2&lists.member.2=`, thing{Lists: [][]int64{{1, 2}, {}}}},
		{`choice.a=x`, thing{Choice: &choice{A: p("x")}}},
		{`next=x`, thing{}},
	} {
		in, err := decodeForm(syntheticOperation, tt.body)
		if err != nil {
			t.Errorf("%s: %v", tt.body, err)
		} else if !reflect.DeepEqual(in, &tt.want) {
			t.Errorf("%s: decoded %+v", tt.body, in)
		}
	}
}

func TestQueryRefusal(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`text=%`:                                "Invalid URL escape",
		`%zz=1`:                                 "Invalid URL escape",
		`text=%ff`:                              "Invalid UTF-8",
		`Number=a`:                              "Value is not an integer in range: Number",
		`Number=2147483648`:                     "Value is not an integer in range: Number",
		`Number=`:                               "Value is not an integer in range: Number",
		`bool=1`:                                "Value is not a boolean: bool",
		`double=0x1p3`:                          "Value is not a number: double",
		`double=inf`:                            "Value is not a number: double",
		`float=1e39`:                            "Value is not a number in range: float",
		`time=yesterday`:                        "Invalid timestamp: time",
		`blob=*`:                                "Invalid base64",
		`flags.member.x=true`:                   "Invalid index in flags.member.x",
		`flags.member.0=true`:                   "Invalid index",
		`flags.member.-1=true`:                  "Invalid index",
		`flags.member.%2B1=true`:                "Invalid index",
		`flags.member.01=true`:                  "Invalid index",
		`flags.member.=true`:                    "Invalid index",
		`map.entry.1.value.text=a`:              "Map entry without a key: map.entry.1.",
		strings.Repeat("next.", 200) + `text=x`: "nests deeper",
		strings.Repeat("a&", 2<<20):             "too many values",
	} {
		in, err := decodeForm(syntheticOperation, body)
		if len(body) > 100 {
			body = body[:100] + "…"
		}
		if err == nil {
			t.Errorf("%s: accepted as %+v", body, in)
			continue
		}
		e, ok := err.(api.Error)
		if !ok || e.ErrorCode() != "MalformedInput" || e.HTTPStatusCode() != 400 {
			t.Errorf("%s: %#v", body, err)
		} else if !strings.Contains(e.ErrorMessage(), want) {
			t.Errorf("%s: %q, want %q", body, e.ErrorMessage(), want)
		}
	}
}

func TestQueryEncoding(t *testing.T) {
	t.Parallel()
	out := &thing{
		Attribute: api.Ptr("not inside"),
		Blob:      []byte{0, 1, 2},
		Children:  []thing{{Attribute: api.Ptr(`"<`), Text: api.Ptr("]]>")}},
		Date:      api.Ptr(time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)),
		Double:    api.Ptr(math.NaN()),
		FlatList:  []string{"a", "b"},
		FlatMap:   map[string]string{"k": "\x00\xff\uFFFE"},
		Int:       api.Ptr(int32(7)),
		Lists:     [][]int64{{}},
		Map:       map[string]thing{"k": {}},
		Time:      api.Ptr(time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)),
	}
	resp, err := awsQuery{}.EncodeResponse(synthetic, syntheticOperation, out, "id")
	if err != nil {
		t.Fatal(err)
	}
	want := `<DoThingResponse xmlns="https://synthetic/?a=1&amp;b=2">` +
		`<blob>AAEC</blob>` +
		`<children><member attr="&quot;&lt;"><text>]]&gt;</text></member></children>` +
		`<date>2026-02-03T04:05:06Z</date><double>NaN</double>` +
		`<Item>a</Item><Item>b</Item>` +
		"<flatMap><key>k</key><value>\uFFFD\uFFFD\uFFFD</value></flatMap>" +
		`<Number>7</Number><lists><member></member></lists>` +
		`<map><entry><key>k</key><value></value></entry></map>` +
		`<time>2026-02-03T04:05:06.789Z</time>` +
		`<ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoThingResponse>`
	if string(resp.Body) != want || resp.Status != 200 || resp.Header.Get("Content-Type") != "text/xml" {
		t.Errorf("encoded\n%s\nwant\n%s", resp.Body, want)
	}

	op := sts.Descriptor.Operation("GetCallerIdentity")
	resp, err = awsQuery{}.EncodeResponse(sts.Descriptor, op, (*sts.GetCallerIdentityOutput)(nil), "id")
	if want := `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult></GetCallerIdentityResult>` +
		`<ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></GetCallerIdentityResponse>`; err != nil || string(resp.Body) != want {
		t.Errorf("encoded %s, %v", resp.Body, err)
	}
}

func TestQueryErrors(t *testing.T) {
	t.Parallel()
	resp := awsQuery{}.EncodeError(sts.Descriptor, &sts.ExpiredTokenException{Message: "<m>"}, "id")
	if want := `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>` +
		`<Code>ExpiredTokenException</Code><Message>&lt;m&gt;</Message></Error><RequestId>id</RequestId></ErrorResponse>`; string(resp.Body) != want || resp.Status != 400 {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
	resp = awsQuery{}.EncodeError(nil, &ecs.ConflictException{Message: "m", ResourceIds: []string{"a"}}, "id")
	if want := `<ErrorResponse><Error><Type>Sender</Type><Code>ConflictException</Code><Message>m</Message>` +
		`<resourceIds><member>a</member></resourceIds></Error><RequestId>id</RequestId></ErrorResponse>`; string(resp.Body) != want {
		t.Errorf("%s", resp.Body)
	}
	internal, known := api.AsError(errors.New("x"))
	resp = awsQuery{}.EncodeError(nil, internal, "id")
	if known || resp.Status != 500 || !strings.Contains(string(resp.Body), "<Type>Receiver</Type><Code>InternalFailure</Code>") {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
}

// TestQueryRoundTrip goes through the form and back, and reads the XML for well-formedness.
func TestQueryRoundTrip(t *testing.T) {
	t.Parallel()
	ops := append([]*api.Operation{syntheticOperation}, sts.Descriptor.Operations...)
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom(ops).Draw(t, "operation")
		in := op.NewInput()
		fill(t, reflect.ValueOf(in).Elem(), op.Input, 3)
		form := encodeForm(synthetic, op, in)
		again, err := decodeForm(op, form.Encode())
		if err != nil {
			t.Fatalf("%v: %v", form, err)
		}
		// A form cannot hold an empty structure or map, nor tell a gap in a list from its end: what is
		// stable is what was read from one.
		form = encodeForm(synthetic, op, again)
		if again, err = decodeForm(op, form.Encode()); err != nil {
			t.Fatal(err)
		}
		if once := encodeForm(synthetic, op, again); !sparse(op.Input, in) && !reflect.DeepEqual(once, form) {
			t.Fatalf("%v\n%v", form, once)
		}
		resp, err := awsQuery{}.EncodeResponse(synthetic, &api.Operation{Name: op.Name, Output: op.Input, Status: 200}, in, "id")
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, resp.Body)
	})
}

// sparse tells an input that a form cannot hold: it has an empty structure or map somewhere.
func sparse(s *api.Shape, in any) bool {
	var walk func(v reflect.Value, s *api.Shape) bool
	walk = func(v reflect.Value, s *api.Shape) bool {
		v = indirect(v)
		switch s.Kind {
		case api.Structure:
			some := false
			for i := range s.Members {
				if f := v.Field(s.Members[i].Index); !absent(f) {
					some = true
					if walk(f, s.Members[i].Shape) {
						return true
					}
				}
			}
			return !some
		case api.List:
			for i := range v.Len() {
				if walk(v.Index(i), s.Elem.Shape) {
					return true
				}
			}
		case api.Map:
			for it := v.MapRange(); it.Next(); {
				if walk(it.Value(), s.Elem.Shape) {
					return true
				}
			}
			return v.Len() == 0
		}
		return false
	}
	return walk(reflect.ValueOf(in), s)
}

func wellFormed(t interface{ Fatalf(string, ...any) }, body []byte) {
	d := xml.NewDecoder(strings.NewReader(string(body)))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("%v in %s", err, body)
		}
	}
}

func FuzzQuery(f *testing.F) {
	ops := append([]*api.Operation{syntheticOperation}, sts.Descriptor.Operations...)
	for i, op := range sts.Descriptor.Operations {
		_, body := requestFixture(f, fixtures(f, "sts", "request_snapshot", ".request.snap")[op.Name])
		f.Add(uint8(i+1), string(body))
	}
	f.Add(uint8(0), `map.entry.1.key=a&map.entry.1.value.next.text=1&Item.2=b&Item.1=a&time=1.5&children.member.7.blob=AA%3D%3D`)
	f.Fuzz(func(t *testing.T, n uint8, body string) {
		op := ops[int(n)%len(ops)]
		in, err := decodeForm(op, body)
		if err != nil {
			return
		}
		Validate(op.Input, in)
		once := encodeForm(synthetic, op, in)
		again, err := decodeForm(op, once.Encode())
		if err != nil {
			t.Fatalf("refused what it read, %v: %v", once, err)
		}
		if !sparse(op.Input, in) {
			if twice := encodeForm(synthetic, op, again); !reflect.DeepEqual(twice, once) {
				t.Fatalf("%q\n%v\n%v", body, once, twice)
			}
		}
		resp, err := awsQuery{}.EncodeResponse(synthetic, &api.Operation{Name: op.Name, Output: op.Input, Status: 200}, in, "id")
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, resp.Body)
	})
}

func TestRouter(t *testing.T) {
	t.Parallel()
	router := NewRouter(ecs.Descriptor, sts.Descriptor, synthetic)
	request := func(method, target, contentType, query string) *http.Request {
		r := httptest.NewRequest(method, "/?"+query, nil)
		if target != "" {
			r.Header.Set("X-Amz-Target", target)
		}
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		return r
	}
	const prefix = "AmazonEC2ContainerServiceV20141113."
	form := url.Values{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}}.Encode()
	for name, tt := range map[string]struct {
		r         *http.Request
		body      string
		signed    string
		service   *api.Service
		operation string // or the error's code
		protocol  api.Protocol
	}{
		"json":              {request("POST", prefix+"RunTask", contentJSON11, ""), "", "", ecs.Descriptor, "RunTask", api.AWSJSON11},
		"json 1.0":          {request("POST", "Synthetic_2026.v1.DoThing", contentJSON10, ""), "", "", synthetic, "DoThing", api.AWSJSON10},
		"json, signed":      {request("POST", prefix+"RunTask", "", ""), "", "ecs", ecs.Descriptor, "RunTask", api.AWSJSON11},
		"json, wrong scope": {request("POST", prefix+"RunTask", contentJSON11, ""), "", "sts", sts.Descriptor, "MissingAction", api.AWSQuery},
		"json by GET":       {request("GET", prefix+"RunTask", "", ""), "", "", nil, "UnknownOperationException", api.AWSJSON11},
		"unknown operation": {request("POST", prefix+"Fly", contentJSON11, ""), "", "", ecs.Descriptor, "UnknownOperationException", api.AWSJSON11},
		"unknown target":    {request("POST", "X.RunTask", contentJSON11, ""), "", "", nil, "UnknownOperationException", api.AWSJSON11},
		"no target":         {request("POST", "", contentJSON11, ""), "", "", nil, "UnknownOperationException", api.AWSJSON11},
		"form":              {request("POST", "", contentForm, ""), form, "", sts.Descriptor, "GetCallerIdentity", api.AWSQuery},
		"GET":               {request("GET", "", "", form), "", "", sts.Descriptor, "GetCallerIdentity", api.AWSQuery},
		"GET, signed":       {request("GET", "", "", form+"&X-Amz-Signature=0"), "", "sts", sts.Descriptor, "GetCallerIdentity", api.AWSQuery},
		"synthetic form":    {request("POST", "", contentForm, ""), "Version=2026-01-01&Action=DoThing", "", synthetic, "DoThing", api.AWSQuery},
		"unknown action":    {request("GET", "", "", "Action=Fly&Version=2011-06-15"), "", "", sts.Descriptor, "InvalidAction", api.AWSQuery},
		"no version":        {request("GET", "", "", "Action=GetCallerIdentity"), "", "sts", sts.Descriptor, "InvalidAction", api.AWSQuery},
		"nothing":           {request("GET", "", "", ""), "", "", nil, "MissingAction", api.AWSQuery},
	} {
		route, err := router.Route(tt.r, []byte(tt.body), tt.signed)
		got := ""
		if err != nil {
			got = err.(api.Error).ErrorCode()
		} else {
			got = route.Operation.Name
		}
		if route.Service != tt.service || got != tt.operation || route.Protocol.Name() != tt.protocol {
			t.Errorf("%s: %v, %s, %v: %v", name, route.Service, got, route.Protocol.Name(), err)
		}
	}
	_, err := router.Route(request("GET", "", "", "Action=GetCallerIdentity"), nil, "sts")
	if want := "Could not find operation GetCallerIdentity for version NO_VERSION_SPECIFIED"; err.(api.Error).ErrorMessage() != want {
		t.Errorf("%v", err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	in := &thing{
		Text:     api.Ptr("a!"),
		Int:      api.Ptr(int32(-6)),
		Enum:     "PINK",
		Enums:    []color{"RED", "BLUE"},
		Secret:   api.Ptr("hunter2"),
		Children: []thing{{Text: api.Ptr("fine")}, {}},
		Map:      map[string]thing{"Key": {Text: api.Ptr("fine"), Int: api.Ptr(int32(1<<24 + 1))}},
	}
	var got []string
	for _, v := range Validate(shThing, in) {
		got = append(got, v.String())
	}
	want := []string{
		"Value null at 'children.2.member.text' failed to satisfy constraint: Member must not be null",
		"Value 'PINK' at 'enum' failed to satisfy constraint: Member must satisfy enum value set: [RED, GREEN]",
		"Value 'BLUE' at 'enums.2.member' failed to satisfy constraint: Member must satisfy enum value set: [RED, GREEN]",
		"Value '-6' at 'int' failed to satisfy constraint: Member must have value greater than or equal to -5",
		"Value '16777217' at 'map.Key.member.int' failed to satisfy constraint: Member must have value less than or equal to 16777216",
		"Value at 'secret' failed to satisfy constraint: Member must have length less than or equal to 3",
		"Value 'a!' at 'text' failed to satisfy constraint: Member must have length greater than or equal to 3",
		`Value 'a!' at 'text' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w]*`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if vs := Validate(shThing, &thing{Text: api.Ptr("fine")}); vs != nil {
		t.Errorf("%v", vs)
	}

	vs := Validate(sts.Descriptor.Operation("AssumeRole").Input, &sts.AssumeRoleInput{RoleArn: api.Ptr("arn:aws:iam::000000000000:role/\U0001F600"), Tags: []sts.Tag{{Key: api.Ptr("")}}})
	if want := "4 validation errors detected: Value null at 'roleSessionName' failed to satisfy constraint: Member must not be null; " +
		"Value '' at 'tags.1.member.key' failed to satisfy constraint: Member must have length greater than or equal to 1; " +
		`Value '' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+; ` +
		"Value null at 'tags.1.member.value' failed to satisfy constraint: Member must not be null"; ViolationsMessage(vs) != want {
		t.Errorf("got  %s\nwant %s", ViolationsMessage(vs), want)
	}
	many := &thing{Text: api.Ptr("fine"), Children: make([]thing, 100)}
	if vs := Validate(shThing, many); len(vs) != maxViolations {
		t.Errorf("%d violations reported", len(vs))
	}
}
