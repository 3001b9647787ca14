package image

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestNew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, oci := range []bool{false, true} {
		spec := Spec{Files: map[string]string{"/usr/bin/program": file}, Links: map[string]string{"/bin/p": "../usr/bin/program"}, Entrypoint: []string{"/bin/p"}, OCI: oci}
		img, err := New(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(served(t, img)); err != nil {
			t.Errorf("OCI %v: %v", oci, err)
		}
		again, err := New(spec)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := img.Digest()
		if second, _ := again.Digest(); first != second {
			t.Errorf("OCI %v: the same files have the digests %s and %s", oci, first, second)
		}
		layers, _ := img.Layers()
		r, err := layers[0].Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var names []string
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
		for _, want := range []string{"usr/", "usr/bin/", "usr/bin/program", "bin/", "bin/p"} {
			if !slices.Contains(names, want) {
				t.Errorf("no %s in %v", want, names)
			}
		}
	}
}

func TestNewWithoutTheFile(t *testing.T) {
	t.Parallel()
	if _, err := New(Spec{Files: map[string]string{"/x": "/nowhere/x"}}); err == nil {
		t.Error("a file that is not there is no error")
	}
}

// served is the image as a registry gives it out.
func served(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/image:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	out, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
