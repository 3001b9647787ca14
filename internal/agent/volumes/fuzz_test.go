package volumes

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// FuzzHostPath: no way of writing a path leads into a protected directory. Only the check is fuzzed: it
// makes nothing.
func FuzzHostPath(f *testing.F) {
	base, err := filepath.EvalSymlinks(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	own := filepath.Join(base, "own")
	for _, dir := range []string{own + "/sub", base + "/open"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			f.Fatal(err)
		}
	}
	for link, to := range map[string]string{"open/in": own, "open/up": "..", "open/loop": "loop", "open/nowhere": own + "/new"} {
		if err := os.Symlink(to, filepath.Join(base, link)); err != nil {
			f.Fatal(err)
		}
	}
	g, err := newGuard([]string{own}, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, p := range []string{"/own", "/open/in/sub", "/open/up/own/x", "//open/./up/../own", "/open/loop", "/open/nowhere/x", "/open/new/../../own", "/../", "\x00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		real, err := g.check(base + "/" + p)
		if err == nil && (within(real, own) || real != filepath.Clean(real) || !filepath.IsAbs(real)) {
			t.Errorf("%q is let through as %s", p, real)
		}
	})
}

// FuzzEFSRoot: a root directory is always one of the file system's, whatever links are in it.
func FuzzEFSRoot(f *testing.F) {
	base := f.TempDir()
	root := filepath.Join(base, "root")
	if err := os.MkdirAll(filepath.Join(root, "a", "b"), 0o700); err != nil {
		f.Fatal(err)
	}
	for link, to := range map[string]string{"out": "/", "a/up": "../../..", "a/here": ".", "a/b/proc": "/proc/self/root"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			f.Fatal(err)
		}
	}
	for _, p := range []string{"a/b", "out/a", "a/up/a", "a/here/here/b/proc/a", "../root", "..", "", "/"} {
		f.Add(p)
	}
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if p == "" || strings.ContainsRune(p, 0) {
			return
		}
		rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(rootFD)
		fd, err := openInRoot(rootFD, p)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		got, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || !within(got, real) {
			t.Errorf("%q leads to %s, %v", p, got, err)
		}
	})
}

// FuzzDriver: what is passed to mount(2) is made of options that were looked at one by one.
func FuzzDriver(f *testing.F) {
	f.Add("local", "tmpfs", "tmpfs", "size=1m,uid=1,nosuid")
	f.Add("", "none", "/x", "bind,ro")
	f.Add("nfs", "nfs", ":/x", "addr=1.2.3.4")
	f.Add("", "tmpfs", "tmpfs", "size=1m,,mpol=x,size")
	f.Fuzz(func(t *testing.T, driver, kind, device, o string) {
		opts, err := parseDriver(&dispatchpb.Volume{Name: "v", Driver: driver, DriverOpts: map[string]string{"type": kind, "device": device, "o": o}})
		if err != nil {
			return
		}
		if (opts.bind == "") == (opts.tmpfs == nil) {
			t.Fatalf("%q %q %q %q: neither or both: %+v", driver, kind, device, o, opts)
		}
		if opts.tmpfs == nil || opts.tmpfs.data == "" {
			return
		}
		for _, w := range strings.Split(opts.tmpfs.data, ",") {
			switch key, value, _ := strings.Cut(w, "="); key {
			case "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks":
				if value == "" {
					t.Errorf("%q has no value", w)
				}
			default:
				t.Errorf("%q is passed to the kernel", w)
			}
		}
	})
}
