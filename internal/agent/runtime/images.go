package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/failpoint"
)

// storedImage is what containers need of an image on this host.
type storedImage struct {
	digest string // the image's target, as in agent.Image
	id     string // of its configuration
	chain  string // the snapshot of all its layers
	config ocispec.ImageConfig

	architecture string // as GOARCH
}

// imageState is the runtime's memory of images; the truth is in containerd's store.
type imageState struct {
	mu    sync.Mutex
	known map[string]storedImage // by digest, all unpacked
	pulls flights

	// change is held for reading while an image is pulled, imported or used by a container in the
	// making, and for writing while images are removed.
	change sync.RWMutex
}

func (s *imageState) get(digest string) (storedImage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	image, ok := s.known[digest]
	return image, ok
}

func (s *imageState) put(image storedImage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]storedImage{}
	}
	s.known[image.digest] = image
}

func (s *imageState) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
}

// pinPrefix begins the names under which images are kept that a task has pulled, so that a tag that
// moves on takes nothing away from it. No registry reference looks like it.
const pinPrefix = "berth-pin/"

// pinAge is how long a pin outlives its pull without a container that refers to it.
const pinAge = time.Hour

// NormalizeRef completes an image reference as Docker does: busybox is docker.io/library/busybox:latest.
// With both a tag and a digest, the digest counts.
func NormalizeRef(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("invalid reference format: %q: %w", ref, err)
	}
	return named.String(), nil
}

// unpacked finds the image by its digest, whatever its name means by now, and makes sure that it is
// unpacked.
func (r *Runtime) unpacked(ctx context.Context, want agent.Image) (storedImage, error) {
	if image, ok := r.images.get(want.Digest); ok {
		return image, nil
	}
	found, err := r.engine.images.List(ctx, "target.digest=="+want.Digest)
	if err != nil {
		return storedImage{}, fmt.Errorf("look for the image %s: %w", want.Ref, err)
	}
	if len(found) == 0 {
		return storedImage{}, fmt.Errorf("no such image: %s@%s", want.Ref, want.Digest)
	}
	return r.unpack(ctx, found[0])
}

// unpack makes the snapshot of the image's layers, if it is not there, and reads its configuration.
func (r *Runtime) unpack(ctx context.Context, record images.Image) (storedImage, error) {
	image := containerd.NewImageWithPlatform(r.engine.client, record, platforms.Default())
	failpoint.Hit("runtime/unpack/before")
	err := image.Unpack(ctx, snapshotter)
	failpoint.Hit("runtime/unpack/after")
	if err != nil {
		return storedImage{}, fmt.Errorf("failed to extract layers of %s: %w", record.Name, err)
	}
	layers, err := image.RootFS(ctx)
	if err != nil {
		return storedImage{}, fmt.Errorf("read the layers of %s: %w", record.Name, err)
	}
	descriptor, err := image.Config(ctx)
	if err != nil {
		return storedImage{}, fmt.Errorf("read the configuration of %s: %w", record.Name, err)
	}
	data, err := content.ReadBlob(ctx, r.engine.content, descriptor)
	if err != nil {
		return storedImage{}, fmt.Errorf("read the configuration of %s: %w", record.Name, err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return storedImage{}, fmt.Errorf("read the configuration of %s: %w", record.Name, err)
	}
	stored := storedImage{
		digest: record.Target.Digest.String(),
		id:     descriptor.Digest.String(),
		chain:  identity.ChainID(layers).String(),
		config: config.Config,

		architecture: config.Architecture,
	}
	r.images.put(stored)
	return stored, nil
}

// Import stores the images of an archive written by docker save, or of an OCI layout, as a tar
// stream, plain or compressed by gzip or zstd, and answers their names.
func (r *Runtime) Import(ctx context.Context, in io.Reader, progress func(agent.ImageProgress)) ([]string, error) {
	if progress == nil {
		progress = func(agent.ImageProgress) {}
	}
	r.images.change.RLock()
	defer r.images.change.RUnlock()
	ctx = r.call(ctx)
	ctx, done, err := r.engine.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("hold the image while it is imported: %w", err)
	}
	defer done(context.WithoutCancel(ctx))

	counted := &countingReader{in: in, report: func(n int64) {
		progress(agent.ImageProgress{Item: "archive", Status: "Reading", Current: n})
	}}
	plain, err := compression.DecompressStream(counted)
	if err != nil {
		return nil, fmt.Errorf("read the image archive: %w", err)
	}
	defer plain.Close()
	failpoint.Hit("runtime/import/before")
	records, err := r.engine.client.Import(ctx, plain, containerd.WithImportPlatform(platforms.Default()))
	failpoint.Hit("runtime/import/after")
	if err != nil {
		return nil, fmt.Errorf("read the image archive: %w", err)
	}
	if len(records) == 0 {
		return nil, errors.New("the archive names no image: save it by its name and tag")
	}
	var names []string
	for _, record := range records {
		name, err := r.adopt(ctx, record, progress)
		if err != nil {
			// A name for what cannot run would only hide the error until a task wants it.
			for _, record := range records {
				r.engine.images.Delete(context.WithoutCancel(ctx), record.Name)
			}
			return nil, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// adopt unpacks an imported image and gives it its full name.
func (r *Runtime) adopt(ctx context.Context, record images.Image, progress func(agent.ImageProgress)) (string, error) {
	name, err := NormalizeRef(record.Name)
	if err != nil {
		return "", err
	}
	progress(agent.ImageProgress{Item: name, Status: "Extracting"})
	if _, err := r.unpack(ctx, record); err != nil {
		return "", err
	}
	if err := r.putImage(ctx, images.Image{Name: name, Target: record.Target, Labels: map[string]string{labelImported: "true"}}); err != nil {
		return "", err
	}
	if name != record.Name {
		if err := r.engine.images.Delete(ctx, record.Name); err != nil && !errdefs.IsNotFound(err) {
			return "", fmt.Errorf("rename the image %s: %w", record.Name, err)
		}
	}
	progress(agent.ImageProgress{Item: name, Status: "Import complete"})
	return name, nil
}

// putImage creates the name or moves it.
func (r *Runtime) putImage(ctx context.Context, record images.Image) error {
	failpoint.Hit("runtime/image/before")
	_, err := r.engine.images.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		_, err = r.engine.images.Update(ctx, record, "target", "labels")
	}
	failpoint.Hit("runtime/image/after")
	if err != nil {
		return fmt.Errorf("record the image %s: %w", record.Name, err)
	}
	return nil
}

// ListImages lists the images by name.
func (r *Runtime) ListImages(ctx context.Context) ([]agent.ImageInfo, error) {
	ctx = r.call(ctx)
	records, err := r.engine.images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	out := []agent.ImageInfo{}
	for _, record := range records {
		if strings.HasPrefix(record.Name, pinPrefix) {
			continue
		}
		size, err := record.Size(ctx, r.engine.content, platforms.Default())
		if err != nil {
			size = 0 // its content is incomplete; it is there all the same
		}
		out = append(out, agent.ImageInfo{
			Ref: record.Name, Digest: record.Target.Digest.String(), SizeBytes: size, CreatedAt: record.CreatedAt,
		})
	}
	slices.SortFunc(out, func(a, b agent.ImageInfo) int { return strings.Compare(a.Ref, b.Ref) })
	return out, nil
}

// ImageInUseError says that an image is not removed because a container refers to it.
type ImageInUseError struct {
	Ref, ContainerID string
}

func (e *ImageInUseError) Error() string {
	return fmt.Sprintf("conflict: unable to remove repository reference %q: container %s is using its referenced image",
		e.Ref, e.ContainerID)
}

// RemoveImage removes the name, and the content that no other name and no container needs. An image
// that a container uses is an *ImageInUseError.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	name, err := NormalizeRef(ref)
	if err != nil {
		return err
	}
	r.images.change.Lock()
	defer r.images.change.Unlock()
	ctx = r.call(ctx)
	record, err := r.engine.images.Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("no such image: %s: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("look for the image %s: %w", name, err)
	}
	digest := record.Target.Digest.String()
	users, err := r.engine.containers.List(ctx, "labels."+`"`+labelDigest+`"==`+digest)
	if err != nil {
		return fmt.Errorf("look for containers of the image %s: %w", name, err)
	}
	for _, user := range users {
		if user.Image == name {
			return &ImageInUseError{Ref: name, ContainerID: user.ID}
		}
	}
	failpoint.Hit("runtime/unimage/before")
	err = r.engine.images.Delete(ctx, name)
	failpoint.Hit("runtime/unimage/after")
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the image %s: %w", name, err)
	}
	return r.collect(ctx, true)
}

// collect removes pins that nothing needs and then the content that no name refers to. Removing an
// image by hand is a wish to have the space, so it takes fresh pins too.
func (r *Runtime) collect(ctx context.Context, fresh bool) error {
	records, err := r.engine.images.List(ctx)
	if err != nil {
		return fmt.Errorf("list the images: %w", err)
	}
	needed := map[string]bool{}
	for _, record := range records {
		if !strings.HasPrefix(record.Name, pinPrefix) {
			needed[record.Target.Digest.String()] = true
		}
	}
	containers, err := r.engine.containers.List(ctx)
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	for _, c := range containers {
		needed[c.Labels[labelDigest]] = true
	}
	removed := fresh
	for _, record := range records {
		if !strings.HasPrefix(record.Name, pinPrefix) || needed[record.Target.Digest.String()] {
			continue
		}
		if !fresh && time.Since(record.UpdatedAt) < pinAge {
			continue
		}
		if err := r.engine.images.Delete(ctx, record.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove the image %s: %w", record.Name, err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	r.images.forget()
	if _, err := r.engine.collector.ScheduleAndWait(ctx); err != nil {
		return fmt.Errorf("collect unused image content: %w", err)
	}
	return nil
}

// countingReader reports how much was read, at most once per reportEvery bytes.
type countingReader struct {
	in          io.Reader
	n, reported int64
	report      func(int64)
}

const reportEvery = 256 << 10

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	if c.n-c.reported >= reportEvery || (err != nil && c.n != c.reported) {
		c.reported = c.n
		c.report(c.n)
	}
	return n, err
}
