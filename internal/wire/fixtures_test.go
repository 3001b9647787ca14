package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/sts"
)

// The fixtures are the ones that aws-sdk-go-v2's modules ship: for every operation the request its
// serializer writes and a response its deserializer reads, with every member set.

var sdkDir = sync.OnceValues(func() (map[string]string, error) {
	dirs := map[string]string{}
	for _, s := range []string{"ecs", "s3", "sts"} {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/"+s).Output()
		if err != nil {
			return nil, fmt.Errorf("locating the SDK's module of %s: %w", s, err)
		}
		dirs[s] = strings.TrimSpace(string(out))
	}
	return dirs, nil
})

// fixtures answers the paths of a service's fixtures by the name before their suffix.
func fixtures(t testing.TB, service, dir, suffix string) map[string]string {
	t.Helper()
	dirs, err := sdkDir()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dirs[service], dir, "*"+suffix))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures %s/*%s in %s: %v", dir, suffix, dirs[service], err)
	}
	out := map[string]string{}
	for _, p := range paths {
		out[strings.TrimSuffix(filepath.Base(p), suffix)] = p
	}
	return out
}

// readFixture splits a fixture into its first line, headers and body. Requests have the query between
// the first line and the headers.
func readFixture(t testing.TB, path string, request bool) (first, query string, header http.Header, body []byte) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(bytes.NewReader(raw))
	line := func() string {
		s, err := r.ReadString('\n')
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return strings.TrimRight(s, "\n")
	}
	first = line()
	if request {
		query = line()
	}
	header = http.Header{}
	for {
		l := line()
		if l == "" {
			break
		}
		k, v, _ := strings.Cut(l, ": ")
		header.Add(k, v)
	}
	body, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return first, query, header, body
}

func requestFixture(t testing.TB, path string) (*http.Request, []byte) {
	t.Helper()
	first, query, header, body := readFixture(t, path, true)
	method, uri, _ := strings.Cut(first, " ")
	if query != "" {
		uri += "?" + query
	}
	r := httptest.NewRequest(method, uri, bytes.NewReader(body))
	r.Header = header
	return r, body
}

// newer lists what the SDK's fixtures have and the model does not: the SDK is of a later date. A list
// that is too long fails as one that is too short, so a new model shortens it.
var (
	newerOperations = []string{
		"AssociateGatewayWithCluster", "CreateGateway", "DeleteGateway", "DescribeGateway",
		"DescribeGatewayResources", "DescribeGatewayRoute", "DisassociateGatewayFromCluster",
		"ListGatewayClusterAssociations", "ListGatewayRoutes", "ListGateways", "UpdateGateway",
	}
	newerErrors  = []string{"GatewayNotFoundException"}
	newerMembers = []string{
		"Container.gpuSharingStrategy", "Container.neuronDeviceIds", "ContainerInstance.gpuDevices",
		"CreateDaemonInput.critical", "CreateExpressGatewayServiceInput.cpuArchitecture",
		"CreateExpressGatewayServiceInput.taskDefinitionArn", "CreateServiceInput.gatewayConnectors",
		"CreateServiceInput.monitoring", "DaemonCapacityProvider.withoutDaemonCount",
		"DaemonDeploymentCapacityProvider.withoutDaemonInstanceCount",
		"DaemonDeploymentRevisionDetail.totalWithoutDaemonInstanceCount", "DaemonRevision.critical",
		"DaemonRevisionDetail.totalWithoutDaemonCount", "DaemonTaskDefinition.ipcMode",
		"DaemonTaskDefinition.pidMode", "DaemonVolume.logDriverVolumeConfiguration",
		"DeploymentCircuitBreaker.resetOnHealthyTask", "DeploymentCircuitBreaker.thresholdConfiguration",
		"DeploymentConfiguration.earlySuccessCriteria", "ECSManagedResources.gatewayConnections",
		"ExpressGatewayServiceConfiguration.cpuArchitecture",
		"ExpressGatewayServiceConfiguration.taskDefinitionArn", "RegisterDaemonTaskDefinitionInput.ipcMode",
		"RegisterDaemonTaskDefinitionInput.pidMode", "ResolvedConfiguration.vpcLatticeConfigurations",
		"ResourceRequirement.sharingStrategy", "ServiceConnectConfiguration.containerConfigurations",
		"ServiceRevision.gatewayConnectors", "ServiceRevision.monitoring", "ServiceRevision.overrides",
		"UpdateDaemonInput.critical", "UpdateExpressGatewayServiceInput.cpuArchitecture",
		"UpdateExpressGatewayServiceInput.taskDefinitionArn", "UpdateServiceInput.gatewayConnectors",
		"UpdateServiceInput.monitoring", "VpcLatticeConfiguration.advancedConfiguration",
	}
	newerParameters = []string{"MinimumSessionTokenSize"} // of sts
	// newerStatus: the model gives no status, which means 400.
	newerStatus = map[string]string{"AccessDeniedException": "403"}
)

// dropUnknown removes from a JSON value the members that the schema does not have, and notes their
// paths, without list indexes, in unknown.
func dropUnknown(v any, s *api.Shape, path string, unknown map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			switch s.Kind {
			case api.Structure:
				if m := s.Member(k); m != nil {
					dropUnknown(e, m.Shape, s.Name+"."+k, unknown)
				} else if k != "__type" {
					unknown[s.Name+"."+k] = true
					delete(v, k)
				}
			case api.Map:
				dropUnknown(e, s.Elem.Shape, path, unknown)
			}
		}
	case []any:
		if s.Kind == api.List {
			for _, e := range v {
				dropUnknown(e, s.Elem.Shape, path, unknown)
			}
		}
	}
}

func equalJSON(t *testing.T, what string, got, want []byte, s *api.Shape, unknown map[string]bool) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(want, &w); err != nil {
		t.Fatalf("%s: the fixture is not JSON: %v", what, err)
	}
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("%s: encoded is not JSON: %v\n%s", what, err, got)
	}
	dropUnknown(w, s, s.Name, unknown)
	if !reflect.DeepEqual(g, w) {
		wb, _ := json.Marshal(w)
		gb, _ := json.Marshal(g)
		t.Errorf("%s: encoded\n%s\nwant\n%s", what, gb, wb)
	}
}

func TestECSFixtures(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	newOps, newErrs, unknown := map[string]bool{}, map[string]bool{}, map[string]bool{}

	for name, path := range fixtures(t, "ecs", "request_snapshot", ".request.snap") {
		r, body := requestFixture(t, path)
		route, err := NewRouter(sts.Descriptor, ecs.Descriptor).Route(r, body, "")
		if err != nil {
			if route.Service != ecs.Descriptor || err.(api.Error).ErrorCode() != "UnknownOperationException" {
				t.Errorf("%s: %v", name, err)
			}
			newOps[name] = true
			continue
		}
		seen[name] = true
		if route.Service != ecs.Descriptor || route.Operation.Name != name || route.Protocol.Name() != api.AWSJSON11 {
			t.Fatalf("%s routes to %+v", name, route)
		}
		in, err := route.Protocol.DecodeRequest(route.Operation, r, body)
		if err != nil {
			t.Errorf("%s: decode: %v", name, err)
			continue
		}
		out, err := encodeJSON(route.Operation.Input, in)
		if err != nil {
			t.Errorf("%s: encode: %v", name, err)
			continue
		}
		equalJSON(t, name+" request", out, body, route.Operation.Input, unknown)
	}

	for name, path := range fixtures(t, "ecs", "response_snapshot", ".response.snap") {
		op := ecs.Descriptor.Operation(name)
		if op == nil {
			newOps[name] = true
			continue
		}
		status, _, header, body := readFixture(t, path, false)
		out := op.NewOutput()
		if err := unmarshalJSON(op.Output, out, body); err != nil {
			t.Errorf("%s: decode: %v", name, err)
			continue
		}
		resp, err := awsJSON11.EncodeResponse(ecs.Descriptor, op, out, "id")
		if err != nil {
			t.Errorf("%s: encode: %v", name, err)
			continue
		}
		if strconv.Itoa(resp.Status) != status || resp.Header.Get("Content-Type") != header.Get("Content-Type") {
			t.Errorf("%s: status %d, header %v", name, resp.Status, resp.Header)
		}
		equalJSON(t, name+" response", resp.Body, body, op.Output, unknown)
	}

	for name, path := range fixtures(t, "ecs", "response_snapshot", ".error.snap") {
		e := newError(name)
		if e == nil {
			newErrs[name] = true
			continue
		}
		status, _, _, body := readFixture(t, path, false)
		if err := unmarshalJSON(e.ErrorShape(), e, body); err != nil {
			t.Errorf("%s: decode: %v", name, err)
		}
		resp := awsJSON11.EncodeError(ecs.Descriptor, e, "id")
		if newer := newerStatus[name]; newer != "" {
			if status != newer {
				t.Errorf("%s: the fixture's status is %s, not the %s listed", name, status, newer)
			}
		} else if strconv.Itoa(resp.Status) != status {
			t.Errorf("%s: status %d, want %s", name, resp.Status, status)
		}
		equalJSON(t, name, resp.Body, body, e.ErrorShape(), unknown)
	}

	for _, op := range ecs.Descriptor.Operations {
		if !seen[op.Name] {
			t.Errorf("no fixture for %s", op.Name)
		}
	}
	same(t, "newer operations", newOps, newerOperations)
	same(t, "newer errors", newErrs, newerErrors)
	same(t, "newer members", unknown, newerMembers)
}

func same(t *testing.T, what string, got map[string]bool, want []string) {
	t.Helper()
	keys := []string{}
	for k := range got {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if !slices.Equal(keys, want) {
		t.Errorf("%s: %q, want %q", what, keys, want)
	}
}

// newError makes the typed error of an ECS error code.
func newError(code string) api.ModeledError {
	all := []api.ModeledError{
		&ecs.AccessDeniedException{}, &ecs.AttributeLimitExceededException{}, &ecs.BlockedException{},
		&ecs.ClientException{}, &ecs.ClusterContainsCapacityProviderException{},
		&ecs.ClusterContainsContainerInstancesException{}, &ecs.ClusterContainsServicesException{},
		&ecs.ClusterContainsTasksException{}, &ecs.ClusterNotFoundException{}, &ecs.ConflictException{},
		&ecs.DaemonNotActiveException{}, &ecs.DaemonNotFoundException{}, &ecs.InvalidParameterException{},
		&ecs.LimitExceededException{}, &ecs.MissingVersionException{}, &ecs.NamespaceNotFoundException{},
		&ecs.NoUpdateAvailableException{}, &ecs.PlatformTaskDefinitionIncompatibilityException{},
		&ecs.PlatformUnknownException{}, &ecs.ResourceInUseException{}, &ecs.ResourceNotFoundException{},
		&ecs.ServerException{}, &ecs.ServiceDeploymentNotFoundException{}, &ecs.ServiceNotActiveException{},
		&ecs.ServiceNotFoundException{}, &ecs.TargetNotConnectedException{}, &ecs.TargetNotFoundException{},
		&ecs.TaskSetNotFoundException{}, &ecs.UnsupportedFeatureException{}, &ecs.UpdateInProgressException{},
	}
	for _, e := range all {
		if e.ErrorCode() == code {
			return e
		}
	}
	return nil
}

func unmarshalJSON(s *api.Shape, out any, body []byte) error {
	d := jsonDecoder{jsonReader: jsonReader{data: body}}
	return d.document(reflect.ValueOf(out).Elem(), s)
}

func TestSTSFixtures(t *testing.T) {
	t.Parallel()
	seen, unknown := 0, map[string]bool{}
	for name, path := range fixtures(t, "sts", "request_snapshot", ".request.snap") {
		r, body := requestFixture(t, path)
		route, err := NewRouter(ecs.Descriptor, sts.Descriptor).Route(r, body, "")
		if err != nil || route.Service != sts.Descriptor || route.Operation.Name != name {
			t.Errorf("%s routes to %+v: %v", name, route, err)
			continue
		}
		in, err := route.Protocol.DecodeRequest(route.Operation, r, body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := encodeForm(sts.Descriptor, route.Operation, in)
		want, err := url.ParseQuery(string(body))
		if err != nil {
			t.Fatal(err)
		}
		for k := range want {
			if _, ok := got[k]; !ok {
				unknown[k] = true
				delete(want, k)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: encoded\n%v\nwant\n%v", name, got, want)
		}
		// The same fields in a GET.
		get := httptest.NewRequest(http.MethodGet, "/?"+string(body), nil)
		if again, err := route.Protocol.DecodeRequest(route.Operation, get, nil); err != nil || !reflect.DeepEqual(again, in) {
			t.Errorf("%s by GET: %+v, %v", name, again, err)
		}
		seen++
	}
	same(t, "newer parameters", unknown, newerParameters)
	if seen != len(sts.Descriptor.Operations) {
		t.Errorf("%d fixtures for %d operations", seen, len(sts.Descriptor.Operations))
	}
}

// encodeForm is DecodeRequest's inverse for awsQuery.
func encodeForm(svc *api.Service, op *api.Operation, in any) url.Values {
	form := url.Values{"Action": {op.Name}, "Version": {svc.APIVersion}}
	var structure func(v reflect.Value, s *api.Shape, prefix string)
	var value func(v reflect.Value, m *api.Member, key string)
	structure = func(v reflect.Value, s *api.Shape, prefix string) {
		for i := range s.Members {
			m := &s.Members[i]
			if f := v.Field(m.Index); !absent(f) {
				value(f, m, prefix+m.Wire())
			}
		}
	}
	value = func(v reflect.Value, m *api.Member, key string) {
		s := m.Shape
		flat := m.Flattened || s.Flattened
		switch s.Kind {
		case api.Structure:
			structure(indirect(v), s, key+".")
		case api.List:
			if v.Len() == 0 {
				form.Set(key, "")
			}
			switch {
			case !flat && s.Elem.LocationName != "":
				key += "." + s.Elem.LocationName
			case !flat:
				key += ".member"
			case s.Elem.LocationName != "":
				key = key[:strings.LastIndexByte(key, '.')+1] + s.Elem.LocationName
			}
			for i := range v.Len() {
				value(v.Index(i), s.Elem, key+"."+strconv.Itoa(i+1))
			}
		case api.Map:
			if !flat {
				key += ".entry"
			}
			for i, k := range sortedKeys(v) {
				entry := key + "." + strconv.Itoa(i+1) + "."
				value(reflect.ValueOf(k), s.Key, entry+"key")
				value(v.MapIndex(reflect.ValueOf(k)), s.Elem, entry+"value")
			}
		default:
			form.Set(key, string(appendScalarText(v, m)))
		}
	}
	structure(reflect.ValueOf(in).Elem(), op.Input, "")
	return form
}

// appendScalarText is appendXMLScalar without XML's escapes.
func appendScalarText(v reflect.Value, m *api.Member) []byte {
	if m.Shape.Kind == api.String {
		return []byte(indirect(v).String())
	}
	return appendXMLScalar(nil, v, m)
}
