package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Options say how to start an instance. The zero value is a plain `berth up`.
type Options struct {
	Binary  string   // default: Binary(t)
	DataDir string   // default: a new short one, removed at the end
	Args    []string // further arguments of `up`
	Env     []string // further environment of every command
	Dev     bool
	// KeepProfile lets Berth write its AWS profile, to Home.
	KeepProfile bool
}

// Berth is one instance. Its methods fail the test when Berth does not do as its contract says.
type Berth struct {
	t       T
	options Options
	Binary  string
	DataDir string
	Home    string
	Listen  string

	mu   sync.Mutex
	proc *process
}

// process is one run of `berth up`.
type process struct {
	cmd    *exec.Cmd
	ready  chan struct{} // closed when the ready line came
	exited chan struct{} // closed when the process is gone
	err    error         // valid once exited is closed
	log    *tail
	line   string
}

// New prepares an instance without starting it. When the test ends the instance is reset and the
// host searched for leaks, also when the test failed.
func New(t T, o Options) *Berth {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("these tests run containers and need root: sudo make test")
	}
	b := &Berth{t: t, options: o, Binary: o.Binary, DataDir: o.DataDir}
	if b.Binary == "" {
		b.Binary = Binary(t)
	}
	// Not below t.TempDir: its names are as long as the test's, and its removal would hide a leak.
	base, err := os.MkdirTemp("", "berth-")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	if b.DataDir == "" {
		b.DataDir = filepath.Join(base, "data")
	}
	b.Home = filepath.Join(base, "home")
	if err := os.Mkdir(b.Home, 0o700); err != nil {
		t.Fatalf("make a home: %v", err)
	}
	b.Listen = "127.0.0.1:" + FreePort(t)
	t.Cleanup(func() {
		b.Destroy()
		if err := os.RemoveAll(base); err != nil {
			t.Errorf("remove the instance's directory: %v", err)
		}
	})
	return b
}

// Start starts a new instance and waits until it is ready.
func Start(t T, o Options) *Berth {
	t.Helper()
	b := New(t, o)
	b.Up()
	return b
}

// FreePort is a TCP port nobody listens on now.
func FreePort(t T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// readyTimeout is generous beside the promise of two seconds: tests share two cores. The benchmark
// holds Berth to the promise.
const readyTimeout = 60 * time.Second

// Up starts `berth up` and waits for its ready line.
func (b *Berth) Up(env ...string) {
	b.t.Helper()
	if err := b.TryUp(env...); err != nil {
		b.t.Fatalf("berth up: %v\n%s", err, b.Log())
	}
}

// TryUp is Up for starts that may fail; the error is of a process that ended before it was ready.
func (b *Berth) TryUp(env ...string) error {
	b.Launch(env...)
	p := b.current()
	select {
	case <-p.ready:
		return nil
	case <-p.exited:
		return fmt.Errorf("ended before it was ready: %w", p.err)
	case <-time.After(readyTimeout):
		return fmt.Errorf("not ready after %s", readyTimeout)
	}
}

// Launch starts `berth up` and does not wait.
func (b *Berth) Launch(env ...string) {
	b.t.Helper()
	args := []string{"up", "--data-dir", b.DataDir, "--listen", b.Listen}
	if b.options.Dev {
		args = append(args, "--dev")
	}
	if !b.options.KeepProfile {
		args = append(args, "--no-aws-profile")
	}
	p := &process{
		cmd:    exec.Command(b.Binary, append(args, b.options.Args...)...),
		ready:  make(chan struct{}),
		exited: make(chan struct{}),
		log:    &tail{max: 256 << 10},
	}
	p.cmd.Env = b.env(env...)
	p.cmd.Stderr = p.log
	// A reader of our own, rather than StdoutPipe: Wait must not lose what the process said last, nor
	// wait for children that inherited its output.
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatalf("make a pipe: %v", err)
	}
	p.cmd.Stdout = w
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		b.t.Fatalf("start berth up: %v", err)
	}
	w.Close()
	go func() {
		defer r.Close()
		lines := bufio.NewScanner(r)
		for said := false; lines.Scan(); {
			if !said && strings.HasPrefix(lines.Text(), "ready") {
				p.line, said = lines.Text(), true
				close(p.ready)
			}
			fmt.Fprintln(p.log, lines.Text())
		}
	}()
	go func() {
		p.err = p.cmd.Wait()
		if errors.Is(p.err, exec.ErrWaitDelay) {
			p.err = nil
		}
		close(p.exited)
	}()
	b.mu.Lock()
	b.proc = p
	b.mu.Unlock()
}

func (b *Berth) current() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proc
}

// ReadyLine is the line that said so.
func (b *Berth) ReadyLine() string { return b.current().line }

// Log is the end of what `berth up` wrote since it was last started.
func (b *Berth) Log() string {
	if p := b.current(); p != nil {
		return p.log.String()
	}
	return ""
}

// Pid is the process ID of `berth up`.
func (b *Berth) Pid() int { return b.current().cmd.Process.Pid }

// Exited is closed when the running `berth up` has ended.
func (b *Berth) Exited() <-chan struct{} { return b.current().exited }

// Kill ends `berth up` with SIGKILL and waits until it is gone.
func (b *Berth) Kill() { b.signal(syscall.SIGKILL, 10*time.Second) }

// Quit ends `berth up` with SIGQUIT, which puts its goroutines into its log.
func (b *Berth) Quit() { b.signal(syscall.SIGQUIT, 10*time.Second) }

// Terminate ends `berth up` with SIGTERM and waits until it is gone.
func (b *Berth) Terminate() { b.signal(syscall.SIGTERM, 30*time.Second) }

func (b *Berth) signal(s syscall.Signal, patience time.Duration) {
	b.t.Helper()
	p := b.current()
	if p == nil {
		return
	}
	select {
	case <-p.exited:
		return
	default:
	}
	p.cmd.Process.Signal(s)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		b.t.Errorf("berth up did not end within %s of %v\n%s", patience, s, b.Log())
		<-p.exited
	}
}

// Destroy resets the instance and reports everything it left on the host.
func (b *Berth) Destroy() {
	b.t.Helper()
	if b.current() == nil {
		return // never started
	}
	b.Terminate()
	id := b.ID()
	out, err := b.Try("reset", "--yes")
	if err != nil {
		b.t.Errorf("berth reset: %v\n%s", err, out)
	}
	if id == "" {
		return
	}
	// A killed shim's zombies and an unmounted namespace take the kernel a moment.
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if left = Leaks(id, b.DataDir); len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if _, err := os.Stat(b.DataDir); err == nil {
		entries, _ := os.ReadDir(b.DataDir)
		for _, e := range entries {
			left = append(left, "file "+filepath.Join(b.DataDir, e.Name()))
		}
	}
	if len(left) > 0 {
		b.t.Errorf("after reset the host still has, of instance %s:\n\t%s", id, strings.Join(left, "\n\t"))
	}
}

// ID is the name that everything carries which the instance makes on the host; empty before the
// first start.
func (b *Berth) ID() string {
	var record struct{ ID string }
	raw, err := os.ReadFile(filepath.Join(b.DataDir, "instance.json"))
	if err != nil || json.Unmarshal(raw, &record) != nil {
		return ""
	}
	return record.ID
}

func (b *Berth) env(more ...string) []string {
	env := []string{
		"HOME=" + b.Home,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		// Nothing of the machine's own proxy or AWS settings reaches Berth or its clients.
		"NO_PROXY=*", "AWS_EC2_METADATA_DISABLED=true",
	}
	return append(append(env, b.options.Env...), more...)
}

// Command prepares a berth command of this instance.
func (b *Berth) Command(ctx context.Context, args ...string) *exec.Cmd {
	// Flags before positional arguments: `logs TASK` and its like take both.
	full := append([]string{args[0], "--data-dir", b.DataDir, "--listen", b.Listen}, args[1:]...)
	if args[0] == "image" && len(args) > 1 {
		full = append([]string{"image", args[1], "--data-dir", b.DataDir, "--listen", b.Listen}, args[2:]...)
	}
	cmd := exec.CommandContext(ctx, b.Binary, full...)
	cmd.Env = b.env()
	return cmd
}

// Try runs a berth command and answers its standard output; the error carries its standard error.
func (b *Berth) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := b.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("berth %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}

// Run is Try that must succeed.
func (b *Berth) Run(args ...string) string {
	b.t.Helper()
	out, err := b.Try(args...)
	if err != nil {
		b.t.Fatalf("%v\n%s\nlog of berth up:\n%s", err, out, b.Log())
	}
	return out
}

// Logs is what a task's container wrote, one line an element, without the decoration that `berth
// logs` adds for several containers.
func (b *Berth) Logs(task, container string) []string {
	b.t.Helper()
	args := []string{"logs"}
	if container != "" {
		args = append(args, "--container", container)
	}
	out := b.Run(append(args, task)...)
	if out == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// Endpoint is the URL of the API.
func (b *Berth) Endpoint() string { return "http://" + b.Listen }

// Environment is what `berth env` tells a shell to export.
func (b *Berth) Environment() map[string]string {
	b.t.Helper()
	env := map[string]string{}
	for _, line := range strings.Split(b.Run("env"), "\n") {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(name, "alias") || strings.HasPrefix(name, "#") {
			continue
		}
		env[name] = strings.Trim(strings.TrimSuffix(value, ";"), `'"`)
	}
	return env
}

// Credentials are the root key's, or invented ones with --dev.
func (b *Berth) Credentials() aws.Credentials {
	b.t.Helper()
	if b.options.Dev {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}
	}
	env := b.Environment()
	c := aws.Credentials{AccessKeyID: env["AWS_ACCESS_KEY_ID"], SecretAccessKey: env["AWS_SECRET_ACCESS_KEY"]}
	if c.AccessKeyID == "" || c.SecretAccessKey == "" {
		b.t.Fatalf("berth env printed no key")
	}
	return c
}

// AWSEnv is the environment in which another AWS client speaks to this instance.
func (b *Berth) AWSEnv() []string {
	c := b.Credentials()
	return b.env(
		"AWS_ACCESS_KEY_ID="+c.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+c.SecretAccessKey,
		"AWS_DEFAULT_REGION=us-east-1", "AWS_REGION=us-east-1",
		"AWS_ENDPOINT_URL="+b.Endpoint(), "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
	)
}

// Config is the SDK's configuration for this instance. Requests are not retried: a test wants to
// see the first answer.
func (b *Berth) Config() aws.Config {
	c := b.Credentials()
	return aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(b.Endpoint()),
		Credentials:  credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
		HTTPClient:   wholeBodies{awshttp.NewBuildableClient()},
	}
}

// wholeBodies hands a request's body over in one piece. The SDK closes the body when the answer begins; if
// that is before its own writer has looked for the body's end, the writer takes it for an error
// (smithy-go's safeWriteToReadCloser) and closes the connection, on which the rest of an answer above 4 KiB
// still is. Berth answers within 100 µs, so that this would be a matter of chance. Users do not see it: the
// SDK's retryer repeats such calls.
type wholeBodies struct{ aws.HTTPClient }

func (c wholeBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.ContentLength > 0 && r.ContentLength < 1<<20 {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r = r.WithContext(r.Context()) // the SDK closes the body of its own
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c.HTTPClient.Do(r)
}

// ECS is a client of the instance's ECS.
func (b *Berth) ECS() *ecs.Client { return ecs.NewFromConfig(b.Config()) }

// STS is a client of the instance's STS.
func (b *Berth) STS() *sts.Client { return sts.NewFromConfig(b.Config()) }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	buf  []byte
	max  int
	lost bool
}

var _ io.Writer = (*tail)(nil)

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - l.max; over > 0 {
		l.buf, l.lost = append(l.buf[:0], l.buf[over:]...), true
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return "[…]" + string(l.buf)
	}
	return string(l.buf)
}
