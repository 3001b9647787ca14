package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	gorunc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// leftBundle is what an earlier process left of a container in the run directory. It is read before
// containerd starts, which removes the bundles whose shim is dead and keeps nothing of them.
type leftBundle struct {
	created bool // runc had made the container
	running bool // its process is there
	exit    *exit
}

func bundlesDir(runDir string) string {
	return filepath.Join(runDir, "io.containerd.runtime.v2.task", namespace)
}

func readBundles(runDir string) (map[string]leftBundle, error) {
	dir := bundlesDir(runDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the bundles: %w", err)
	}
	out := map[string]leftBundle{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			// containerd hides a bundle before it removes it, and does not come back to one it was
			// removing when it died.
			if err := removeHidden(path); err != nil {
				return nil, err
			}
			continue
		}
		var b leftBundle
		if pid, err := gorunc.ReadPidFile(filepath.Join(path, "init.pid")); err == nil {
			b.created = true
			b.running = isRunning(pid)
		}
		if e, err := runc.ReadExitStatus(path); err == nil {
			b.created, b.exit = true, &exit{code: e.Status, at: e.Timestamp}
		}
		out[e.Name()] = b
	}
	return out, nil
}

// removeHidden removes a bundle whose container is gone.
func removeHidden(path string) error {
	if err := mount.UnmountAll(filepath.Join(path, "rootfs"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unmount what is left of a bundle: %w", err)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove what is left of a bundle: %w", err)
	}
	return nil
}

// isRunning tells whether the process is there and not a zombie.
func isRunning(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// createdOf names the containers that runc had made.
func createdOf(left map[string]leftBundle) []string {
	var out []string
	for id, b := range left {
		if b.created {
			out = append(out, id)
		}
	}
	return out
}

// recover makes whole what an earlier process left: it records the exits of containers whose shim was
// lost, and removes what interrupted calls left and what nothing refers to.
func (r *Runtime) recover(ctx context.Context, left map[string]leftBundle) error {
	records, err := r.engine.containers.List(ctx)
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	known := map[string]bool{}
	keep := map[string]bool{filepath.Base(r.programs.dir): true}
	for _, record := range records {
		present, err := r.recoverContainer(ctx, record, left[record.ID])
		if err != nil {
			// One container's trouble must not keep the host down; its Inspect will tell it again.
			r.log.Warn("recovering a container", "container", record.ID, "error", err)
		}
		if present || err != nil {
			known[record.ID] = true
			keep[filepath.Base(filepath.Dir(record.Runtime.Name))] = true
		}
	}
	var stray []string
	err = r.engine.snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive && info.Labels[labelRoot] != "" && !known[info.Name] {
			stray = append(stray, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the file systems: %w", err)
	}
	for _, id := range stray {
		if err := r.removeSnapshot(ctx, id); err != nil {
			return err
		}
	}
	if err := r.collect(ctx, false); err != nil {
		return err
	}
	return removeOldPrograms(r.config.RuntimeDir, keep)
}

// recoverContainer answers whether the container is still there afterwards.
func (r *Runtime) recoverContainer(ctx context.Context, record containerRecord, left leftBundle) (bool, error) {
	state, err := r.state(ctx, record)
	if err != nil {
		return true, err
	}
	if !state.lost {
		r.noteCreated(record.ID)
		if state.Phase == agent.PhaseStopped {
			if err := r.cgroups.killLeft(r.cgroupPath(record.Labels[labelTask], record.ID)); err != nil {
				return true, err
			}
		}
		return true, r.recoverExecs(ctx, record)
	}
	// No shim that is known watches its processes any more, so they are nobody's.
	if task := record.Labels[labelTask]; task != "" {
		unlock := r.shims.lock(task)
		err := r.endLostShim(ctx, record.ID, task)
		unlock()
		if err != nil {
			return true, err
		}
	}
	if err := r.cgroups.kill(r.cgroupPath(record.Labels[labelTask], record.ID)); err != nil {
		return true, err
	}
	if !state.unfinished {
		return true, nil
	}
	if !left.created {
		return false, r.discard(ctx, record.ID, record.Labels[labelTask])
	}
	e := exit{code: -1}
	switch {
	case left.exit != nil:
		e = *left.exit
	case left.running:
		e = exit{code: 128 + int(unix.SIGKILL), at: time.Now()}
	}
	return true, r.recordExit(ctx, record, e.code, e.at)
}
