package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/api/sts"
)

var services = []*api.Service{ecs.Descriptor, s3.Descriptor, sts.Descriptor}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]*api.Service{"77 77": ecs.Descriptor, "109 109": s3.Descriptor, "11 11": sts.Descriptor} {
		found := 0
		for _, op := range s.Operations {
			if s.Operation(op.Name) == op && op.Service == s.Package {
				found++
			}
		}
		if got := fmt.Sprintf("%d %d", len(s.Operations), found); got != want {
			t.Errorf("%s: %s operations and found, want %s", s.ID, got, want)
		}
		for _, name := range []string{"", "A", "Zzz", "Runtask", "RunTask2"} {
			if s.Operation(name) != nil {
				t.Errorf("%s has an operation %q", s.ID, name)
			}
		}
	}
	if s := ecs.Descriptor; s.TargetPrefix != "AmazonEC2ContainerServiceV20141113" || s.SigningName != "ecs" ||
		!slices.Equal(s.Protocols, []api.Protocol{api.AWSJSON11}) || s.APIVersion != "2014-11-13" {
		t.Errorf("%+v", s)
	}
	if s := sts.Descriptor; s.XMLNamespace != "https://sts.amazonaws.com/doc/2011-06-15/" || s.SigningName != "sts" ||
		!slices.Equal(s.Protocols, []api.Protocol{api.AWSQuery}) {
		t.Errorf("%+v", s)
	}
	if op := sts.Descriptor.Operation("AssumeRoleWithWebIdentity"); !op.Unsigned || op.ResultWrapper != "AssumeRoleWithWebIdentityResult" {
		t.Errorf("%+v", op)
	}
	if sts.Descriptor.Operation("AssumeRole").Unsigned {
		t.Error("AssumeRole needs no signature?")
	}
}

// TestSchemaFitsTypes walks every operation's schema beside its Go types: the protocols trust that a
// member's index is its field and that the field is of the type its kind promises.
func TestSchemaFitsTypes(t *testing.T) {
	t.Parallel()
	seen := map[*api.Shape]bool{}
	var fits func(s *api.Shape, typ reflect.Type, path string)
	fits = func(s *api.Shape, typ reflect.Type, path string) {
		element := typ
		if typ.Kind() == reflect.Pointer {
			element = typ.Elem()
		}
		ok := false
		switch s.Kind {
		case api.Structure:
			if ok = element.Kind() == reflect.Struct; !ok || seen[s] {
				break
			}
			seen[s] = true
			for i := range s.Members {
				m := &s.Members[i]
				f := element.Field(m.Index)
				if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != m.Name {
					t.Errorf("%s.%s is field %s `%s`", path, m.Name, f.Name, f.Tag)
				}
				if s.Member(m.Name) != m {
					t.Errorf("%s.%s is not found by its name", path, m.Name)
				}
				if k := f.Type.Kind(); k != reflect.Pointer && k != reflect.Slice && k != reflect.Map && k != reflect.String && k != reflect.Interface {
					t.Errorf("%s.%s cannot be absent", path, m.Name)
				}
				fits(m.Shape, f.Type, path+"."+m.Name)
			}
			if n := element.NumField(); n != len(s.Members) && s.Error == nil {
				t.Errorf("%s has %d members and %d fields", path, len(s.Members), n)
			}
		case api.List:
			if ok = typ.Kind() == reflect.Slice; ok {
				fits(s.Elem.Shape, typ.Elem(), path+"[]")
			}
		case api.Map:
			if ok = typ.Kind() == reflect.Map && typ.Key().Kind() == reflect.String; ok {
				fits(s.Elem.Shape, typ.Elem(), path+"{}")
			}
		case api.String:
			ok = element.Kind() == reflect.String
		case api.Integer:
			ok = element.Kind() == reflect.Int32
		case api.Long:
			ok = element.Kind() == reflect.Int64
		case api.Float:
			ok = element.Kind() == reflect.Float32
		case api.Double:
			ok = element.Kind() == reflect.Float64
		case api.Boolean:
			ok = element.Kind() == reflect.Bool
		case api.Timestamp:
			ok = element == reflect.TypeFor[time.Time]()
		case api.Blob:
			ok = typ == reflect.TypeFor[[]byte]() || typ == reflect.TypeFor[io.Reader]() || typ == reflect.TypeFor[io.ReadCloser]()
		case api.Any:
			ok = typ == reflect.TypeFor[api.Document]()
		}
		if !ok {
			t.Errorf("%s: a %v cannot hold kind %d", path, typ, s.Kind)
		}
	}
	for _, s := range services {
		for _, op := range s.Operations {
			fits(op.Input, reflect.TypeOf(op.NewInput()), op.Name+"Input")
			fits(op.Output, reflect.TypeOf(op.NewOutput()), op.Name+"Output")
		}
	}
}

func TestUnimplemented(t *testing.T) {
	t.Parallel()
	for s, impl := range map[*api.Service]any{ecs.Descriptor: ecs.Unimplemented{}, s3.Descriptor: s3.Unimplemented{}, sts.Descriptor: sts.Unimplemented{}} {
		for _, op := range s.Operations {
			_, err := op.Invoke(t.Context(), impl, op.NewInput())
			e, known := api.AsError(fmt.Errorf("wrapped: %w", err))
			if !known || e.ErrorCode() != "UnsupportedOperationException" || e.HTTPStatusCode() != 400 || e.ErrorFault() != api.FaultClient ||
				!strings.Contains(e.ErrorMessage(), s.Package+":"+op.Name+" ") || !strings.Contains(e.ErrorMessage(), "compatibility.md#"+s.Package) {
				t.Errorf("%s: %v", op.Name, err)
			}
		}
	}
}

// TestClients calls every method of every Client by reflection and sees it ask for its own operation.
func TestClients(t *testing.T) {
	t.Parallel()
	for s, client := range map[*api.Service]func(api.Invoker) any{
		ecs.Descriptor: func(i api.Invoker) any { return ecs.Client{Invoker: i} },
		s3.Descriptor:  func(i api.Invoker) any { return s3.Client{Invoker: i} },
		sts.Descriptor: func(i api.Invoker) any { return sts.Client{Invoker: i} },
	} {
		for _, op := range s.Operations {
			in, want := op.NewInput(), op.NewOutput()
			var answer error
			c := client(invokerFunc(func(_ context.Context, asked *api.Operation, got any) (any, error) {
				if asked != op || got != in {
					t.Errorf("%s asks for %s", op.Name, asked.Name)
				}
				return want, answer
			}))
			call := func() (any, error) {
				out := reflect.ValueOf(c).MethodByName(op.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), reflect.ValueOf(in)})
				err, _ := out[1].Interface().(error)
				return out[0].Interface(), err
			}
			if out, err := call(); out != want || err != nil {
				t.Errorf("%s answered %v, %v", op.Name, out, err)
			}
			answer = errors.New("no")
			if out, err := call(); !reflect.ValueOf(out).IsNil() || err != answer {
				t.Errorf("%s answered %v, %v", op.Name, out, err)
			}
		}
	}
}

type invokerFunc func(context.Context, *api.Operation, any) (any, error)

func (f invokerFunc) Invoke(ctx context.Context, op *api.Operation, in any) (any, error) {
	return f(ctx, op, in)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		e      api.Error
		code   string
		status int
		fault  api.Fault
	}{
		{&ecs.ClusterNotFoundException{Message: "m"}, "ClusterNotFoundException", 400, api.FaultClient},
		{&ecs.ServerException{Message: "m"}, "ServerException", 500, api.FaultServer},
		{&sts.PackedPolicyTooLargeException{Message: "m"}, "PackedPolicyTooLarge", 400, api.FaultClient},
		{&sts.RegionDisabledException{Message: "m"}, "RegionDisabledException", 403, api.FaultClient},
		{&api.CommonError{Code: "C", Message: "m"}, "C", 400, api.FaultClient},
		{&api.CommonError{Code: "C", Message: "m", Status: 503}, "C", 503, api.FaultServer},
	} {
		if tt.e.ErrorCode() != tt.code || tt.e.HTTPStatusCode() != tt.status || tt.e.ErrorFault() != tt.fault ||
			tt.e.ErrorMessage() != "m" || tt.e.Error() != tt.code+": m" {
			t.Errorf("%#v", tt.e)
		}
	}
	if e, known := api.AsError(context.Canceled); known || e.HTTPStatusCode() != 500 || strings.Contains(e.ErrorMessage(), "cancel") {
		t.Errorf("%v, %v", e, known)
	}
	for _, s := range services {
		for _, e := range s.Errors {
			if e.Error == nil || e.Error.HTTPStatus < 400 || e.Error.Code == "" {
				t.Errorf("%s: %s is %+v", s.ID, e.Name, e.Error)
			}
		}
		if !slices.IsSortedFunc(s.Errors, func(a, b *api.Shape) int { return strings.Compare(a.Error.Code, b.Error.Code) }) {
			t.Errorf("%s: errors are not sorted", s.ID)
		}
	}
}

// TestNoWorkAtStart: the shims are this binary too, so a service's package must not initialize anything.
// The runtime's trace lists the packages that do.
func TestNoWorkAtStart(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "init os ") {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "init github.com/berthhq/berth/api/") {
			t.Error(line)
		}
	}
}
