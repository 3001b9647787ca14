// Package e2e tests Berth from outside: a real `berth up`, real containers, real clients.
//
// Most tests share one instance, each with a cluster of its own; tests that kill, fill or misuse
// Berth bring their own. They need root, and what `scripts/install-deps.sh test` installs.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"

	"github.com/berthhq/berth/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := everybody.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: after all tests:", err)
		code = 1
	}
	os.Exit(code)
}

// everybody owns the instances that tests share.
var everybody = &harness.Standalone{Title: "shared instance"}

var (
	plainOnce = sync.OnceValues(func() (b *harness.Berth, err error) {
		err = everybody.Run(func() { b = harness.Start(everybody, harness.Options{}) })
		return b, err
	})
	devOnce = sync.OnceValues(func() (b *harness.Berth, err error) {
		err = everybody.Run(func() { b = harness.Start(everybody, harness.Options{Dev: true}) })
		return b, err
	})
)

// plain is the shared instance as a production user would start it.
func plain(t *testing.T) *harness.Berth { return sharedInstance(t, plainOnce) }

// dev is the shared instance with --dev.
func dev(t *testing.T) *harness.Berth { return sharedInstance(t, devOnce) }

func sharedInstance(t *testing.T, start func() (*harness.Berth, error)) *harness.Berth {
	t.Helper()
	b, err := start()
	if err != nil {
		t.Fatalf("start the shared instance: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the shared berth up, its end:\n%s", lastLines(b.Log(), 40))
		}
	})
	return b
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

var notName = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// label makes a cluster or family name of a test's name, different at each call.
func label(t *testing.T) string {
	labels.Lock()
	defer labels.Unlock()
	labels.n++
	return fmt.Sprintf("%.80s-%d", strings.Trim(notName.ReplaceAllString(t.Name(), "-"), "-"), labels.n)
}

var labels struct {
	sync.Mutex
	n int
}

// world is a cluster on an instance, and shorthand for what a test does in it.
type world struct {
	*testing.T
	b       *harness.Berth
	ecs     *ecs.Client
	cluster string
	image   string // the test program's
	busybox string
	awsvpc  map[string]bool // definitions of that network mode
}

// newWorld makes a cluster, and stops its tasks at the end.
func newWorld(t *testing.T, b *harness.Berth) *world {
	t.Helper()
	w := &world{T: t, b: b, ecs: b.ECS(), cluster: label(t), awsvpc: map[string]bool{}}
	w.image, w.busybox = harness.SharedImages(t)
	if _, err := w.ecs.CreateCluster(ctx(t), &ecs.CreateClusterInput{ClusterName: &w.cluster}); err != nil {
		t.Fatalf("CreateCluster: %v\n%s", err, b.Log())
	}
	t.Cleanup(w.stopAll)
	return w
}

// ctx bounds a call. It outlives the test's own context, for cleanups.
func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return c
}

func (w *world) stopAll() {
	select {
	case <-w.b.Exited():
		return // its reset stops them
	default:
	}
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	running, err := w.ecs.ListTasks(c, &ecs.ListTasksInput{Cluster: &w.cluster})
	if err != nil {
		w.Errorf("ListTasks while cleaning up: %v", err)
		return
	}
	for _, arn := range running.TaskArns {
		if _, err := w.ecs.StopTask(c, &ecs.StopTaskInput{Cluster: &w.cluster, Task: &arn}); err != nil {
			w.Errorf("StopTask while cleaning up: %v", err)
		}
	}
}

// app is a container of the test program.
func (w *world) app(command ...string) types.ContainerDefinition {
	return types.ContainerDefinition{Name: aws.String("app"), Image: &w.image, Memory: aws.Int32(64), Command: command, StopTimeout: aws.Int32(5)}
}

// define registers a definition of network mode none, unless the change says otherwise.
func (w *world) define(change func(*ecs.RegisterTaskDefinitionInput), containers ...types.ContainerDefinition) string {
	w.Helper()
	in := &ecs.RegisterTaskDefinitionInput{
		Family: aws.String(label(w.T)), NetworkMode: types.NetworkModeNone, ContainerDefinitions: containers,
	}
	if change != nil {
		change(in)
	}
	out, err := w.ecs.RegisterTaskDefinition(ctx(w.T), in)
	if err != nil {
		w.Fatalf("RegisterTaskDefinition: %v", err)
	}
	arn := aws.ToString(out.TaskDefinition.TaskDefinitionArn)
	w.awsvpc[arn] = in.NetworkMode == types.NetworkModeAwsvpc
	return arn
}

// run runs one task of a definition and answers it as RunTask did.
func (w *world) run(definition string) types.Task {
	w.Helper()
	in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition}
	if w.awsvpc[definition] {
		in.NetworkConfiguration = subnet
	}
	out, err := w.ecs.RunTask(ctx(w.T), in)
	if err != nil {
		w.Fatalf("RunTask: %v", err)
	}
	if len(out.Failures) > 0 || len(out.Tasks) != 1 {
		w.Fatalf("RunTask: %d tasks, failures %s", len(out.Tasks), show(out.Failures))
	}
	return out.Tasks[0]
}

// subnet is what RunTask must be told for a task of network mode awsvpc.
var subnet = &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"subnet-00000000000000000"}}}

// runApp defines and runs a task of one test container.
func (w *world) runApp(command ...string) types.Task {
	w.Helper()
	return w.run(w.define(nil, w.app(command...)))
}

func (w *world) describe(task types.Task) types.Task {
	w.Helper()
	out, err := w.ecs.DescribeTasks(ctx(w.T), &ecs.DescribeTasksInput{Cluster: &w.cluster, Tasks: []string{*task.TaskArn}})
	if err != nil {
		w.Fatalf("DescribeTasks: %v", err)
	}
	if len(out.Tasks) != 1 {
		w.Fatalf("DescribeTasks: no task, failures %s", show(out.Failures))
	}
	return out.Tasks[0]
}

// until polls a task until it has the status.
func (w *world) until(task types.Task, status string) types.Task {
	w.Helper()
	var now types.Task
	harness.Poll(w, 90*time.Second, "task "+id(task)+" to be "+status, func() bool {
		now = w.describe(task)
		if s := aws.ToString(now.LastStatus); s == "STOPPED" && status != s {
			w.Fatalf("task %s stopped instead of becoming %s: %s: %s; containers %s", id(task), status, now.StopCode, aws.ToString(now.StoppedReason), show(now.Containers))
		}
		return aws.ToString(now.LastStatus) == status
	})
	return now
}

func (w *world) running(task types.Task) types.Task { w.Helper(); return w.until(task, "RUNNING") }
func (w *world) stopped(task types.Task) types.Task { w.Helper(); return w.until(task, "STOPPED") }

func (w *world) stop(task types.Task, reason string) {
	w.Helper()
	in := &ecs.StopTaskInput{Cluster: &w.cluster, Task: task.TaskArn}
	if reason != "" {
		in.Reason = &reason
	}
	if _, err := w.ecs.StopTask(ctx(w.T), in); err != nil {
		w.Fatalf("StopTask: %v", err)
	}
}

// logs polls a task's output until it satisfies, and answers it.
func (w *world) logs(task types.Task, enough func(lines []string) bool) []string {
	w.Helper()
	var lines []string
	deadline := time.Now().Add(30 * time.Second)
	for {
		lines = w.b.Logs(id(task), "app")
		if enough(lines) {
			return lines
		}
		if time.Now().After(deadline) {
			w.Fatalf("the output of task %s is not as expected:\n%s", id(task), strings.Join(lines, "\n"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func contains(want string) func([]string) bool {
	return func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), want) }
}

// id is the last part of a task's ARN.
func id(task types.Task) string {
	arn := aws.ToString(task.TaskArn)
	return arn[strings.LastIndexByte(arn, '/')+1:]
}

func exitCode(t *testing.T, task types.Task, container string) int32 {
	t.Helper()
	for _, c := range task.Containers {
		if aws.ToString(c.Name) == container {
			if c.ExitCode == nil {
				t.Fatalf("container %s has no exit code; reason %q; the task's %q", container, aws.ToString(c.Reason), aws.ToString(task.StoppedReason))
			}
			return *c.ExitCode
		}
	}
	t.Fatalf("no container %s in %s", container, show(task.Containers))
	return 0
}

func containerReason(task types.Task) string {
	var reasons []string
	for _, c := range task.Containers {
		reasons = append(reasons, aws.ToString(c.Reason))
	}
	return strings.Join(reasons, "; ")
}

// wantError asserts AWS's error code, and that the message says the words.
func wantError(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) {
		t.Fatalf("want %s, got %v", code, err)
	}
	if api.ErrorCode() != code {
		t.Errorf("want %s, got %s: %s", code, api.ErrorCode(), api.ErrorMessage())
	}
	for _, word := range words {
		if !strings.Contains(strings.ToLower(api.ErrorMessage()), strings.ToLower(word)) {
			t.Errorf("the message of %s does not say %q: %s", code, word, api.ErrorMessage())
		}
	}
}

// wantServerError asserts that a failure is told as AWS tells its own: a fault of the server.
func wantServerError(t *testing.T, err error) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) {
		t.Errorf("not an error of the API: %v", err)
		return
	}
	if api.ErrorFault() != smithy.FaultServer && api.ErrorCode() != "ServerException" && api.ErrorCode() != "ThrottlingException" {
		t.Errorf("want a fault of the server, got %s: %s", api.ErrorCode(), api.ErrorMessage())
	}
}
