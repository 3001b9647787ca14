package main

import (
	"bytes"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestFresh holds the committed packages against the generator. The compatibility table is left to
// -check, lest every new handler break this package's tests.
func TestFresh(t *testing.T) {
	t.Parallel()
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	delete(files, filepath.Join("docs", "compatibility.md"))
	if err := compare(root, files); err != nil {
		t.Error(err)
	}
}

func TestCheckNamesWhatIsStale(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	files := map[string][]byte{"a/x.go": []byte("x"), "b.md": []byte("y"), "same": []byte("z")}
	if err := write(root, files); err != nil {
		t.Fatal(err)
	}
	if err := compare(root, files); err != nil {
		t.Errorf("just written, but %v", err)
	}
	files["b.md"] = []byte("changed")
	if err := os.Remove(filepath.Join(root, "a", "x.go")); err != nil {
		t.Fatal(err)
	}
	if err := compare(root, files); err == nil || !strings.HasSuffix(err.Error(), "[a/x.go b.md]") {
		t.Errorf("got %v", err)
	}
}

// everything is a model with what the models of ecs and sts do not have.
const everything = `{
 "metadata": {"apiVersion": "1", "endpointPrefix": "x", "protocol": "rest-xml", "serviceFullName": "X", "serviceId": "X",
  "xmlNamespace": "http://x/"},
 "documentation": "prose",
 "operations": {
  "Bare": {"name": "Bare", "http": {"method": "GET", "requestUri": "/bare", "responseCode": 204}, "documentation": "prose"},
  "Do": {"name": "Do", "http": {"method": "PUT", "requestUri": "/{Id}"}, "authtype": "none",
   "input": {"shape": "Tree", "documentation": "prose", "xmlNamespace": {"uri": "http://y/"}}, "output": {"shape": "Tree"}, "errors": [{"shape": "Gone"}, {"shape": "Quiet"}]},
  "Unwanted": {"name": "Unwanted", "http": {"method": "GET", "requestUri": "/"}, "input": {"shape": "Lonely"}}
 },
 "shapes": {
  "Tree": {"type": "structure", "required": ["Id"], "documentation": "prose", "payload": "body", "members": {
   "Id": {"shape": "Text", "location": "uri", "locationName": "id", "documentation": "prose"},
   "documentation": {"shape": "Text"},
   "body": {"shape": "Data", "streaming": true},
   "children": {"shape": "Trees"}, "leaf": {"shape": "leaf"}, "any": {"shape": "Free"}, "by": {"shape": "Index"},
   "n": {"shape": "Long"}, "f": {"shape": "Float"}, "at": {"shape": "Stamp", "timestampFormat": "iso8601"}, "color": {"shape": "Color"}}},
  "Trees": {"type": "list", "member": {"shape": "Tree", "locationName": "Item"}, "flattened": true, "max": 3},
  "leaf": {"type": "structure", "members": {"parent": {"shape": "Tree"}, "attr": {"shape": "Text", "xmlAttribute": true}}},
  "Index": {"type": "map", "key": {"shape": "Color"}, "value": {"shape": "leaf"}},
  "Free": {"type": "structure", "document": true, "members": {}},
  "Text": {"type": "string", "pattern": "[\\u0009\\u10000-\\u10FFFF]+", "min": 1},
  "Data": {"type": "blob", "sensitive": true}, "Long": {"type": "long"}, "Float": {"type": "float"}, "Stamp": {"type": "timestamp"},
  "Color": {"type": "string", "enum": ["X86_64", "amazon-web-services", "minSize", "2024.1"]},
  "Gone": {"type": "structure", "exception": true, "error": {"code": "NoLongerHere", "httpStatusCode": 410}, "members": {"Message": {"shape": "Text"}, "since": {"shape": "Stamp"}}},
  "Quiet": {"type": "structure", "exception": true, "fault": true, "members": {}},
  "Lonely": {"type": "structure", "members": {}}
 }
}`

func TestTrim(t *testing.T) {
	t.Parallel()
	out, err := trim([]byte(everything), []string{"Bare", "Do"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := trim(out, nil, nil)
	if err != nil || !bytes.Equal(again, out) {
		t.Errorf("trimming what is trimmed changes it: %v", err)
	}
	text := string(out)
	for _, gone := range []string{"prose", "Unwanted", "Lonely"} {
		if strings.Contains(text, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
	if !strings.Contains(text, `"documentation": {`) {
		t.Error("the member called documentation is gone")
	}
	if _, err := trim([]byte(everything), []string{"Fly"}, nil); err == nil {
		t.Error("an operation the model lacks was accepted")
	}
}

// TestGeneratedCodeCompiles type-checks what the generator makes of the model above, and looks at it.
func TestGeneratedCodeCompiles(t *testing.T) {
	t.Parallel()
	trimmed, err := trim([]byte(everything), []string{"Bare", "Do"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(path, trimmed, 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := loadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := resolve("x", m)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	var all strings.Builder
	for name, src := range p.emit() {
		src, err := format(src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f, err := parser.ParseFile(fset, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		all.Write(src)
	}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", exportData(t))}
	if _, err := config.Check("x", fset, files, nil); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(all.String()), " ")
	for _, want := range []string{
		"type BareInput struct { }",
		"Id *string `json:\"Id,omitzero\"` // required",
		"Body io.Reader `json:\"body,omitzero\"` // sensitive",
		"Children []Tree `json", "Leaf *Leaf `json", "Any api.Document `json", "By map[string]Leaf `json",
		"N *int64 `json", "F *float32 `json", "At *time.Time `json", "Color Color `json",
		`ColorX8664 Color = "X86_64"`, `ColorAmazonWebServices Color`, `ColorMinSize Color`, `Color20241 Color`,
		"Protocols: []api.Protocol{api.RESTXML}", "Unsigned: true", "Status: 204",
		`func (e *Gone) ErrorCode() string { return "NoLongerHere" }`, "HTTPStatusCode() int { return 410 }",
		"type Quiet struct { Message string `json:\"-\"` }", "func (e *Quiet) HTTPStatusCode() int { return 500 }",
		"func init() {", `Pattern: "[\\x{0009}\\x{10000}-\\x{10FFFF}]+"`, `XMLNamespace: "http://y/"`, `Payload: "body"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the code lacks %s", want)
		}
	}
}

// exportData finds what the compiler left of the packages that generated code imports.
func exportData(t *testing.T) importer.Lookup {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", apiPath).Output()
	if err != nil {
		t.Fatalf("listing export data: %v", err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
}

func TestModelsThatCannotBeGenerated(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*model{
		"two names that are one in Go": {Shapes: map[string]shape{
			"thing": {Type: "structure"}, "Thing": {Type: "structure"},
			"Both": {Type: "structure", Members: map[string]ref{"a": {Shape: "thing"}, "b": {Shape: "Thing"}}},
		}},
		"a shape called as an operation's input": {Shapes: map[string]shape{
			"OpInput": {Type: "structure"}, "Both": {Type: "structure"},
		}},
		"a shape that is not there": {Shapes: map[string]shape{
			"Both": {Type: "list", Member: ref{Shape: "Nowhere"}},
		}},
		"an event stream": {Shapes: map[string]shape{
			"Stream": {Type: "structure", EventStream: true},
			"Both":   {Type: "structure", Members: map[string]ref{"s": {Shape: "Stream"}}},
		}},
		"a pattern RE2 does not have": {Shapes: map[string]shape{
			"P":    {Type: "string", Pattern: "(?!x)"},
			"Both": {Type: "structure", Members: map[string]ref{"p": {Shape: "P"}}},
		}},
	} {
		m.Metadata.Protocol = "query"
		m.Operations = map[string]operation{"Op": {Name: "Op", Input: &ref{Shape: "Both"}}}
		if _, err := resolve("x", m); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := resolve("x", &model{Metadata: metadata{Protocol: "carrier-pigeon"}}); err == nil {
		t.Error("an unknown protocol was accepted")
	}
}

func TestImplementedOperations(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "internal", "x")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]string{
		"service.go": `package x
import ("context"; xapi "github.com/berthhq/berth/api/x"; "io")
type Service struct { xapi.Unimplemented; *tasks; io.Reader; name string }
type tasks struct { s *Service }
type stranger struct{}
func (s *Service) A(ctx context.Context, in *xapi.AInput) (*xapi.AOutput, error) { return nil, nil }
func (s Service) B(context.Context, *xapi.BInput) (*xapi.BOutput, error) { return nil, nil }
func (s *Service) Helper(ctx context.Context, in *xapi.AInput) error { return nil }
func (s *Service) E(ctx context.Context, in string) error { return nil }`,
		"tasks.go": `package x
import ("context"; "github.com/berthhq/berth/api/x")
func (t *tasks) C(ctx context.Context, in *x.CInput) (*x.COutput, error) { return nil, nil }
func (stranger) D(ctx context.Context, in *x.DInput) (*x.DOutput, error) { return nil, nil }`,
		"x_test.go": `package x
import ("context"; "github.com/berthhq/berth/api/x")
func (t *tasks) F(ctx context.Context, in *x.FInput) (*x.FOutput, error) { return nil, nil }`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := implementedOperations(root, service{pkg: "x", impl: "internal/x"})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]bool{"A": true, "B": true, "C": true}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := implementedOperations(root, service{pkg: "y", impl: "internal/y"}); err != nil || len(got) > 0 {
		t.Errorf("a service without an implementation: %v, %v", got, err)
	}

	table := string(compatibility([]tableEntry{{
		&goPackage{name: "x", operations: []string{"A", "D"}, model: &model{}}, got,
	}}))
	for _, want := range []string{"| 1 of 2 |", "\n| A | **yes** |\n", "\n| D | not yet |\n"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
}
