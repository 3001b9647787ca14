package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// debianAWS is Debian's own command line; another may come first in PATH.
const debianAWS = "/usr/bin/aws"

// commandLines are the AWS command lines of this machine that differ, by version: Debian's, and the one
// that comes first in PATH.
func commandLines(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, path := range []string{debianAWS, inPath("aws")} {
		if path == "" {
			continue
		}
		out, err := exec.CommandContext(ctx(t), path, "--version").CombinedOutput()
		version, _, ok := strings.Cut(strings.TrimPrefix(string(out), "aws-cli/"), " ")
		if err != nil || !ok {
			t.Fatalf("%s --version: %v: %s (apt-get install awscli)", path, err, out)
		}
		if _, known := found[version]; !known {
			found[version] = path
		}
	}
	t.Logf("AWS command lines: %v", found)
	return found
}

// inPath is the program of that name which a shell would run, or nothing.
func inPath(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// cli runs Debian's AWS CLI, which is too old to know AWS_ENDPOINT_URL, and decodes its answer.
func cli(t *testing.T, w *world, into any, args ...string) (stderr string, err error) {
	t.Helper()
	return cliOf(t, w, debianAWS, into, args...)
}

func cliOf(t *testing.T, w *world, binary string, into any, args ...string) (stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(ctx(t), binary, append([]string{"--endpoint-url", w.b.Endpoint(), "--output", "json"}, args...)...)
	cmd.Env = w.b.AWSEnv()
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err == nil && into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			t.Fatalf("aws %s printed no JSON: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return problems.String(), err
}

func mustCLI(t *testing.T, w *world, into any, args ...string) {
	t.Helper()
	if problems, err := cli(t, w, into, args...); err != nil {
		t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, problems)
	}
}

func TestAWSCLI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	if version, err := exec.Command(debianAWS, "--version").CombinedOutput(); err != nil || !strings.HasPrefix(string(version), "aws-cli/2.9") {
		t.Fatalf("want Debian's AWS CLI 2.9 (apt-get install awscli): %v %s", err, version)
	}
	var identity struct{ Account string }
	mustCLI(t, w, &identity, "sts", "get-caller-identity")
	if identity.Account != "000000000000" {
		t.Errorf("account %q", identity.Account)
	}

	family := label(t)
	file := filepath.Join(t.TempDir(), "definition.json")
	definition, _ := json.Marshal(map[string]any{
		"family": family, "networkMode": "awsvpc", "cpu": "256", "memory": "128",
		"containerDefinitions": []any{map[string]any{
			"name": "app", "image": w.image, "command": []string{"http", ":80", "hello from the command line"},
			"portMappings": []any{map[string]any{"containerPort": 80}}, "stopTimeout": 3,
		}},
	})
	if err := os.WriteFile(file, definition, 0o600); err != nil {
		t.Fatal(err)
	}
	var registered struct {
		TaskDefinition struct{ TaskDefinitionArn string }
	}
	mustCLI(t, w, &registered, "ecs", "register-task-definition", "--cli-input-json", "file://"+file)

	var ran struct {
		Tasks    []struct{ TaskArn, LastStatus string }
		Failures []any
	}
	mustCLI(t, w, &ran, "ecs", "run-task", "--cluster", w.cluster, "--task-definition", family,
		"--network-configuration", "awsvpcConfiguration={subnets=[subnet-00000000000000000]}")
	if len(ran.Tasks) != 1 || len(ran.Failures) != 0 {
		t.Fatalf("run-task: %s", show(ran))
	}
	task := ran.Tasks[0].TaskArn
	mustCLI(t, w, nil, "ecs", "wait", "tasks-running", "--cluster", w.cluster, "--tasks", task)

	var seen struct {
		Tasks []struct {
			LastStatus string
			StartedAt  string
			Containers []struct {
				NetworkInterfaces []struct{ PrivateIpv4Address string }
			}
			Attachments []struct {
				Details []struct{ Name, Value string }
			}
		}
	}
	mustCLI(t, w, &seen, "ecs", "describe-tasks", "--cluster", w.cluster, "--tasks", task)
	if seen.Tasks[0].StartedAt == "" {
		t.Errorf("no startedAt: %s", show(seen))
	}
	if body := fetch(t, "http://"+seen.Tasks[0].Containers[0].NetworkInterfaces[0].PrivateIpv4Address+"/"); body != "hello from the command line\n" {
		t.Errorf("the task answers %q", body)
	}
	var listed struct{ TaskArns []string }
	mustCLI(t, w, &listed, "ecs", "list-tasks", "--cluster", w.cluster, "--family", family)
	if len(listed.TaskArns) != 1 || listed.TaskArns[0] != task {
		t.Errorf("list-tasks: %v", listed.TaskArns)
	}
	mustCLI(t, w, nil, "ecs", "stop-task", "--cluster", w.cluster, "--task", task, "--reason", "enough")
	mustCLI(t, w, nil, "ecs", "wait", "tasks-stopped", "--cluster", w.cluster, "--tasks", task)
	var stopped struct {
		Tasks []struct{ StopCode, StoppedReason string }
	}
	mustCLI(t, w, &stopped, "ecs", "describe-tasks", "--cluster", w.cluster, "--tasks", task)
	if stopped.Tasks[0].StopCode != "UserInitiated" || stopped.Tasks[0].StoppedReason != "enough" {
		t.Errorf("stopped: %s", show(stopped))
	}
	mustCLI(t, w, nil, "ecs", "deregister-task-definition", "--task-definition", registered.TaskDefinition.TaskDefinitionArn)

	for words, args := range map[string][]string{
		"ClusterNotFoundException": {"ecs", "list-tasks", "--cluster", "nowhere"},
		"ClientException":          {"ecs", "describe-task-definition", "--task-definition", "nothing"},
	} {
		if problems, err := cli(t, w, nil, args...); err == nil || !strings.Contains(problems, words) {
			t.Errorf("aws %s: %v, want %s: %s", strings.Join(args, " "), err, words, problems)
		}
	}
}

// TestAWSCLISchedules: the calls of an operator, with each command line there is.
func TestAWSCLISchedules(t *testing.T) {
	t.Parallel()
	for version, binary := range commandLines(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			newWorld(t, plain(t)).operate(binary)
		})
	}
}

// operate does from a command line what an operator does of a day.
func (w *world) operate(binary string) {
	aws := func(into any, args ...string) {
		w.Helper()
		if problems, err := cliOf(w.T, w, binary, into, args...); err != nil {
			w.Fatalf("%s %s: %v\n%s", binary, strings.Join(args, " "), err, problems)
		}
	}
	in := func(args ...string) []string { return append(args, "--cluster", w.cluster) }
	definition := w.define(nil, w.app("wait"))
	var instances struct{ ContainerInstanceArns []string }
	aws(&instances, in("ecs", "list-container-instances", "--filter", "attribute:ecs.os-type == linux")...)
	if len(instances.ContainerInstanceArns) != 1 {
		w.Fatalf("instances: %v", instances)
	}
	instance := instances.ContainerInstanceArns[0]
	aws(nil, in("ecs", "put-attributes", "--attributes", "name=stack,value=blue,targetId="+instance)...)
	var attributes struct {
		Attributes []struct{ Name, Value, TargetId string }
	}
	aws(&attributes, in("ecs", "list-attributes", "--target-type", "container-instance", "--attribute-name", "stack")...)
	if len(attributes.Attributes) != 1 || attributes.Attributes[0].Value != "blue" || attributes.Attributes[0].TargetId != instance {
		w.Errorf("list-attributes: %s", show(attributes))
	}

	type failures []struct{ Arn, Reason string }
	var ran struct {
		Tasks []struct {
			TaskArn, Group, StartedBy string
			Overrides                 struct{ ContainerOverrides []struct{ Command []string } }
			Tags                      []struct{ Key, Value string }
		}
		Failures failures
	}
	aws(&ran, in("ecs", "run-task", "--task-definition", definition, "--count", "3", "--group", "night", "--started-by", "operator",
		"--placement-constraints", "type=memberOf,expression=attribute:stack == blue", "--placement-strategy", "type=spread,field=instanceId", "type=binpack,field=memory",
		"--overrides", `{"containerOverrides":[{"name":"app","command":["wait"],"environment":[{"name":"A","value":"b"}]}]}`,
		"--enable-ecs-managed-tags", "--tags", "key=team,value=blue")...)
	if len(ran.Tasks) != 3 || len(ran.Failures) != 0 || ran.Tasks[0].Group != "night" || ran.Tasks[0].StartedBy != "operator" || len(ran.Tasks[0].Tags) != 2 {
		w.Fatalf("run-task: %s", show(ran))
	}
	if o := ran.Tasks[0].Overrides.ContainerOverrides; len(o) != 1 || len(o[0].Command) != 1 {
		w.Errorf("overrides: %s", show(o))
	}
	var unplaced struct{ Failures failures }
	aws(&unplaced, in("ecs", "run-task", "--task-definition", definition, "--placement-constraints", "type=memberOf,expression=attribute:stack == red")...)
	if len(unplaced.Failures) != 1 || unplaced.Failures[0].Reason != notMember || unplaced.Failures[0].Arn != instance {
		w.Errorf("run-task where nothing fits: %s", show(unplaced))
	}

	// Pages: of one each, all of them; and no more than two items, with what to go on with.
	var listed struct {
		TaskArns  []string
		NextToken string
	}
	aws(&listed, in("ecs", "list-tasks", "--page-size", "1")...)
	if len(listed.TaskArns) != 3 {
		w.Errorf("list-tasks by pages of one: %v", listed.TaskArns)
	}
	all := listed.TaskArns
	listed.TaskArns = nil
	aws(&listed, in("ecs", "list-tasks", "--max-items", "2")...)
	if len(listed.TaskArns) != 2 || listed.NextToken == "" {
		w.Fatalf("list-tasks --max-items 2: %s", show(listed))
	}
	two := listed.TaskArns
	listed.TaskArns = nil
	aws(&listed, in("ecs", "list-tasks", "--max-items", "2", "--starting-token", listed.NextToken)...)
	if len(listed.TaskArns) != 1 || !slices.Equal(append(two, listed.TaskArns...), all) {
		w.Errorf("list-tasks from the token on: %v after %v, of %v", listed.TaskArns, two, all)
	}

	var drained struct{ ContainerInstances []struct{ Status string } }
	aws(&drained, in("ecs", "update-container-instances-state", "--status", "DRAINING", "--container-instances", instance)...)
	if len(drained.ContainerInstances) != 1 || drained.ContainerInstances[0].Status != "DRAINING" {
		w.Errorf("update-container-instances-state: %s", show(drained))
	}
	aws(nil, append(in("ecs", "wait", "tasks-running"), append([]string{"--tasks"}, all...)...)...)
	var gone struct{ ContainerInstance struct{ Status string } }
	aws(&gone, in("ecs", "deregister-container-instance", "--force", "--container-instance", instance)...)
	if gone.ContainerInstance.Status != "INACTIVE" {
		w.Errorf("deregister-container-instance: %s", show(gone))
	}
	aws(nil, append(in("ecs", "wait", "tasks-stopped"), append([]string{"--tasks"}, all...)...)...)
	var stopped struct {
		Tasks []struct{ StopCode, StoppedReason string }
	}
	aws(&stopped, append(in("ecs", "describe-tasks"), append([]string{"--tasks"}, all...)...)...)
	for _, task := range stopped.Tasks {
		if task.StoppedReason != "Container instance deregistration forced by user" {
			w.Errorf("a task stopped because of %q", task.StoppedReason)
		}
	}
	var settings struct {
		Settings []struct{ Name, Value string }
	}
	aws(&settings, "ecs", "list-account-settings", "--effective-settings")
	if len(settings.Settings) < 10 { // they come in pages of ten
		w.Errorf("list-account-settings: %s", show(settings))
	}
	aws(nil, "ecs", "deregister-task-definition", "--task-definition", definition)
	if problems, err := cliOf(w.T, w, binary, nil, in("ecs", "start-task", "--task-definition", definition, "--container-instances", instance)...); err == nil || !strings.Contains(problems, "(ClientException)") {
		w.Errorf("start-task of a deregistered definition: %v: %s", err, problems)
	}
}

// TestNewerThanTheCommandLines: members that only the newest SDK knows are stored and echoed, or refused by
// name, though older clients cannot say them.
func TestNewerThanTheCommandLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	for _, binary := range commandLines(t) {
		// The older ones refuse it themselves; then it is not they who are tested.
		problems, err := cliOf(t, w, binary, nil, "ecs", "list-tasks", "--cluster", w.cluster, "--daemon-name", "d")
		if err == nil || !strings.Contains(problems, "UnsupportedFeatureException") && !strings.Contains(problems, "Unknown options: --daemon-name") {
			t.Errorf("%s: list-tasks --daemon-name: %v: %s", binary, err, problems)
		}
	}
	_, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster, DaemonName: aws.String("d")})
	wantError(t, err, "UnsupportedFeatureException", "daemon")
	w.echoes(func(in *taskDefinition) {
		c := &in.ContainerDefinitions[0]
		c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: aws.Bool(true), IgnoredExitCodes: []int32{0, 7}}
		c.VersionConsistency = types.VersionConsistencyEnabled
	}, func(d *types.TaskDefinition) any {
		c := d.ContainerDefinitions[0]
		return []any{*c.RestartPolicy.Enabled, c.RestartPolicy.IgnoredExitCodes, c.VersionConsistency}
	}, []any{true, []int32{0, 7}, types.VersionConsistencyEnabled})
}

// pythons are the interpreters whose boto3 differ, by its version: Debian's, and the one first in PATH.
func pythons(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, path := range []string{"/usr/bin/python3", inPath("python3")} {
		out, err := exec.CommandContext(ctx(t), path, "-c", "import boto3; print(boto3.__version__)").CombinedOutput()
		version := strings.TrimSpace(string(out))
		if err != nil && path == "/usr/bin/python3" {
			t.Fatalf("boto3 of Debian (apt-get install python3-boto3): %v: %s", err, out)
		}
		if _, known := found[version]; err == nil && !known {
			found[version] = path
		}
	}
	t.Logf("boto3: %v", found)
	return found
}

// TestBoto3 runs the scripts of py with every boto3 there is, each told the endpoint, a cluster
// of its own and the image by its environment.
func TestBoto3(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob(filepath.Join(harness.Root(), "test", "e2e", "py", "test_*.py"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for version, python := range pythons(t) {
		for _, script := range scripts {
			t.Run(strings.TrimSuffix(filepath.Base(script), ".py")+" "+version, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, plain(t))
				cmd := exec.CommandContext(ctx(t), python, "-B", script)
				cmd.Env = append(w.b.AWSEnv(), "BERTH_ENDPOINT="+w.b.Endpoint(), "BERTH_CLUSTER="+w.cluster, "BERTH_IMAGE="+w.image, "BERTH_FAMILY="+label(t))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", filepath.Base(script), err, out)
				}
			})
		}
	}
}
