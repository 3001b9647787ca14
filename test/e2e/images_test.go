package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berthhq/berth/test/harness"
)

func TestImageThatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	host := harness.NewRegistry(t).Host
	app := w.app("wait")
	app.Image = aws.String(host + "/nothing/here:1")
	done := w.stopped(w.run(w.define(nil, app)))
	if done.StopCode != types.TaskStopCodeTaskFailedToStart {
		t.Errorf("stopCode %s", done.StopCode)
	}
	if all := aws.ToString(done.StoppedReason) + " " + containerReason(done); !strings.Contains(all, "CannotPullContainerError") || !strings.Contains(all, "nothing/here") {
		t.Errorf("reason %q", all)
	}
}

func TestImageThatIsCorrupt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	// A registry whose layers are damaged on the way.
	good := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			rec := httptest.NewRecorder()
			good.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			if len(body) > 1<<16 {
				copy(body[len(body)/2:], "these bytes are not the image's")
			}
			for k, v := range rec.Header() {
				rw.Header()[k] = v
			}
			rw.WriteHeader(rec.Code)
			rw.Write(body)
			return
		}
		good.ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://")+"/damaged:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, harness.TestImage(t)); err != nil {
		t.Fatal(err)
	}
	app := w.app("wait")
	app.Image = aws.String(ref.String())
	own := harness.Start(t, harness.Options{}) // the shared one has the good layer already
	w2 := newWorld(t, own)
	done := w2.stopped(w2.run(w2.define(nil, app)))
	if all := aws.ToString(done.StoppedReason) + " " + containerReason(done); !strings.Contains(all, "CannotPullContainerError") {
		t.Errorf("reason %q", all)
	}
}

func TestImageCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	img := harness.TestImage(t)
	docker := "imported/docker:" + strings.ToLower(label(t))
	file := harness.DockerArchive(t, t.TempDir(), docker, img)
	w.b.Run("image", "import", file)

	// An OCI layout as a tar on standard input.
	layout := t.TempDir()
	oci := "example.test/imported/oci:" + strings.ToLower(label(t))
	harness.OCILayout(t, layout, oci, img)
	tar, err := exec.Command("tar", "-C", layout, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.b.Command(ctx(t), "image", "import", "-")
	cmd.Stdin = bytes.NewReader(tar)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("image import -: %v\n%s", err, out)
	}

	listing := w.b.Run("image", "ls")
	for _, ref := range []string{docker, oci} {
		repository, tag, _ := strings.Cut(ref, ":")
		if !strings.Contains(listing, repository) || !strings.Contains(listing, tag) {
			t.Errorf("image ls does not show %s:\n%s", ref, listing)
		}
		app := w.app("exit", "4")
		app.Image = &ref
		if code := exitCode(t, w.stopped(w.run(w.define(nil, app))), "app"); code != 4 {
			t.Errorf("%s: exit code %d", ref, code)
		}
	}
	w.b.Run("image", "rm", docker)
	if listing := w.b.Run("image", "ls"); strings.Contains(listing, "imported/docker") {
		t.Errorf("image ls shows what was removed:\n%s", listing)
	}
	if out, err := w.b.Try("image", "rm", "never/was:1"); err == nil {
		t.Errorf("removing an unknown image is no error: %s", out)
	}
	if out, err := w.b.Try("image", "import", os.Args[0]); err == nil {
		t.Errorf("importing what is no image is no error: %s", out)
	}
	pulled := harness.NewRegistry(t).Push(t, "pulled/by-hand:1", img)
	w.b.Run("image", "pull", pulled)
	if listing := w.b.Run("image", "ls"); !strings.Contains(listing, "pulled/by-hand") {
		t.Errorf("image ls does not show what was pulled:\n%s", listing)
	}
}

func TestImageByDigestAndWithoutARegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	r := harness.NewRegistry(t)
	img := harness.TestImage(t)
	tagged := r.Push(t, "gone/soon:1", img)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{tagged, r.Host + "/gone/soon@" + digest.String()} {
		app := w.app("exit", "0")
		app.Image = &ref
		done := w.stopped(w.run(w.define(nil, app)))
		exitCode(t, done, "app")
		if got := aws.ToString(done.Containers[0].ImageDigest); got != digest.String() {
			t.Errorf("%s: imageDigest %s, want %s", ref, got, digest)
		}
	}
	r.Close()
	// The default behaviour: pull, and fall back to the local copy.
	app := w.app("exit", "0")
	app.Image = &tagged
	exitCode(t, w.stopped(w.run(w.define(nil, app))), "app")
}

func TestRegistryMap(t *testing.T) {
	t.Parallel()
	r := harness.NewRegistry(t)
	r.Push(t, "mirror/team/app:1", harness.TestImage(t))
	const ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	w := newWorld(t, harness.Start(t, harness.Options{Args: []string{"--registry-map", ecr + "=" + r.Host + "/mirror"}}))
	app := w.app("exit", "0")
	app.Image = aws.String(ecr + "/team/app:1")
	done := w.stopped(w.run(w.define(nil, app)))
	exitCode(t, done, "app")
	if image := aws.ToString(done.Containers[0].Image); image != ecr+"/team/app:1" {
		t.Errorf("the task shows the image %s, not the one of its definition", image)
	}
}

func TestLogsFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	token := "token-" + label(t)
	task := w.runApp("fill", "10000", token)
	w.running(task)
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	follow := w.b.Command(c, "logs", "-f", "--container", "app", id(task))
	var out, problems bytes.Buffer
	follow.Stdout, follow.Stderr = &out, &problems
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	w.logs(task, contains("ready to fill"))
	signalProcess(t, token)
	w.logs(task, contains("filled"))
	w.stop(task, "")
	if err := follow.Wait(); err != nil {
		t.Fatalf("logs -f: %v\n%s", err, problems.String())
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) != 102 || lines[0] != "ready to fill" || lines[101] != "filled" {
		t.Errorf("followed %d lines, want 102: %.300s …", len(lines), out.String())
	}
	if tail := w.b.Run("logs", "--tail", "1", "--container", "app", id(task)); strings.TrimSpace(tail) != "filled" {
		t.Errorf("--tail 1 printed %q", tail)
	}
	if _, err := w.b.Try("logs", strings.Repeat("0", 32)); err == nil {
		t.Error("the logs of an unknown task are no error")
	}
}

func TestFargate(t *testing.T) {
	t.Parallel()
	fargate := func(in *ecs.RegisterTaskDefinitionInput) {
		in.NetworkMode, in.Cpu, in.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("512")
		in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
	}
	run := func(w *world) (*ecs.RunTaskOutput, error) {
		definition := w.define(fargate, w.app("env"))
		return w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{
			Cluster: &w.cluster, TaskDefinition: &definition, LaunchType: types.LaunchTypeFargate,
			NetworkConfiguration: subnet,
		})
	}
	t.Run("dev", func(t *testing.T) {
		w := newWorld(t, dev(t))
		out, err := run(w)
		if err != nil || len(out.Tasks) != 1 {
			t.Fatalf("RunTask: %v %s", err, show(out))
		}
		done := w.stopped(out.Tasks[0])
		if exitCode(t, done, "app"); done.LaunchType != types.LaunchTypeFargate {
			t.Errorf("launchType %s", done.LaunchType)
		}
		w.logs(done, contains("AWS_EXECUTION_ENV=AWS_ECS_FARGATE"))
		if all := strings.ToLower(w.b.Log()); !strings.Contains(all, "fargate") || !strings.Contains(all, "kernel") {
			t.Error("the log does not say that FARGATE shares the kernel")
		}
		if status := strings.ToLower(w.b.Run("status")); !strings.Contains(status, "fargate") || !strings.Contains(status, "kernel") {
			t.Errorf("berth status does not say that FARGATE shares the kernel:\n%s", status)
		}
	})
	t.Run("not dev", func(t *testing.T) {
		w := newWorld(t, plain(t))
		_, err := run(w)
		wantError(t, err, "UnsupportedFeatureException", "fargate")
		list, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster})
		if err != nil || len(list.TaskArns) != 0 {
			t.Errorf("a refused task exists: %v %v", err, list.TaskArns)
		}
	})
}

func TestSideBySide(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("a-rather-long-directory-name/", 4), "data")
	first := newWorld(t, harness.Start(t, harness.Options{}))
	second := newWorld(t, harness.Start(t, harness.Options{DataDir: long, Dev: true, Args: []string{"--account", "111122223333", "--region", "eu-west-1"}}))
	awsvpc := func(in *ecs.RegisterTaskDefinitionInput) {
		in.NetworkMode, in.Cpu, in.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("128")
	}
	address := map[string]bool{}
	for _, w := range []*world{first, second} {
		app := w.app("http", ":80", w.cluster)
		task := w.running(w.run(w.define(awsvpc, app)))
		ip := aws.ToString(task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address)
		if address[ip] {
			t.Errorf("both instances gave the address %s", ip)
		}
		address[ip] = true
		if body := fetch(t, "http://"+ip+"/"); body != w.cluster+"\n" {
			t.Errorf("at %s answers %q, want %q", ip, body, w.cluster)
		}
		clusters, err := w.ecs.ListClusters(ctx(t), &ecs.ListClustersInput{})
		if err != nil || len(clusters.ClusterArns) != 1 {
			t.Errorf("an instance sees %v: %v", clusters.ClusterArns, err)
		}
	}
	second.b.Destroy()
	tasks, err := first.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &first.cluster})
	if err != nil || len(tasks.TaskArns) != 1 {
		t.Fatalf("after the other's reset: %v %v", err, tasks)
	}
	for ip := range address {
		if _, ok := address[ip]; ok && strings.Contains(show(first.describeArn(tasks.TaskArns[0])), `"`+ip+`"`) {
			if body := fetch(t, "http://"+ip+"/"); body != first.cluster+"\n" {
				t.Errorf("after the other's reset %s answers %q", ip, body)
			}
		}
	}
}

func (w *world) describeArn(arn string) types.Task { return w.describe(types.Task{TaskArn: &arn}) }

func TestSecondUpOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	b := plain(t)
	c, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(c, b.Binary, "up", "--data-dir", b.DataDir, "--listen", "127.0.0.1:"+harness.FreePort(t), "--no-aws-profile")
	cmd.Env = b.AWSEnv()
	out, err := cmd.CombinedOutput()
	if err == nil || c.Err() != nil || !strings.Contains(string(out), b.DataDir) {
		t.Errorf("a second berth up on the same data: %v\n%s", err, out)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	task := w.runApp("wait")
	w.running(task)
	if out := w.b.Run("status"); !strings.Contains(out, id(task)) {
		t.Errorf("berth status does not show the task:\n%s", out)
	}
	var status any
	if err := json.Unmarshal([]byte(w.b.Run("status", "--json")), &status); err != nil {
		t.Errorf("berth status --json: %v", err)
	}
	if out := w.b.Run("version"); !strings.Contains(out, "test") && os.Getenv("BERTH_BIN") == "" {
		t.Errorf("berth version does not print its stamp: %s", out)
	}
	if out := w.b.Run("doctor"); len(out) < 20 {
		t.Errorf("berth doctor says only %q", out)
	}
	if out := w.b.Run("env"); !strings.Contains(out, "--endpoint-url "+w.b.Endpoint()) {
		t.Errorf("berth env has no alias for old command lines:\n%s", out)
	}
	resp, err := http.Get(w.b.Endpoint() + "/_berth/health")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/_berth/health: %v", err)
	} else {
		resp.Body.Close()
	}
}

func TestDown(t *testing.T) {
	t.Parallel()
	b := harness.Start(t, harness.Options{})
	w := newWorld(t, b)
	token := "token-" + label(t)
	task := w.runApp("wait", token)
	w.running(task)
	b.Run("down")
	select {
	case <-b.Exited():
	case <-time.After(30 * time.Second):
		t.Fatal("berth up goes on after berth down")
	}
	if p, alive := harness.FindProcess(token); alive {
		t.Errorf("after berth down: %v", p)
	}
	b.Up()
	if done := w.stopped(task); done.StopCode == "" {
		t.Errorf("the task stopped without a code: %s", show(done))
	}
	seen, err := w.ecs.DescribeClusters(ctx(t), &ecs.DescribeClustersInput{Clusters: []string{w.cluster}})
	if err != nil || len(seen.Clusters) != 1 {
		t.Errorf("berth down kept no state: %v", err)
	}
}

func TestDevReset(t *testing.T) {
	t.Parallel()
	b := harness.Start(t, harness.Options{Dev: true})
	w := newWorld(t, b)
	token := "token-" + label(t)
	w.running(w.runApp("wait", token))
	stubborn := w.app("stubborn")
	stubborn.StopTimeout = aws.Int32(120) // which a reset does not wait for
	task := w.run(w.define(nil, stubborn))
	w.running(task)
	w.logs(task, contains("ignoring"))
	asked := time.Now()
	resp, err := http.Post(b.Endpoint()+"/_berth/reset", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("POST /_berth/reset: %s", resp.Status)
	}
	if took := time.Since(asked); took > time.Minute {
		t.Errorf("the reset took %s: it waited for a container that ignores SIGTERM", took)
	}
	clusters, err := w.ecs.ListClusters(ctx(t), &ecs.ListClustersInput{})
	if err != nil || len(clusters.ClusterArns) != 0 {
		t.Errorf("after the reset: %v %v", err, clusters)
	}
	harness.Poll(t, 30*time.Second, "the reset account's containers to be gone", func() bool {
		_, alive := harness.FindProcess(token)
		return !alive
	})
	// And everything works again, from revision 1.
	if _, err := w.ecs.CreateCluster(ctx(t), &ecs.CreateClusterInput{ClusterName: &w.cluster}); err != nil {
		t.Fatal(err)
	}
	if definition := w.define(nil, w.app("exit", "0")); !strings.HasSuffix(definition, ":1") {
		t.Errorf("first definition after the reset is %s", definition)
	}

	other, err := http.Post(plain(t).Endpoint()+"/_berth/reset", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	other.Body.Close()
	if other.StatusCode/100 == 2 {
		t.Error("POST /_berth/reset works without --dev")
	}
}

func TestAWSProfile(t *testing.T) {
	t.Parallel()
	b := harness.New(t, harness.Options{KeepProfile: true})
	dir := filepath.Join(b.Home, ".aws")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const existing = "[default]\nregion = eu-north-1\n# mine\n[profile work]\nrole_arn = arn:aws:iam::1:role/x\n"
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(existing), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Up()
	raw, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(raw), existing) {
		t.Errorf("what was in ~/.aws/config is altered:\n%s", raw)
	}
	if !strings.Contains(string(raw), "[profile berth]") || !strings.Contains(string(raw), "endpoint_url = "+b.Endpoint()) {
		t.Errorf("no profile berth with an endpoint_url:\n%s", raw)
	}
	keys, err := os.ReadFile(filepath.Join(dir, "credentials"))
	if err == nil {
		if info, _ := os.Stat(filepath.Join(dir, "credentials")); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("credentials are readable by others: %v", info.Mode())
		}
		if !strings.Contains(string(keys), "[berth]") {
			t.Errorf("credentials have no section berth")
		}
	}
	b.Terminate()
	b.Up()
	if again, _ := os.ReadFile(config); !bytes.Equal(raw, again) {
		t.Errorf("a second start changed ~/.aws/config:\n%s", again)
	}
}

// signalProcess sends SIGUSR1 to the container's process that has the token.
func signalProcess(t *testing.T, token string) {
	t.Helper()
	p, ok := harness.FindProcess(token)
	if !ok {
		t.Fatalf("no process with %s", token)
	}
	if err := syscall.Kill(p.Pid, syscall.SIGUSR1); err != nil {
		t.Fatalf("signal %v: %v", p, err)
	}
}
