package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// relay is a container through which a test asks what the container could ask.
type relay struct {
	*testing.T
	base     string // URL of the relay
	endpoint string // the container's ID at the metadata endpoint
}

var patient = &http.Client{Timeout: 10 * time.Second}

// relayOf waits for the relay in container "app" of a task, which is reached at base.
func (w *world) relayOf(task types.Task, base string) relay {
	w.Helper()
	line := w.logs(task, func(l []string) bool { return len(l) > 0 })[0]
	r := relay{w.T, base, line[strings.LastIndexByte(line, '/')+1:]}
	harness.Poll(w, 20*time.Second, "the relay to answer", func() bool {
		resp, err := patient.Get(base + "/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	})
	return r
}

// ask sends a request and answers the status and the body. {id} in the path is the container's ID.
func (r relay) ask(method, path, body string) (int, []byte) {
	r.Helper()
	req, err := http.NewRequest(method, r.base+strings.ReplaceAll(path, "{id}", r.endpoint), strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	resp, err := patient.Do(req)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, out
}

// get fetches JSON.
func (r relay) get(path string) fields {
	r.Helper()
	status, body := r.ask(http.MethodGet, path, "")
	if status != http.StatusOK {
		r.Fatalf("GET %s is answered with %d: %s", path, status, body)
	}
	var out fields
	if err := json.Unmarshal(body, &out); err != nil {
		r.Fatalf("GET %s: %v: %s", path, err, body)
	}
	return out
}

// fields is a JSON object as clients of the endpoint see it, so that names are compared as well.
type fields map[string]any

// at follows names and indexes, "Containers.0.Name"; nil where there is nothing.
func (f fields) at(path string) any {
	var v any = map[string]any(f)
	for _, part := range strings.Split(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (f fields) number(path string) float64 { n, _ := f.at(path).(float64); return n }

// expect compares members with what they should be. A nil means that there is no such member.
func (f fields) expect(t *testing.T, what string, want map[string]any) {
	t.Helper()
	for path, value := range want {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		var plain any
		if err := json.Unmarshal(raw, &plain); err != nil {
			t.Fatal(err)
		}
		if got := f.at(path); !reflect.DeepEqual(got, plain) {
			t.Errorf("%s: %s is %s, not %s", what, path, show(got), raw)
		}
	}
}

// names are the members there are.
func (f fields) names() []string {
	var out []string
	for name := range f {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// container is a container of a task, by its name.
func (f fields) container(name string) fields {
	all, _ := f.at("Containers").([]any)
	for _, c := range all {
		if c, ok := c.(map[string]any); ok && c["Name"] == name {
			return c
		}
	}
	return nil
}

// relayed is a container of the test program that relays.
func (w *world) relayed(args ...string) container {
	return w.app(append([]string{"relay"}, args...)...)
}

// TestMetadata asks a task of three containers everything in every version, and holds the answers
// against DescribeTasks.
func TestMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	app := w.relayed(":80")
	app.Cpu, app.DockerLabels = 128, map[string]string{"team": "blue"}
	app.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80)}}
	app.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "/testapp", "print", "1"}, Interval: aws.Int32(5), StartPeriod: aws.Int32(0)}
	app.RestartPolicy = &types.ContainerRestartPolicy{Enabled: aws.Bool(true)}
	app.MountPoints = []types.MountPoint{{SourceVolume: aws.String("data"), ContainerPath: aws.String("/data")}}
	app.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverJsonFile, Options: map[string]string{"max-size": "1m"}}
	burn := w.app("burn")
	burn.Name = aws.String("burn")
	ended := w.app("exit", "3")
	ended.Name, ended.Essential = aws.String("ended"), aws.Bool(false)
	definition := w.define(func(in *taskDefinition) {
		vpc(in)
		in.Cpu, in.Memory = aws.String("256"), aws.String("200")
		in.Volumes = []types.Volume{{Name: aws.String("data")}}
	}, app, burn, ended)
	out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, NetworkConfiguration: subnet, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("blue")}}})
	if err != nil || len(out.Tasks) != 1 {
		t.Fatalf("RunTask: %v %s", err, show(out))
	}
	task := w.running(out.Tasks[0])
	address := detail(task, "privateIPv4Address")
	r := w.relayOf(task, "http://"+address)
	harness.Poll(t, 60*time.Second, "the container's health and the other's end to be told", func() bool {
		v4 := r.get("/v4/{id}/task")
		return v4.container("app")["Health"] != nil && fields(v4.container("app")).at("Health.status") == "HEALTHY" && v4.container("ended")["KnownStatus"] == "STOPPED"
	})
	harness.Poll(t, 20*time.Second, "DescribeTasks to say the same", func() bool {
		task = w.describe(task)
		return containerOf(task, "app").HealthStatus == types.HealthStatusHealthy && containerOf(task, "ended").ExitCode != nil
	})

	family, revision, _ := strings.Cut(definition[strings.LastIndexByte(definition, '/')+1:], ":")
	ofTask := map[string]any{
		"Cluster": w.cluster, "TaskARN": task.TaskArn, "Family": family, "Revision": revision, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
		"Limits": map[string]any{"CPU": 0.25, "Memory": 200}, "AvailabilityZone": task.AvailabilityZone, "ExecutionStoppedAt": nil,
	}
	near := func(what string, got any, want *time.Time) {
		t.Helper()
		text, _ := got.(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || want == nil || at.Sub(*want).Abs() > 2*time.Millisecond {
			t.Errorf("%s is %v, not %v", what, got, want)
		}
	}
	ofContainer := func(name string, v4 bool) map[string]any {
		c := containerOf(task, name)
		want := map[string]any{
			"DockerId": c.RuntimeId, "Name": name, "Image": c.Image, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Type": "NORMAL",
			"Limits.Memory": 64, "Limits.CPU": 2, "ExitCode": nil, "FinishedAt": nil,
			// As with Amazon's agent, a task with an interface of its own shows no ports here.
			"Ports": nil, "Networks.0.NetworkMode": "awsvpc", "Networks.0.IPv4Addresses": []string{address}, "Networks.1": nil,
			"ContainerARN": nil, "LogDriver": nil, "Networks.0.MACAddress": nil,
		}
		if v4 {
			want["ContainerARN"], want["Networks.0.MACAddress"] = c.ContainerArn, detail(task, "macAddress")
			want["Networks.0.AttachmentIndex"], want["Networks.0.PrivateDNSName"] = 0, detail(task, "privateDnsName")
		}
		switch name {
		case "app":
			want["Limits.CPU"], want["Volumes.0.Destination"], want["Volumes.0.DockerName"] = 128, "/data", "data"
			want["Health.status"] = "HEALTHY"
			if v4 {
				want["RestartCount"], want["LogDriver"], want["LogOptions.max-size"] = 0, "json-file", "1m"
			}
		case "ended":
			want["KnownStatus"], want["DesiredStatus"], want["ExitCode"] = "STOPPED", "STOPPED", 3
			delete(want, "FinishedAt")
		}
		return want
	}
	compare := func(what string, got fields, v4 bool) {
		t.Helper()
		got.expect(t, what, ofTask)
		near(what+": PullStartedAt", got["PullStartedAt"], task.PullStartedAt)
		near(what+": PullStoppedAt", got["PullStoppedAt"], task.PullStoppedAt)
		for _, name := range []string{"app", "burn", "ended"} {
			c := got.container(name)
			if c == nil {
				t.Errorf("%s: container %s is missing", what, name)
				continue
			}
			c.expect(t, what+": container "+name, ofContainer(name, v4))
			if image, _ := c["ImageID"].(string); !strings.HasPrefix(image, "sha256:") || image == aws.ToString(containerOf(task, name).ImageDigest) {
				t.Errorf("%s: ImageID is %q; it is the digest of the image's config, not of its manifest", what, image)
			}
			labels, _ := c["Labels"].(map[string]any)
			if labels["com.amazonaws.ecs.task-arn"] != *task.TaskArn || labels["com.amazonaws.ecs.cluster"] != w.cluster || labels["com.amazonaws.ecs.container-name"] != name ||
				labels["com.amazonaws.ecs.task-definition-family"] != family || labels["com.amazonaws.ecs.task-definition-version"] != revision || name == "app" && labels["team"] != "blue" {
				t.Errorf("%s: the labels of %s are %v", what, name, labels)
			}
			if c["CreatedAt"] == nil || c["StartedAt"] == nil || name == "ended" && c["FinishedAt"] == nil {
				t.Errorf("%s: a time of %s is missing: %s", what, name, show(c))
			}
		}
		if tags := got.at("TaskTags.team"); strings.HasSuffix(what, "Tags") != (tags == "blue") {
			t.Errorf("%s: the tags are %v", what, got["TaskTags"])
		}
		if (got["LaunchType"] == "EC2") != v4 || (got["FaultInjectionEnabled"] == false) != v4 {
			t.Errorf("%s: its members are %q", what, got.names())
		}
	}
	compare("version 4", r.get("/v4/{id}/task"), true)
	compare("version 4 with Tags", r.get("/v4/{id}/taskWithTags"), true)
	compare("version 3", r.get("/v3/{id}/task"), false)
	compare("version 3 with Tags", r.get("/v3/{id}/taskWithTags"), false)
	compare("version 2", r.get("/v2/metadata"), false)
	compare("version 2 with Tags", r.get("/v2/metadataWithTags"), false)
	own := aws.ToString(containerOf(task, "app").RuntimeId)
	for path, v4 := range map[string]bool{"/v4/{id}": true, "/v3/{id}": false, "/v2/metadata/" + own: false} {
		got := r.get(path)
		got.expect(t, path, ofContainer("app", v4))
	}
	if cidr, _ := r.get("/v4/{id}").at("Networks.0.IPv4SubnetCIDRBlock").(string); !strings.Contains(cidr, "/") {
		t.Errorf("the subnet is %q", cidr)
	}

	// Stats of the container that burns, in every version, as Docker's stats are read.
	burning := aws.ToString(containerOf(task, "burn").RuntimeId)
	gone := aws.ToString(containerOf(task, "ended").RuntimeId)
	usage := func(f fields) (total, system float64) {
		return f.number("cpu_stats.cpu_usage.total_usage") - f.number("precpu_stats.cpu_usage.total_usage"), f.number("cpu_stats.system_cpu_usage") - f.number("precpu_stats.system_cpu_usage")
	}
	var first fields
	harness.Poll(t, 30*time.Second, "the stats to have two readings", func() bool {
		all := r.get("/v4/{id}/task/stats")
		one, _ := all[burning].(map[string]any)
		first = one
		return first.number("precpu_stats.cpu_usage.total_usage") > 0
	})
	total, system := usage(first)
	if share := total / system * first.number("cpu_stats.online_cpus"); total <= 0 || system <= 0 || share < 0.02 || share > first.number("cpu_stats.online_cpus")*1.2 {
		t.Errorf("the burning container's share of a CPU is %.2f: %s", share, show(first))
	}
	first.expect(t, "stats", map[string]any{"id": burning, "name": "/" + burning, "memory_stats.limit": 64 << 20})
	if first.number("memory_stats.usage") < 1<<16 || first.number("memory_stats.usage") > 64<<20 || first.number("pids_stats.current") < 1 {
		t.Errorf("stats: memory %v, processes %v", first.at("memory_stats"), first.at("pids_stats"))
	}
	time.Sleep(time.Until(time.Now().Add(1100 * time.Millisecond))) // a reading is kept for a second
	for _, path := range []string{"/v4/{id}/task/stats", "/v3/{id}/task/stats", "/v2/stats"} {
		all := r.get(path)
		later, _ := all[burning].(map[string]any)
		if now := fields(later).number("cpu_stats.cpu_usage.total_usage"); now <= first.number("cpu_stats.cpu_usage.total_usage") {
			t.Errorf("%s: the burning container's CPU time is %v after %v", path, now, first.at("cpu_stats"))
		}
		if stopped, there := all[gone]; !there || stopped != nil && len(stopped.(map[string]any)) > 0 {
			t.Errorf("%s: of a container that ended there is %v", path, stopped)
		}
	}
	for _, path := range []string{"/v4/{id}/stats", "/v3/{id}/stats", "/v2/stats/" + own} {
		stats := r.get(path)
		if stats["id"] != own || stats.number("networks.eth0.rx_bytes") <= 0 || stats.number("networks.eth0.tx_bytes") <= 0 {
			t.Errorf("%s: %s", path, show(stats))
		}
		if (stats["network_rate_stats"] != nil) != strings.HasPrefix(path, "/v4") {
			t.Errorf("%s: network_rate_stats is %v", path, stats["network_rate_stats"])
		}
	}
}

// TestMetadataOfNetworkModes: bridge shows the container's own address and its ports on the host, host
// none; and protection is refused to a task that is not a service's.
func TestMetadataOfNetworkModes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	port := harness.FreePort(t)
	app := w.relayed(":80")
	app.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80)}}
	bridge := w.run(w.define(bridged, app))
	host := w.run(w.define(hosted, w.relayed(":"+port)))
	bridge, host = w.running(bridge), w.running(host)
	binding := bridge.Containers[0].NetworkBindings[0]
	r := w.relayOf(bridge, fmt.Sprintf("http://127.0.0.1:%d", *binding.HostPort))
	got := r.get("/v4/{id}")
	got.expect(t, "bridge", map[string]any{
		"Networks.0.NetworkMode": "bridge", "Networks.0.MACAddress": nil, "Ports.0.ContainerPort": 80, "Ports.0.HostPort": binding.HostPort,
		"Ports.0.Protocol": "tcp", "Ports.0.HostIp": binding.BindIP, "DockerId": bridge.Containers[0].RuntimeId, "RestartCount": nil, "Health": nil,
	})
	if a, _ := got.at("Networks.0.IPv4Addresses.0").(string); a == "" {
		t.Errorf("bridge: no address in %s", show(got))
	}
	r.get("/v2/metadata").expect(t, "bridge, version 2", map[string]any{"TaskARN": bridge.TaskArn}) // as Berth knows the address
	hr := w.relayOf(host, "http://127.0.0.1:"+port)
	hr.get("/v4/{id}").expect(t, "host", map[string]any{"Networks.0.NetworkMode": "host", "Networks.0.IPv4Addresses": []string{""}, "DockerId": host.Containers[0].RuntimeId})
	hr.get("/v3/{id}/task").expect(t, "host, version 3", map[string]any{"TaskARN": host.TaskArn, "Limits": nil})
	if stats := hr.get("/v4/{id}/stats"); stats["networks"] != nil || stats.number("memory_stats.usage") <= 0 {
		t.Errorf("host: the stats are %s", show(stats))
	}

	for _, r := range []relay{r, hr} {
		arn := bridge.TaskArn
		if r == hr {
			arn = host.TaskArn
		}
		const path = "/api/{id}/task-protection/v1/state"
		for method, body := range map[string]string{http.MethodGet: "", http.MethodPut: `{"ProtectionEnabled":true,"ExpiresInMinutes":5}`} {
			status, answer := r.ask(method, path, body)
			var f fields
			if err := json.Unmarshal(answer, &f); err != nil || status != http.StatusOK {
				t.Errorf("%s protection: %d %s", method, status, answer)
				continue
			}
			f.expect(t, method+" protection", map[string]any{"failure.Arn": arn, "failure.Reason": "TASK_NOT_VALID", "protection": nil, "error": nil})
		}
		for body, code := range map[string]string{`{}`: "InvalidParameterException", `{"ProtectionEnabled":true,"ExpiresInMinutes":0}`: "InvalidParameterException", `no JSON`: "InvalidParameterException", `{"ProtectionEnabled":true,"Other":1}`: "InvalidParameterException"} {
			status, answer := r.ask(http.MethodPut, path, body)
			var f fields
			if err := json.Unmarshal(answer, &f); err != nil || status != http.StatusBadRequest || f.at("error.Code") != code {
				t.Errorf("protection by %s: %d %s", body, status, answer)
			}
		}
	}
}

// TestMetadataIsThrottled: a task that asks too often is told so, and others do not feel it.
func TestMetadataIsThrottled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	greedy, modest := w.run(w.define(vpc, w.relayed(":80"))), w.run(w.define(vpc, w.relayed(":80")))
	greedy, modest = w.running(greedy), w.running(modest)
	g, m := w.relayOf(greedy, "http://"+detail(greedy, "privateIPv4Address")), w.relayOf(modest, "http://"+detail(modest, "privateIPv4Address"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[int]int{}
	var refusal string
	for range 8 {
		wg.Go(func() {
			for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
				resp, err := patient.Get(g.base + "/v4/" + g.endpoint)
				if err != nil {
					continue
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				mu.Lock()
				counts[resp.StatusCode]++
				enough := counts[http.StatusTooManyRequests] > 20
				if resp.StatusCode == http.StatusTooManyRequests {
					refusal = string(body)
				}
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	wg.Wait()
	if counts[http.StatusOK] < 60 || counts[http.StatusTooManyRequests] == 0 || len(counts) > 2 || refusal != "You have reached maximum request limit." {
		t.Errorf("a flood was answered with %v, %q", counts, refusal)
	}
	m.get("/v4/{id}")
	harness.Poll(t, 10*time.Second, "the flood to be forgiven", func() bool { status, _ := g.ask(http.MethodGet, "/v4/{id}", ""); return status == http.StatusOK })
}

// TestIntrospection runs an instance on a host of its own, a network namespace, where the agent's ports
// are free: what monitoring agents read there, who is answered, and that nothing of it is different
// after Berth was killed and started again.
func TestIntrospection(t *testing.T) {
	t.Parallel()
	machine := newLAN(t)
	wrapper := filepath.Join(t.TempDir(), "berth")
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter --net=/run/netns/%s %s \"$@\"\n", machine.name, harness.Binary(t))
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "-n", machine.name, "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("loopback: %v: %s", err, out)
	}
	b := harness.New(t, harness.Options{Binary: wrapper})
	_, port, _ := strings.Cut(b.Listen, ":")
	b.Listen = machine.own + ":" + port
	b.Up()
	w := newWorld(t, b)
	// The host's registry is not this machine's.
	w.image = "introspection/testapp:1"
	b.Run("image", "import", harness.DockerArchive(t, t.TempDir(), w.image, harness.TestImage(t)))

	const mapped, hostPort = "8080", "8081"
	app := w.relayed(":80")
	app.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80), HostPort: aws.Int32(8080)}}
	helper := w.app("wait")
	helper.Name, helper.RestartPolicy = aws.String("helper"), &types.ContainerRestartPolicy{Enabled: aws.Bool(true)}
	bridge, host := w.run(w.define(bridged, app, helper)), w.run(w.define(hosted, w.relayed(":"+hostPort, "127.0.0.1:51678")))
	bridge, host = w.running(bridge), w.running(host)
	br, hr := w.relayOf(bridge, "http://"+machine.own+":"+mapped), w.relayOf(host, "http://"+machine.own+":"+hostPort)

	check := func(when string) (seen []string) {
		for name, r := range map[string]relay{"bridge": br, "host": hr} {
			what := when + ", from a container of mode " + name
			r.get("/v1/metadata").expect(t, what, map[string]any{"Cluster": w.cluster, "ContainerInstanceArn": bridge.ContainerInstanceArn})
			if version, _ := r.get("/v1/metadata")["Version"].(string); !strings.HasPrefix(version, "Amazon ECS Agent - v") {
				t.Errorf("%s: the version is %q", what, version)
			}
			all, _ := r.get("/v1/tasks")["Tasks"].([]any)
			if len(all) != 2 {
				t.Errorf("%s: %d tasks: %s", what, len(all), show(all))
			}
			for _, task := range []types.Task{bridge, host} {
				definition := aws.ToString(task.TaskDefinitionArn)
				family, revision, _ := strings.Cut(definition[strings.LastIndexByte(definition, '/')+1:], ":")
				want := map[string]any{"Arn": task.TaskArn, "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Family": family, "Version": revision}
				one := r.get("/v1/tasks?taskarn=" + *task.TaskArn)
				one.expect(t, what, want)
				i := slices.IndexFunc(all, func(v any) bool { return fields(v.(map[string]any))["Arn"] == *task.TaskArn })
				if i < 0 || !reflect.DeepEqual(all[i], any(map[string]any(one))) {
					t.Errorf("%s: the list has %s, the task alone is %s", what, show(all), show(one))
				}
				for _, c := range task.Containers {
					full := r.get("/v1/tasks?dockerid=" + *c.RuntimeId)
					full.expect(t, what, want)
					got := full.container(*c.Name)
					got.expect(t, what, map[string]any{"DockerId": c.RuntimeId, "Image": c.Image})
					if got["CreatedAt"] == nil || got["StartedAt"] == nil {
						t.Errorf("%s: container %s has no times: %s", what, *c.Name, show(got))
					}
					if (*c.Name == "helper") != (got["RestartCount"] == 0.0) {
						t.Errorf("%s: container %s has the RestartCount %v", what, *c.Name, got["RestartCount"])
					}
				}
			}
			if got := r.get("/v1/tasks?taskarn=" + *bridge.TaskArn).container("app"); fields(got).at("Ports.0.HostPort") != 8080.0 {
				t.Errorf("%s: the ports are %s", what, show(got))
			}
			for _, path := range []string{"/v1/tasks?dockerid=nothing", "/v1/tasks?taskarn=nothing"} {
				if status, body := r.ask(http.MethodGet, path, ""); status != http.StatusNotFound {
					t.Errorf("%s: %s is answered with %d %s", what, path, status, body)
				}
			}
			// The metadata endpoint's answers, word for word.
			for _, path := range []string{"/v4/{id}", "/v4/{id}/task", "/v3/{id}/task"} {
				status, body := r.ask(http.MethodGet, path, "")
				if status != http.StatusOK {
					t.Errorf("%s: %s is answered with %d %s", what, path, status, body)
				}
				seen = append(seen, name+path+string(body))
			}
		}
		slices.Sort(seen)
		// A neighbour on the network hears nothing.
		for _, path := range []string{"/v1/metadata", "/v1/tasks", "/"} {
			resp, err := patient.Get("http://" + machine.own + ":51678" + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound || strings.Contains(string(body), "arn:") {
				t.Errorf("%s, from a neighbour: %s is answered with %d %s", when, path, resp.StatusCode, body)
			}
		}
		return seen
	}
	before := check("at first")
	b.Kill()
	if status, _ := br.ask(http.MethodGet, "/v4/{id}", ""); status != http.StatusBadGateway {
		t.Errorf("while Berth is dead the endpoint answers with %d", status)
	}
	b.Up()
	harness.Poll(t, 30*time.Second, "the endpoint to answer again", func() bool { status, _ := br.ask(http.MethodGet, "/v4/{id}", ""); return status == http.StatusOK })
	if after := check("after a restart"); !slices.Equal(after, before) {
		t.Errorf("after Berth's restart the answers are\n%s\nand were\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}
