package harness

import (
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berthhq/berth/test/image"
)

// TestImage is the test program as an image.
func TestImage(t T) v1.Image {
	t.Helper()
	return Image(t, image.Spec{
		Files:      map[string]string{"/testapp": TestApp(t)},
		Entrypoint: []string{"/testapp"},
		Env:        []string{"FROM_IMAGE=yes", "PATH=/bin:/"},
	})
}

// Busybox is Debian's busybox-static as an image, with a shell and its usual names.
func Busybox(t T) v1.Image { t.Helper(); return busyboxWith(t, nil) }

// busyboxWith is Busybox with more files.
func busyboxWith(t T, files map[string]string) v1.Image {
	t.Helper()
	const binary = "/bin/busybox"
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("busybox is missing: apt-get install busybox-static (scripts/install-deps.sh test does)")
	}
	links := map[string]string{}
	for _, name := range []string{"sh", "cat", "echo", "env", "grep", "hostname", "id", "ip", "ls", "nc", "seq", "sleep", "test", "touch", "true", "false"} {
		links["/bin/"+name] = "busybox"
	}
	all := map[string]string{"/bin/busybox": binary}
	maps.Copy(all, files)
	return Image(t, image.Spec{Files: all, Links: links, Cmd: []string{"/bin/sh"}, OCI: true})
}

// Image makes an image of a specification.
func Image(t T, s image.Spec) v1.Image {
	t.Helper()
	img, err := image.New(s)
	if err != nil {
		t.Fatalf("make an image: %v", err)
	}
	return img
}

// Registry is a container registry on loopback, in this process.
type Registry struct {
	Host   string // 127.0.0.1:port
	server *httptest.Server
}

// NewRegistry starts an empty registry.
func NewRegistry(t T) *Registry {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return &Registry{Host: strings.TrimPrefix(s.URL, "http://"), server: s}
}

// Push stores an image and answers its full name.
func (r *Registry) Push(t T, repository string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(r.Host+"/"+repository, name.Insecure)
	if err != nil {
		t.Fatalf("image name: %v", err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	return ref.String()
}

// Close stops the registry before the test ends.
func (r *Registry) Close() { r.server.Close() }

var shared struct {
	sync.Mutex
	registry         *Registry
	testapp, busybox string
}

// SharedImages names the test program's image and busybox's, which has the test program too, in a registry that lives as long as
// the test process.
func SharedImages(t T) (testapp, busybox string) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.registry == nil {
		s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
		r := &Registry{Host: strings.TrimPrefix(s.URL, "http://"), server: s}
		shared.testapp = r.Push(t, "berth/testapp:1", TestImage(t))
		shared.busybox = r.Push(t, "berth/busybox:1", busyboxWith(t, map[string]string{"/testapp": TestApp(t)}))
		shared.registry = r
	}
	return shared.testapp, shared.busybox
}

// DockerArchive writes an image as `docker save` does.
func DockerArchive(t T, dir, ref string, img v1.Image) string {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatalf("image name: %v", err)
	}
	file := filepath.Join(dir, "docker.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatalf("write a docker-archive: %v", err)
	}
	return file
}

// OCILayout writes an image as an OCI layout in a directory, with the reference as its name.
func OCILayout(t T, dir, ref string, img v1.Image) {
	t.Helper()
	p, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, "application/vnd.oci.image.index.v1+json"))
	if err == nil {
		err = p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref}))
	}
	if err != nil {
		t.Fatalf("write an OCI layout: %v", err)
	}
}
