package volumes

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"golang.org/x/sys/unix"
)

// driverOptions is what a Docker volume's driver options ask for; at most one is set.
type driverOptions struct {
	bind  string // a host directory that takes the volume's place
	tmpfs *tmpfs
}

// parseDriver reads driver and driverOpts as Docker's local driver does. Of what that can mount, tmpfs
// and directories of the host are supported.
func parseDriver(vol *dispatchpb.Volume) (driverOptions, error) {
	if d := cmp.Or(vol.Driver, "local"); d != "local" {
		return driverOptions{}, fmt.Errorf("create %s: error looking up volume plugin %s: plugin %q not found", vol.Name, d, d)
	}
	opts := vol.DriverOpts
	if len(opts) == 0 {
		return driverOptions{}, nil
	}
	fail := func(format string, args ...any) (driverOptions, error) {
		return driverOptions{}, fmt.Errorf("create "+vol.Name+": "+format, args...)
	}
	for key := range opts {
		switch key {
		case "type", "o", "device":
		case "size":
			return fail("quota size requested but no quota support")
		default:
			return fail("invalid option: %q", key)
		}
	}
	for _, key := range []string{"device", "type"} {
		if opts[key] == "" {
			return fail("missing required option: %q", key)
		}
	}
	words := strings.FieldsFunc(opts["o"], func(r rune) bool { return r == ',' })
	switch kind := opts["type"]; kind {
	case "tmpfs":
		t, err := parseTmpfs(words)
		if err != nil {
			return fail("%w", err)
		}
		return driverOptions{tmpfs: t}, nil
	case "none", "bind":
		if !slices.Contains(words, "bind") && !slices.Contains(words, "rbind") {
			return fail("type %s needs the option bind", kind)
		}
		for _, w := range words {
			switch w {
			case "bind", "rbind", "rw", "defaults", "private", "rprivate":
			case "ro":
				return fail("the option ro is not supported with bind: give the mount points readOnly")
			default:
				return fail("unsupported option %q with bind", w)
			}
		}
		return driverOptions{bind: opts["device"]}, nil
	case "nfs", "nfs4", "cifs", "smb3", "efs":
		return fail("volumes of type %s are not supported: mount it on the host, and give its directory with type none and the option bind", kind)
	default:
		return fail("volumes of type %q are not supported: only tmpfs, and none with the option bind", kind)
	}
}

// tmpfs is a mount of its own memory.
type tmpfs struct {
	flags uintptr
	data  string
}

func parseTmpfs(words []string) (*tmpfs, error) {
	t := &tmpfs{}
	var data []string
	flags := map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS,
	}
	for _, w := range words {
		key, value, has := strings.Cut(w, "=")
		switch {
		case flags[w] != 0:
			t.flags |= flags[w]
		case w == "rw" || w == "exec" || w == "suid" || w == "dev" || w == "defaults" || w == "async":
		case has && value != "" && slices.Contains([]string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"}, key):
			data = append(data, w)
		default:
			return nil, fmt.Errorf("unsupported option %q of tmpfs", w)
		}
	}
	t.data = strings.Join(data, ",")
	return t, nil
}

// mount mounts it on path, unless something is mounted there.
func (t *tmpfs) mount(path string) error {
	yes, err := isMountPoint(path)
	if yes || err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", t.flags, t.data); err != nil {
		return fmt.Errorf("failed to mount local volume: mount tmpfs, data: %s: %w", t.data, err)
	}
	return private(path)
}

// private keeps what happens to a mount from the mounts that were made of it, and the reverse.
func private(path string) error {
	if err := unix.Mount("", path, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return errors.Join(fmt.Errorf("make the mount private: %w", err), unix.Unmount(path, unix.MNT_DETACH))
	}
	return nil
}
