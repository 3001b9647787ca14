package query

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

var instance = Subject{
	AgentConnected: true,
	AgentVersion:   "1.14.5",
	EC2InstanceID:  "i-abcd1234",
	RegisteredAt:   time.Date(2018, 6, 18, 22, 28, 28, 5e8, time.UTC),
	RunningTasks:   3,
	Groups:         slices.Values([]string{"service:production", "database"}),
	Attribute: func(name string) (string, bool) {
		value, ok := map[string]string{
			"ecs.instance-type": "g2.2xlarge", "ecs.availability-zone": "us-east-1a", "stack": "prod", "empty": "", "rank": "10",
			"path/with\\all-_.": "a b@c:d",
		}[name]
		return value, ok
	},
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]bool{
		// The guide's examples.
		`attribute:ecs.instance-type == t2.small`:                                                    false,
		`attribute:ecs.availability-zone in [us-east-1a, us-east-1b]`:                                true,
		`attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d`:      true,
		`task:group == service:production`:                                                           true,
		`not(task:group == database)`:                                                                false,
		`runningTasksCount == 1`:                                                                     false,
		`agentVersion < 1.14.5`:                                                                      false,
		`registeredAt < 2018-02-13`:                                                                  false,
		`ec2InstanceId in ['i-abcd1234', 'i-wxyx7890']`:                                              true,
		`(task:group == a or task:group == database) and agentConnected == true`:                     true,
		`attribute:stack != prod`:                                                                    false,
		`attribute:missing != prod`:                                                                  false,
		`attribute:missing not_in [prod]`:                                                            false,
		`attribute:missing !~ prod`:                                                                  false,
		`attribute:missing !exists && attribute:stack exists`:                                        true,
		`attribute:missing not_exists`:                                                               true,
		`attribute:empty exists and attribute:empty == ''`:                                           true,
		`attribute:stack==prod&&!attribute:stack!=prod`:                                              true,
		`attribute:stack equals x || attribute:stack EQUALS prod`:                                    true,
		`attribute:a == b or attribute:stack == prod and agentConnected == false`:                    false,
		`agentConnected == false and attribute:a == b or attribute:stack == prod`:                    true,
		`! agentConnected == false`:                                                                  true,
		`not not agentConnected == true`:                                                             true,
		`attribute:path/with\all-_. == "a b@c:d"`:                                                    true,
		`attribute:rank > 9 and attribute:rank less_than 10.5 and attribute:rank >= 10`:              true,
		`attribute:rank > 9a`:                                                                        false, // strings
		`attribute:rank == 10.0`:                                                                     false, // strings
		`agentVersion >= 1.14.5 and agentVersion > 1.9.10 and agentVersion less_than_equal 1.14.5.0`: true,
		`agentVersion == v1.14.5`:                                                                    true,
		`agentVersion > 1.14.5-rc1 and agentVersion != 1.14`:                                         true,
		`registeredAt == 2018-06-18T22:28:28Z`:                                                       true,
		`registeredAt == 2018-06-18T23:28:28+01:00`:                                                  true,
		`registeredAt greater_than_equal 2018-06-18T22:28:28 and registeredAt > 2018-06-18`:          true,
		`task:group != nothing and task:group !in [x, y] and task:group !~ z.*`:                      true,
		`task:group != database`:                                                                     false,
		`task:group matches service:.* and task:group exists`:                                        true,
		`attribute:stack =~ ro`:                                                                      false, // the whole value
		`attribute:ecs.instance-type =~ [a-h]\d[.]2x.+`:                                              true,
		`attribute:ecs.instance-type =~ "(g2|t2)\..*"`:                                               true,
		`attribute:ecs.instance-type =~ t2.*|g2.*`:                                                   true,
		`attribute:ecs.instance-type not_matches t2.*||agentConnected in [x]`:                        true,
		`(((attribute:stack =~ pr.{2,2})))`:                                                          true,
		`ec2InstanceId =~ i-.* and ec2InstanceId != i-0`:                                             true,
		`attribute:stack in ['a,b' , "c]" ,prod]`:                                                    true,
	} {
		e, err := Parse(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got := e.Match(instance); got != want {
			t.Errorf("%s: %v, want %v", expr, got, want)
		}
	}
	for _, expr := range []string{`attribute:a exists`, `agentVersion > 1`, `registeredAt > 2000-01-01`, `ec2InstanceId !in [x]`, `task:group exists`} {
		if e, err := Parse(expr); err != nil || e.Match(Subject{}) {
			t.Errorf("%s holds for nothing at all, or %v", expr, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	for expr, part := range map[string]string{
		"":                                    "ends where a subject should follow",
		"stack == prod":                       `unknown subject "stack"`,
		"attribute: == a":                     "not an attribute's name",
		"attribute:a:b == a":                  "not an attribute's name",
		"attribute:stack":                     "expected an operator",
		"attribute:stack = prod":              "expected an operator",
		"attribute:stack ==":                  "ends where an argument should follow",
		"attribute:stack == prod prod":        `unexpected "prod"`,
		"attribute:stack == (prod)":           "expected an argument",
		"attribute:stack =~ t(2|3)":           "must be quoted",
		"attribute:stack == 'prod":            "does not end",
		"attribute:stack in prod":             "list in brackets",
		"attribute:stack in []":               "expected an argument",
		"attribute:stack in [a b]":            "',' or ']'",
		"attribute:stack in [a,":              "ends where an argument",
		"attribute:stack == a and":            "ends where a subject",
		"attribute:stack == a & agentVersion": "unexpected",
		"(attribute:stack == a":               "missing ')'",
		"attribute:stack == a)":               "unexpected",
		"agentVersion exists":                 "does not apply",
		"agentVersion =~ 1.*":                 "does not apply",
		"runningTasksCount in [1]":            "does not apply",
		"agentConnected > true":               "does not apply",
		"agentVersion > latest":               "not a version",
		"agentVersion > 1.2.3.4.5":            "not a version",
		"runningTasksCount > 1.5":             "not a whole number",
		"registeredAt > yesterday":            "not a date",
		"attribute:a =~ '(?=x)'":              "pattern",
		`attribute:a =~ '(a)\1'`:              "pattern",
		`attribute:a =~ '(a)\12'`:             "pattern",
		`attribute:a =~ a++`:                  "pattern",
		`attribute:a =~ [a-z&&[^b]]`:          "pattern",
		`attribute:a =~ [a&&b]`:               "pattern",
		`attribute:a =~ [[:alpha:]]`:          "pattern",
		`attribute:a =~ '(?P<x>a)'`:           "pattern",
		`attribute:a =~ '(?iU)a'`:             "pattern",
		`attribute:a =~ a{,2}`:                "pattern",
		`attribute:a =~ ']a)(b['`:             "pattern",
		`attribute:a =~ 'a)(?:b'`:             "pattern",
		`attribute:a =~ a\`:                   "pattern",
		strings.Repeat("(", 70) + "attribute:a exists" + strings.Repeat(")", 70): "nests deeper",
		strings.Repeat("!", 70) + "attribute:a exists":                           "nests deeper",
		"attribute:a == " + strings.Repeat("x", MaxLength):                       "more than 2000",
		"attribute:a == \xff": "UTF-8",
	} {
		e, err := Parse(expr)
		var known *Error
		if err == nil || !errors.As(err, &known) || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, %v; want …%s…", expr, e, err, part)
		}
	}
}

func TestTerms(t *testing.T) {
	t.Parallel()
	e, err := Parse(`not ( attribute:stack  == test ) and (task:group in [ x ] or registeredAt<2000-01-01) and runningTasksCount < 9`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Term{
		{"attribute:stack  == test", "prod", false},
		{"task:group in [ x ]", "database, service:production", false},
		{"registeredAt<2000-01-01", "2018-06-18T22:28:28Z", false},
		{"runningTasksCount < 9", "3", true},
	}
	if got := e.Terms(instance); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	many := map[string]bool{}
	for i := range 100 {
		many[strings.Repeat("é", i+1)] = true
	}
	e, _ = Parse("task:group exists")
	if got := e.Terms(Subject{Groups: maps.Keys(many)}); len(got[0].Actual) > maxActual+3 || !got[0].Holds {
		t.Errorf("unbounded: %+v", got)
	}
}
