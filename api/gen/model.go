package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// model is a trimmed model file.
type model struct {
	Metadata   metadata
	Operations map[string]operation
	Shapes     map[string]shape
}

type metadata struct {
	APIVersion      string
	EndpointPrefix  string
	JSONVersion     string
	Protocol        string
	Protocols       []string
	ServiceFullName string
	ServiceID       string `json:"serviceId"`
	SigningName     string
	TargetPrefix    string
	XMLNamespace    string

	noErrorWrapping bool // see rest
}

type operation struct {
	Name string
	HTTP struct {
		Method       string
		RequestURI   string `json:"requestUri"`
		ResponseCode int
	}
	Input, Output *ref
	Errors        []ref
	ReadOnly      bool
	Idempotent    bool
	AuthType      string
}

// ref is a use of a shape.
type ref struct {
	Shape            string
	LocationName     string
	QueryName        string
	ResultWrapper    string
	Location         string
	TimestampFormat  string
	XMLNamespace     xmlNamespace
	Flattened        bool
	XMLAttribute     bool
	Streaming        bool
	JSONValue        bool
	HostLabel        bool
	IdempotencyToken bool
	Box              bool
	Deprecated       bool

	unwrapped bool // see rest
}

type shape struct {
	Type            string
	Members         map[string]ref
	Required        []string
	Member          ref // of a list
	Key, Value      ref // of a map
	Enum            []string
	Min, Max        *float64
	Pattern         string
	LocationName    string
	TimestampFormat string
	XMLNamespace    xmlNamespace
	Payload         string
	Flattened       bool
	Sensitive       bool
	Union           bool
	Document        bool
	Box             bool
	Deprecated      bool
	EventStream     bool
	Exception       bool
	Fault           bool
	Error           *struct {
		Code           string
		HTTPStatusCode int
		SenderFault    bool
	}
}

// xmlNamespace is a string or {"uri": "…"} in the models.
type xmlNamespace string

func (x *xmlNamespace) UnmarshalJSON(b []byte) error {
	var object struct{ URI string }
	if err := json.Unmarshal(b, &object); err == nil {
		*x = xmlNamespace(object.URI)
		return nil
	}
	return json.Unmarshal(b, (*string)(x))
}

func loadModel(path string) (*model, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := new(model)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// goPackage is a model with every Go name decided, in the order it is written.
type goPackage struct {
	name       string
	model      *model
	operations []string
	protocols  []string            // of api's constants
	structs    []string            // Go names of the structures that get a type, sorted
	enums      []string            // shape names
	errors     []string            // shape names, sorted by code
	shapes     map[string]shape    // by Go name of the variable's stem; operation inputs and outputs added
	types      map[string]string   // shape name → Go name, for structures and enums
	patterns   map[string]string   // shape name → RE2
	backEdges  map[[2]string]bool  // (shape, used shape) that would close an initialization cycle
	members    map[string][]string // structure → member names, in field order
}

func resolve(name string, m *model) (*goPackage, error) {
	p := &goPackage{
		name: name, model: m,
		operations: slices.Sorted(maps.Keys(m.Operations)),
		shapes:     map[string]shape{}, types: map[string]string{}, patterns: map[string]string{},
		backEdges: map[[2]string]bool{}, members: map[string][]string{},
	}
	var err error
	if p.protocols, err = protocols(m.Metadata); err != nil {
		return nil, err
	}
	if err := p.collect(); err != nil {
		return nil, err
	}
	if err := p.nameTypes(); err != nil {
		return nil, err
	}
	for n, s := range p.shapes {
		if s.Pattern == "" {
			continue
		}
		re := translatePattern(s.Pattern)
		if _, err := regexp.Compile("^(?:" + re + ")$"); err != nil {
			return nil, fmt.Errorf("pattern of %s: %w", n, err)
		}
		p.patterns[n] = re
	}
	p.findBackEdges()
	return p, nil
}

func protocols(meta metadata) ([]string, error) {
	names := meta.Protocols
	if len(names) == 0 {
		names = []string{meta.Protocol}
	}
	var out []string
	for _, n := range names {
		switch n {
		case "json":
			out = append(out, map[string]string{"1.0": "AWSJSON10", "1.1": "AWSJSON11"}[meta.JSONVersion])
		case "query":
			out = append(out, "AWSQuery")
		case "ec2":
			out = append(out, "EC2Query")
		case "rest-json":
			out = append(out, "RESTJSON")
		case "rest-xml":
			out = append(out, "RESTXML")
		case "smithy-rpc-v2-cbor":
			out = append(out, "RPCv2CBOR")
		default:
			return nil, fmt.Errorf("unknown protocol %q", n)
		}
	}
	return out, nil
}

// collect gathers the shapes that are reached by nesting or as errors, and gives each operation an
// input and output of its own, also where the model shares or omits them.
func (p *goPackage) collect() error {
	var reach func(name string) error
	use := func(s shape) error {
		for _, r := range s.refs() {
			if err := reach(r.Shape); err != nil {
				return err
			}
		}
		return nil
	}
	reach = func(name string) error {
		if _, done := p.shapes[name]; done {
			return nil
		}
		s, ok := p.model.Shapes[name]
		if !ok {
			return fmt.Errorf("no shape %q", name)
		}
		if s.EventStream {
			return fmt.Errorf("shape %q is an event stream, which is not supported", name)
		}
		p.shapes[name] = s
		return use(s)
	}
	for _, op := range p.operations {
		o := p.model.Operations[op]
		for _, e := range o.Errors {
			if err := reach(e.Shape); err != nil {
				return err
			}
		}
		for suffix, r := range map[string]*ref{"Input": o.Input, "Output": o.Output} {
			s := shape{Type: "structure"}
			if r != nil {
				s = p.model.Shapes[r.Shape]
				s.LocationName, s.XMLNamespace = r.LocationName, r.XMLNamespace
			}
			if err := use(s); err != nil {
				return err
			}
			if _, taken := p.model.Shapes[op+suffix]; taken && (r == nil || r.Shape != op+suffix) {
				return fmt.Errorf("operation %s: %s%s is the name of another shape", op, op, suffix)
			}
			p.shapes[op+suffix] = s
		}
	}
	return nil
}

func (s shape) refs() []ref {
	switch s.Type {
	case "structure":
		var out []ref
		for _, name := range slices.Sorted(maps.Keys(s.Members)) {
			out = append(out, s.Members[name])
		}
		return out
	case "list":
		return []ref{s.Member}
	case "map":
		return []ref{s.Key, s.Value}
	}
	return nil
}

// nameTypes decides the Go names and refuses a model in which two things would have the same.
func (p *goPackage) nameTypes() error {
	taken := map[string]string{"API": "", "Unimplemented": "", "Client": "", "Descriptor": ""}
	claim := func(goName, by string) error {
		if other, ok := taken[goName]; ok {
			return fmt.Errorf("%s and %s are both %s in Go", other, by, goName)
		}
		taken[goName] = by
		return nil
	}
	for _, n := range slices.Sorted(maps.Keys(p.shapes)) {
		s := p.shapes[n]
		g := upperFirst(n)
		switch {
		case s.Type == "structure" && !s.Document:
			p.members[n] = slices.Sorted(maps.Keys(s.Members))
			if s.Exception {
				p.errors = append(p.errors, n)
			} else {
				p.structs = append(p.structs, n)
			}
		case s.Type == "string" && len(s.Enum) > 0:
			p.enums = append(p.enums, n)
			for _, v := range s.Enum {
				if err := claim(enumConstant(n, v), n+"="+v); err != nil {
					return err
				}
			}
		default:
			continue
		}
		p.types[n] = g
		if err := claim(g, n); err != nil {
			return err
		}
	}
	slices.SortFunc(p.errors, func(a, b string) int { return strings.Compare(p.errorCode(a), p.errorCode(b)) })
	return nil
}

func (p *goPackage) errorCode(n string) string {
	if e := p.shapes[n].Error; e != nil && e.Code != "" {
		return e.Code
	}
	return n
}

// errorStatus is the model's status, or the default its protocol has: 500 for the server's faults and
// 400 for the client's.
func (p *goPackage) errorStatus(n string) (status int, server bool) {
	s := p.shapes[n]
	if s.Error != nil && s.Error.HTTPStatusCode != 0 {
		return s.Error.HTTPStatusCode, s.Fault || s.Error.HTTPStatusCode >= 500
	}
	if s.Fault {
		return 500, true
	}
	return 400, false
}

// findBackEdges finds the uses of a shape inside itself, which a static initializer cannot express.
func (p *goPackage) findBackEdges() {
	const (
		visiting = 1
		done     = 2
	)
	state := map[string]int{}
	var visit func(n string)
	visit = func(n string) {
		state[n] = visiting
		for _, r := range p.shapes[n].refs() {
			switch state[r.Shape] {
			case visiting:
				p.backEdges[[2]string{n, r.Shape}] = true
			case 0:
				visit(r.Shape)
			}
		}
		state[n] = done
	}
	for _, n := range slices.Sorted(maps.Keys(p.shapes)) {
		if state[n] == 0 {
			visit(n)
		}
	}
}

// goType is the type of a struct's field, or with element of a list's or map's element.
func (p *goPackage) goType(name string, element bool) string {
	s := p.shapes[name]
	pointer := "*"
	if element {
		pointer = ""
	}
	switch s.Type {
	case "structure":
		if s.Document {
			return "api.Document"
		}
		return pointer + p.types[name]
	case "list":
		return "[]" + p.goType(s.Member.Shape, true)
	case "map":
		return "map[string]" + p.goType(s.Value.Shape, true)
	case "string", "character":
		if len(s.Enum) > 0 {
			return p.types[name]
		}
		return pointer + "string"
	case "integer":
		return pointer + "int32"
	case "long":
		return pointer + "int64"
	case "float":
		return pointer + "float32"
	case "double":
		return pointer + "float64"
	case "boolean":
		return pointer + "bool"
	case "timestamp":
		return pointer + "time.Time"
	case "blob":
		return "[]byte"
	}
	panic(fmt.Sprintf("shape %s has unknown type %q", name, s.Type))
}

func upperFirst(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// enumConstant names an enum's constant as aws-sdk-go-v2 does: LaunchTypeEc2, NetworkModeAwsvpc.
func enumConstant(typeName, value string) string {
	var b strings.Builder
	b.WriteString(upperFirst(typeName))
	for _, word := range notWord.Split(value, -1) {
		if strings.ToUpper(word) == word {
			word = strings.ToLower(word)
		}
		b.WriteString(upperFirst(word))
	}
	return b.String()
}

var notWord = regexp.MustCompile(`[^A-Za-z0-9]+`)

// translatePattern turns a model's pattern, of Java's syntax, into RE2's.
func translatePattern(java string) string {
	re := astralEscape.ReplaceAllString(java, `\x{${1}}`)
	return escape.ReplaceAllString(re, `\x{$1}`)
}

var (
	escape = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)
	// The models write \u10000-\u10FFFF, meaning the planes above the first, which Java reads as \u1000
	// followed by a zero.
	astralEscape = regexp.MustCompile(`\\u(10[0-9A-F]{4}|10000)`)
)
