package agent

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// The types of a task's volumes.
const (
	volumeHost   = "HOST"
	volumeTask   = "TASK"
	volumeShared = "SHARED"
)

// containerMounts are the volumes of container i: those of the containers it takes volumes from, its own
// mount points, and a volume of its own for each path for which its image wants one and that none of the
// others covers, whose source is yet to be provided.
func containerMounts(t *dispatchpb.Task, i int, images []*Image, dirs map[string]string) ([]Mount, error) {
	var mounts []Mount
	c := t.Containers[i]
	for _, from := range c.VolumesFrom {
		k := slices.IndexFunc(t.Containers, func(c *dispatchpb.Container) bool { return c.Name == from.Container })
		if k < 0 {
			return nil, fmt.Errorf("volumes from %q: the task has no such container", from.Container)
		}
		theirs, err := containerMounts(t, k, images, dirs) // this ends: the dependencies have no circle
		if err != nil {
			return nil, err
		}
		for k := range theirs {
			theirs[k].ReadOnly = theirs[k].ReadOnly || from.ReadOnly
		}
		mounts = mergeMounts(mounts, theirs)
	}
	var own []Mount
	for _, p := range c.Mounts {
		dir := dirs[p.Volume]
		if dir == "" {
			return nil, fmt.Errorf("mount %s: the task has no volume %q", p.Target, p.Volume)
		}
		own = append(own, Mount{Source: dir, Target: p.Target, ReadOnly: p.ReadOnly, Fill: fills(t, p.Volume)})
	}
	mounts = mergeMounts(mounts, own)
	if images[i] == nil {
		return mounts, nil
	}
	for n, target := range images[i].Volumes {
		if !covers(mounts, target) {
			mounts = append(mounts, Mount{Source: unprovided + imageVolume(t, i, n), Target: target, Fill: true})
		}
	}
	return mounts, nil
}

// fills says whether a volume, while it is empty, gets what the image has in its place. Docker does that
// for the volumes it manages itself.
func fills(t *dispatchpb.Task, name string) bool {
	for _, v := range t.Volumes {
		if v.Name == name {
			return v.Type == volumeTask || v.Type == volumeShared || v.Type == volumeHost && v.HostPath == ""
		}
	}
	return false
}

// mergeMounts adds mounts to others whose targets they take over. Parents come before what is mounted
// below them.
func mergeMounts(mounts, over []Mount) []Mount {
	out := make([]Mount, 0, len(mounts)+len(over))
	for _, m := range mounts {
		if !covers(over, m.Target) {
			out = append(out, m)
		}
	}
	out = append(out, over...)
	depth := func(m Mount) int { return strings.Count(path.Clean(m.Target), "/") }
	slices.SortStableFunc(out, func(a, b Mount) int { return depth(a) - depth(b) })
	return out
}

// covers says whether one of the mounts is at target.
func covers(mounts []Mount, target string) bool {
	return slices.ContainsFunc(mounts, func(m Mount) bool { return path.Clean(m.Target) == path.Clean(target) })
}

// unprovided marks, instead of a source, the name of a volume that is yet to be provided.
const unprovided = "~"

// imageVolume names the volume for the n-th path for which the image of container i wants one.
func imageVolume(t *dispatchpb.Task, i, n int) string {
	name := fmt.Sprintf("image-volume-%d-%d", i, n)
	for slices.ContainsFunc(t.Volumes, func(v *dispatchpb.Volume) bool { return v.Name == name }) {
		name += "-"
	}
	return name
}

// provideImageVolumes has the volumes made that images want, as volumes of the task's own.
func (a *Agent) provideImageVolumes(ctx context.Context, t *dispatchpb.Task, mounts []Mount) ([]Mount, error) {
	var wanted []*dispatchpb.Volume
	for _, m := range mounts {
		if name, ok := strings.CutPrefix(m.Source, unprovided); ok {
			wanted = append(wanted, &dispatchpb.Volume{Name: name, Type: volumeTask})
		}
	}
	if len(wanted) == 0 {
		return mounts, nil
	}
	with := cloneTask(t)
	with.Volumes = wanted
	dirs, err := a.cfg.Volumes.Provide(ctx, with)
	if err != nil {
		return nil, fmt.Errorf("volumes of the image: %w", err)
	}
	out := slices.Clone(mounts)
	for k := range out {
		if name, ok := strings.CutPrefix(out[k].Source, unprovided); ok {
			out[k].Source = dirs[name]
		}
	}
	return out, nil
}
