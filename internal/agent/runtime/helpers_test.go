package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// host is one instance's directories, which several runtimes may open in turn.
type host struct {
	t      testing.TB
	config Config
}

// newHost makes an instance of its own and sees to it that nothing of it is left at the end: no
// process, no mount, no cgroup.
func newHost(t testing.TB) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests run containers and so need root")
	}
	instance := make([]byte, 4)
	rand.Read(instance)
	dir := t.TempDir()
	h := &host{t: t, config: Config{
		Root:       filepath.Join(dir, "containerd"),
		RunDir:     "/run/berth-test-" + hex.EncodeToString(instance),
		RuntimeDir: filepath.Join(dir, "runtime"),
		Runc:       builtRunc(t),
		Instance:   hex.EncodeToString(instance),
		Logger:     slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}}
	t.Cleanup(h.checkClean)
	return h
}

// builtRunc is the runc that scripts/build-runc.sh has built, or the one in the environment.
func builtRunc(t testing.TB) string {
	t.Helper()
	path := os.Getenv(RuncEnv)
	if path == "" && embeddedRunc == "" {
		path = "embedded/runc"
	}
	if path == "" {
		return ""
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("runc is not built, run scripts/build-runc.sh: %v", err)
	}
	return path
}

// builtShim is the shim that scripts/build-shim.sh has built. The test binary is a shim too, but may
// not be static, and so no init process.
func builtShim(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("embedded/shim")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the shim is not built, run scripts/build-shim.sh: %v", err)
	}
	return path
}

// testWriter logs to the test until it has ended.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (h *host) open() *Runtime {
	h.t.Helper()
	r, err := Open(context.Background(), h.config)
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	return r
}

// openForTest opens a runtime that is emptied and closed when the test ends.
func (h *host) openForTest() *Runtime {
	h.t.Helper()
	r := h.open()
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.Reset(ctx); err != nil {
			h.t.Errorf("reset: %v", err)
		}
		if err := r.Close(); err != nil {
			h.t.Errorf("close: %v", err)
		}
	})
	return r
}

// checkClean fails the test for what the instance left on the host.
func (h *host) checkClean() {
	defer os.RemoveAll(h.config.RunDir)
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.config.RunDir) || strings.Contains(line, h.config.Root) {
			h.t.Errorf("mount left: %s", line)
		}
	}
	// A shim that was told to end, or the one that ended it, may take a moment on a busy machine.
	for late := time.Now().Add(10 * time.Second); len(h.processes()) > 0 && time.Now().Before(late); {
		time.Sleep(10 * time.Millisecond)
	}
	for _, pid := range h.processes() {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		h.t.Errorf("process left: %d %q", pid, command)
		unix.Kill(pid, unix.SIGKILL)
	}
	groups, err := detectCgroups()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, root := range groups.trees() {
		if _, err := os.Stat(filepath.Join(root, "berth-"+h.config.Instance)); err == nil {
			h.t.Errorf("cgroup left in %s", root)
		}
	}
}

// processes answers the instance's shims.
func (h *host) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		h.t.Fatal(err)
	}
	var out []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue
		}
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && strings.HasPrefix(exe, h.config.RuntimeDir) {
			out = append(out, pid)
		}
	}
	return out
}

type file struct {
	name, body string
	mode       int64
	link       string
}

// busyboxImage is an image of Debian's static busybox with the applets that tests use.
func busyboxImage(t testing.TB, more ...file) v1.Image {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the tests' images are made of Debian's busybox-static: %v", err)
	}
	files := []file{{name: "bin/busybox", body: string(busybox), mode: 0o755}}
	for _, applet := range []string{"sh", "sleep", "echo", "cat", "id", "dd", "true", "false", "head", "seq", "hostname", "kill", "mount", "touch", "tail", "grep", "df", "ls", "pwd", "env"} {
		files = append(files, file{name: "bin/" + applet, link: "busybox"})
	}
	files = append(files,
		file{name: "etc/passwd", body: "root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345::/home/app:/bin/sh\n", mode: 0o644},
		file{name: "etc/group", body: "root:x:0:\nstaff:x:50:app\napp:x:2345:\n", mode: 0o644},
		file{name: "tmp/.keep", mode: 0o644},
	)
	image, err := mutate.AppendLayers(empty.Image, layer(t, append(files, more...)...))
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Config.Cmd = []string{"sh"}
	config.Config.Env = []string{"PATH=/bin", "FROM_IMAGE=1", "BOTH=image"}
	config.Config.StopSignal = "SIGINT"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

func layer(t testing.TB, files ...file) v1.Layer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg}
		if f.link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, f.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// archive writes what docker save would.
func archive(t testing.TB, ref string, image v1.Image) []byte {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tarball.Write(tag, image, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// importBusybox stores the image and answers it.
func importBusybox(t testing.TB, r *Runtime) agent.Image {
	t.Helper()
	if _, err := r.Import(t.Context(), bytes.NewReader(archive(t, "busybox:latest", busyboxImage(t))), nil); err != nil {
		t.Fatalf("import: %v", err)
	}
	image, err := r.Pull(t.Context(), "busybox", agent.PullPreferCached)
	if err != nil {
		t.Fatalf("pull what was imported: %v", err)
	}
	return image
}

// testContainer is a container that runs a shell script.
func testContainer(image agent.Image, id, script string) agent.ContainerSpec {
	return agent.ContainerSpec{
		ID: id, TaskID: "task-" + id, Image: image,
		Container: &dispatchpb.Container{Name: id, Command: []string{"sh", "-c", script}, HasCommand: true},
	}
}

// output makes a FIFO, and a reader that collects all that is written until the writers are gone.
func output(t testing.TB) (path string, read func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "out")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Non-blocking, so that opening does not wait and closing ends the read.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, func() string {
		t.Helper()
		f.SetReadDeadline(time.Now().Add(20 * time.Second))
		data, err := io.ReadAll(f)
		if err != nil {
			t.Fatalf("read the output after %d bytes: %v", len(data), err)
		}
		return string(data)
	}
}

// waitPhase waits until the container is in the phase.
func waitPhase(t testing.TB, r *Runtime, id string, phase agent.ContainerPhase) agent.ContainerState {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		state, ok, err := r.Inspect(t.Context(), id)
		if err != nil {
			t.Fatalf("inspect: %v", err)
		}
		if ok && state.Phase == phase {
			return state
		}
		if time.Now().After(deadline) {
			t.Fatalf("the container is %q, not %q", state.Phase, phase)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// run creates and starts the container.
func run(t testing.TB, r *Runtime, c agent.ContainerSpec) {
	t.Helper()
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatalf("create: %v", err)
	}
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatalf("start: %v", err)
	}
}

// runOutput runs the container to its end and answers its standard output and state.
func runOutput(t testing.TB, r *Runtime, c agent.ContainerSpec) (string, agent.ContainerState) {
	t.Helper()
	path, read := output(t)
	c.Stdout = path
	run(t, r, c)
	state := waitPhase(t, r, c.ID, agent.PhaseStopped)
	if err := r.Delete(t.Context(), c.ID); err != nil {
		t.Fatalf("delete: %v", err)
	}
	return read(), state
}

// staticLayer is a compressed layer of any content.
type staticLayer struct{ body []byte }

func (l staticLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.body))
	return h, err
}
func (l staticLayer) DiffID() (v1.Hash, error) { return l.Digest() }
func (l staticLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.body)), nil
}
func (l staticLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }
func (l staticLayer) Size() (int64, error)                 { return int64(len(l.body)), nil }
func (l staticLayer) MediaType() (types.MediaType, error)  { return types.DockerLayer, nil }

// tarOf archives a directory.
func tarOf(t testing.TB, dir string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// damaged changes bytes in the middle of an archive, which is in the layer.
func damaged(data []byte) []byte {
	out := bytes.Clone(data)
	for i := range 64 {
		out[len(out)/2+i] ^= 0x55
	}
	return out
}
