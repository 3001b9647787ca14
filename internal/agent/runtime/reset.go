package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
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
	errs = append(errs, r.cgroups.kill(r.cgroupPath()), r.cgroups.remove(ctx, r.cgroupPath()))
	return errors.Join(append(errs, unmountBelow(r.config.RunDir))...)
}

// unmountBelow unmounts what interrupted launches left mounted in the directory.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read the mounts: %w", err)
	}
	var errs []error
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], filepath.Clean(dir)+"/") {
			continue
		}
		if err := mount.UnmountAll(fields[4], 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", fields[4], err))
		}
	}
	return errors.Join(errs...)
}
