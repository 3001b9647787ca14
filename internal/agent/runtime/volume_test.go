package runtime

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// withLayer adds a layer of these entries to the busybox image, and stores it by the name.
func withLayer(t testing.TB, r *Runtime, name string, entries ...tar.Header) (agent.Image, error) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		body := "body of " + h.Name
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, body)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(busyboxImage(t), layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config.Volumes = map[string]struct{}{"/var/lib/data": {}, "/cache": {}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return stored(t, r, name, image)
}

func stored(t testing.TB, r *Runtime, name string, image v1.Image) (agent.Image, error) {
	t.Helper()
	if _, err := r.Import(t.Context(), bytes.NewReader(archive(t, name+":latest", image)), nil); err != nil {
		return agent.Image{}, err
	}
	found, err := r.Pull(t.Context(), name, agent.PullPreferCached)
	if err != nil {
		t.Fatalf("pull what was imported: %v", err)
	}
	id, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if found.ID != id.String() {
		t.Errorf("the image's ID is %q, not %q", found.ID, id)
	}
	return found, nil
}

// An empty volume first gets what the image has at its target; one that is not empty stays as it is.
func TestFillVolume(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.MkdirAll(filepath.Join(outside, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := withLayer(t, r, "filled",
		tar.Header{Typeflag: tar.TypeDir, Name: "data", Mode: 0o2750, Uid: 1234, Gid: 2345},
		tar.Header{Typeflag: tar.TypeReg, Name: "data/file", Mode: 0o4711, Uid: 7, Gid: 8, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "kept"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "data/sub", Mode: 0o700, Uid: 9},
		tar.Header{Typeflag: tar.TypeLink, Name: "data/sub/again", Linkname: "data/file", Mode: 0o4711, Uid: 7, Gid: 8},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "data/absolute", Linkname: outside + "/secret", Uid: 11},
		tar.Header{Typeflag: tar.TypeChar, Name: "data/device", Devmajor: 1, Devminor: 1},
		tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o600},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/data"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "escape", Linkname: "../../../../.." + outside},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "escape2", Linkname: outside},
	)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(image.Volumes, []string{"/cache", "/var/lib/data"}) {
		t.Errorf("its volumes are %q", image.Volumes)
	}
	create := func(id, target, source string) {
		t.Helper()
		c := testContainer(image, id, "true")
		c.Mounts = []agent.Mount{{Source: source, Target: target, Fill: true}}
		if err := r.Create(t.Context(), c); err != nil {
			t.Fatalf("create: %v", err)
		}
		if err := r.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	names := func(dir string) []string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	for _, target := range []string{"/data", "/link/", "/link/../data"} {
		volume := t.TempDir()
		create("fill", target, volume)
		if got, want := names(volume), []string{"absolute", "fifo", "file", "sub"}; !slices.Equal(got, want) {
			t.Errorf("%s: the volume has %q, not %q", target, got, want)
			continue
		}
		var root, file, again, link unix.Stat_t
		for path, st := range map[string]*unix.Stat_t{"": &root, "file": &file, "sub/again": &again, "absolute": &link} {
			if err := unix.Lstat(filepath.Join(volume, path), st); err != nil {
				t.Fatal(err)
			}
		}
		if root.Mode&0o7777 != 0o2750 || root.Uid != 1234 || root.Gid != 2345 {
			t.Errorf("the volume is %o of %d:%d", root.Mode, root.Uid, root.Gid)
		}
		if file.Mode&0o7777 != 0o4711 || file.Uid != 7 || file.Gid != 8 || file.Ino != again.Ino || link.Uid != 11 {
			t.Errorf("the file is %o of %d:%d, and the other name of %d is %d", file.Mode, file.Uid, file.Gid, file.Ino, again.Ino)
		}
		if to, _ := os.Readlink(filepath.Join(volume, "absolute")); to != outside+"/secret" {
			t.Errorf("the link leads to %q", to)
		}
		if body, err := os.ReadFile(filepath.Join(volume, "file")); err != nil || string(body) != "body of data/file" {
			t.Errorf("the file has %q, %v", body, err)
		}
		// A second container finds a volume that is in use.
		if err := os.Remove(filepath.Join(volume, "file")); err != nil {
			t.Fatal(err)
		}
		create("again", target, volume)
		if got := names(volume); !slices.Equal(got, []string{"absolute", "fifo", "sub"}) {
			t.Errorf("%s: filled once more, the volume has %q", target, got)
		}
	}
	for _, target := range []string{"/escape", "/escape2", "/escape/etc", "/nothing/here", "/etc/passwd/x"} {
		volume := t.TempDir()
		c := testContainer(image, "escape", "true")
		c.Mounts = []agent.Mount{{Source: volume, Target: target, Fill: true}}
		stored, err := r.unpacked(r.call(t.Context()), image)
		if err != nil {
			t.Fatal(err)
		}
		mounts, err := r.engine.snapshots.Prepare(r.call(t.Context()), "escape", stored.chain)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.fillVolumes(t.Context(), c, mounts); err != nil {
			t.Errorf("%s: %v", target, err)
		}
		if err := r.removeSnapshot(r.call(t.Context()), "escape"); err != nil {
			t.Fatal(err)
		}
		if got := names(volume); len(got) != 0 {
			t.Errorf("%s: the volume has %q", target, got)
		}
	}

	// A volume that is itself a link is none.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	c := testContainer(image, "linked", "true")
	c.Mounts = []agent.Mount{{Source: link, Target: "/data", Fill: true}}
	if err := r.Create(t.Context(), c); err == nil {
		t.Error("a link is filled")
	}
}

// A crash in the middle leaves a volume that the next creation fills, to the end or anew.
func TestFillInterrupted(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	image, err := withLayer(t, r, "filled",
		tar.Header{Typeflag: tar.TypeDir, Name: "data"},
		tar.Header{Typeflag: tar.TypeReg, Name: "data/a"}, tar.Header{Typeflag: tar.TypeReg, Name: "data/b"})
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][]string{
		"gathering":  {fillDir + "/a", fillDir + "/deep/rest"},
		"publishing": {filledDir + "/b", "a"},
	} {
		volume := t.TempDir()
		for _, file := range files {
			path := filepath.Join(volume, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := testContainer(image, name, "ls -a /data | tr '\\n' ' '")
		c.Mounts = []agent.Mount{{Source: volume, Target: "/data", Fill: true}}
		if got := outputOf(t, r, c); !strings.Contains(got, ". .. a b ") {
			t.Errorf("%s: the volume has %q", name, got)
		}
	}
}

// A layer's names and links stay inside the image.
func TestLayersDoNotEscape(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20)
	attacks := map[string][]tar.Header{
		"dots":              {{Typeflag: tar.TypeReg, Name: up + outside[1:] + "/new"}},
		"absolute":          {{Typeflag: tar.TypeReg, Name: outside + "/new"}},
		"through-a-link":    {{Typeflag: tar.TypeSymlink, Name: "way", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "way/new"}},
		"through-dots":      {{Typeflag: tar.TypeSymlink, Name: "way", Linkname: up + outside[1:]}, {Typeflag: tar.TypeReg, Name: "way/new"}},
		"over-a-link":       {{Typeflag: tar.TypeSymlink, Name: "victim", Linkname: victim}, {Typeflag: tar.TypeReg, Name: "victim"}},
		"hard-link":         {{Typeflag: tar.TypeLink, Name: "stolen", Linkname: victim}},
		"hard-link-by-dots": {{Typeflag: tar.TypeLink, Name: "stolen", Linkname: up + victim[1:]}},
		"hard-link-by-link": {{Typeflag: tar.TypeSymlink, Name: "way", Linkname: outside}, {Typeflag: tar.TypeLink, Name: "stolen", Linkname: "way/victim"}},
		"whiteout":          {{Typeflag: tar.TypeSymlink, Name: "way", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "way/.wh.victim"}},
		"whiteout-of-dots":  {{Typeflag: tar.TypeReg, Name: ".wh..." + "/" + "x"}, {Typeflag: tar.TypeReg, Name: "tmp/.wh..."}},
		"opaque":            {{Typeflag: tar.TypeSymlink, Name: "way", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "way/.wh..wh..opq"}},
	}
	for name, entries := range attacks {
		image, err := withLayer(t, r, name, entries...)
		if err == nil && (strings.HasPrefix(name, "hard-link") || name == "over-a-link") {
			// It is refused, or it stays in the image.
			if got := outputOf(t, r, testContainer(image, name, "cat /stolen /victim 2>/dev/null; true")); strings.Contains(got, "of the host") {
				t.Errorf("%s: the container reads the host's file: %q", name, got)
			}
		}
		entries, err := os.ReadDir(outside)
		if err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(victim)
		if len(entries) != 1 || err != nil || string(body) != "of the host" {
			t.Fatalf("%s: the host's directory has %v, its file %q, %v", name, entries, body, err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(victim, &st); err != nil || st.Nlink != 1 {
			t.Fatalf("%s: the host's file has %d names, %v", name, st.Nlink, err)
		}
	}
}

// The targets of mounts are looked up in the image, whatever links it has there.
func TestMountTargetsDoNotEscape(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "mine"), []byte("volume"), 0o644); err != nil {
		t.Fatal(err)
	}
	image, err := withLayer(t, r, "links",
		tar.Header{Typeflag: tar.TypeSymlink, Name: "absolute", Linkname: outside},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "dots", Linkname: strings.Repeat("../", 20) + outside[1:]})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/absolute", "/dots", "/dots/new/dir", "/../../.." + outside} {
		c := testContainer(image, strings.Trim(strings.ReplaceAll(target, "/", "-"), "-."), "cat "+filepath.Join(target, "mine"))
		c.Mounts = []agent.Mount{{Source: source, Target: target}}
		c.ID, c.TaskID = "c", "t"
		if got := outputOf(t, r, c); got != "volume" {
			t.Errorf("%s: %q", target, got)
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
			t.Errorf("%s: the host's directory has %v, %v", target, entries, err)
		}
	}
}
