package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares an answer with a file. The order of fields counts.
func golden(t *testing.T, name, body string) {
	t.Helper()
	var got bytes.Buffer
	if err := json.Indent(&got, []byte(body), "", "  "); err != nil {
		t.Fatalf("%s: %v in %s", name, err, body)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got.Bytes(), want)
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	s, _ := server(t, processes{}, nil)
	id := func(snap agent.TaskSnapshot, i int) string { return s.EndpointID(snap.Task, i) }
	vpc, bridge, host := id(inVPC(), 0), id(onBridge(), 0), id(onHost(), 0)
	for _, c := range []struct{ name, from, path string }{
		{"v2-task", vpcAddr, "/v2/metadata"},
		{"v2-task", vpcAddr, "/v2/metadata/"},
		{"v2-task-tags", vpcAddr, "/v2/metadataWithTags"},
		{"v2-container", vpcAddr, "/v2/metadata/ecs-shop-3-web-aaaa"},
		{"v2-container", vpcAddr, "/v3/" + vpc},
		{"v2-task", vpcAddr, "/v3/" + vpc + "/task"},
		{"v2-task-tags", vpcAddr, "/v3/" + vpc + "/taskWithTags"},
		{"v4-container", vpcAddr, "/v4/" + vpc},
		{"v4-container-stopped", vpcAddr, "/v4/" + id(inVPC(), 1)},
		{"v4-task", vpcAddr, "/v4/" + vpc + "/task"},
		{"v4-task-tags", vpcAddr, "/v4/" + vpc + "/taskWithTags"},
		{"v4-container-bridge", bridgeAddr, "/v4/" + bridge},
		{"v3-container-bridge", bridgeAddr, "/v3/" + bridge},
		{"v4-container-mute", "127.0.0.1", "/v4/" + id(onBridge(), 1)},
		{"v4-task-bridge", bridgeAddr, "/v4/" + bridge + "/task"},
		{"v2-task-bridge", bridgeAddr, "/v2/metadata"},
		{"v4-container-host", "127.0.0.1", "/v4/" + host},
	} {
		code, body := get(s.MetadataHandler(), c.from, c.path)
		if code != http.StatusOK {
			t.Errorf("%s: %d %s", c.path, code, body)
			continue
		}
		golden(t, c.name, body)
	}
	for _, c := range []struct{ name, path string }{
		{"v1-metadata", "/v1/metadata"},
		{"v1-tasks", "/v1/tasks"},
		{"v1-task", "/v1/tasks?taskarn=" + vpcTask},
		{"v1-task", "/v1/tasks?dockerid=ecs-shop-3-job-bbbb"},
		{"v1-task", "/v1/tasks?dockerid=ecs-shop-3-w"},
		{"v1-root", "/"},
		{"v1-root", "/v2/anything"},
	} {
		code, body := get(s.IntrospectionHandler(), "127.0.0.1", c.path)
		if code != http.StatusOK {
			t.Errorf("%s: %d %s", c.path, code, body)
			continue
		}
		golden(t, c.name, body)
	}
}

// TestRefusals: statuses and texts are those of Amazon's agent.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s, _ := server(t, processes{}, nil)
	const no = "00000000000000000000000000000000-0000000000"
	const arn, cid = "unable to get task arn from request: unable to get task Arn from v3 endpoint ID: ", "unable to get container ID from request: unable to get docker ID from v3 endpoint ID: "
	vpc, host := s.EndpointID(inVPC().Task, 0), s.EndpointID(onHost().Task, 0)
	q := func(text string) string { b, _ := json.Marshal(text); return string(b) }
	for _, c := range []struct {
		path string
		code int
		body string
	}{
		{"/v2/metadata", 400, q("Unable to get task arn from request: unable to associate '10.0.0.9' with task")},
		{"/v2/stats", 400, q("Unable to get task arn from request: unable to associate '10.0.0.9' with task")},
		{"/v3/" + no, 500, q("V3 container metadata handler: " + cid + no)},
		{"/v3/" + no + "/task", 500, q("V3 task metadata handler: " + arn + no)},
		{"/v3/" + no + "/taskWithTags", 500, q("V3 task metadata handler: " + arn + no)},
		{"/v3/" + no + "/stats", 400, q("V3 container stats handler: " + arn + no)},
		{"/v3/" + no + "/task/stats", 400, q("V3 task stats handler: " + arn + no)},
		{"/v3/" + no + "/associations/gpu", 400, q("V3 container associations handler: unable to get container id from request: unable to get docker ID from v3 endpoint ID: " + no)},
		{"/v4/" + no, 404, q("V4 container metadata handler: " + cid + no)},
		{"/v4/", 404, q("V4 container metadata handler: " + cid)},
		{"/v4/x", 404, q("V4 container metadata handler: " + cid + "x")},
		{"/v4/" + no + "/task", 404, q("V4 task metadata handler: " + arn + no)},
		{"/v4/" + no + "/stats", 404, q("V4 container stats handler: " + arn + no)},
		{"/v4/" + no + "/task/stats", 404, q("V4 task stats handler: " + arn + no)},
		{"/v4/" + host + "/stats", 500, q("Unable to get container stats for: ecs-agentd-9-d-abcd")},
		{"/v3/" + host + "/stats", 400, q("Unable to get container stats for: ecs-agentd-9-d-abcd")},
		{"/v4/" + host + "/task/stats", 200, `{"ecs-agentd-9-d-abcd":{}}`},
		{"/v3/" + host + "/task/stats", 200, `{"ecs-agentd-9-d-abcd":null}`},
		{"/v4/" + host + "/associations/gpu", 200, `{"Associations":["GPU-1"]}`},
		{"/v4/" + host + "/associations/other", 200, `{"Associations":null}`},
		{"/v4/" + host + "/associations/gpu/GPU-1", 400, q("Unable to write container association response: unable to get association from association type gpu and association name GPU-1")},
		{"/v2/credentials/", 400, `{"code":"NoIdInRequest","message":"CredentialsV2Request: No Credential ID in the request","HTTPErrorCode":400}`},
		{"/v2/credentials/abc", 400, `{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}`},
		{"/v1/credentials?id=abc", 400, `{"code":"InvalidIdInRequest","message":"CredentialsV1Request: Credentials not found","HTTPErrorCode":400}`},
		{"/v1/credentials", 400, `{"code":"NoIdInRequest","message":"CredentialsV1Request: No Credential ID in the request","HTTPErrorCode":400}`},
		{"/", 404, "404 page not found\n"},
		{"/v2", 404, "404 page not found\n"},
		{"/v2/credentials", 404, "404 page not found\n"},
		{"/v2/metadataWithTags/x", 404, "404 page not found\n"},
		{"/v4/" + vpc + "/", 404, "404 page not found\n"},
		{"/v4/" + vpc + "/tasks", 404, "404 page not found\n"},
		{"/v5/" + vpc, 404, "404 page not found\n"},
		{"/api/" + vpc, 404, "404 page not found\n"},
	} {
		code, body := get(s.MetadataHandler(), "10.0.0.9", c.path)
		if code != c.code || body != c.body {
			t.Errorf("%s: %d %s; want %d %s", c.path, code, body, c.code, c.body)
		}
		s.throttle = throttle{}
	}
	if code, body := get(s.MetadataHandler(), vpcAddr, "/v2/metadata/ecs-cache-1-redis-eeee"); code != 400 || body != q("Unable to generate metadata for container 'ecs-cache-1-redis-eeee'") {
		t.Errorf("another task's container by its ID: %d %s", code, body)
	}
	if code, body := get(s.MetadataHandler(), vpcAddr, "/v2/stats/ecs-cache-1-redis-eeee"); code != 400 || body != q("Unable to get container stats for: ecs-cache-1-redis-eeee") {
		t.Errorf("another task's stats by the container's ID: %d %s", code, body)
	}
	for path, want := range map[string]int{
		"/v1/tasks?taskarn=no": 404, "/v1/tasks?dockerid=no": 404, "/v1/tasks?dockerid=": 404,
		"/v1/tasks?dockerid=ecs": 400, "/v1/tasks?dockerid=ecs-shop-3-web-": 404, // longer than the 12 that may be the start of several
		"/v1/tasks?dockerid=a&taskarn=b": 400,
	} {
		code, body := get(s.IntrospectionHandler(), "127.0.0.1", path)
		if code != want || body != `{"Arn":"","KnownStatus":"","Family":"","Version":"","Containers":null}` {
			t.Errorf("%s: %d %s; want %d", path, code, body, want)
		}
	}
}

// TestAnotherTasksMetadata: a container that has come by another task's endpoint ID learns nothing with
// it, not even that it exists.
func TestAnotherTasksMetadata(t *testing.T) {
	t.Parallel()
	asked := 0
	s, src := server(t, processes{}, protector(func(_ context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
		asked++
		return &dispatchpb.ProtectionReply{}, nil
	}))
	stolen := s.EndpointID(inVPC().Task, 0)
	const unknown = "00000000000000000000000000000000-0000000000"
	for _, path := range []string{"/v3/ID", "/v3/ID/task", "/v3/ID/stats", "/v3/ID/task/stats", "/v3/ID/associations/gpu", "/v4/ID", "/v4/ID/task", "/v4/ID/taskWithTags", "/v4/ID/stats", "/v4/ID/task/stats", "/api/ID/task-protection/v1/state"} {
		code, body := get(s.MetadataHandler(), bridgeAddr, strings.Replace(path, "ID", stolen, 1))
		wantCode, wantBody := get(s.MetadataHandler(), bridgeAddr, strings.Replace(path, "ID", unknown, 1))
		if code != wantCode || strings.ReplaceAll(body, stolen, unknown) != wantBody {
			t.Errorf("%s with another's ID: %d %s; an unknown ID gives %d %s", path, code, body, wantCode, wantBody)
		}
	}
	if asked != 0 {
		t.Error("the server was asked for another task's protection")
	}
	if code, _ := get(s.MetadataHandler(), "127.0.0.1", "/v4/"+stolen); code != 200 {
		t.Error("an asker whose address says nothing needs the ID alone")
	}
	// The address goes to another task: with it goes the right to ask.
	other := onBridge()
	src.set(inVPC(), onHost())
	if code, _ := get(s.MetadataHandler(), bridgeAddr, "/v2/metadata"); code != 400 {
		t.Errorf("a task that is gone is still answered for: %d", code)
	}
	other.Task.Arn = strings.Replace(other.Task.Arn, "1111", "9999", 1)
	src.set(inVPC(), other)
	if code, body := get(s.MetadataHandler(), bridgeAddr, "/v2/metadata"); code != 200 || !strings.Contains(body, other.Task.Arn) {
		t.Errorf("the address's next task: %d %s", code, body)
	}
	// An interface that has been taken away is no right either.
	gone := inVPC()
	gone.Status.LastStatus = "DEPROVISIONING"
	src.set(gone, other)
	if code, _ := get(s.MetadataHandler(), vpcAddr, "/v2/metadata"); code != 400 {
		t.Errorf("a task without its interface is answered for by address: %d", code)
	}
}

func TestStrangersGetNoIntrospection(t *testing.T) {
	t.Parallel()
	s, _ := server(t, processes{}, nil)
	for from, want := range map[string]int{"127.0.0.1": 200, "::1": 200, vpcAddr: 200, bridgeAddr: 200, "203.0.113.5": 404, "10.90.0.8": 404} {
		if code, body := get(s.IntrospectionHandler(), from, "/v1/tasks"); code != want {
			t.Errorf("from %s: %d %s; want %d", from, code, body, want)
		}
	}
	if code, _ := ask(s.IntrospectionHandler(), http.MethodPost, "127.0.0.1", "/v1/tasks", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
}

func TestEndpointIDs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *Server {
		s, err := New(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	task := inVPC().Task
	id := s.EndpointID(task, 0)
	if !regexp.MustCompile(`^[0-9a-f]{32}-[0-9]{10}$`).MatchString(id) {
		t.Errorf("%q is not of the agent's form", id)
	}
	if again := open().EndpointID(task, 0); again != id {
		t.Errorf("after a restart %s, before %s", again, id)
	}
	if other := s.EndpointID(task, 1); other == id {
		t.Error("two containers have one ID")
	}
	secret := filepath.Join(dir, "endpoint-secret")
	if st, err := os.Stat(secret); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the secret: %v, %v; want mode 0600", st.Mode(), err)
	}
	if fresh, err := New(Config{Dir: t.TempDir()}); err != nil || fresh.EndpointID(task, 0) == id {
		t.Errorf("two hosts have one ID (%v)", err)
	}
	if err := os.WriteFile(secret, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir}); err == nil {
		t.Error("a broken secret was taken")
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	of := func(base string, task *dispatchpb.Task, i int) []string {
		id := s.EndpointID(task, i)
		return []string{"ECS_CONTAINER_METADATA_URI=" + base + "/v3/" + id, "ECS_CONTAINER_METADATA_URI_V4=" + base + "/v4/" + id, "ECS_AGENT_URI=" + base + "/api/" + id}
	}
	vpc, bridge, host := inVPC().Task, onBridge().Task, onHost().Task
	none := inVPC().Task
	none.NetworkMode = "none"
	for _, c := range []struct {
		task *dispatchpb.Task
		i    int
		want []string
	}{
		{vpc, 1, of(taskURI, vpc, 1)},
		{bridge, 0, of(taskURI, bridge, 0)},
		{bridge, 1, nil}, // disableNetworking
		{host, 0, of(taskURI, host, 0)},
		{none, 0, nil},
	} {
		if got := s.Environment(c.task, c.i); !slices.Equal(got, c.want) {
			t.Errorf("mode %s: %v; want %v", c.task.NetworkMode, got, c.want)
		}
	}
	s.HostMode("http://127.0.0.1:51699")
	if got, want := s.Environment(host, 0), of("http://127.0.0.1:51699", host, 0); !slices.Equal(got, want) {
		t.Errorf("mode host without the redirect: %v; want %v", got, want)
	}
	if got, want := s.Environment(bridge, 0), of(taskURI, bridge, 0); !slices.Equal(got, want) {
		t.Errorf("mode bridge: %v; want %v", got, want)
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := server(t, processes{}, nil)
		get(s.MetadataHandler(), bridgeAddr, "/v2/metadata") // the index is there from now on
		ok := 0
		for range 2 * burst {
			code, body := get(s.MetadataHandler(), vpcAddr, "/v2/metadata")
			switch {
			case code == http.StatusOK:
				ok++
			case code != http.StatusTooManyRequests || body != "You have reached maximum request limit.":
				t.Fatalf("%d %s", code, body)
			}
		}
		if ok != burst {
			t.Errorf("%d requests at once were answered; want %d", ok, burst)
		}
		if code, _ := get(s.MetadataHandler(), "127.0.0.1", "/v4/"+s.EndpointID(inVPC().Task, 0)); code != http.StatusTooManyRequests {
			t.Error("a task is not counted as one by its IDs and its address")
		}
		if code, _ := get(s.MetadataHandler(), bridgeAddr, "/v2/metadata"); code != http.StatusOK {
			t.Error("one task's requests held up another's")
		}
		time.Sleep(time.Second / 2)
		ok = 0
		for range burst {
			if code, _ := get(s.MetadataHandler(), vpcAddr, "/v2/metadata"); code == http.StatusOK {
				ok++
			}
		}
		if ok != steadyRate/2 {
			t.Errorf("%d requests after half a second; want %d", ok, steadyRate/2)
		}
		var many throttle
		for i := range 2 * maxBuckets {
			many.allow(string(rune(i))+"-"+time.Duration(i).String(), time.Now())
		}
		if len(many.buckets) > maxBuckets {
			t.Errorf("%d buckets", len(many.buckets))
		}
		time.Sleep(time.Minute)
		if !many.allow("new", time.Now()) {
			t.Error("full buckets are not forgotten")
		}
	})
}
