package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

const (
	// fillDir is where a volume's first content is gathered in the volume, and filledDir the same once
	// it is complete: a crash in the middle leaves a volume that is filled again, or to its end.
	fillDir   = ".berth-filling"
	filledDir = ".berth-filled"

	maxFillDepth   = 256
	maxFillEntries = 1 << 20
)

// fillVolumes gives each empty volume that wants it what the image has at its target, with owners,
// modes and links, as Docker does. The image's symbolic links are resolved within the image. Everything
// is done relative to open directories and follows no link of the volume, which a container that has it
// mounted may be changing at this moment.
func (r *Runtime) fillVolumes(ctx context.Context, c agent.ContainerSpec, rootfs []mount.Mount) error {
	for _, m := range c.Mounts {
		if !m.Fill {
			continue
		}
		if err := r.fillVolume(ctx, m, rootfs); err != nil {
			return fmt.Errorf("fill the volume at %s: %w", m.Target, err)
		}
	}
	return nil
}

func (r *Runtime) fillVolume(ctx context.Context, m agent.Mount, rootfs []mount.Mount) error {
	defer r.volumes.lock(m.Source)()
	volume, err := openDir(unix.AT_FDCWD, m.Source)
	if err != nil {
		return err
	}
	defer volume.Close()
	state, err := fillState(volume)
	if err != nil || state == volumeUsed {
		return err
	}
	if state == volumeFilled {
		return publishFill(volume)
	}
	if err := removeTree(int(volume.Fd()), fillDir, 0); err != nil {
		return err
	}
	return mount.WithReadonlyTempMount(ctx, rootfs, func(root string) error {
		image, err := openDir(unix.AT_FDCWD, root)
		if err != nil {
			return err
		}
		defer image.Close()
		fd, err := unix.Openat2(int(image.Fd()), strings.TrimPrefix(path.Clean(m.Target), "/"), &unix.OpenHow{
			Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil // the image has nothing there
		}
		if err != nil {
			return fmt.Errorf("open it in the image: %w", err)
		}
		source := os.NewFile(uintptr(fd), m.Target)
		defer source.Close()
		f := filler{ctx: ctx, links: map[[2]uint64]string{}, volume: volume}
		if err := f.dir(source, int(volume.Fd()), fillDir, fillDir, 0); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if err := applyOwner(int(volume.Fd()), st); err != nil {
			return err
		}
		if err := unix.Renameat(int(volume.Fd()), fillDir, int(volume.Fd()), filledDir); err != nil {
			return fmt.Errorf("complete it: %w", err)
		}
		return publishFill(volume)
	})
}

type volumeState int

const (
	volumeEmpty  volumeState = iota // or half filled
	volumeFilled                    // completely, but not yet published
	volumeUsed
)

func fillState(volume *os.File) (volumeState, error) {
	names, err := volume.Readdirnames(-1)
	if err != nil {
		return volumeUsed, err
	}
	state := volumeEmpty
	for _, name := range names {
		switch name {
		case filledDir:
			return volumeFilled, nil
		case fillDir:
		default:
			state = volumeUsed
		}
	}
	return state, nil
}

// publishFill moves the gathered content into its place. What a container has put there meanwhile
// stays.
func publishFill(volume *os.File) error {
	filled, err := openDir(int(volume.Fd()), filledDir)
	if err != nil {
		return err
	}
	defer filled.Close()
	names, err := filled.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Renameat2(int(filled.Fd()), name, int(volume.Fd()), name, unix.RENAME_NOREPLACE)
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("publish %s: %w", name, err)
		}
	}
	return removeTree(int(volume.Fd()), filledDir, 0)
}

// filler copies a tree of an image into a volume.
type filler struct {
	ctx     context.Context
	volume  *os.File
	entries int
	links   map[[2]uint64]string // files with several names, by device and inode: the first one's path in the volume
}

// dir makes a copy of the open directory as name in the directory at.
func (f *filler) dir(source *os.File, at int, name, full string, depth int) error {
	if depth > maxFillDepth {
		return fmt.Errorf("the image's directories are more than %d deep", maxFillDepth)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", full, err)
	}
	target, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer target.Close()
	names, err := source.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		if f.entries++; f.entries > maxFillEntries {
			return fmt.Errorf("the image has more than %d files there", maxFillEntries)
		}
		if err := f.entry(source, target, child, full+"/"+child, depth); err != nil {
			return err
		}
	}
	copyAttributes(int(source.Fd()), int(target.Fd()))
	return applyOwner(int(target.Fd()), st)
}

func (f *filler) entry(source, target *os.File, name, full string, depth int) error {
	from, to := int(source.Fd()), int(target.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		child, err := openDir(from, name)
		if err != nil {
			return err
		}
		defer child.Close()
		return f.dir(child, to, name, full, depth+1)
	}
	inode := [2]uint64{uint64(st.Dev), st.Ino}
	if first, ok := f.links[inode]; ok {
		// Both ends are in the volume, and neither is followed.
		return unix.Linkat(int(f.volume.Fd()), first, to, name, 0)
	}
	switch kind {
	case unix.S_IFREG:
		if err := f.file(from, to, name, st); err != nil {
			return fmt.Errorf("copy %s: %w", full, err)
		}
	case unix.S_IFLNK:
		// The kernel allows no longer targets.
		buffer := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, buffer)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buffer[:n]), to, name); err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFIFO:
		if err := unix.Mknodat(to, name, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	default:
		return nil // a volume is on the host, where an image shall have no device nodes
	}
	if st.Nlink > 1 {
		f.links[inode] = full
	}
	return nil
}

func (f *filler) file(from, to int, name string, st unix.Stat_t) error {
	fd, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), name)
	defer in.Close()
	if fd, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600); err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	defer out.Close()
	if _, err := io.Copy(out, io.LimitReader(in, st.Size)); err != nil {
		return err
	}
	copyAttributes(int(in.Fd()), int(out.Fd()))
	return applyOwner(int(out.Fd()), st)
}

// applyOwner gives an open file owner, mode and times, in this order: a new owner takes away
// set-user-ID.
func applyOwner(fd int, st unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	times := []unix.Timeval{unix.NsecToTimeval(st.Atim.Nano()), unix.NsecToTimeval(st.Mtim.Nano())}
	return unix.Futimes(fd, times)
}

// copyAttributes copies extended attributes as far as the volume's file system takes them: file
// capabilities and users' own. Overlayfs's and other trusted ones are of the place, not of the file.
func copyAttributes(from, to int) {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, list)
	if err != nil {
		return
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Fgetxattr(from, name, value); err == nil {
			unix.Fsetxattr(to, name, value[:n], 0)
		}
	}
}

// openDir opens a directory that is no symbolic link.
func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// removeTree removes name in the directory at, whatever it is, without following a link.
func removeTree(at int, name string, depth int) error {
	err := unix.Unlinkat(at, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if depth > 2*maxFillDepth {
		return fmt.Errorf("remove %s: too deep", name)
	}
	dir, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := removeTree(int(dir.Fd()), child, depth+1); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
