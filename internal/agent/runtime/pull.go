package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/failpoint"
)

// PullKind says why a pull failed.
type PullKind string

const (
	PullInvalid      PullKind = "invalid"      // the reference is malformed
	PullNotFound     PullKind = "not found"    // the registry has no such image, or none for this platform
	PullUnauthorized PullKind = "unauthorized" // the registry refuses these credentials, or wants some
	PullCorrupt      PullKind = "corrupt"      // what came is not what its digest says, or cannot be unpacked
	PullUnreachable  PullKind = "unreachable"  // the registry does not answer, or not sensibly
	PullLocal        PullKind = "local"        // this host failed: a full disk, a cancelled call
)

// PullError is a failed pull. Its text is what follows "CannotPullContainerError: ".
type PullError struct {
	Ref      string // normalized if it could be
	Kind     PullKind
	Attempts int // 0: the registry was not asked
	Err      error
}

func (e *PullError) Error() string {
	switch {
	case e.Attempts == 0:
		return e.Err.Error()
	case e.Kind == PullCorrupt || e.Kind == PullLocal:
		return fmt.Sprintf("failed to pull and unpack image %q: %v", e.Ref, e.Err)
	}
	return fmt.Sprintf("pull image manifest has been retried %d time(s): %v", e.Attempts, e.Err)
}

func (e *PullError) Unwrap() error { return e.Err }

const (
	// maxPullAttempts and retryDelay bound what a registry out of reach costs a task.
	maxPullAttempts = 3
	retryDelay      = 250 * time.Millisecond
	// parallelLayers is how many blobs of an image are fetched at a time, as in Docker.
	parallelLayers = 3
)

// Pull makes the image present and unpacked according to the policy. Errors are *PullError.
func (r *Runtime) Pull(ctx context.Context, ref string, policy agent.PullPolicy) (agent.Image, error) {
	name, err := NormalizeRef(ref)
	if err != nil {
		return agent.Image{}, &PullError{Ref: ref, Kind: PullInvalid, Err: err}
	}
	ctx = r.call(ctx)
	if policy == agent.PullOnce || policy == agent.PullPreferCached || policy != agent.PullAlways && r.imported(ctx, name) {
		if image, err := r.local(ctx, name); err == nil {
			return image, nil
		}
	}
	image, err := r.fetch(ctx, name, nil)
	if err == nil || policy != agent.PullDefault && policy != "" {
		return image, err
	}
	if image, localErr := r.local(ctx, name); localErr == nil {
		r.log.Warn("pulling failed, using the image on this host", "image", name, "error", err)
		return image, nil
	}
	return agent.Image{}, err
}

// imported tells whether the image on this host came from an archive. Its name need not lead to a
// registry, and where it does, what was brought here by hand is what is meant: asking first would cost
// each task a second on a host without a network, and elsewhere get it another image.
func (r *Runtime) imported(ctx context.Context, name string) bool {
	record, err := r.engine.images.Get(ctx, name)
	return err == nil && record.Labels[labelImported] != ""
}

// labelImported marks an image that Import stored, until a pull replaces it.
const labelImported = "berth/imported"

// PullImage fetches the image whatever is here already.
func (r *Runtime) PullImage(ctx context.Context, ref string, progress func(agent.ImageProgress)) (agent.Image, error) {
	name, err := NormalizeRef(ref)
	if err != nil {
		return agent.Image{}, &PullError{Ref: ref, Kind: PullInvalid, Err: err}
	}
	return r.fetch(r.call(ctx), name, progress)
}

// local answers the image that is on this host under the name, unpacked.
func (r *Runtime) local(ctx context.Context, name string) (agent.Image, error) {
	r.images.change.RLock()
	defer r.images.change.RUnlock()
	record, err := r.engine.images.Get(ctx, name)
	if err != nil {
		return agent.Image{}, err
	}
	return r.ready(ctx, record)
}

// ready unpacks and pins a stored image.
func (r *Runtime) ready(ctx context.Context, record images.Image) (agent.Image, error) {
	digest := record.Target.Digest.String()
	image, ok := r.images.get(digest)
	if !ok {
		var err error
		if image, err = r.unpack(ctx, record); err != nil {
			return agent.Image{}, err
		}
		if err := r.putImage(ctx, images.Image{Name: pinPrefix + digest, Target: record.Target}); err != nil {
			return agent.Image{}, err
		}
	}
	return agent.Image{
		Ref: record.Name, Digest: digest, StopSignal: image.config.StopSignal,
		ID: image.id, Volumes: slices.Sorted(maps.Keys(image.config.Volumes)),
	}, nil
}

// fetch pulls from the registry, together with whoever wants the same at this moment.
func (r *Runtime) fetch(ctx context.Context, name string, progress func(agent.ImageProgress)) (agent.Image, error) {
	image, err := r.images.pulls.do(ctx, name, progress, func(ctx context.Context, report func(agent.ImageProgress)) (agent.Image, error) {
		r.images.change.RLock()
		defer r.images.change.RUnlock()
		for attempt := 1; ; attempt++ {
			image, err := r.fetchOnce(ctx, name, report)
			if err == nil {
				return image, nil
			}
			failed := &PullError{Ref: name, Kind: classify(ctx, err), Attempts: attempt, Err: err}
			if failed.Kind != PullUnreachable || attempt == maxPullAttempts {
				return agent.Image{}, failed
			}
			select {
			case <-time.After(retryDelay << (2 * (attempt - 1))):
			case <-ctx.Done():
				return agent.Image{}, failed
			}
		}
	})
	if err != nil && ctx.Err() != nil {
		err = &PullError{Ref: name, Kind: PullLocal, Attempts: 1, Err: err}
	}
	return image, err
}

func (r *Runtime) fetchOnce(ctx context.Context, name string, report func(agent.ImageProgress)) (_ agent.Image, err error) {
	ctx, done, err := r.engine.client.WithLease(ctx)
	if err != nil {
		return agent.Image{}, fmt.Errorf("hold the image while it is pulled: %w", err)
	}
	defer done(context.WithoutCancel(ctx))

	place, err := mapRef(name, r.config.RegistryMap)
	if err != nil {
		return agent.Image{}, err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: r.registryHosts()})
	failpoint.Hit("runtime/resolve/before")
	_, descriptor, err := resolver.Resolve(ctx, place)
	failpoint.Hit("runtime/resolve/after")
	if err != nil {
		return agent.Image{}, fmt.Errorf("failed to resolve ref %s: %w", place, err)
	}
	// Nothing to fetch when the tag still means what is here, which is most pulls of most tasks.
	if _, ok := r.images.get(descriptor.Digest.String()); !ok {
		fetcher, err := resolver.Fetcher(ctx, place)
		if err != nil {
			return agent.Image{}, fmt.Errorf("failed to get a fetcher for %s: %w", place, err)
		}
		failpoint.Hit("runtime/fetch/before")
		err = r.fetchContent(ctx, fetcher, descriptor, report)
		failpoint.Hit("runtime/fetch/after")
		if err != nil {
			return agent.Image{}, err
		}
	}
	record := images.Image{Name: name, Target: descriptor}
	current, err := r.engine.images.Get(ctx, name)
	moved := err != nil || current.Target.Digest != descriptor.Digest
	report(agent.ImageProgress{Item: name, Status: "Extracting"})
	image, err := r.ready(ctx, record)
	if err != nil {
		return agent.Image{}, &unpackError{err}
	}
	if moved {
		if err := r.putImage(ctx, record); err != nil {
			return agent.Image{}, err
		}
	}
	report(agent.ImageProgress{Item: name, Status: "Pull complete"})
	return image, nil
}

// fetchContent brings the manifest, the configuration and the layers for this platform into the
// content store, which checks each against its digest.
func (r *Runtime) fetchContent(ctx context.Context, fetcher remotes.Fetcher, root ocispec.Descriptor, report func(agent.ImageProgress)) error {
	store := r.engine.content
	children := images.HandlerFunc(images.ChildrenHandler(store))
	children = images.SetChildrenLabels(store, children)
	children = images.FilterPlatforms(children, platforms.Default())
	children = images.LimitManifests(children, platforms.Default(), 1)
	reporting := remotes.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		body, err := fetcher.Fetch(ctx, d)
		if err != nil {
			return nil, err
		}
		item := shortDigest(d)
		report(agent.ImageProgress{Item: item, Status: "Downloading", Total: d.Size})
		return struct {
			io.Reader
			io.Closer
		}{&countingReader{in: body, report: func(n int64) {
			status := "Downloading"
			if n >= d.Size {
				status = "Download complete"
			}
			report(agent.ImageProgress{Item: item, Status: status, Current: n, Total: d.Size})
		}}, body}, nil
	})
	fetch := remotes.FetchHandler(store, reporting)
	checked := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		next, err := fetch(ctx, d)
		if errdefs.IsFailedPrecondition(err) {
			// The wrong bytes would be taken for the beginning of the right ones at the next try.
			err = errors.Join(err, ignoreNotFound(store.Abort(ctx, remotes.MakeRefKey(ctx, d))))
		}
		return next, err
	})
	handler := images.Handlers(checked, children)
	if err := images.Dispatch(ctx, handler, semaphore.NewWeighted(parallelLayers), root); err != nil {
		return fmt.Errorf("failed to copy: %w", err)
	}
	return nil
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func shortDigest(d ocispec.Descriptor) string {
	hex := d.Digest.Encoded()
	return hex[:min(len(hex), 12)]
}

// unpackError marks a failure after everything came with the right digest.
type unpackError struct{ err error }

func (e *unpackError) Error() string { return e.err.Error() }
func (e *unpackError) Unwrap() error { return e.err }

// classify finds out what kind of failure a pull's error is.
func classify(ctx context.Context, err error) PullKind {
	var status remoteserrors.ErrUnexpectedStatus
	switch {
	case ctx.Err() != nil, errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS):
		return PullLocal
	case errors.As(err, new(*unpackError)):
		if errdefs.IsNotFound(err) {
			return PullNotFound // no manifest for this platform
		}
		return PullCorrupt
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return PullUnauthorized
	case errors.As(err, &status):
		switch code := status.StatusCode; {
		case code == http.StatusUnauthorized || code == http.StatusForbidden:
			return PullUnauthorized
		case code == http.StatusNotFound:
			return PullNotFound
		}
		return PullUnreachable
	case errdefs.IsNotFound(err):
		return PullNotFound
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return PullUnauthorized
	case errors.As(err, new(net.Error)), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return PullUnreachable
	case errdefs.IsFailedPrecondition(err), errdefs.IsInvalidArgument(err), errdefs.IsDataLoss(err):
		return PullCorrupt
	case strings.Contains(err.Error(), "authorization failed"), strings.Contains(err.Error(), "401 Unauthorized"),
		strings.Contains(err.Error(), "403 Forbidden"):
		// containerd wraps some refusals of token servers in text alone.
		return PullUnauthorized
	}
	return PullUnreachable
}
