package volumes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

const (
	taskA = "11111111111111111111111111111111"
	taskB = "22222222222222222222222222222222"
	fsID  = "fs-0123456789abcdef0"
)

// house is a room in directories of the test's own.
type house struct {
	*Volumes
	data, run, elsewhere string
}

func open(t *testing.T) house {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("volumes are made and mounted as root")
	}
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := house{data: filepath.Join(base, "data"), run: filepath.Join(base, "run"), elsewhere: filepath.Join(base, "elsewhere")}
	for _, d := range []string{h.data, h.run, h.elsewhere} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.run, "offered.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.reopen(t)
	t.Cleanup(func() {
		if err := unmountBelow(base); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *house) reopen(t *testing.T) {
	t.Helper()
	v, err := Open(Config{
		Dir: filepath.Join(h.data, "volumes"), EFSDir: filepath.Join(h.data, "efs"),
		Protected: []string{h.data, h.run}, Allowed: []string{filepath.Join(h.run, "offered.sock")},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Volumes = v
}

func task(id string, volumes ...*dispatchpb.Volume) *dispatchpb.Task {
	return &dispatchpb.Task{Arn: "arn:aws:ecs:us-east-1:111122223333:task/default/" + id, LaunchType: "EC2", Volumes: volumes}
}

// provide makes one volume and answers its path.
func (h house) provide(t *testing.T, id string, vol *dispatchpb.Volume) string {
	t.Helper()
	vol.Name = "v"
	got, err := h.Provide(t.Context(), task(id, vol))
	if err != nil {
		t.Fatal(err)
	}
	return got["v"]
}

// refuse checks that a volume is refused, for a reason and under ECS's name for it.
func (h house) refuse(t *testing.T, vol *dispatchpb.Volume, name, reason string) {
	t.Helper()
	vol.Name = "v"
	got, err := h.Provide(t.Context(), task(taskA, vol))
	var typed *Error
	if !errors.As(err, &typed) || typed.ErrorName() != name || !strings.Contains(err.Error(), reason) {
		t.Errorf("%v gives %v, %v; want %s: … %s …", vol, got, err, name, reason)
	}
}

func (h house) release(t *testing.T, id string) {
	t.Helper()
	if err := h.Release(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func exists(p string) bool { _, err := os.Lstat(p); return err == nil }

func TestOwnVolumesLiveAsLongAsTheTask(t *testing.T) {
	t.Parallel()
	h := open(t)
	want := task(taskA, &dispatchpb.Volume{Name: "scratch", Type: "HOST"}, &dispatchpb.Volume{Name: "docker", Type: "TASK", Driver: "local"})
	first, err := h.Provide(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	kept := write(t, first["scratch"], "deep", "file")
	if err := os.Chmod(first["docker"], 0o1777); err != nil {
		t.Fatal(err)
	}
	h.reopen(t) // as after a crash
	again, err := h.Provide(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if first["scratch"] != again["scratch"] || !exists(kept) {
		t.Errorf("%v, then %v; want the same, with what was in it", first, again)
	}
	if st, err := os.Stat(again["docker"]); err != nil || st.Mode()&os.ModePerm != 0o777 {
		t.Errorf("the container's mode was not kept: %v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(again["scratch"]); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want Docker's 0755", st.Mode(), err)
	}
	if ids, err := h.List(t.Context()); err != nil || !slices.Equal(ids, []string{taskA}) {
		t.Errorf("List: %v, %v", ids, err)
	}
	h.release(t, taskA)
	h.release(t, taskA)
	if exists(first["scratch"]) || exists(first["docker"]) {
		t.Error("volumes are there after the task")
	}
	if ids, err := h.List(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("List: %v, %v", ids, err)
	}
}

func TestHostPaths(t *testing.T) {
	t.Parallel()
	h := open(t)
	made := filepath.Join(h.elsewhere, "a", "b")
	if got := h.provide(t, taskA, &dispatchpb.Volume{Type: "HOST", HostPath: made}); got != made {
		t.Errorf("got %s; want %s", got, made)
	}
	if st, err := os.Stat(made); err != nil || !st.IsDir() || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v; want a directory with mode 0755", st, err)
	}
	file := write(t, h.elsewhere, "file")
	if got := h.provide(t, taskA, &dispatchpb.Volume{Type: "HOST", HostPath: file}); got != file {
		t.Errorf("got %s; want the file itself", got)
	}
	if got := h.provide(t, taskA, &dispatchpb.Volume{Type: "HOST", HostPath: "/"}); got != "/" {
		t.Errorf("got %s; want /", got)
	}
	offered := filepath.Join(h.run, "offered.sock")
	if got := h.provide(t, taskA, &dispatchpb.Volume{Type: "HOST", HostPath: offered}); got != offered {
		t.Errorf("got %s; want what Berth offers", got)
	}
	h.release(t, taskA)
	if !exists(made) || !exists(file) {
		t.Error("a host path did not outlive the task")
	}
}

func TestBerthsOwnDirectoriesAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t)
	sock := write(t, h.run, "dispatch.sock")
	link := filepath.Join(h.elsewhere, "link")
	if err := os.Symlink(h.data, link); err != nil {
		t.Fatal(err)
	}
	chain := filepath.Join(h.elsewhere, "chain")
	if err := os.Symlink("link/../run", chain); err != nil {
		t.Fatal(err)
	}
	alias := filepath.Join(h.elsewhere, "alias")
	if err := os.Mkdir(alias, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(h.data, alias, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{
		h.data, h.data + "/", h.data + "/agent/agent.db", h.data + "/new/dir", h.run, sock,
		h.elsewhere + "/../data", h.elsewhere + "//..//./data", link, link + "/secret", chain + "/dispatch.sock",
		"/proc/self/root" + h.data, alias, alias + "/agent",
	} {
		h.refuse(t, &dispatchpb.Volume{Type: "HOST", HostPath: p}, cannotCreateContainer, "Berth's own")
		h.refuse(t, &dispatchpb.Volume{Type: "TASK", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": p}}, cannotCreateVolume, "Berth's own")
	}
	if exists(filepath.Join(h.data, "new")) {
		t.Error("a refused path was made")
	}
	dangling := filepath.Join(h.elsewhere, "dangling")
	if err := os.Symlink(filepath.Join(h.data, "planted"), dangling); err != nil {
		t.Fatal(err)
	}
	h.refuse(t, &dispatchpb.Volume{Type: "HOST", HostPath: dangling}, cannotCreateContainer, "no such file")
	h.refuse(t, &dispatchpb.Volume{Type: "HOST", HostPath: "relative"}, cannotCreateContainer, "absolute")
	h.refuse(t, &dispatchpb.Volume{Type: "HOST", HostPath: "/a\x00b"}, cannotCreateContainer, "NUL")
}

func TestNamesThatArePaths(t *testing.T) {
	t.Parallel()
	h := open(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc", ".uses", "a\x00", strings.Repeat("a", 256)} {
		for _, kind := range []string{"HOST", "TASK", "SHARED", "EFS"} {
			_, err := h.Provide(t.Context(), task(taskA, &dispatchpb.Volume{Name: name, Type: kind, Autoprovision: true, EfsFileSystemId: fsID}))
			var typed *Error
			if !errors.As(err, &typed) {
				t.Errorf("%s volume %q: %v; want an *Error", kind, name, err)
			}
		}
	}
	for _, id := range []string{"..", "a/../..", "", "."} {
		bad := task(taskA)
		bad.Arn = "arn:aws:ecs:us-east-1:111122223333:task/default/" + id
		if id != "a/../.." { // of which the last part counts
			bad.Volumes = []*dispatchpb.Volume{{Name: "v", Type: "HOST"}}
		}
		if _, err := h.Provide(t.Context(), bad); err == nil {
			t.Errorf("a task of the ID %q was taken", id)
		}
		if err := h.Release(t.Context(), id); err == nil {
			t.Errorf("a task of the ID %q was released", id)
		}
	}
	h.refuse(t, &dispatchpb.Volume{Type: "CLOUD"}, cannotCreateVolume, "does not know")
}

func TestSharedVolumesOutliveTasks(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.refuse(t, &dispatchpb.Volume{Type: "SHARED"}, cannotCreateVolume, "volume 'v' does not exist and autoprovision is set to false")
	path := h.provide(t, taskA, &dispatchpb.Volume{Type: "SHARED", Autoprovision: true, Labels: map[string]string{"a": "b"}})
	kept := write(t, path, "kept")
	h.release(t, taskA)
	h.reopen(t)
	if got := h.provide(t, taskB, &dispatchpb.Volume{Type: "SHARED", Driver: "other"}); got != path || !exists(kept) {
		t.Errorf("the next task got %s; want %s with what was in it", got, path)
	}
	if other, err := h.Provide(t.Context(), task(taskB, &dispatchpb.Volume{Name: "w", Type: "SHARED", Autoprovision: true})); err != nil || other["w"] == path {
		t.Errorf("another name: %v, %v", other, err)
	}
}

func TestDriverOptions(t *testing.T) {
	t.Parallel()
	h := open(t)
	for _, c := range []struct {
		driver string
		opts   map[string]string
		reason string
	}{
		{"rexray/ebs", nil, `create v: error looking up volume plugin rexray/ebs: plugin "rexray/ebs" not found`},
		{"", map[string]string{"colour": "red"}, `invalid option: "colour"`},
		{"", map[string]string{"type": "tmpfs"}, `missing required option: "device"`},
		{"", map[string]string{"device": "tmpfs"}, `missing required option: "type"`},
		{"", map[string]string{"size": "1g"}, "no quota support"},
		{"", map[string]string{"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1"}, "volumes of type nfs are not supported"},
		{"", map[string]string{"type": "ext4", "device": "/dev/sda1"}, `volumes of type "ext4" are not supported`},
		{"", map[string]string{"type": "none", "device": "/tmp"}, "needs the option bind"},
		{"", map[string]string{"type": "none", "device": "/tmp", "o": "bind,ro"}, "readOnly"},
		{"", map[string]string{"type": "none", "device": filepath.Join(h.elsewhere, "missing"), "o": "bind"}, "no such file or directory"},
		{"", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mpol=bind:0"}, "unsupported option"},
		{"", map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=many"}, "failed to mount local volume"},
	} {
		for _, kind := range []string{"TASK", "SHARED"} {
			h.refuse(t, &dispatchpb.Volume{Type: kind, Autoprovision: true, Driver: c.driver, DriverOpts: c.opts}, cannotCreateVolume, c.reason)
		}
	}
	got := h.provide(t, taskA, &dispatchpb.Volume{Type: "TASK", DriverOpts: map[string]string{"type": "none", "device": h.elsewhere, "o": "bind"}})
	if got != h.elsewhere {
		t.Errorf("bind gives %s; want %s", got, h.elsewhere)
	}
}

func TestTmpfsOfTaskAndShared(t *testing.T) {
	t.Parallel()
	h := open(t)
	opts := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,nosuid,mode=0700"}
	for _, kind := range []string{"TASK", "SHARED"} {
		vol := func() *dispatchpb.Volume {
			return &dispatchpb.Volume{Type: kind, Autoprovision: kind == "SHARED", DriverOpts: opts}
		}
		path := h.provide(t, taskA, vol())
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
			t.Fatalf("%s: %+v, %v; want a tmpfs of 1 MiB", kind, fs, err)
		}
		kept := write(t, path, "kept")
		h.reopen(t)
		h.provide(t, taskA, vol())
		if !exists(kept) {
			t.Errorf("%s: a second call mounted over the first", kind)
		}
		if kind == "SHARED" {
			h.provide(t, taskB, vol())
			h.release(t, taskA)
			if !exists(kept) {
				t.Error("a shared tmpfs went with one of its two users")
			}
			h.release(t, taskB)
		}
		h.release(t, taskA)
		if exists(kept) {
			t.Errorf("%s: still mounted", kind)
		}
		if mounted, err := isMountPoint(filepath.Dir(path)); err == nil && mounted {
			t.Errorf("%s: something is mounted", kind)
		}
	}
}

func TestEFS(t *testing.T) {
	t.Parallel()
	h := open(t)
	efs := func(dir string) *dispatchpb.Volume {
		return &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: fsID, EfsRootDirectory: dir}
	}
	missing := "mount.nfs4: mounting " + fsID + ":/a/b failed, reason given by server: No such file or directory"
	h.refuse(t, efs("/a/b"), cannotCreateVolume, missing)
	fargate := task(taskA, efs("/a/b"))
	fargate.Volumes[0].Name, fargate.LaunchType = "v", "FARGATE"
	var typed *Error
	if _, err := h.Provide(t.Context(), fargate); !errors.As(err, &typed) || typed.Name != cannotInitialize ||
		err.Error() != "failed to invoke EFS utils commands to set up EFS volumes: stderr: "+missing+" : unsuccessful EFS utils command execution; code: 32" {
		t.Errorf("on Fargate: %v", err)
	}
	root := h.provide(t, taskA, efs("/"))
	if root != filepath.Join(h.data, "efs", fsID) {
		t.Errorf("the file system is at %s", root)
	}
	write(t, root, "a", "b", "file")
	sub := h.provide(t, taskB, efs("a//b/"))
	if !exists(filepath.Join(sub, "file")) {
		t.Errorf("%s does not show /a/b", sub)
	}
	write(t, sub, "back")
	h.reopen(t)
	if again := h.provide(t, taskB, efs("a/b")); again != sub {
		t.Errorf("again: %s; want %s", again, sub)
	}
	point := &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: fsID, EfsAccessPointId: "fsap-0123456789abcdef0", EfsRootDirectory: "/"}
	h.release(t, taskA)
	write(t, h.provide(t, taskA, point), "in-point")
	h.release(t, taskA)
	h.release(t, taskB)
	for _, p := range []string{"a/b/file", "a/b/back", "fsap-0123456789abcdef0/in-point"} {
		if !exists(filepath.Join(root, p)) {
			t.Errorf("%s is not in the file system after the tasks", p)
		}
	}
	write(t, root, "plain")
	h.refuse(t, efs("/plain"), cannotCreateVolume, "Not a directory")
	for _, bad := range []string{"", "..", "fs-", "fs-0123456789abcdef0/../..", "fs-XYZ", "fsap-0123456789abcdef0"} {
		h.refuse(t, &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: bad}, cannotCreateVolume, "Failed to resolve")
	}
	h.refuse(t, &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: fsID, EfsAccessPointId: "../x"}, cannotCreateVolume, "access denied")
}

// TestLinksDoNotLeadOutOfAFileSystem: what a container with the whole file system writes decides nothing
// about the host.
func TestLinksDoNotLeadOutOfAFileSystem(t *testing.T) {
	t.Parallel()
	h := open(t)
	secret := write(t, h.elsewhere, "dir", "secret")
	efs := func(dir string) *dispatchpb.Volume {
		return &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: fsID, EfsRootDirectory: dir}
	}
	root := h.provide(t, taskB, efs("/"))
	const point = "fsap-0123456789abcdef0"
	for name, target := range map[string]string{
		"absolute": filepath.Dir(secret), "up": "../../../../../../../../../../../../" + filepath.Dir(secret),
		"magic": "/proc/self/root" + filepath.Dir(secret), point: filepath.Dir(secret),
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		h.refuse(t, efs("/"+name), cannotCreateVolume, "No such file or directory")
	}
	h.refuse(t, &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: fsID, EfsAccessPointId: point}, cannotCreateVolume, "No such file or directory")

	// A link that is exchanged for the directory after it was resolved changes nothing.
	write(t, root, "sub", "own")
	got := h.provide(t, taskA, efs("/sub"))
	if err := os.Rename(filepath.Join(root, "sub"), filepath.Join(root, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), filepath.Join(root, "sub")); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(got, "secret")) || !exists(filepath.Join(got, "own")) {
		t.Errorf("%s leads to the link's target", got)
	}
	h.release(t, taskA)
	if !exists(filepath.Join(root, "moved", "own")) {
		t.Error("releasing the task removed what is in the file system")
	}
}

// TestReleaseStaysInside: links and mounts that a container left in its volume are not followed.
func TestReleaseStaysInside(t *testing.T) {
	t.Parallel()
	h := open(t)
	path := h.provide(t, taskA, &dispatchpb.Volume{Type: "TASK"})
	kept := write(t, h.elsewhere, "kept", "file")
	if err := os.Symlink(filepath.Dir(kept), filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(kept, filepath.Join(path, "hard")); err != nil {
		t.Fatal(err)
	}
	mount := filepath.Join(path, "mount point", "with space")
	if err := os.MkdirAll(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one over the other
		if err := unix.Mount(filepath.Dir(kept), mount, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mknod(filepath.Join(path, "fifo"), unix.S_IFIFO|0o600, 0); err != nil {
		t.Fatal(err)
	}
	h.release(t, taskA)
	if !exists(kept) || exists(path) {
		t.Errorf("outside kept: %v, volume gone: %v", exists(kept), !exists(path))
	}
}

// TestResetLeavesWhatIsMounted: the directories can be removed after it, an operator's file system stays.
func TestResetLeavesWhatIsMounted(t *testing.T) {
	t.Parallel()
	h := open(t)
	root := h.provide(t, taskA, &dispatchpb.Volume{Type: "EFS", EfsFileSystemId: fsID, EfsRootDirectory: "/"})
	kept := write(t, h.elsewhere, "share", "file")
	if err := unix.Mount(filepath.Dir(kept), root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	h.provide(t, taskB, &dispatchpb.Volume{Type: "SHARED", Autoprovision: true, DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	if err := h.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.data); err != nil {
		t.Error(err)
	}
	if !exists(kept) {
		t.Error("what was mounted is gone")
	}
}

// TestMountIsNotCrossed: removal alone, without the unmounting before it, stops at a mount.
func TestMountIsNotCrossed(t *testing.T) {
	t.Parallel()
	h := open(t)
	path := h.provide(t, taskA, &dispatchpb.Volume{Type: "TASK"})
	kept := write(t, h.elsewhere, "kept", "file")
	mount := filepath.Join(path, "m")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Dir(kept), mount, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(t.Context(), h.taskDir(taskA)); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removeTree: %v; want EBUSY", err)
	}
	if !exists(kept) {
		t.Fatal("what was mounted is gone")
	}
	h.release(t, taskA)
}

// TestDeepTreesAreRemoved: deeper than a path can say, and than there are descriptors.
func TestDeepTreesAreRemoved(t *testing.T) {
	t.Parallel()
	h := open(t)
	// In memory: a disk takes its time for so many directories.
	if err := unix.Mount("tmpfs", filepath.Join(h.dir, "tasks"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	path := h.provide(t, taskA, &dispatchpb.Volume{Type: "TASK"})
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if err := unix.Mkdirat(dir, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := unix.Openat(dir, "f", unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(f)
		next, err := unix.Openat(dir, "d", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(dir)
		dir = next
	}
	unix.Close(dir)
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Release(cut, taskA); !errors.Is(err, context.Canceled) {
		t.Errorf("Release in a context that has ended: %v", err)
	}
	if ids, err := h.List(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("List after a release cut short: %v, %v; want the task", ids, err)
	}
	h.release(t, taskA)
	if exists(h.taskDir(taskA)) {
		t.Error("the volume is still there")
	}
}
