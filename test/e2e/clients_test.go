package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthhq/berth/test/harness"
)

// debianAWS is Debian's own command line; another may come first in PATH.
const debianAWS = "/usr/bin/aws"

// cli runs the AWS CLI, which is too old to know AWS_ENDPOINT_URL, and decodes its answer.
func cli(t *testing.T, w *world, into any, args ...string) (stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(ctx(t), debianAWS, append([]string{"--endpoint-url", w.b.Endpoint(), "--output", "json"}, args...)...)
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

// TestBoto3 runs the scripts of py with Debian's Python and boto3, each told the endpoint, a cluster
// of its own and the image by its environment.
func TestBoto3(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob(filepath.Join(harness.Root(), "test", "e2e", "py", "test_*.py"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".py"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, plain(t))
			cmd := exec.CommandContext(ctx(t), "/usr/bin/python3", "-B", script)
			cmd.Env = append(w.b.AWSEnv(), "BERTH_ENDPOINT="+w.b.Endpoint(), "BERTH_CLUSTER="+w.cluster, "BERTH_IMAGE="+w.image, "BERTH_FAMILY="+label(t))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", filepath.Base(script), err, out)
			}
		})
	}
}
