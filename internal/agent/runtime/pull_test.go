package runtime

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/agent"
)

// testRegistry serves images on loopback. intercept, if set, may answer a request itself.
type testRegistry struct {
	host      string
	requests  atomic.Int64
	blobs     atomic.Int64 // blobs asked for
	intercept atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newRegistry(t testing.TB) *testRegistry {
	t.Helper()
	reg := &testRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		reg.requests.Add(1)
		if strings.Contains(req.URL.Path, "/blobs/sha256") && req.Method == http.MethodGet {
			reg.blobs.Add(1)
		}
		if f := reg.intercept.Load(); f != nil && (*f)(w, req) {
			return
		}
		inner.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	reg.host = strings.TrimPrefix(server.URL, "http://")
	return reg
}

func (reg *testRegistry) answer(f func(http.ResponseWriter, *http.Request) bool) {
	reg.intercept.Store(&f)
}

func (reg *testRegistry) push(t testing.TB, ref string, image v1.Image) string {
	t.Helper()
	tag, err := name.ParseReference(reg.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func pullKind(err error) PullKind {
	var failed *PullError
	if !errors.As(err, &failed) {
		return ""
	}
	return failed.Kind
}

func TestPullPolicies(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	reg := newRegistry(t)
	first := reg.push(t, "app:v1", busyboxImage(t))
	ref := reg.host + "/app:v1"

	pull := func(policy agent.PullPolicy) agent.Image {
		t.Helper()
		image, err := r.Pull(t.Context(), ref, policy)
		if err != nil {
			t.Fatalf("%s: %v", policy, err)
		}
		return image
	}
	if image := pull(agent.PullAlways); image.Digest != first || image.Ref != ref || image.StopSignal != "SIGINT" {
		t.Errorf("image is %+v", image)
	}
	old := testContainer(pull(agent.PullDefault), "old", "cat /version || echo old")

	second := reg.push(t, "app:v1", busyboxImage(t, file{name: "version", body: "second\n", mode: 0o644}))
	for policy, want := range map[agent.PullPolicy]string{agent.PullOnce: first, agent.PullPreferCached: first} {
		if image := pull(policy); image.Digest != want {
			t.Errorf("%s: digest is %s, not %s", policy, image.Digest, want)
		}
	}
	if image := pull(agent.PullDefault); image.Digest != second {
		t.Errorf("default does not see the new image")
	}
	// The tag has moved, but a container runs what was pulled for it.
	if got, _ := runOutput(t, r, old); !strings.Contains(got, "old") {
		t.Errorf("the pinned container says %q", got)
	}
	if got, _ := runOutput(t, r, testContainer(pull(agent.PullAlways), "new", "cat /version")); got != "second\n" {
		t.Errorf("the new container says %q", got)
	}

	reg.answer(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return true
	})
	if image := pull(agent.PullDefault); image.Digest != second {
		t.Errorf("without the registry the default is %s", image.Digest)
	}
	if _, err := r.Pull(t.Context(), ref, agent.PullAlways); pullKind(err) != PullUnreachable {
		t.Errorf("always without the registry: %v", err)
	}
}

func TestPullErrors(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	reg := newRegistry(t)
	good := busyboxImage(t)
	digest := reg.push(t, "app:v1", good)
	layers, err := good.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layerDigest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	noTar, err := mutate.AppendLayers(empty.Image, rawLayer(t, "this is no tar"))
	if err != nil {
		t.Fatal(err)
	}
	reg.push(t, "notar:v1", noTar)
	foreign, err := mutate.ConfigFile(good, func() *v1.ConfigFile {
		c, _ := good.ConfigFile()
		c = c.DeepCopy()
		c.Architecture = "s390x"
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	})
	tag, _ := name.ParseReference(reg.host + "/foreign:v1")
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name, ref string
		answer    func(http.ResponseWriter, *http.Request) bool
		kind      PullKind
		text      string
	}{
		{"malformed", "UPPER:x:y", nil, PullInvalid, "invalid reference format"},
		{"no tag", reg.host + "/app:v2", nil, PullNotFound,
			"pull image manifest has been retried 1 time(s): failed to resolve ref " + reg.host + "/app:v2"},
		{"no such digest", reg.host + "/app@sha256:" + strings.Repeat("1", 64), nil, PullNotFound, "not found"},
		{"nobody there", "127.0.0.1:1/app:v1", nil, PullUnreachable, "has been retried 3 time(s)"},
		{"no platform", reg.host + "/foreign:v1", nil, PullNotFound, "no match for platform"},
		{"no tar", reg.host + "/notar:v1", nil, PullCorrupt, "failed to extract"},
		{"unauthorized", reg.host + "/app:v1", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, PullUnauthorized, ""},
		{"forbidden", reg.host + "/app:v1", func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, PullUnauthorized, "403 Forbidden"},
		{"damaged layer", reg.host + "/app:v1", func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, layerDigest.String()) || req.Method != http.MethodGet {
				return false
			}
			size, _ := layers[0].Size()
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(bytes.Repeat([]byte("x"), int(size)))
			return true
		}, PullCorrupt, layerDigest.String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg.intercept.Store(nil)
			if tt.answer != nil {
				reg.answer(tt.answer)
			}
			_, err := r.Pull(t.Context(), tt.ref, agent.PullDefault)
			if pullKind(err) != tt.kind || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Errorf("error is %q %v", pullKind(err), err)
			}
		})
	}
	// Nothing damaged was kept.
	reg.intercept.Store(nil)
	if image, err := r.Pull(t.Context(), reg.host+"/app:v1", agent.PullDefault); err != nil || image.Digest != digest {
		t.Errorf("afterwards it is %+v, %v", image, err)
	}
}

func rawLayer(t testing.TB, body string) v1.Layer {
	t.Helper()
	return staticLayer{body: gzipped(t, []byte(body))}
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestPullTogether(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	reg := newRegistry(t)
	reg.push(t, "app:v1", busyboxImage(t))
	reg.blobs.Store(0)
	var wg sync.WaitGroup
	var progress atomic.Int64
	for range 8 {
		wg.Go(func() {
			if _, err := r.PullImage(t.Context(), reg.host+"/app:v1", func(agent.ImageProgress) { progress.Add(1) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := reg.blobs.Load(); n > 2 {
		t.Errorf("%d blobs were fetched for one image with a configuration and a layer", n)
	}
	if progress.Load() == 0 {
		t.Error("there was no progress")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Pull(ctx, reg.host+"/app:v1", agent.PullAlways); pullKind(err) != PullLocal {
		t.Errorf("a cancelled pull: %v", err)
	}
}

func TestCredentialsAndMap(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	reg := newRegistry(t)
	digest := reg.push(t, "mirror/team/app:v1", busyboxImage(t))
	reg.answer(func(w http.ResponseWriter, req *http.Request) bool {
		if user, password, _ := req.BasicAuth(); user == "me" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	dir := t.TempDir()
	h.config.DockerConfig = filepath.Join(dir, "config.json")
	h.config.RegistryMap = map[string]string{"*.dkr.ecr.*.amazonaws.com": reg.host + "/mirror"}
	r := h.openForTest()
	const ref = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1"
	if _, err := r.Pull(t.Context(), ref, agent.PullDefault); pullKind(err) != PullUnauthorized {
		t.Errorf("without credentials: %v", err)
	}
	if err := os.WriteFile(h.config.DockerConfig, fmt.Appendf(nil, `{"auths":{%q:{"auth":"bWU6c2VjcmV0"}}}`, reg.host), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := r.Pull(t.Context(), ref, agent.PullDefault)
	if err != nil || image.Ref != ref || image.Digest != digest {
		t.Errorf("image is %+v, %v", image, err)
	}
	if strings.Contains(fmt.Sprint(err), "secret") {
		t.Error("the error tells the password")
	}
}

func TestImportFormats(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image := busyboxImage(t)
	docker := archive(t, "example.com/team/app:v2", image)
	ociDir := t.TempDir()
	path, err := layout.Write(ociDir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "oci-app:v3"})); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		data []byte
		want string // a name, or a part of the error after "!"
	}{
		{"damaged", damaged(docker), "!"}, // before its layers are here unharmed
		{"docker", docker, "example.com/team/app:v2"},
		{"docker compressed", gzipped(t, docker), "example.com/team/app:v2"},
		{"oci", tarOf(t, ociDir), "docker.io/library/oci-app:v3"},
		{"cut short", docker[:len(docker)/2], "!read the image archive"},
		{"nothing", nil, "!read the image archive"},
		{"text", []byte(strings.Repeat("text", 1000)), "!read the image archive"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			names, err := r.Import(t.Context(), bytes.NewReader(tt.data), func(agent.ImageProgress) {})
			if text, ok := strings.CutPrefix(tt.want, "!"); ok {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("names are %v, %v", names, err)
				}
				return
			}
			if err != nil || len(names) != 1 || names[0] != tt.want {
				t.Errorf("names are %v, %v", names, err)
			}
		})
	}
	found, err := r.ListImages(t.Context())
	if err != nil || len(found) != 2 || found[0].Ref != "docker.io/library/oci-app:v3" || found[0].SizeBytes == 0 {
		t.Errorf("images are %+v, %v", found, err)
	}
}

func TestRemoveImage(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	image := importBusybox(t, r)
	run(t, r, testContainer(image, "c1", "exec sleep 1000"))
	var used *ImageInUseError
	if err := r.RemoveImage(t.Context(), "busybox"); !errors.As(err, &used) || used.ContainerID != "c1" {
		t.Errorf("removing a used image: %v", err)
	}
	if err := r.Delete(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveImage(t.Context(), "busybox"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := r.RemoveImage(t.Context(), "busybox"); err == nil {
		t.Error("it can be removed twice")
	}
	if err := r.Create(t.Context(), testContainer(image, "c2", "true")); err == nil || !strings.Contains(err.Error(), "no such image") {
		t.Errorf("a container of a removed image: %v", err)
	}
	blobs, err := filepath.Glob(filepath.Join(h.config.Root, "io.containerd.content.v1.content/blobs/sha256/*"))
	if err != nil || len(blobs) != 0 {
		t.Errorf("blobs %v are left, %v", blobs, err)
	}
}

func TestMapRef(t *testing.T) {
	t.Parallel()
	redirects := map[string]string{
		"*.dkr.ecr.*.amazonaws.com":      "localhost:5000",
		"*.dkr.ecr.*.amazonaws.com/team": "localhost:5001/t/",
		"docker.io/library":              "mirror.example.com/hub",
		"public.ecr.aws/*/special":       "special.example.com/x",
	}
	d := "@sha256:" + strings.Repeat("a", 64)
	for name, want := range map[string]string{
		"docker.io/library/busybox:latest":              "mirror.example.com/hub/busybox:latest",
		"docker.io/team/busybox:latest":                 "docker.io/team/busybox:latest",
		"1.dkr.ecr.eu-west-1.amazonaws.com/app:v1":      "localhost:5000/app:v1",
		"1.dkr.ecr.eu-west-1.amazonaws.com/team/a/b:v1": "localhost:5001/t/a/b:v1",
		"1.dkr.ecr.eu-west-1.amazonaws.com/teams/a:v1":  "localhost:5000/teams/a:v1",
		"1.dkr.ecr.eu-west-1.amazonaws.com/team/a" + d:  "localhost:5001/t/a" + d,
		"public.ecr.aws/any/special:v1":                 "special.example.com/x:v1",
		"public.ecr.aws/any/other:v1":                   "public.ecr.aws/any/other:v1",
	} {
		if got, err := mapRef(name, redirects); err != nil || got != want {
			t.Errorf("%s goes to %s, %v, not %s", name, got, err, want)
		}
	}
}

// Whatever is mapped, what comes out is a reference, and without a match the name itself.
func TestMapRefProperties(t *testing.T) {
	t.Parallel()
	part := rapid.StringMatching(`[a-z0-9]{1,6}`)
	rapid.Check(t, func(t *rapid.T) {
		name := part.Draw(t, "host") + ".example.com/" + part.Draw(t, "repository") + ":" + part.Draw(t, "tag")
		redirects := rapid.MapOf(rapid.StringMatching(`[a-z0-9*]{1,6}\.example\.com(/[a-z*]{1,3})?`),
			rapid.StringMatching(`[a-z]{1,5}\.test(/[a-z]{1,4})?`)).Draw(t, "map")
		got, err := mapRef(name, redirects)
		if err != nil {
			// A whole name mapped to a bare host leaves no repository.
			return
		}
		if again, err := NormalizeRef(got); err != nil || again != got {
			t.Fatalf("%s goes to %s, which is not normal: %s, %v", name, got, again, err)
		}
		if len(redirects) == 0 && got != name {
			t.Fatalf("%s goes to %s by no map", name, got)
		}
	})
}
