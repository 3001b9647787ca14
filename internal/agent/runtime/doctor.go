package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Finding is one thing that containers need of the host.
type Finding struct {
	Name string // what was looked at: "overlayfs", "cgroup controller memory", …
	OK   bool
	// Fatal says that without it no container runs; otherwise something is missing from them.
	Fatal  bool
	Detail string // what was found, and what to do if it is not OK
}

// Doctor looks at what containers need of this host, and changes nothing but below root, the
// directory where images are to be kept, which it makes.
func Doctor(root, runc string) []Finding {
	out := []Finding{checkRoot(), checkOverlay(root)}
	out = append(out, checkNamespaces()...)
	out = append(out, checkCgroups()...)
	return append(out, checkSeccomp(), checkRunc(runc))
}

func checkRoot() Finding {
	f := Finding{Name: "root", Fatal: true, OK: os.Geteuid() == 0, Detail: "running as root"}
	if !f.OK {
		f.Detail = "containers are made by root: run it with sudo"
	}
	return f
}

// checkOverlay mounts an overlay: whether the kernel has it says nothing of the file system below.
func checkOverlay(root string) Finding {
	f := Finding{Name: "overlayfs", Fatal: true, OK: true, Detail: "images can be kept in " + root}
	if err := tryOverlay(root); err != nil {
		f.OK = false
		f.Detail = fmt.Sprintf("images cannot be kept in %s: %v; load the kernel module overlay, or choose a data "+
			"directory on ext4 or xfs with ftype=1", root, err)
	}
	return f
}

func tryOverlay(root string) (err error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(root, ".doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var paths []string
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		paths = append(paths, path)
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", paths[0], paths[1], paths[2])
	if err := unix.Mount("overlay", paths[3], "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	return unix.Unmount(paths[3], unix.MNT_DETACH)
}

func checkNamespaces() []Finding {
	var out []Finding
	for _, name := range []string{"pid", "net", "ipc", "uts", "mnt"} {
		f := Finding{Name: "namespace " + name, Fatal: true, OK: true, Detail: "the kernel has it"}
		if _, err := os.Stat("/proc/self/ns/" + name); err != nil {
			f.OK, f.Detail = false, "the kernel was built without it"
		}
		out = append(out, f)
	}
	return out
}

func checkCgroups() []Finding {
	groups, err := detectCgroups()
	if err != nil {
		return []Finding{{Name: "cgroups", Fatal: true, Detail: err.Error() + "; mount cgroup2 there"}}
	}
	have, version := []string{}, "version 2"
	if groups.unified != "" {
		data, err := os.ReadFile(filepath.Join(groups.unified, "cgroup.controllers"))
		if err != nil {
			return []Finding{{Name: "cgroups", Fatal: true, Detail: err.Error()}}
		}
		have = strings.Fields(string(data))
	} else {
		version = "version 1"
		for controller := range groups.v1 {
			have = append(have, controller)
		}
	}
	out := []Finding{{Name: "cgroups", Fatal: true, OK: true, Detail: version}}
	for _, controller := range limitedControllers {
		f := Finding{Name: "cgroup controller " + controller, Fatal: true, OK: slices.Contains(have, controller), Detail: "enabled"}
		if !f.OK {
			f.Detail = "not enabled"
			if controller == "memory" {
				f.Detail += "; some systems want cgroup_enable=memory on the kernel's command line"
			}
		}
		out = append(out, f)
	}
	return out
}

func checkSeccomp() Finding {
	f := Finding{Name: "seccomp", OK: true, Detail: "containers' system calls are filtered"}
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil {
		f.OK, f.Detail = false, "the kernel cannot filter system calls; containers run without a filter"
	}
	return f
}

func checkRunc(configured string) Finding {
	f := Finding{Name: "runc", Fatal: true, OK: true, Detail: "built in"}
	switch {
	case configured != "":
		f.Detail = configured
		if err := unix.Access(configured, unix.X_OK); err != nil {
			f.OK, f.Detail = false, fmt.Sprintf("%s: %v", configured, err)
		}
	case embeddedRunc == "":
		path, err := findRunc()
		if f.Detail = path; err != nil {
			f.OK, f.Detail = false, err.Error()
		}
	}
	return f
}
