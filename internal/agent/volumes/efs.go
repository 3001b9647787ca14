package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// The forms of EFS's identifiers, from its API reference.
var (
	fileSystemPattern  = regexp.MustCompile(`^fs-[0-9a-f]{8,40}$`)
	accessPointPattern = regexp.MustCompile(`^fsap-[0-9a-f]{8,40}$`)
)

// efsVolume answers the directory that stands for a directory of an EFS file system.
//
// The file system's own directory is made on first use, empty. A root directory must exist in it, as in
// EFS. An access point's root is the directory of its name; it is made on first use, as EFS makes it
// for access points that say who shall own it.
func (v *Volumes) efsVolume(id string, vol *dispatchpb.Volume) (string, error) {
	fsID, point := vol.EfsFileSystemId, vol.EfsAccessPointId
	if !fileSystemPattern.MatchString(fsID) {
		return "", fmt.Errorf("mount.nfs4: Failed to resolve server %q: Name or service not known", fsID)
	}
	if point != "" && !accessPointPattern.MatchString(point) {
		return "", fmt.Errorf("mount.nfs4: access denied by server while mounting %s: %q is not the ID of an access point", fsID, point)
	}
	root := filepath.Join(v.efs, fsID)
	if err := makeVolumeDir(root); err != nil {
		return "", err
	}
	dir := path.Clean("/" + vol.EfsRootDirectory)
	if point != "" {
		if dir != "/" {
			return "", errors.New("with an access point, the root directory is /")
		}
		dir = "/" + point
	}
	if dir == "/" {
		return root, nil // no container can put anything in its place
	}
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open file system %s: %w", fsID, err)
	}
	defer unix.Close(rootFD)
	if point != "" {
		if err := unix.Mkdirat(rootFD, point, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make the root of access point %s: %w", point, err)
		}
	}
	fd, err := openInRoot(rootFD, strings.TrimPrefix(dir, "/"))
	if err != nil {
		reason := err.Error()
		switch err {
		case unix.ENOENT:
			reason = "No such file or directory" // as mount.nfs4 prints it
		case unix.ENOTDIR:
			reason = "Not a directory"
		}
		return "", fmt.Errorf("mount.nfs4: mounting %s:%s failed, reason given by server: %s", fsID, dir, reason)
	}
	defer unix.Close(fd)
	return v.pin(id, vol.Name, fd)
}

// openInRoot opens a directory as a process does whose root directory root is: links lead nowhere else.
func openInRoot(root int, dir string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(root, dir, &how)
		// EAGAIN: something was renamed meanwhile, and the kernel cannot be sure of "..".
		if (err != unix.EAGAIN && err != unix.EINTR) || tries == 100 {
			return fd, err
		}
	}
}

// pin mounts an open directory where no container can put another in its place, and answers where.
func (v *Volumes) pin(id, name string, fd int) (string, error) {
	target := filepath.Join(v.taskDir(id), name, "pin")
	if err := os.MkdirAll(target, 0o700); err != nil {
		return "", fmt.Errorf("make volume %s: %w", name, err)
	}
	yes, err := isMountPoint(target)
	if yes || err != nil {
		return target, err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	return target, private(target)
}
