package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// imageName is the test program's image on every side; it is imported, so that no side pulls.
const imageName = "bench/testapp:1"

// workload is a Berth with the image, a cluster, and definitions by mode and command.
type workload struct {
	*bench
	berth   *harness.Berth
	ecs     *ecs.Client
	defined map[string]string
	pace    time.Duration // how long to leave Berth alone between two questions
}

const cluster = "bench"

func newWorkload(b *bench, berth *harness.Berth) *workload {
	w := &workload{bench: b, berth: berth, ecs: berth.ECS(), defined: map[string]string{}}
	berth.Run("image", "import", archive(b))
	if _, err := w.ecs.CreateCluster(b.ctx, &ecs.CreateClusterInput{ClusterName: aws.String(cluster)}); err != nil {
		b.Fatalf("CreateCluster: %v", err)
	}
	return w
}

// define registers a definition of one container once.
func (w *workload) define(mode types.NetworkMode, command string) string {
	return w.defineAs(string(mode)+"-"+command, mode, app("app", command))
}

// app is a container of the test program.
func app(name, command string) types.ContainerDefinition {
	return types.ContainerDefinition{Name: aws.String(name), Image: aws.String(imageName), Memory: aws.Int32(16), Command: []string{command}, StopTimeout: aws.Int32(2)}
}

// defineAs registers a definition once, under a key that is its family.
func (w *workload) defineAs(key string, mode types.NetworkMode, containers ...types.ContainerDefinition) string {
	if arn, ok := w.defined[key]; ok {
		return arn
	}
	out, err := w.ecs.RegisterTaskDefinition(w.ctx, &ecs.RegisterTaskDefinitionInput{
		Family: aws.String(key), NetworkMode: mode, ContainerDefinitions: containers,
	})
	if err != nil {
		w.Fatalf("RegisterTaskDefinition: %v", err)
	}
	w.defined[key] = aws.ToString(out.TaskDefinition.TaskDefinitionArn)
	return w.defined[key]
}

// runTasks starts n tasks of network mode none and answers their ARNs.
func (w *workload) runTasks(n int32, command string) []string {
	return w.run(n, w.define(types.NetworkModeNone, command))
}

func (w *workload) run(n int32, definition string) []string {
	in := &ecs.RunTaskInput{Cluster: aws.String(cluster), TaskDefinition: &definition, Count: &n}
	if strings.Contains(definition, "/"+string(types.NetworkModeAwsvpc)+"-") {
		in.NetworkConfiguration = &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"subnet-00000000000000000"}}}
	}
	out, err := w.ecs.RunTask(w.ctx, in)
	if err != nil {
		w.Fatalf("RunTask: %v", err)
	}
	if len(out.Tasks) != int(n) {
		w.Fatalf("RunTask ran %d of %d tasks", len(out.Tasks), n)
	}
	var arns []string
	for _, task := range out.Tasks {
		arns = append(arns, *task.TaskArn)
	}
	return arns
}

// wait polls until all tasks have the status or have stopped, and answers them.
func (w *workload) wait(arns []string, status string) []types.Task {
	var all []types.Task
	for len(arns) > 0 {
		some := arns[:min(100, len(arns))]
		arns = arns[len(some):]
		harness.Poll(w, 3*time.Minute, "tasks to be "+status, func() bool {
			out, err := w.ecs.DescribeTasks(w.ctx, &ecs.DescribeTasksInput{Cluster: aws.String(cluster), Tasks: some})
			if err != nil || len(out.Tasks) != len(some) {
				return false
			}
			for _, task := range out.Tasks {
				if s := aws.ToString(task.LastStatus); s != status && s != "STOPPED" {
					time.Sleep(w.pace)
					return false
				}
			}
			all = append(all, out.Tasks...)
			return true
		})
	}
	return all
}

// stamp is the time of a task's first instruction, out of its output.
func (w *workload) stamp(arn string) time.Time {
	var at time.Time
	harness.Poll(w, 30*time.Second, "the output of "+arn, func() bool {
		out, err := w.berth.Try("logs", arn[strings.LastIndexByte(arn, '/')+1:])
		var ok bool
		at, ok = parseStamp(out)
		return err == nil && ok
	})
	return at
}

// parseStamp finds the nanoseconds in a log, whatever stands before them on the line.
func parseStamp(out string) (time.Time, bool) {
	for _, word := range strings.Fields(out) {
		if n, err := strconv.ParseInt(word, 10, 64); err == nil && len(word) == 19 {
			return time.Unix(0, n), true
		}
	}
	return time.Time{}, false
}

func (w *workload) stop(arns []string) {
	for _, arn := range arns {
		if _, err := w.ecs.StopTask(w.ctx, &ecs.StopTaskInput{Cluster: aws.String(cluster), Task: &arn}); err != nil {
			w.Fatalf("StopTask: %v", err)
		}
	}
	w.wait(arns, "STOPPED")
}
