// Package image makes container images out of files, without a registry, a daemon or a Dockerfile.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec says what is in an image.
type Spec struct {
	Files      map[string]string // path in the image → file on this machine, made executable
	Links      map[string]string // path in the image → target of a symbolic link
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	StopSignal string
	// OCI makes the manifest an OCI one; the default is Docker's schema 2.
	OCI bool
}

// New makes an image of one layer for this machine's architecture. The same files always give the
// same digest.
func New(s Spec) (v1.Image, error) {
	content, err := layer(s)
	if err != nil {
		return nil, err
	}
	layerType := types.DockerLayer
	var base v1.Image = empty.Image
	if s.OCI {
		layerType = types.OCILayer
		base = mutate.ConfigMediaType(mutate.MediaType(base, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(layerType))
	if err != nil {
		return nil, fmt.Errorf("make the layer: %w", err)
	}
	img, err := mutate.AppendLayers(base, l)
	if err != nil {
		return nil, fmt.Errorf("append the layer: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the config: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config.Entrypoint, cfg.Config.Cmd = s.Entrypoint, s.Cmd
	cfg.Config.Env, cfg.Config.User, cfg.Config.StopSignal = s.Env, s.User, s.StopSignal
	return mutate.ConfigFile(img, cfg)
}

// layer is the uncompressed tar of the files, with their directories, sorted and without times.
func layer(s Spec) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{"/": true, ".": true}
	var mkdir func(dir string) error
	mkdir = func(dir string) error {
		if made[dir] {
			return nil
		}
		if err := mkdir(path.Dir(dir)); err != nil {
			return err
		}
		made[dir] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
	// What a runtime mounts over must exist even when the root file system is read-only.
	for _, dir := range []string{"/tmp", "/etc", "/proc", "/sys", "/dev"} {
		if err := mkdir(dir); err != nil {
			return nil, err
		}
	}
	for _, inside := range slices.Sorted(maps.Keys(s.Files)) {
		data, err := os.ReadFile(s.Files[inside])
		if err != nil {
			return nil, err
		}
		if err := mkdir(path.Dir(inside)); err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(inside, "/"), Mode: 0o755, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	for _, inside := range slices.Sorted(maps.Keys(s.Links)) {
		if err := mkdir(path.Dir(inside)); err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: strings.TrimPrefix(inside, "/"), Linkname: s.Links[inside], Mode: 0o777, ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
