package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// lifecycleMembers say when containers start, how they are watched, and how they end.
var lifecycleMembers = []member{
	{of("essential"), acts, "its end is the task's; the end of one that is not is its own", func(w *world) {
		task := w.running(w.run(w.define(nil, w.shell("sleep 1000"), w.shell("exit 3", named("helper"), beside))))
		harness.Poll(w, 30*time.Second, "the helper to end", func() bool { return containerOf(w.describe(task), "helper").ExitCode != nil })
		if now := w.describe(task); aws.ToString(now.LastStatus) != "RUNNING" {
			w.Errorf("the task is %s after the end of a container that is not essential", aws.ToString(now.LastStatus))
		}
		done := w.stopped(w.run(w.define(nil, w.shell("exit 5"), w.shell("sleep 1000", named("helper"), beside))))
		if aws.ToString(done.StoppedReason) != "Essential container in task exited" || exitCode(w.T, done, "app") != 5 {
			w.Errorf("it stopped because %q, %s", aws.ToString(done.StoppedReason), show(done.Containers))
		}
	}},
	{of("dependsOn[].containerName", "dependsOn[].condition"), acts, "START, COMPLETE, SUCCESS and HEALTHY hold a container back; the one depended on stops last", func(w *world) {
		on := func(name string, c types.ContainerCondition) func(*container) {
			return func(d *container) {
				d.DependsOn = append(d.DependsOn, types.ContainerDependency{ContainerName: &name, Condition: c})
			}
		}
		healthy := func(c *container) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"CMD-SHELL", "busybox test -e /ready"}, Interval: aws.Int32(5), StartPeriod: aws.Int32(60)}
		}
		task := w.run(w.define(nil,
			w.shell("sleep 1000", on("migrate", types.ContainerConditionSuccess), on("warm", types.ContainerConditionComplete), on("db", types.ContainerConditionHealthy)),
			w.shell("sleep 0.5", named("migrate"), beside, on("db", types.ContainerConditionStart)),
			w.shell("exit 4", named("warm"), beside),
			w.shell("sleep 1; touch /ready; trap 'exit 0' TERM; sleep 1000 & wait", named("db"), healthy),
		))
		w.running(task)
		w.stop(task, "")
		done := w.stopped(task)
		app, db := containerOf(done, "app"), containerOf(done, "db")
		if app.ExitCode == nil || db.ExitCode == nil {
			w.Fatalf("not both ran: %s", show(done.Containers))
		}
		bad := w.stopped(w.run(w.define(nil, w.shell("echo must not run", on("migrate", types.ContainerConditionSuccess)), w.shell("exit 1", named("migrate"), beside))))
		if bad.StopCode != types.TaskStopCodeTaskFailedToStart || len(w.b.Logs(id(bad), "app")) > 0 {
			w.Errorf("after a dependency that failed: %s %q", bad.StopCode, aws.ToString(bad.StoppedReason))
		}
	}},
	{of("startTimeout"), acts, "how long dependents wait for it", func(w *world) {
		name := "slow"
		done := w.stopped(w.run(w.define(nil,
			w.shell("echo must not run", func(c *container) {
				c.DependsOn = []types.ContainerDependency{{ContainerName: &name, Condition: types.ContainerConditionComplete}}
			}),
			w.shell("sleep 1000", named(name), beside, func(c *container) { c.StartTimeout = aws.Int32(2) }))))
		if done.StopCode != types.TaskStopCodeTaskFailedToStart || len(w.b.Logs(id(done), "app")) > 0 {
			w.Errorf("it ended with %s %q", done.StopCode, aws.ToString(done.StoppedReason))
		}
	}},
	{of("stopTimeout"), acts, "how long it may take to stop before SIGKILL", func(w *world) {
		c := w.app("stubborn")
		c.StopTimeout = aws.Int32(3)
		task := w.running(w.run(w.define(nil, c)))
		w.logs(task, contains("ignoring"))
		w.stop(task, "")
		done := w.stopped(task)
		took := done.ExecutionStoppedAt.Sub(*done.StoppingAt)
		if exitCode(w.T, done, "app") != 137 || took < 2*time.Second || took > 20*time.Second {
			w.Errorf("it took %s to end with %d", took, exitCode(w.T, done, "app"))
		}
	}},
	{of("healthCheck.command", "healthCheck.interval", "healthCheck.timeout", "healthCheck.retries", "healthCheck.startPeriod"), acts, "the container's and the task's healthStatus follow the command, run in the container", func(w *world) {
		check := func(c *container) {
			c.HealthCheck = &types.HealthCheck{Command: []string{"CMD-SHELL", "busybox test -e /well"}, Interval: aws.Int32(5), Timeout: aws.Int32(2), Retries: aws.Int32(1), StartPeriod: aws.Int32(0)}
		}
		task := w.run(w.define(nil, w.shell("touch /well; sleep 12; busybox rm /well; sleep 1000", check)))
		for _, want := range []types.HealthStatus{types.HealthStatusHealthy, types.HealthStatusUnhealthy} {
			harness.Poll(w, 60*time.Second, "the task to be "+string(want), func() bool {
				now := w.describe(task)
				return now.HealthStatus == want && now.Containers[0].HealthStatus == want
			})
		}
	}},
	{of("restartPolicy.enabled", "restartPolicy.ignoredExitCodes", "restartPolicy.restartAttemptPeriod"), acts, "an exit is followed by a start in place, on the same file system, but for codes that are ignored", func(w *world) {
		policy := func(c *container) {
			c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: aws.Bool(true), IgnoredExitCodes: []int32{7}, RestartAttemptPeriod: aws.Int32(60)}
		}
		// The second run must last as long as the attempt period, or it is not started again.
		done := w.says(nil, []string{"first", "second"}, w.shell("if busybox test -e /ran; then echo second; exit 7; fi; touch /ran; echo first; sleep 61; exit 1", policy))
		if exitCode(w.T, done, "app") != 7 {
			w.Errorf("it ended with %s", show(done.Containers))
		}
	}},
	{of("environmentFiles[].type", "environmentFiles[].value"), acts, "variables out of objects in S3, the first file of a name; the definition's own win", func(w *world) {
		bucket := strings.ToLower(label(w.T))
		if len(bucket) > 60 {
			bucket = bucket[len(bucket)-60:]
		}
		bucket = strings.Trim(bucket, "-")
		w.object(bucket, "one.env", "# comment\nA=from one\nB=b=1\n")
		w.object(bucket, "two.env", "A=from two\nC=c\nOWN=file\n")
		w.says(nil, []string{"from one", "b=1", "c", "own"}, w.shell(`echo "$A"; echo "$B"; echo "$C"; echo "$OWN"`, func(c *container) {
			for _, key := range []string{"one.env", "two.env"} {
				c.EnvironmentFiles = append(c.EnvironmentFiles, types.EnvironmentFile{Type: types.EnvironmentFileTypeS3, Value: aws.String("arn:aws:s3:::" + bucket + "/" + key)})
			}
			c.Environment = []types.KeyValuePair{pair("OWN", "own")}
		}))
	}},
	{of("logConfiguration.logDriver", "logConfiguration.options"), acts, "awslogs: what it writes is in its log stream, and stays readable on the host (`berth logs`)", func(w *world) {
		group := label(w.T)
		done := w.says(nil, []string{"into the stream"}, w.shell("echo into the stream", func(c *container) {
			c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
				"awslogs-group": group, "awslogs-region": "us-east-1", "awslogs-create-group": "true", "awslogs-stream-prefix": "web",
			}}
		}))
		var got struct{ Events []struct{ Message string } }
		harness.Poll(w, 30*time.Second, "the event in the stream", func() bool {
			_, err := cli(w.T, w, &got, "logs", "get-log-events", "--log-group-name", group, "--log-stream-name", "web/app/"+id(done))
			return err == nil && len(got.Events) > 0
		})
		if len(got.Events) != 1 || got.Events[0].Message != "into the stream" {
			w.Errorf("the stream has %+v", got.Events)
		}
	}},
}

func containerOf(task types.Task, name string) types.Container {
	i := slices.IndexFunc(task.Containers, func(c types.Container) bool { return aws.ToString(c.Name) == name })
	if i < 0 {
		return types.Container{}
	}
	return task.Containers[i]
}

// tryRun is run for a task that may not be placed.
func (w *world) tryRun(definition string) (*ecs.RunTaskOutput, error) {
	in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition}
	if w.awsvpc[definition] {
		in.NetworkConfiguration = subnet
	}
	return w.ecs.RunTask(ctx(w.T), in)
}

// object puts an object into a bucket of the instance's S3, which it makes if need be.
func (w *world) object(bucket, key, body string) {
	w.Helper()
	file := filepath.Join(w.TempDir(), key)
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		w.Fatal(err)
	}
	if problems, err := cli(w.T, w, nil, "s3api", "create-bucket", "--bucket", bucket); err != nil && !strings.Contains(problems, "BucketAlreadyOwnedByYou") {
		w.Fatalf("create the bucket: %v: %s", err, problems)
	}
	mustCLI(w.T, w, nil, "s3api", "put-object", "--bucket", bucket, "--key", key, "--body", file)
}
