//go:build vm

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// The machine's disk outlives its boots, with Berth's data in the default place and the record. The
// script's init starts `berth up` before each test.
const (
	berth      = "/bin/berth"
	recordFile = "/var/lib/vm/record.json"
	cluster    = "vm"
)

// record is what a boot knows of the one before it.
type record struct {
	Definition string   `json:"definition"` // ARN
	Running    []string `json:"running"`    // ARNs of tasks that were acknowledged and ran
	Stopped    []string `json:"stopped"`    // and of those that had come to their own end
	BootID     string   `json:"bootId"`
}

func TestBeforePowerCut(t *testing.T) {
	c := client(t)
	checkUnified(t)
	importBusybox(t)
	if _, err := c.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: aws.String(cluster)}); err != nil {
		t.Fatalf("create the cluster: %v", err)
	}
	limits := runs(t, c, define(t, c, "limits", "bridge", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.weight; cat /proc/self/cgroup", 64))
	await(t, c, limits, "STOPPED")
	lines := output(t, limits)
	if want := []string{"67108864", "0::/"}; !slices.Contains(lines, want[0]) || !slices.Contains(lines, want[1]) {
		t.Errorf("a container of 64 MiB sees %q; want %q", lines, want)
	}
	oom := runs(t, c, define(t, c, "oom", "bridge", "x=x; while :; do x=$x$x; done", 16))
	dead := await(t, c, oom, "STOPPED")
	if r := aws.ToString(dead.Containers[0].Reason); r != "OutOfMemoryError: Container killed due to memory usage" {
		t.Errorf("a container beyond its memory ended with %q", r)
	}
	start(t, c, []string{limits, oom})
}

func TestAfterPowerCut(t *testing.T) {
	c := client(t)
	checkEnded(t, c)
	start(t, c, nil)
}

func TestAfterReboot(t *testing.T) { checkEnded(t, client(t)) }

// start leaves two tasks running, one of them in mode awsvpc's namespace, and notes them.
func start(t *testing.T, c *ecs.Client, stopped []string) {
	t.Helper()
	def := define(t, c, "stay", "none", "echo up; sleep 100000", 32)
	r := record{Definition: def, Stopped: stopped, BootID: bootID(t)}
	r.Running = append(r.Running, runs(t, c, def), runs(t, c, define(t, c, "stay-bridge", "bridge", "echo up; sleep 100000", 32)))
	for _, arn := range r.Running {
		await(t, c, arn, "RUNNING")
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordFile, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkEnded holds Berth to what it acknowledged before the machine went down.
func checkEnded(t *testing.T, c *ecs.Client) {
	t.Helper()
	raw, err := os.ReadFile(recordFile)
	if err != nil {
		t.Fatalf("the boot before left no record: %v", err)
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if bootID(t) == r.BootID {
		t.Fatal("the machine was not booted anew")
	}
	if _, err := c.DescribeTaskDefinition(t.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: &r.Definition}); err != nil {
		t.Errorf("the task definition is gone: %v", err)
	}
	for _, arn := range r.Running {
		task := await(t, c, arn, "STOPPED")
		if reason := aws.ToString(task.StoppedReason); !strings.HasPrefix(reason, "Host (instance ") || !strings.HasSuffix(reason, " restarted.") {
			t.Errorf("a task that ran when the machine went down stopped because %q", reason)
		}
	}
	for _, arn := range r.Stopped {
		await(t, c, arn, "STOPPED")
	}
	list, err := c.ListTasks(t.Context(), &ecs.ListTasksInput{Cluster: aws.String(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.TaskArns) > 0 {
		t.Errorf("tasks without a service run again: %q", list.TaskArns)
	}
}

func bootID(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// checkUnified fails on a machine with a version 1 hierarchy: then the whole exercise shows nothing.
func checkUnified(t *testing.T) {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unified := false
	for s := bufio.NewScanner(f); s.Scan(); {
		_, kind, _ := strings.Cut(s.Text(), " - ")
		if strings.HasPrefix(kind, "cgroup ") {
			t.Fatalf("a version 1 hierarchy is mounted: %s", s.Text())
		}
		unified = unified || strings.HasPrefix(kind, "cgroup2 ")
	}
	if !unified {
		t.Fatal("no cgroup version 2")
	}
}

func client(t *testing.T) *ecs.Client {
	t.Helper()
	var key, secret string
	for _, line := range strings.Split(run(t, "env"), "\n") {
		variable, value, _ := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		switch value = strings.Trim(value, `'";`); variable {
		case "AWS_ACCESS_KEY_ID":
			key = value
		case "AWS_SECRET_ACCESS_KEY":
			secret = value
		}
	}
	return ecs.New(ecs.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1:4566"),
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, ""),
	})
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, berth, args...)
	cmd.Env = []string{"HOME=/root", "PATH=/bin:/sbin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("berth %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func importBusybox(t *testing.T) {
	t.Helper()
	archive := harness.DockerArchive(t, t.TempDir(), "busybox:latest", harness.Busybox(t))
	run(t, "image", "import", archive)
}

func define(t *testing.T, c *ecs.Client, family, mode, script string, memory int32) string {
	t.Helper()
	out, err := c.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{
		Family: aws.String(family), NetworkMode: types.NetworkMode(mode),
		ContainerDefinitions: []types.ContainerDefinition{{
			Name: aws.String("app"), Image: aws.String("busybox"), Memory: aws.Int32(memory), Command: []string{"sh", "-c", script},
			StopTimeout: aws.Int32(2),
		}},
	})
	if err != nil {
		t.Fatalf("register %s: %v", family, err)
	}
	return *out.TaskDefinition.TaskDefinitionArn
}

func runs(t *testing.T, c *ecs.Client, definition string) string {
	t.Helper()
	out, err := c.RunTask(t.Context(), &ecs.RunTaskInput{Cluster: aws.String(cluster), TaskDefinition: &definition})
	if err != nil || len(out.Tasks) != 1 {
		t.Fatalf("run %s: %v, failures %v", definition, err, out)
	}
	return *out.Tasks[0].TaskArn
}

func await(t *testing.T, c *ecs.Client, arn, status string) types.Task {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; {
		out, err := c.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: []string{arn}})
		if err != nil || len(out.Tasks) != 1 {
			t.Fatalf("describe %s: %v, %v", arn, err, out)
		}
		task := out.Tasks[0]
		switch last := aws.ToString(task.LastStatus); {
		case last == status:
			return task
		case last == "STOPPED" || time.Now().After(deadline):
			t.Fatalf("task %s is %s and not %s: %s, %+v", arn, last, status, aws.ToString(task.StoppedReason), task.Containers)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func output(t *testing.T, arn string) []string {
	t.Helper()
	return strings.Split(strings.TrimSpace(run(t, "logs", arn[strings.LastIndexByte(arn, '/')+1:])), "\n")
}
