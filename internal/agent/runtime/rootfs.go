package runtime

import (
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	goruntime "runtime"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// rootfs is what a container's OCI spec needs to know of the files of its image.
type rootfs struct {
	accounts accounts
	// other tells that the image can run programs of an ABI that is not the host's own, as those of
	// i386 on amd64.
	other bool
}

// readRootfs looks into a new container's root file system.
func readRootfs(ctx context.Context, mounts []mount.Mount, key rootfsKey) (rootfs, error) {
	var out rootfs
	err := mount.WithReadonlyTempMount(ctx, mounts, func(root string) (err error) {
		out.accounts, err = readAccounts(root)
		out.other = hasOtherLoader(root) || isOtherProgram(root, key)
		return err
	})
	if err != nil {
		return rootfs{}, fmt.Errorf("read the image's users: %w", err)
	}
	return out, nil
}

// otherLoaders are the dynamic loaders of the ABIs that a kernel may run besides its own, without the
// directory: distributions differ in that.
var otherLoaders = map[string][]string{
	"amd64": {"ld-linux.so.2", "ld-linux-x32.so.2", "ld-musl-i386.so.1", "ld-musl-x32.so.1"},
	"arm64": {"ld-linux.so.3", "ld-linux-armhf.so.3", "ld-musl-arm.so.1", "ld-musl-armhf.so.1"},
}

var loaderDirs = []string{
	"lib", "lib32", "libx32", "lib/i386-linux-gnu", "lib/arm-linux-gnueabihf",
	"usr/lib", "usr/lib32", "usr/libx32", "usr/lib/i386-linux-gnu", "usr/lib/arm-linux-gnueabihf",
}

// hasOtherLoader tells whether the file system has a loader for programs of another ABI.
func hasOtherLoader(root string) bool {
	for _, dir := range loaderDirs {
		dir, err := fs.RootPath(root, dir)
		if err != nil {
			continue
		}
		for _, loader := range otherLoaders[goruntime.GOARCH] {
			if _, err := os.Lstat(path.Join(dir, loader)); err == nil {
				return true
			}
		}
	}
	return false
}

// isOtherProgram tells whether the program is an executable of another ABI: a static one needs no
// loader.
func isOtherProgram(root string, key rootfsKey) bool {
	var places []string
	switch {
	case path.IsAbs(key.program):
		places = []string{key.program}
	case strings.Contains(key.program, "/"):
		places = []string{path.Join("/", key.cwd, key.program)}
	default:
		for dir := range strings.SplitSeq(key.path, ":") {
			places = append(places, path.Join("/", dir, key.program))
		}
	}
	for _, place := range places {
		file, err := fs.RootPath(root, place)
		if err != nil {
			continue
		}
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		defer f.Close()
		var ident [20]byte
		if _, err := io.ReadFull(f, ident[:]); err != nil {
			return false // no executable for the kernel, or a script
		}
		return isOtherABI(ident)
	}
	return false
}

// isOtherABI reads the start of a file: of an ELF executable, class and machine.
func isOtherABI(start [20]byte) bool {
	if string(start[:4]) != elf.ELFMAG {
		return false
	}
	// Both architectures that Berth is built for have 64 bits and are little-endian.
	return elf.Class(start[elf.EI_CLASS]) == elf.ELFCLASS32
}

// nativeABI is the name of this machine's own ABI for seccomp.
var nativeABI = map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}

// narrow takes from a seccomp profile the ABIs that are not the host's own. runc compiles the filter
// at each creation, for every ABI anew: of the default profile's three on amd64, two cost 40 ms of
// a launch and serve programs that few images have. The container loses no protection: the kernel
// kills a process that calls it by an ABI the filter does not know.
func narrow(profile *specs.LinuxSeccomp) {
	if native, ok := nativeABI[goruntime.GOARCH]; ok && profile != nil {
		profile.Architectures = []specs.Arch{native}
	}
}

// rootfsCache keeps what was read of images, by the chain ID of their layers and the program started:
// mounting an image to read a few files costs milliseconds of each launch.
type rootfsCache struct {
	mu    sync.Mutex
	known map[rootfsKey]rootfs
}

// rootfsKey names an image's files and the program that a container starts: its first argument, with
// the directory and the PATH by which it is found.
type rootfsKey struct{ chain, program, cwd, path string }

const maxCachedRootfs = 256

func (c *rootfsCache) get(key rootfsKey) (rootfs, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.known[key]
	return found, ok
}

func (c *rootfsCache) put(key rootfsKey, found rootfs) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCachedRootfs {
		c.known = map[rootfsKey]rootfs{}
	}
	c.known[key] = found
}
