package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// grantedDevice is a device node of the container, and what the container may do with the device:
// some of "rwm".
type grantedDevice struct {
	specs.LinuxDevice
	access string
}

// maxDevices bounds what a directory of devices brings along.
const maxDevices = 4096

// devices finds the host's devices that the container asks for; a privileged one gets all. What lies in
// the hidden directories was made by containers and is nobody's to ask for.
func devices(c *dispatchpb.Container, hidden []string) ([]grantedDevice, error) {
	var out []grantedDevice
	if c.GetPrivileged() {
		// Read anew each time: they come and go.
		all, err := oci.HostDevices()
		if err != nil {
			return nil, fmt.Errorf("list the host's devices: %w", err)
		}
		for _, d := range all {
			out = append(out, grantedDevice{d, "rwm"})
		}
	}
	for _, d := range c.GetDevices() {
		access, err := deviceAccess(d.Permissions)
		if err != nil {
			return nil, err
		}
		target := d.ContainerPath
		if target == "" {
			target = d.HostPath
		}
		if !path.IsAbs(d.HostPath) || !path.IsAbs(target) {
			return nil, fmt.Errorf("device %s at %s: both must be absolute paths", d.HostPath, target)
		}
		found, err := devicesAt(d.HostPath, path.Clean(target), hidden)
		if err != nil {
			return nil, fmt.Errorf("error gathering device information while adding custom device %q: %w", d.HostPath, err)
		}
		for _, device := range found {
			// The last word on a path counts; runc refuses a second node there.
			out = slices.DeleteFunc(out, func(o grantedDevice) bool { return o.Path == device.Path })
			out = append(out, grantedDevice{device, access})
		}
	}
	return out, nil
}

// deviceAccess turns ECS's permissions into the kernel's letters; none are all.
func deviceAccess(permissions []string) (string, error) {
	if len(permissions) == 0 {
		return "rwm", nil
	}
	access := ""
	for _, p := range permissions {
		letter, ok := map[string]string{"read": "r", "write": "w", "mknod": "m"}[p]
		if !ok {
			return "", fmt.Errorf("invalid device permission: %q", p)
		}
		if !strings.Contains(access, letter) {
			access += letter
		}
	}
	return access, nil
}

// devicesAt answers the device at a path of the host, or those below it, as they shall appear at the
// target. A symbolic link stands for what it leads to, as /dev/disk's do.
func devicesAt(source, target string, hidden []string) ([]specs.LinuxDevice, error) {
	resolved, err := filepath.EvalSymlinks(source)
	if err != nil {
		// Docker names the error alone: its sentence has the path.
		if pathErr := new(fs.PathError); errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, err
	}
	for _, dir := range hidden {
		if resolved == dir || strings.HasPrefix(resolved, dir+"/") {
			return nil, oci.ErrNotADevice
		}
	}
	device, err := oci.DeviceFromPath(resolved)
	if err == nil {
		device.Path = target
		return []specs.LinuxDevice{*device}, nil
	}
	if !errors.Is(err, oci.ErrNotADevice) {
		return nil, err
	}
	if info, statErr := os.Stat(resolved); statErr != nil || !info.IsDir() {
		return nil, err
	}
	var out []specs.LinuxDevice
	walkErr := filepath.WalkDir(resolved, func(place string, entry fs.DirEntry, err error) error {
		if slices.Contains(hidden, place) {
			return fs.SkipDir
		}
		if err != nil || entry.IsDir() || entry.Type()&fs.ModeDevice == 0 {
			return nil // what cannot be read holds no device, as in Docker; links are not followed
		}
		device, err := oci.DeviceFromPath(place)
		if err != nil {
			return nil
		}
		device.Path = path.Join(target, strings.TrimPrefix(place, resolved))
		if out = append(out, *device); len(out) > maxDevices {
			return fmt.Errorf("more than %d devices", maxDevices)
		}
		return nil
	})
	if walkErr != nil {
		return nil, walkErr
	}
	if len(out) == 0 {
		return nil, err
	}
	return out, nil
}

// grant adds the devices' nodes, and the rules by which the cgroup lets them be used: runc enforces
// these by the devices controller of version 1, and by a BPF program with version 2.
func grant(s *specs.Spec, devices []grantedDevice) {
	for _, d := range devices {
		s.Linux.Devices = append(s.Linux.Devices, d.LinuxDevice)
		if s.Linux.Resources.Devices[0].Allow {
			continue // all is allowed
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: d.access,
		})
	}
}
