package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
)

// Reset kills and removes every container of the instance with its cgroups and mounts, and every
// image. It goes on after failures and answers them all. The directories themselves are the caller's.
func (r *Runtime) Reset(ctx context.Context) error {
	ctx = r.call(ctx)
	records, err := r.engine.containers.List(ctx)
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	failures := make([]error, len(records))
	var group errgroup.Group
	group.SetLimit(8)
	for i, record := range records {
		group.Go(func() error {
			failures[i] = r.Delete(ctx, record.ID)
			return nil
		})
	}
	group.Wait()
	errs := failures

	r.images.change.Lock()
	defer r.images.change.Unlock()
	found, err := r.engine.images.List(ctx)
	errs = append(errs, err)
	for _, image := range found {
		if err := r.engine.images.Delete(ctx, image.Name, images.SynchronousDelete()); !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, r.collect(ctx, true))
	errs = append(errs, r.endAllShims(ctx))
	errs = append(errs, r.unshareAll(ctx))
	errs = append(errs, r.cgroups.kill(r.cgroupPath()), r.cgroups.remove(ctx, r.cgroupPath()))
	errs = append(errs, unmountBelow(r.config.RunDir))
	return errors.Join(errs...)
}
