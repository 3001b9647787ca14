package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/berthhq/berth/test/harness"
)

// The crash tests kill Berth during a workload and then hold it to its word: every RunTask and
// StopTask it acknowledged is in effect, nothing runs that should not, and nothing is left over.

// rounds is how often Berth dies at a random time; $BERTH_CRASH_ROUNDS asks for more.
func rounds(t *testing.T) int {
	n, err := strconv.Atoi(cmpOr(os.Getenv("BERTH_CRASH_ROUNDS"), "6"))
	if err != nil {
		t.Fatalf("BERTH_CRASH_ROUNDS: %v", err)
	}
	return n
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestCrashAtEveryFailpoint first learns the failpoints' names from runs in which Berth lives, then
// dies at each: in a plain workload where that visits the failpoint, and in the whole one, which takes
// longer, where it does not.
func TestCrashAtEveryFailpoint(t *testing.T) {
	t.Parallel()
	binary := harness.FailpointBinary(t)
	type visit struct {
		name  string
		whole bool
	}
	var visits []visit
	plain := failpoints(t, binary, false)
	for _, name := range plain {
		visits = append(visits, visit{name, false})
	}
	for _, name := range failpoints(t, binary, true) {
		if !slices.Contains(plain, name) {
			visits = append(visits, visit{name, true})
		}
	}
	t.Logf("%d failpoints, %d of them in the plain workload", len(visits), len(plain))
	if len(plain) < 10 || len(visits) < len(plain)+10 {
		t.Fatalf("only the failpoints %v: the workload or the build is wrong", visits)
	}
	if only := os.Getenv("BERTH_CRASH_ONLY"); only != "" { // to find out about one, as often as it takes
		visits = nil
		for name := range strings.SplitSeq(only, ",") {
			visits = append(visits, visit{name, !slices.Contains(plain, name)})
		}
	}
	// Several instances side by side: each crash is mostly waiting for processes to come up.
	work := make(chan visit)
	go func() {
		defer close(work)
		for _, v := range slices.Backward(visits) { // the long ones first
			work <- v
		}
	}()
	for lane := range 3 {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, binary)
			var v visit
			defer func() {
				if t.Failed() {
					t.Logf("it was the round of failpoint %s", v.name)
				}
			}()
			for v = range work {
				started := time.Now()
				c.whole = v.whole
				died := c.round("BERTH_FAILPOINT="+v.name, nil)
				t.Logf("%-60s died: %-5v %s", v.name, died, time.Since(started).Round(time.Millisecond))
			}
		})
	}
}

// TestCrashAtRandomTimes kills Berth at times that a seed gives; the seed is printed.
func TestCrashAtRandomTimes(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("BERTH_CRASH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("BERTH_CRASH_SEED: %v", err)
		}
	}
	t.Logf("BERTH_CRASH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	c := newCrash(t, harness.Binary(t))
	c.whole = true
	for i := range rounds(t) {
		after := time.Duration(random.IntN(4000)) * time.Millisecond
		c.round("", &after)
		if t.Failed() {
			t.Fatalf("round %d, killed after %s, seed %d", i, after, seed)
		}
	}
}

// failpoints runs the workload and a restart without a crash, and answers the names that were hit.
func failpoints(t *testing.T, binary string, whole bool) []string {
	log := filepath.Join(t.TempDir(), "failpoints")
	c := newCrash(t, binary)
	c.whole = whole
	c.round("BERTH_FAILPOINT_LOG="+log, nil)
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatalf("no failpoint was hit: %v", err)
	}
	names := strings.Fields(string(raw))
	slices.Sort(names)
	return slices.Compact(names)
}

// crash is an instance that is crashed again and again, and what it has promised.
type crash struct {
	*testing.T
	b       *harness.Berth
	image   string
	cluster string
	whole   bool // the workload has a task with something of everything
	n       int
}

func newCrash(t *testing.T, binary string) *crash {
	t.Helper()
	image, _ := harness.SharedImages(t)
	return &crash{T: t, b: harness.New(t, harness.Options{Binary: binary}), image: image, cluster: "crash"}
}

// promises are what was acknowledged.
type promises struct {
	sync.Mutex
	ran     map[string]string // task ARN → the clientToken
	stopped map[string]bool   // tasks whose StopTask was acknowledged
}

// round starts Berth with an environment, runs the workload until it is done or Berth is dead, kills
// Berth if it is not, starts it again without, and checks. It tells whether Berth died of itself.
func (c *crash) round(env string, killAfter *time.Duration) (died bool) {
	c.Helper()
	c.n++
	var envs []string
	if env != "" {
		envs = append(envs, env)
	}
	p := &promises{ran: map[string]string{}, stopped: map[string]bool{}}
	token := fmt.Sprintf("crash-%d-%d", os.Getpid(), time.Now().UnixNano())
	if err := c.b.TryUp(envs...); err == nil {
		work, cancel := context.WithCancel(context.Background())
		go func() {
			<-c.b.Exited()
			cancel()
		}()
		var timer *time.Timer
		killed := make(chan struct{})
		if killAfter != nil {
			timer = time.AfterFunc(*killAfter, func() { defer close(killed); c.b.Kill() })
		}
		c.workload(work, p, token)
		cancel()
		// A timer left running would kill the next Berth.
		if timer != nil && !timer.Stop() {
			<-killed
		}
	}
	select {
	case <-c.b.Exited():
		died = true
	default:
		c.b.Kill()
	}
	c.b.Up() // without a failpoint
	c.check(p, token)
	c.b.Terminate()
	return died
}

// workload runs tasks of several kinds, stops one, lets others end by themselves. Its calls fail when
// Berth dies; only what was acknowledged counts.
func (c *crash) workload(work context.Context, p *promises, token string) {
	work, cancel := context.WithTimeout(work, 25*time.Second)
	defer cancel()
	config := c.b.Config()
	client := ecs.NewFromConfig(config)
	client.CreateCluster(work, &ecs.CreateClusterInput{ClusterName: &c.cluster})
	define := func(family string, mode types.NetworkMode, command ...string) string {
		in := &ecs.RegisterTaskDefinitionInput{Family: &family, NetworkMode: mode, ContainerDefinitions: []types.ContainerDefinition{{
			Name: aws.String("app"), Image: &c.image, Memory: aws.Int32(48), Command: append(command, token), StopTimeout: aws.Int32(2),
		}}}
		out, err := client.RegisterTaskDefinition(work, in)
		if err != nil {
			return ""
		}
		return aws.ToString(out.TaskDefinition.TaskDefinitionArn)
	}
	waiting := define("waiting", types.NetworkModeNone, "wait")
	serving := define("serving", types.NetworkModeAwsvpc, "wait")
	ending := define("ending", types.NetworkModeNone, "exit", "3")
	whole := ""
	if c.whole {
		whole = c.defineWhole(work, client, config, token)
	}
	run := func(definition string, network *types.NetworkConfiguration, suffix string) string {
		if definition == "" {
			return ""
		}
		client := token + "-" + suffix
		out, err := ecs.NewFromConfig(config).RunTask(work, &ecs.RunTaskInput{Cluster: &c.cluster, TaskDefinition: &definition, NetworkConfiguration: network, ClientToken: aws.String(client[max(0, len(client)-64):]), StartedBy: aws.String(token[max(0, len(token)-36):])})
		if err != nil || len(out.Tasks) != 1 {
			return ""
		}
		p.Lock()
		defer p.Unlock()
		p.ran[*out.Tasks[0].TaskArn] = client
		return *out.Tasks[0].TaskArn
	}
	stopping := run(waiting, nil, "stopping")
	staying := run(serving, subnet, "staying")
	run(ending, nil, "ending")
	all := run(whole, nil, "whole")
	c.wait(work, client, stopping, "RUNNING")
	c.wait(work, client, staying, "RUNNING")
	if stopping != "" {
		if _, err := client.StopTask(work, &ecs.StopTaskInput{Cluster: &c.cluster, Task: &stopping}); err == nil {
			p.Lock()
			p.stopped[stopping] = true
			p.Unlock()
		}
		c.wait(work, client, stopping, "STOPPED")
	}
	c.wait(work, client, all, "RUNNING")
	if all != "" {
		if _, err := client.StopTask(work, &ecs.StopTaskInput{Cluster: &c.cluster, Task: &all}); err == nil {
			p.Lock()
			p.stopped[all] = true
			p.Unlock()
		}
		c.wait(work, client, all, "STOPPED")
	}
}

// defineWhole registers a task that has something of everything a host does for one: several containers
// that wait for each other, namespaces of their own and one that they share, a mapped port, a link, a
// volume, an environment file, a health check.
func (c *crash) defineWhole(work context.Context, client *ecs.Client, config aws.Config, token string) string {
	const bucket = "crash"
	objects := s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true })
	objects.CreateBucket(work, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
	objects.PutObject(work, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("app.env"), Body: strings.NewReader("A=b\n")})
	container := func(name string, command ...string) types.ContainerDefinition {
		return types.ContainerDefinition{
			Name: &name, Image: &c.image, Memory: aws.Int32(48), Command: append(command, token), StopTimeout: aws.Int32(2),
			MountPoints: []types.MountPoint{{SourceVolume: aws.String("data"), ContainerPath: aws.String("/data")}},
		}
	}
	first, db, app := container("first", "exit", "0"), container("db", "wait"), container("app", "wait")
	first.Essential = aws.Bool(false)
	db.HealthCheck = &types.HealthCheck{Command: []string{"CMD", "/testapp", "exit", "0"}, Interval: aws.Int32(5), StartPeriod: aws.Int32(10)}
	app.DependsOn = []types.ContainerDependency{
		{ContainerName: aws.String("first"), Condition: types.ContainerConditionSuccess}, {ContainerName: aws.String("db"), Condition: types.ContainerConditionHealthy},
	}
	app.Links = []string{"db"}
	app.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80)}}
	app.EnvironmentFiles = []types.EnvironmentFile{{Type: types.EnvironmentFileTypeS3, Value: aws.String("arn:aws:s3:::" + bucket + "/app.env")}}
	out, err := client.RegisterTaskDefinition(work, &ecs.RegisterTaskDefinitionInput{
		Family: aws.String("whole"), NetworkMode: types.NetworkModeBridge, PidMode: types.PidModeTask, IpcMode: types.IpcModeTask,
		Volumes: []types.Volume{{Name: aws.String("data")}}, ContainerDefinitions: []types.ContainerDefinition{first, db, app},
	})
	if err != nil {
		return ""
	}
	return aws.ToString(out.TaskDefinition.TaskDefinitionArn)
}

// wait polls a task until it has the status, or work ends.
func (c *crash) wait(work context.Context, client *ecs.Client, arn, status string) {
	for arn != "" && work.Err() == nil {
		out, err := client.DescribeTasks(work, &ecs.DescribeTasksInput{Cluster: &c.cluster, Tasks: []string{arn}})
		if err == nil && len(out.Tasks) == 1 && (aws.ToString(out.Tasks[0].LastStatus) == status || aws.ToString(out.Tasks[0].LastStatus) == "STOPPED") {
			return
		}
		select {
		case <-work.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// check holds the restarted Berth to the promises, then stops everything and looks for leaks.
func (c *crash) check(p *promises, token string) {
	c.Helper()
	client := c.b.ECS()
	bounded, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for arn := range p.ran {
		out, err := client.DescribeTasks(bounded, &ecs.DescribeTasksInput{Cluster: &c.cluster, Tasks: []string{arn}})
		if err != nil || len(out.Tasks) != 1 {
			c.Fatalf("the acknowledged task %s is lost: %v %s", arn, err, show(out))
		}
	}
	for arn := range p.stopped {
		c.wait(bounded, client, arn, "STOPPED")
	}
	// Everything else is stopped now, also what was accepted without an acknowledgement.
	list, err := client.ListTasks(bounded, &ecs.ListTasksInput{Cluster: &c.cluster})
	if err != nil && !strings.Contains(err.Error(), "ClusterNotFound") {
		c.Fatalf("ListTasks after the crash: %v", err)
	}
	if list != nil {
		for _, arn := range list.TaskArns {
			if p.stopped[arn] {
				out, _ := client.DescribeTasks(bounded, &ecs.DescribeTasksInput{Cluster: &c.cluster, Tasks: []string{arn}})
				c.Fatalf("the task %s runs though its StopTask was acknowledged: %s", arn, show(out))
			}
			if _, err := client.StopTask(bounded, &ecs.StopTaskInput{Cluster: &c.cluster, Task: &arn}); err != nil {
				c.Fatalf("StopTask after the crash: %v", err)
			}
		}
		for _, arn := range list.TaskArns {
			c.wait(bounded, client, arn, "STOPPED")
		}
	}
	for arn := range p.ran {
		out, err := client.DescribeTasks(bounded, &ecs.DescribeTasksInput{Cluster: &c.cluster, Tasks: []string{arn}})
		if err != nil || len(out.Tasks) != 1 || aws.ToString(out.Tasks[0].LastStatus) != "STOPPED" {
			c.b.Quit() // for the goroutines: it may hang
			c.Fatalf("the task %s did not reach its end: %v %s\n%s", arn, err, show(out), lastLines(c.b.Log(), 1000))
		}
		task := out.Tasks[0]
		if task.StopCode == "" || aws.ToString(task.StoppedReason) == "" {
			c.Errorf("the task %s stopped without a cause: %s", arn, show(task))
		}
		if strings.HasSuffix(p.ran[arn], "-ending") && task.StopCode == types.TaskStopCodeEssentialContainerExited {
			if code := task.Containers[0].ExitCode; aws.ToInt32(code) != 3 {
				c.Errorf("the task %s exits with %s, want 3", arn, show(code))
			}
		}
	}
	if alive, ok := harness.FindProcess(token); ok {
		c.Errorf("after everything was stopped there is still %v", alive)
	}
	var left []string
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if left = harness.LeakedTaskThings(c.b.ID(), c.b.DataDir); len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(left) > 0 {
		c.Errorf("left over:\n\t%s\nlog:\n%s", strings.Join(left, "\n\t"), lastLines(c.b.Log(), 60))
	}
}
