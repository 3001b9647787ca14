package runtime

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

const (
	// gpuVendor is whose devices are meant where several vendors name one alike.
	gpuVendor = "nvidia.com"
	gpuClass  = "gpu"
	// visibleDevices tells programs, and NVIDIA's runtime hook, which GPUs there are.
	visibleDevices = "NVIDIA_VISIBLE_DEVICES"
	// noDevices is the hook's word for none. Without it, the images of CUDA ask for all.
	noDevices = "void"
)

// cdiDevices reads the CDI specifications there are now. Drivers write them at boot, operators at any
// time; they are small, and read once a container with GPUs.
func (r *Runtime) cdiDevices() (*cdi.Cache, error) {
	// The later directory has the higher priority.
	dirs := []string{"/etc/cdi", "/var/run/cdi"}
	if r.config.CDIDir != "" {
		dirs = append(dirs, r.config.CDIDir)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, fmt.Errorf("read the CDI specifications: %w", err)
	}
	for path, errs := range cache.GetErrors() {
		r.log.Warn("a CDI specification is of no use", "path", path, "errors", errs)
	}
	return cache, nil
}

// GPUs answers the IDs of the host's GPUs, those names of class gpu in CDI specifications by which
// tasks can be given one. A GPU with several names, index and UUID, is listed by its UUID, as ECS does.
func (r *Runtime) GPUs(ctx context.Context) ([]string, error) {
	cache, err := r.cdiDevices()
	if err != nil {
		return nil, err
	}
	names := map[string]string{} // by the device nodes, which tell what is the same GPU
	for _, qualified := range cache.ListDevices() {
		_, class, name, err := parser.ParseQualifiedName(qualified)
		if err != nil || class != gpuClass || name == "all" {
			continue
		}
		key := "name " + name
		if device := cache.GetDevice(qualified); device != nil && len(device.ContainerEdits.DeviceNodes) > 0 {
			key = ""
			for _, node := range device.ContainerEdits.DeviceNodes {
				key += cmp.Or(node.HostPath, node.Path) + "\x00"
			}
		}
		if known, ok := names[key]; !ok || betterGPUName(name, known) {
			names[key] = name
		}
	}
	out := []string{}
	for _, name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// betterGPUName tells whether a GPU is rather known by the name a than by b.
func betterGPUName(a, b string) bool {
	isUUID := func(s string) bool { return strings.HasPrefix(s, "GPU-") || strings.HasPrefix(s, "MIG-") }
	if isUUID(a) != isUUID(b) {
		return isUUID(a)
	}
	return a < b
}

// giveGPUs changes the spec as the CDI specifications say for GPUs of these IDs. A container without
// any gets none, whatever its image asks for.
func (r *Runtime) giveGPUs(spec *specs.Spec, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	cache, err := r.cdiDevices()
	if err != nil {
		return err
	}
	var devices []string
	for _, id := range ids {
		name := parser.QualifiedName(gpuVendor, gpuClass, id)
		if cache.GetDevice(name) == nil {
			for _, other := range cache.ListDevices() {
				if _, class, device, err := parser.ParseQualifiedName(other); err == nil && class == gpuClass && device == id {
					name = other
					break
				}
			}
		}
		devices = append(devices, name)
	}
	if missing, err := cache.InjectDevices(spec, devices...); err != nil {
		if len(missing) > 0 {
			return fmt.Errorf("the host has no CDI specification of the GPU %s", strings.Join(missing, ", "))
		}
		return fmt.Errorf("give the container its GPUs: %w", err)
	}
	// Specifications set it too, to void: their word is for a hook, ECS's is for the program.
	spec.Process.Env = setVariable(spec.Process.Env, visibleDevices+"="+strings.Join(ids, ","))
	return nil
}

// setVariable answers the environment with the variable in it once.
func setVariable(env []string, variable string) []string {
	name, _, _ := strings.Cut(variable, "=")
	out := slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, name+"=") })
	return append(out, variable)
}
