package blob

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openDir(t testing.TB, dir string) *Dir {
	t.Helper()
	d, err := OpenDir(dir, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func put(t testing.TB, s Store, key, content string) Info {
	t.Helper()
	info, err := s.Put(context.Background(), key, strings.NewReader(content), PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(s Store, key string) (string, Info, error) {
	r, err := s.Get(context.Background(), key)
	if err != nil {
		return "", Info{}, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), r.Info(), err
}

func list(t testing.TB, s Store, prefix, after string) (infos []Info) {
	t.Helper()
	for info, err := range s.List(context.Background(), prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, info)
	}
	return infos
}

func keysOf(infos []Info) (keys []string) {
	for _, i := range infos {
		keys = append(keys, i.Key)
	}
	return keys
}

// files are those below dir that hold something, without the lock.
func files(t testing.TB, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != lockFile {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// anyKey draws keys that meet in directories: slashes, dots, escapes, several letters of UTF-8, and runs
// about as long as a name may be.
func anyKey() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"/", "a", "b", ".", "..", "é", "%", "%2F", " ", "-", "0", "\x00", "//", "a/", ".o", ".d", ".c", "😀", "\u0301"}),
		rapid.Map(rapid.IntRange(maxName-2, maxName+2), func(n int) string { return strings.Repeat("a", n) }),
		rapid.Map(rapid.IntRange(1, 30), func(n int) string { return strings.Repeat("/", n) }),
	)
	return rapid.Map(rapid.SliceOfN(piece, 1, 6), func(p []string) string { return strings.Join(p, "") }).
		Filter(func(k string) bool { return len(k) <= MaxKey })
}

// Whatever is done, the store holds what a map would, also after it is opened again, and lists it in the
// order of the keys' bytes.
func TestLikeAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("/dev/shm", "blob") // in memory: a hundred rounds of fsync take seconds
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		d, err := OpenDir(dir, discard())
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { d.Close() }()
		ctx := context.Background()
		model := map[string]string{}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				key := anyKey().Draw(rt, "key")
				content := strings.Repeat(rapid.StringN(1, 8, -1).Draw(rt, "content"), rapid.IntRange(0, 3).Draw(rt, "times"))
				o := PutOptions{IfNoneMatch: rapid.Bool().Draw(rt, "if none match"), ContentType: "t/" + key,
					Metadata: map[string]string{"k": content}}
				info, err := d.Put(ctx, key, iotest.HalfReader(strings.NewReader(content)), o)
				if _, there := model[key]; there && o.IfNoneMatch {
					if !errors.Is(err, ErrExists) {
						rt.Fatalf("put over %q: %v", key, err)
					}
					return
				}
				if err != nil || info.Size != int64(len(content)) || info.MD5 != md5.Sum([]byte(content)) {
					rt.Fatalf("put %q: %+v, %v", key, info, err)
				}
				model[key] = content
			},
			"fail": func(rt *rapid.T) {
				key := anyKey().Draw(rt, "key")
				if _, err := d.Put(ctx, key, io.MultiReader(strings.NewReader("x"), iotest.ErrReader(io.ErrUnexpectedEOF)), PutOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
					rt.Fatalf("put of a broken body: %v", err)
				}
			},
			"delete": func(rt *rapid.T) {
				key := anyKey().Draw(rt, "key")
				if len(model) > 0 && rapid.Bool().Draw(rt, "one that is there") {
					key = rapid.SampledFrom(slices.Sorted(maps.Keys(model))).Draw(rt, "which")
				}
				if err := d.Delete(ctx, key); err != nil {
					rt.Fatal(err)
				}
				delete(model, key)
			},
			"reopen": func(rt *rapid.T) {
				d.Close()
				if d, err = OpenDir(dir, discard()); err != nil {
					rt.Fatal(err)
				}
			},
			"list": func(rt *rapid.T) {
				prefix, after := anyKey().Draw(rt, "prefix"), anyKey().Draw(rt, "after")
				if len(model) > 0 {
					some := rapid.SampledFrom(slices.Sorted(maps.Keys(model)))
					cut := func(label string) string {
						k := some.Draw(rt, label)
						return k[:rapid.IntRange(0, len(k)).Draw(rt, "cut")]
					}
					prefix = rapid.SampledFrom([]string{"", prefix, cut("prefix of")}).Draw(rt, "used prefix")
					after = rapid.SampledFrom([]string{"", after, cut("after"), cut("after") + "\xff"}).Draw(rt, "used after")
				}
				var want []string
				for _, k := range slices.Sorted(maps.Keys(model)) {
					if strings.HasPrefix(k, prefix) && k > after {
						want = append(want, k)
					}
				}
				var got []string
				for info, err := range d.List(ctx, prefix, after) {
					if err != nil {
						rt.Fatal(err)
					}
					got = append(got, info.Key)
				}
				if !slices.Equal(got, want) {
					rt.Fatalf("list %q after %q: %q, want %q", prefix, after, got, want)
				}
			},
			"": func(rt *rapid.T) {
				for key, want := range model {
					got, info, err := get(d, key)
					if err != nil || got != want || info.Key != key || info.ContentType != "t/"+key || info.Metadata["k"] != want {
						rt.Fatalf("get %q: %q, %+v, %v; want %q", key, got, info, err, want)
					}
				}
				if n := len(files(t, dir)); n != len(model) {
					rt.Fatalf("%d files for %d objects", n, len(model))
				}
			},
		})
	})
}

func TestRefusedKeys(t *testing.T) {
	t.Parallel()
	d := openDir(t, t.TempDir())
	for _, key := range []string{"", strings.Repeat("k", MaxKey+1), "\xff", "a\xc3"} {
		_, putErr := d.Put(t.Context(), key, strings.NewReader(""), PutOptions{})
		_, getErr := d.Get(t.Context(), key)
		for _, err := range []error{putErr, getErr, d.Delete(t.Context(), key)} {
			if !errors.Is(err, ErrInvalidKey) {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
	for _, key := range []string{strings.Repeat("/", MaxKey), strings.Repeat("😀", MaxKey/4), strings.Repeat("../", MaxKey/3), strings.Repeat("k", MaxKey)} {
		put(t, d, key, key)
		if got, _, err := get(d, key); err != nil || got != key {
			t.Errorf("%.20q…: %v", key, err)
		}
	}
}

// FuzzKeyPath: every key has a path of its own, inside the store, of names a file system takes, that
// leads back to the key.
func FuzzKeyPath(f *testing.F) {
	for _, k := range []string{"a", "a/b", "../../etc/passwd", "/", "a//b", "\x00", "%2F", strings.Repeat("é", 200), strings.Repeat("a/", 300), ".", "..", "a.d/b.o"} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if checkKey(key) != nil {
			return
		}
		dir, name := keyPath(key)
		path := dir + "/" + name
		if dir == "." {
			path = name
		}
		if !filepath.IsLocal(path) || filepath.Clean(path) != path || len(path) > 3500 {
			t.Fatalf("%q is at %q", key, path)
		}
		back := ""
		for part := range strings.SplitSeq(path, "/") {
			e, ok := parseName(part)
			if !ok || e.name() != part || len(part) > 250 {
				t.Fatalf("%q is at %q: %q", key, path, part)
			}
			back += e.part
		}
		if back != key {
			t.Fatalf("%q at %q leads back to %q", key, path, back)
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"a.o", ".d", "%2F.o", "%2f.o", "%61.o", "%.o", "é.o", "a.x", strings.Repeat("a", maxName) + ".c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, ok := parseName(s); ok && e.name() != s {
			t.Fatalf("%q is read as %+v, which is called %q", s, e, e.name())
		}
	})
}

// Ranges of a large object are read and verified alone.
func TestSeek(t *testing.T) {
	t.Parallel()
	d := openDir(t, t.TempDir())
	content := make([]byte, 3*blockSize+17)
	for i := range content {
		content[i] = byte(i * 7 / 3)
	}
	if _, err := d.Put(t.Context(), "k", iotest.OneByteReader(bytes.NewReader(content[:100])), PutOptions{}); err != nil {
		t.Fatal(err)
	}
	put(t, d, "k", string(content))
	r, err := d.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := iotest.TestReader(r, content); err != nil {
		t.Fatal(err)
	}
	put(t, d, "k", "another version")
	if _, err := r.Seek(blockSize-1, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, blockSize)
	if _, err := io.ReadFull(r, b); err != nil || !bytes.Equal(b, content[blockSize-1:2*blockSize-1]) {
		t.Errorf("a reader sees another version: %v", err)
	}
}

// A byte changed anywhere in a file is noticed, and so is a file that is cut.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir)
	put(t, d, "before", "x")
	put(t, d, "k", strings.Repeat("0123456789", 30_000))
	put(t, d, "z", "x")
	path := filepath.Join(dir, objectsDir, "k.o")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		b := slices.Clone(whole)
		at := rapid.OneOf(rapid.IntRange(0, len(b)-1), rapid.IntRange(len(b)-300, len(b)-1)).Draw(rt, "at")
		switch rapid.SampledFrom([]string{"flip", "cut", "grow"}).Draw(rt, "how") {
		case "flip":
			b[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		case "cut":
			b = b[:at]
		case "grow":
			b = append(b, b[at:]...)
		}
		write(b)
		if _, _, err := get(d, "k"); !errors.Is(err, ErrCorrupt) {
			rt.Fatalf("read: %v", err)
		}
		if keys := keysOf(list(t, d, "", "")); !slices.Equal(keys, []string{"before", "k", "z"}) {
			rt.Fatalf("listed: %q", keys)
		}
	})
	write(whole)
	if err := os.Rename(path, filepath.Join(dir, objectsDir, "l.o")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Stat(t.Context(), "l"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another key's object: %v", err)
	}
	if err := d.Delete(t.Context(), "l"); err != nil {
		t.Error(err)
	}
}

// Of concurrent puts one whole object stays, exactly one of those that want to be first succeeds, and
// directories that come and go under them do no harm.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	d := openDir(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	first := 0
	for w := range 8 {
		wg.Go(func() {
			content := strings.Repeat(fmt.Sprint(w), 1000)
			for i := range 20 {
				key := fmt.Sprintf("a/b/%d/%d", i%2, w%2)
				if _, err := d.Put(t.Context(), key, strings.NewReader(content), PutOptions{}); err != nil {
					t.Error(err)
				}
				if got, _, err := get(d, key); err == nil && (len(got) != 1000 || strings.Trim(got, got[:1]) != "") || err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("read %.20q, %v", got, err)
				}
				for _, err := range d.List(t.Context(), "a/", "") {
					if err != nil {
						t.Error(err)
					}
				}
				if err := d.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
			_, err := d.Put(t.Context(), "first", strings.NewReader(content), PutOptions{IfNoneMatch: true})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				first++
			} else if !errors.Is(err, ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := keysOf(list(t, d, "", "")); first != 1 || !slices.Equal(got, []string{"first"}) {
		t.Errorf("%d were first; there is %q", first, got)
	}
	if got := files(t, d.root.Name()); len(got) != 1 {
		t.Errorf("files left: %q", got)
	}
	if _, err := d.root.Lstat("objects/a.d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directories stay: %v", err)
	}
}

// A directory with more names than a listing holds at a time is listed whole.
func TestLongListing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir)
	put(t, d, "k", "x")
	n := 2*listChunk + 5
	for i := range n { // not puts: those are durable one by one
		if err := os.Link(filepath.Join(dir, "objects/k.o"), filepath.Join(dir, fmt.Sprintf("objects/l%06d.o", i))); err != nil {
			if errors.Is(err, unix.EMLINK) {
				t.Fatal("the file system takes too few links for this test")
			}
			t.Fatal(err)
		}
	}
	l := &lister{Dir: d, ctx: t.Context(), after: "l000002"}
	i := 3
	l.yield = func(info Info, err error) bool {
		if want := fmt.Sprintf("l%06d", i); info.Key != want || err != nil {
			t.Fatalf("%q, %v, want %q", info.Key, err, want)
		}
		i++
		return true
	}
	if more, err := l.walk("objects", "", "l"); !more || err != nil || i != n {
		t.Errorf("%d of %d, %v, %v", i, n, more, err)
	}
}

// On a full volume a put says so, leaves nothing of itself and all that was there; deleting makes room.
func TestFullVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount a small tmpfs (tests need root): %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	d := openDir(t, dir)
	put(t, d, "k", "old")
	put(t, d, "big", strings.Repeat("x", 1<<20))
	_, err := d.Put(t.Context(), "k", strings.NewReader(strings.Repeat("y", 1<<20)), PutOptions{})
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if got, _, err := get(d, "k"); got != "old" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if n := len(files(t, dir)); n != 2 {
		t.Errorf("%d files", n)
	}
	if err := d.Delete(t.Context(), "big"); err != nil {
		t.Fatal(err)
	}
	put(t, d, "k", strings.Repeat("y", 1<<20))
}

func TestOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := openDir(t, dir)
	if other, err := OpenDir(dir, discard()); err == nil {
		other.Close()
		t.Fatal("opened twice")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	d := openDir(t, t.TempDir())
	put(t, d, "k", "old")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Put(ctx, "k", strings.NewReader("new"), PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, err := range d.List(ctx, "", "") {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if got, _, err := get(d, "k"); got != "old" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
