package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot      = "/sys/fs/cgroup"
	cpuPeriodMicros = 100_000
	// minQuotaMicros is the least the kernel accepts (kernel/sched/core.c).
	minQuotaMicros = 1000
)

// cgroups is this host's control groups: version 2's one tree, or version 1's tree a controller, with
// or without a version 2 tree beside it that has no controllers worth the name.
type cgroups struct {
	unified string            // mount point of version 2's tree, if it is the one in use
	v1      map[string]string // controller → mount point
}

func detectCgroups() (cgroups, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return cgroups{}, fmt.Errorf("look at %s: %w", cgroupRoot, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return cgroups{unified: cgroupRoot}, nil
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}, fmt.Errorf("read the mounts: %w", err)
	}
	v1 := cgroupMounts(data)
	if len(v1) == 0 {
		return cgroups{}, fmt.Errorf("no cgroup file system is mounted at %s", cgroupRoot)
	}
	return cgroups{v1: v1}, nil
}

// cgroupMounts answers where each version 1 controller is mounted, from /proc/self/mountinfo.
func cgroupMounts(mountinfo []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(mountinfo)) {
		// 30 23 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
		left, right, ok := strings.Cut(line, " - ")
		fields, super := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(super) < 3 || super[0] != "cgroup" {
			continue
		}
		for option := range strings.SplitSeq(super[2], ",") {
			switch {
			case option == "rw" || option == "ro" || option == "none" || option == "xattr":
			case strings.Contains(option, "="): // name=systemd, release_agent=…
			default:
				if _, ok := out[option]; !ok {
					out[option] = fields[4]
				}
			}
		}
	}
	return out
}

// limitedControllers are those that tasks' limits need.
var limitedControllers = []string{"cpu", "memory", "pids"}

// prepare makes the cgroup at path with hard limits on all in it; 0 is no limit.
func (c cgroups) prepare(path string, cpuUnits, memoryMiB int64) error {
	quota := cpuUnits * cpuPeriodMicros / 1024
	if cpuUnits > 0 {
		quota = max(quota, minQuotaMicros)
	}
	if c.unified != "" {
		return c.prepareUnified(path, quota, memoryMiB<<20)
	}
	for _, controller := range limitedControllers {
		root, ok := c.v1[controller]
		if !ok {
			return fmt.Errorf("the cgroup controller %s is not there", controller)
		}
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			return fmt.Errorf("make the task's cgroup: %w", err)
		}
	}
	if quota == 0 {
		quota = -1
	}
	limit := memoryMiB << 20
	if limit == 0 {
		limit = -1
	}
	cpu, memory := filepath.Join(c.v1["cpu"], path), filepath.Join(c.v1["memory"], path)
	return errors.Join(
		writeCgroup(cpu, "cpu.cfs_period_us", strconv.Itoa(cpuPeriodMicros)),
		writeCgroup(cpu, "cpu.cfs_quota_us", strconv.FormatInt(quota, 10)),
		writeCgroup(memory, "memory.limit_in_bytes", strconv.FormatInt(limit, 10)),
	)
}

func (c cgroups) prepareUnified(path string, quota, limit int64) error {
	dir := c.unified
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		// Controllers reach a cgroup's children only when each ancestor hands them down.
		if err := delegate(dir); err != nil {
			return err
		}
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the task's cgroup: %w", err)
		}
	}
	if err := delegate(dir); err != nil {
		return err
	}
	cpu, memory := "max", "max"
	if quota != 0 {
		cpu = strconv.FormatInt(quota, 10)
	}
	if limit != 0 {
		memory = strconv.FormatInt(limit, 10)
	}
	return errors.Join(
		writeCgroup(dir, "cpu.max", cpu+" "+strconv.Itoa(cpuPeriodMicros)),
		writeCgroup(dir, "memory.max", memory),
	)
}

// delegate enables the controllers that dir has for its children.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the cgroup's controllers: %w", err)
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("read the cgroup's controllers: %w", err)
	}
	on := strings.Fields(string(enabled))
	for _, controller := range strings.Fields(string(have)) {
		if slices.Contains(on, controller) {
			continue
		}
		// One at a time: a controller that refuses must not take the others along.
		err := writeCgroup(dir, "cgroup.subtree_control", "+"+controller)
		if err != nil && slices.Contains(limitedControllers, controller) {
			return err
		}
	}
	return nil
}

func writeCgroup(dir, file, value string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", file, value, err)
	}
	return nil
}

// trees are the mount points of all hierarchies in which runc may have made a container's cgroup.
func (c cgroups) trees() []string {
	if c.unified != "" {
		return []string{c.unified}
	}
	out := []string{}
	for _, root := range c.v1 {
		if !slices.Contains(out, root) {
			out = append(out, root)
		}
	}
	// runc also makes it in named hierarchies and in the version 2 tree of a hybrid host.
	for _, extra := range []string{"systemd", "unified"} {
		dir := filepath.Join(cgroupRoot, extra)
		if info, err := os.Stat(dir); err == nil && info.IsDir() && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// remove deletes the cgroup at path with those below it. Processes that are just exiting keep it
// busy; it waits for them until ctx ends, at most a second.
func (c cgroups) remove(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var errs []error
	for _, root := range c.trees() {
		dir := filepath.Join(root, path)
		for wait := time.Millisecond; ; wait *= 2 {
			err := removeCgroup(dir)
			if err == nil {
				break
			}
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
			}
			errs = append(errs, fmt.Errorf("remove the cgroup %s: %w", dir, err))
			break
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes a directory of cgroups, children first; only directories can be removed.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// oomKills answers how many processes of the cgroup the kernel has killed for want of memory; 0 when
// the cgroup is gone.
func (c cgroups) oomKills(path string) int64 {
	file := filepath.Join(c.v1["memory"], path, "memory.oom_control")
	if c.unified != "" {
		file = filepath.Join(c.unified, path, "memory.events")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return parseOOMKills(data)
}

// parseOOMKills reads the line "oom_kill N" that both versions have.
func parseOOMKills(data []byte) int64 {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return max(n, 0)
		}
	}
	return 0
}

// kill sends SIGKILL to every process in the cgroup and those below it, if it exists.
func (c cgroups) kill(path string) error {
	for _, root := range c.trees() {
		pids, err := processesBelow(filepath.Join(root, path))
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// killLeft does it in one tree, for a cgroup that should be empty.
func (c cgroups) killLeft(path string) error {
	pids, err := c.processes(path)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

// processes answers the processes in the cgroup and those below it; none when it is gone.
func (c cgroups) processes(path string) ([]int, error) {
	root := c.unified
	if root == "" {
		root = c.v1["pids"]
	}
	return processesBelow(filepath.Join(root, path))
}

func processesBelow(dir string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(dir, func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return skipGone(err)
		}
		f, err := os.Open(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return skipGone(err)
		}
		defer f.Close()
		// A failing read is a cgroup that was removed, or a threaded one, whose processes count above it.
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// 0 stands for a process of another PID namespace.
			if pid, err := strconv.Atoi(lines.Text()); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the cgroup's processes: %w", err)
	}
	return out, nil
}

// skipGone ignores that a cgroup was removed while it was looked at.
func skipGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// swap tells whether the kernel limits swap by cgroup, and whether it lets a cgroup choose how eagerly
// memory is swapped.
func (c cgroups) swap() (limit, swappiness bool) {
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	if c.unified == "" {
		root := c.v1["memory"]
		return exists(filepath.Join(root, "memory.memsw.limit_in_bytes")), exists(filepath.Join(root, "memory.swappiness"))
	}
	// The root of version 2's tree has no limits; any other cgroup with the controller has the file. On a
	// host without any yet, the kernel has it if it knows swap at all.
	with := func(file string) bool {
		found, err := filepath.Glob(filepath.Join(c.unified, "*", file))
		return err == nil && len(found) > 0
	}
	return with("memory.swap.max") || !with("memory.max") && exists("/proc/swaps"), false
}

// enter moves the process into the cgroup at path, which is made, in the trees of the controllers that
// limit tasks.
func (c cgroups) enter(path string, pid int) error {
	roots := []string{c.unified}
	if c.unified == "" {
		roots = roots[:0]
		for _, controller := range limitedControllers {
			roots = append(roots, c.v1[controller])
		}
	}
	for _, root := range roots {
		dir := filepath.Join(root, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		if err := writeCgroup(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}
