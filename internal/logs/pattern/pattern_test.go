package pattern

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

const (
	trail = `{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another value"],` +
		`"objectList":[{"name":"a","id":1},{"name":"b","id":2}],"SomeObject":null,"cluster.name":"c","ThisFlag":true}`
	people = `{"user":{"id":1,"email":"John.Stiles@example.com"},"users":[{"id":2,"email":"John.Doe@example.com"},` +
		`{"id":3,"email":"Jane.Doe@example.com"}],"actions":["GET","PUT","DELETE"],"coordinates":[[0,1,2],[4,5,6],[7,8,9]]}`
	access = `127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`
)

// TestMatch holds the examples of the user guide and of the API reference, and what they leave open.
func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		// Terms.
		{"", []string{"", "anything"}, nil},
		{"  \t ", []string{"", "anything"}, nil},
		{`" "`, []string{"", "anything"}, nil},
		{"ERROR", []string{"[ERROR 400] BAD REQUEST", "Exiting with ERRORCODE: -1"}, []string{"error", ""}},
		{"ERROR ARGUMENTS", []string{"[ERROR 419] MISSING ARGUMENTS"}, []string{"[ERROR 400] BAD REQUEST"}},
		{"?ERROR ?ARGUMENTS", []string{"[ERROR 400]", "MISSING ARGUMENTS"}, []string{"WARN"}},
		{"?ERROR ?ARGUMENTS REQUEST", []string{"[INFO] REQUEST FAILED", "[WARN] UNAUTHORIZED REQUEST"}, []string{"ERROR ARGUMENTS"}},
		{"?ERROR -REQUEST", []string{"INFO"}, []string{"ERROR REQUEST"}},
		{`"INTERNAL SERVER ERROR"`, []string{"[ERROR 500] INTERNAL SERVER ERROR"}, []string{"INTERNAL  SERVER ERROR"}},
		{"ERROR -ARGUMENTS", []string{"[ERROR 400] BAD REQUEST"}, []string{"[ERROR 419] MISSING ARGUMENTS", "fine"}},
		{`"ERROR" - "Exiting"`, []string{"[ERROR] A fatal exception"}, []string{"Exiting with ERRORCODE: -1"}},
		{`"a \"b\" \\ c\n"`, []string{`x a "b" \ c\n`}, []string{"a b"}},
		// Regular expressions.
		{"%AUTHORIZED%", []string{"[ERROR 401] UNAUTHORIZED REQUEST"}, []string{"[SUCCESS 200] OK"}},
		{"%^[hc]at%", []string{"hat trick", "cat"}, []string{"a hat", "x\ncat"}},
		{"%[hc]at$%", []string{"the cat"}, []string{"cat 5"}},
		{"%colou?r%", []string{"color", "colour"}, []string{"colouur"}},
		{"%^a{3,5}$%", []string{"aaa", "aaaaa"}, []string{"aa", "aaaaaa"}},
		{"%^a{,2}$%", []string{"", "aa"}, []string{"aaa"}},
		{"%gra|ey%", []string{"gray", "grey"}, []string{"groy"}},
		{"%^starting|^initializing|^shutting down%", []string{"shutting down now"}, []string{"skipping initializing"}},
		{`%\[.\]%`, []string{"x[7]", "[ ]", "[\n]"}, []string{"[]"}},
		{`%10\.10\.0\.1%`, []string{"10.10.0.1"}, []string{"10010,051"}},
		{`%\x28%`, []string{"f(x)"}, []string{"f"}},
		{`%^\w\W\s\S\d\D$%`, []string{"a- b1x"}, []string{"a- bxx"}},
		{`%a% %b%`, []string{"b a"}, []string{"a"}},
		// JSON.
		{`{ $.eventType = "UpdateTrail" }`, []string{trail, " " + trail + "\n"}, []string{"x" + trail, trail + "x", "", "[" + trail + "]"}},
		{`{$.eventType=UpdateTrail}`, []string{trail}, nil},
		{`{ $.sourceIPAddress != 123.123.* }`, []string{trail}, []string{people}},
		{`{ $.sourceIPAddress != 111.111.* }`, nil, []string{trail}},
		{`{ $.arrayKey[0] = "value" }`, []string{trail}, []string{`{"arrayKey":"value"}`, `{"arrayKey":{"0":"value"}}`}},
		{`{ $.objectList[1].id = 2 }`, []string{trail}, []string{people}},
		{`{ $.eventType = %Trail% }`, []string{trail}, nil},
		{`{ $.arrayKey[*] = %val.{2}% }`, []string{trail}, nil},
		{`{ $.* = %111\.111\.111\.1[0-9]{1,2}% }`, []string{trail}, []string{`{"a":["111.111.111.111"]}`}},
		{`{ $.['cluster.name'] = "c" }`, []string{trail}, []string{`{"cluster":{"name":"c"}}`}},
		{`{ $["cluster.name"] = "c" }`, []string{trail}, nil},
		{`{ $.SomeObject IS NULL }`, []string{trail}, []string{people, `{"SomeObject":"null"}`, `{"SomeObject":0}`}},
		{`{ $.SomeOtherObject NOT EXISTS }`, []string{trail}, []string{`{"SomeOtherObject":null}`, "no JSON"}},
		{`{ $.ThisFlag IS TRUE }`, []string{trail}, []string{`{"ThisFlag":"true"}`, `{"ThisFlag":false}`}},
		{`{ $.ThisFlag is false }`, []string{`{"ThisFlag":false}`}, []string{trail}},
		{`{ $.ThisFlag = true }`, []string{`{"ThisFlag":"true"}`}, []string{trail}},
		{`{ $.arrayKey = 1 || $.arrayKey != 1 }`, nil, []string{trail, `{}`, `{"arrayKey":null}`, `{"arrayKey":{}}`}},
		{`{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }`, []string{people}, []string{trail}},
		{`{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }`, nil, []string{people}},
		{`{ $.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = nonmatch && $.actions[2] = nomatch }`, []string{people}, nil},
		{`{ ($.user.email = "John.Stiles@example.com" || $.coordinates[0][1] = nonmatch) && $.actions[2] = nomatch }`, nil, []string{people}},
		{`{ $.users[*].id = 3 && $.users[*].id = 2 }`, []string{people}, nil},
		{`{ $.latency >= 500 }`, []string{`{"latency":500}`, `{"latency":5.1e2}`, `{"latency":"501"}`}, []string{`{"latency":499.9}`, `{"latency":"many"}`, `{"latency":"5e9"}`}},
		{`{ $.number[0] = 1e+3 }`, []string{`{"number":[1000]}`, `{"number":[1000.0]}`}, []string{`{"number":[1001]}`}},
		{`{ $.number[0] != 1e-3 }`, []string{`{"number":[1000]}`}, []string{`{"number":[0.001]}`}},
		{`{ $.numbers[0] < 10e-3 }`, []string{`{"numbers":[0.009]}`}, []string{`{"numbers":[0.01]}`}},
		{`{ $.latency > +1000 }`, []string{`{"latency":1001}`}, []string{`{"latency":-1001}`}},
		{`{ $.n = 9007199254740993 }`, []string{`{"n":9007199254740993}`}, []string{`{"n":9007199254740992}`}},
		{`{ $.n < -5 }`, []string{`{"n":-10}`}, []string{`{"n":-5}`, `{"n":5}`}},
		{`{ $.errorCode = 4* }`, []string{`{"errorCode":404}`, `{"errorCode":"4xx"}`}, []string{`{"errorCode":500}`}},
		{`{ $.errorCode = "*UnauthorizedOperation" }`, []string{`{"errorCode":"Client.UnauthorizedOperation"}`}, []string{`{"errorCode":"UnauthorizedOperations"}`}},
		{`{ $.e = "Ev*ent" }`, []string{`{"e":"Ev*ent"}`}, []string{`{"e":"Event"}`}},
		{`{ $.latency = * }`, []string{`{"latency":0}`, `{"latency":""}`}, []string{`{"latency":null}`, `{}`}},
		{`{ $.a = "caf\u00e9" }`, []string{`{"a":"caf\\u00e9"}`}, nil},
		{`{ $.a = "café" }`, []string{`{"a":"café"}`, `{"\u0061":"caf\u00e9"}`}, nil},
		{`{ $.v = 1 }`, []string{`{"v":2,"v":1}`}, []string{`{"v":1,"v":2}`}},
		// Space-delimited.
		{`[ip, user, username, timestamp, request, status_code, bytes]`, []string{access}, []string{"too short"}},
		{`[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]`, []string{access}, nil},
		{`[..., request =*.html*, status_code = 4*, bytes]`, []string{access}, nil},
		{`[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]`, []string{access}, nil},
		{`[ip, user, ..., status_code = 404, bytes > 1000]`, []string{access}, nil},
		{`[ip, user, ..., status_code, bytes > 2000]`, nil, []string{access, "a b c text"}},
		{`[ip, user = Prod, …]`, []string{access}, []string{"a b"}},
		{`[..., request=*.html*, status_code=4*,]`, []string{access}, nil},
		{`[ip, a, b, c, request = "GET /index.html HTTP/1.0", (code >= 400 && code < 500) || code = 0, bytes]`, []string{access}, nil},
		{`[w1=ERROR, w2]`, []string{"ERROR 09/25/2014 12:00:02 Failed to process request"}, []string{"INFO x", "ERROR"}},
		{`[w1=ERROR || w1=WARNING, w2]`, []string{"WARNING Invalid user request"}, []string{"INFO x"}},
		{`[w1!=ERROR&&w1!=WARNING, w2]`, []string{"INFO 09/25/2014"}, []string{"ERROR x"}},
		{`[w1=ERROR]`, []string{"ERROR", " ERROR "}, []string{"ERROR x"}},
		{`[l, date, time, method, url=%/service/resource/[0-9]+$%, response_time]`,
			[]string{"INFO 09/25/2014 12:00:00 GET /service/resource/67 1200"}, []string{"INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310"}},
		{`[]`, []string{"", access}, nil},
		{`[a="unterminated words", b]`, nil, []string{`"unterminated words`}},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.pattern, err)
			continue
		}
		for _, m := range c.yes {
			if _, ok := p.Match(m); !ok {
				t.Errorf("%s does not match %q", c.pattern, m)
			}
		}
		for _, m := range c.no {
			if _, ok := p.Match(m); ok {
				t.Errorf("%s matches %q", c.pattern, m)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxLength+1)
	for text, want := range map[string]string{
		long: "1 validation error detected: Value '" + long + "' at 'filterPattern' failed to satisfy constraint: " +
			"Member must have length less than or equal to 1024",
		"\xff":                                   "Invalid filter pattern",
		`"ERROR`:                                 "Invalid filter pattern",
		`ERR*`:                                   "Invalid character(s) in term '*'",
		`?Status: timeout`:                       "Invalid character(s) in term ':'",
		`level\":\"error`:                        `Invalid character(s) in term '\'`,
		`café`:                                   "Invalid character(s) in term 'é'",
		`"a"b`:                                   "Invalid character(s) in term 'b'",
		`-`:                                      "Invalid filter pattern",
		`? a`:                                    "Invalid character(s) in term ' '",
		`%hello!%`:                               "Invalid character(s) in term '!'",
		`%(a|b)%`:                                "Invalid character(s) in term '('",
		`%\(a%`:                                  `Invalid character(s) in term '\('`,
		`%\p%`:                                   `Invalid character(s) in term '\p'`,
		`%café%`:                                 "Invalid character(s) in term 'é'",
		`%[abc%`:                                 "Invalid filter pattern",
		`%%`:                                     "Invalid filter pattern",
		`%a`:                                     "Invalid filter pattern",
		`%a% %b% %c%`:                            "A filter pattern can contain at most 2 regular expressions",
		`%a{1000}{1000}%`:                        "Invalid filter pattern",
		`{ $.a = 1`:                              "If a filter pattern starts with '{' it must end with '}'",
		`{ $.a = 1 } x`:                          "If a filter pattern starts with '{' it must end with '}'",
		`{ $.a = 1 } }`:                          "Invalid character(s) in term '}'",
		`{ $."sc-status" = 5* }`:                 `Invalid character(s) in term '$."'`,
		`{ $.a EXISTS }`:                         "Invalid character(s) in term 'E'",
		`{ $.a IS NOT NULL }`:                    "Invalid filter pattern",
		`{ $.a NOT NULL }`:                       "Invalid filter pattern",
		`{ $.a == 1 }`:                           "Invalid character(s) in term '='",
		`{ !($.a = 1) }`:                         "Invalid character(s) in term '!'",
		`{ $.a > 0 AND $.a < 2 }`:                "Invalid character(s) in term 'A'",
		`{ "v": [1] }`:                           `Invalid character(s) in term '"'`,
		`{ $.a > "Alpha" }`:                      "Invalid filter pattern",
		`{ $.a > 1* }`:                           "Invalid filter pattern",
		`{ $.items[*].* = 1 }`:                   "Invalid filter pattern",
		`{ $..a = 1 }`:                           "Invalid character(s) in term '$..'",
		`{ $.a[-1] = 1 }`:                        "Invalid character(s) in term '$.a[-'",
		`{ $[0] = 1 }`:                           "Invalid character(s) in term '$[0] '",
		`{ $ = 1 }`:                              "Invalid character(s) in term '$ '",
		`{ $.a[99999999999] = 1 }`:               "Invalid character(s) in term '$.a[99999999999]'",
		`{ $.a[*]=1||$.b[*]=1||$.*=1||$.c.*=1 }`: "Invalid filter pattern",
		`{ $.a = 1 && }`:                         "Invalid character(s) in term '}'",
		`{ ($.a = 1 }`:                           "Invalid character(s) in term '}'",
		`{ $.a = @x }`:                           "Invalid character(s) in term '@'",
		`{ $.a = }`:                              "Invalid character(s) in term '}'",
		`{}`:                                     "Invalid character(s) in term '}'",
		`[a, b`:                                  "If a filter pattern starts with '[' it must end with ']'",
		`[a, ..., b, ...]`:                       "Invalid filter pattern",
		`[a, a]`:                                 "Invalid filter pattern",
		`[1a]`:                                   "Invalid filter pattern",
		`[a = ]`:                                 "Invalid character(s) in term ']'",
		`[a = 1 ||]`:                             "Invalid character(s) in term ']'",
		`[a, b=x || c=y]`:                        "Invalid filter pattern",
		`[a-b]`:                                  "Invalid character(s) in term '-'",
		`[a]b]`:                                  "Invalid character(s) in term ']'",
		`{` + strings.Repeat("(", 500) + `$.a=1` + strings.Repeat(")", 500) + `}`: "Invalid filter pattern",
	} {
		_, err := Parse(text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("Parse(%q): %v, want an *Error", text, err)
		} else if e.Message != want {
			t.Errorf("Parse(%q):\n got %s\nwant %s", text, e.Message, want)
		}
	}
}

// TestExtracted holds TestMetricFilter's examples of the API reference.
func TestExtracted(t *testing.T) {
	t.Parallel()
	const line = `127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /apache_pb.gif HTTP/1.0" 200 1534`
	for _, c := range []struct {
		pattern, message string
		want             map[string]string
	}{
		{"[ip, identity, user_id, timestamp, request, status_code, size]", line, map[string]string{"$ip": "127.0.0.1", "$identity": "-",
			"$user_id": "frank", "$timestamp": "10/Oct/2000:13:25:15 -0700", "$request": "GET /apache_pb.gif HTTP/1.0", "$status_code": "200", "$size": "1534"}},
		{"[..., size]", line, map[string]string{"$1": "127.0.0.1", "$2": "-", "$3": "frank", "$4": "10/Oct/2000:13:25:15 -0700",
			"$5": "GET /apache_pb.gif HTTP/1.0", "$6": "200", "$size": "1534"}},
		{"[]", line, map[string]string{"$1": "127.0.0.1", "$2": "-", "$3": "frank", "$4": "10/Oct/2000:13:25:15 -0700",
			"$5": "GET /apache_pb.gif HTTP/1.0", "$6": "200", "$7": "1534"}},
		{"[..., request=*.gif*, status_code=2*,]", line, map[string]string{"$1": "127.0.0.1", "$2": "-", "$3": "frank",
			"$4": "10/Oct/2000:13:25:15 -0700", "$request": "GET /apache_pb.gif HTTP/1.0", "$status_code": "200", "$7": "1534"}},
		{"[a, ..., b]", "x y z", map[string]string{"$a": "x", "$2": "y", "$b": "z"}},
		{"[a, b]", `x "y z" w `, map[string]string{"$a": "x", "$b": `"y z" w`}},
		{"{ $.eventType = * }", trail, nil},
		{"arrayKey", trail, nil},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Fatalf("Parse(%q): %v", c.pattern, err)
		}
		m, ok := p.Match(c.message)
		if !ok || !maps.Equal(m.Extracted(), c.want) {
			t.Errorf("%s of %q: %v %v, want %v", c.pattern, c.message, m, ok, c.want)
		}
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pattern, message, reference, want string }{
		{"{ $.eventType = * }", trail, "$.eventType", "UpdateTrail"},
		{"{ $.eventType = * }", trail, "$.objectList[1].id", "2"},
		{"{ $.eventType = * }", trail, "$.objectList[*].id", "1"},
		{"{ $.eventType = * }", trail, "$.['cluster.name']", "c"},
		{"{ $.eventType = * }", trail, "$.ThisFlag", "true"},
		{"{ $.eventType = * }", trail, "$.SomeObject", ""},
		{"{ $.eventType = * }", trail, "$.objectList", ""},
		{"{ $.eventType = * }", trail, "$.missing", ""},
		{"{ $.eventType = * }", trail, "$eventType", ""},
		{"[ip, ..., bytes]", access, "$bytes", "1534"},
		{"[ip, ..., bytes]", access, "$3", "frank"},
		{"[ip, ..., bytes]", access, "$7", "1534"},
		{"[ip, ..., bytes]", access, "$8", ""},
		{"[ip, ..., bytes]", access, "$.bytes", ""},
		{"frank", access, "$1", ""},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Fatalf("Parse(%q): %v", c.pattern, err)
		}
		m, ok := p.Match(c.message)
		if !ok {
			t.Errorf("%s does not match", c.pattern)
			continue
		}
		if got, found := m.Value(c.reference); got != c.want || found != (c.want != "") {
			t.Errorf("%s: %s is %q (%v), want %q", c.pattern, c.reference, got, found, c.want)
		}
	}
}

func TestRefers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, reference string
		want               bool
	}{
		{"[ip, ..., bytes]", "$bytes", true}, {"[ip, ..., bytes]", "$3", true}, {"[ip, ..., bytes]", "$size", false},
		{"[ip, ..., bytes]", "bytes", false}, {"[ip]", "$0", false}, {"[ip,]", "$", false},
		{"{ $.a = 1 }", "$.b.c[0]", true}, {"{ $.a = 1 }", "$b", false}, {"{ $.a = 1 }", "$.a[", false}, {"{ $.a = 1 }", "$.a ", false},
		{"ERROR", "$.a", false}, {"", "$1", false},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Refers(c.reference); got != c.want {
			t.Errorf("%s refers to %s: %v", c.pattern, c.reference, got)
		}
	}
}

func TestTerms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pattern, plain, escaped string }{
		{`ERROR -x "two words" %ab+c\d+xyz|abq% %^foo%`, "ERROR|two words|a|foo", ""},
		{"?a ?b", "", ""}, {"?a ?a", "a", ""}, {"?a", "a", ""}, {"?a b", "b", ""}, {"-a", "", ""}, {"", "", ""},
		{`{ $.a.b[0] = "x/y*" && ($.n >= 5 || $.n = "q") && $.d NOT EXISTS }`, "", "a|b|x|y|n"},
		{`{ $.a IS TRUE || $.b = 1 }`, "", ""}, {`{ $.a IS TRUE }`, "true", "a"}, {`{ $.* != x }`, "", ""},
		{`[a, b = 404, c = *html* && c != x, d = "q r" || d = z]`, "html", ""},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		plain, escaped := strings.Join(p.Terms(), "|"), strings.Join(p.JSONTerms(), "|")
		if plain != c.plain || escaped != c.escaped {
			t.Errorf("%s: terms %q and %q, want %q and %q", c.pattern, plain, escaped, c.plain, c.escaped)
		}
	}
}
