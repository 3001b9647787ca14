package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// At the quota writers are told so and readers go on; when rows are deleted the store makes room by
// itself, and it does not need to be told or restarted.
func TestQuota(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), QuotaBytes: 4 << 20, Logger: testLog(t)}
	s := open(t, cfg, things)
	blob := strings.Repeat("x", 64<<10)
	fill := func() (n int) {
		t.Helper()
		for ; ; n++ {
			_, err := s.Update(t.Context(), func(tx *Tx) error {
				things.Put(tx, k(fmt.Sprintf("row/%d", n)), &thing{Name: blob})
				return nil
			})
			if errors.Is(err, ErrNoSpace) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			if n > 1000 {
				t.Fatal("the quota is not kept")
			}
		}
	}
	n := fill()
	t.Logf("full after %d rows of 64 KiB", n)
	if got := things.Count(s.Snapshot(), scope, "row/"); got != n {
		t.Errorf("%d rows are acknowledged, the snapshot has %d", n, got)
	}
	for i := range n - 3 {
		update(t, s, func(tx *Tx) { things.Delete(tx, k(fmt.Sprintf("row/%d", i))) })
	}
	start := time.Now()
	write := func() error {
		_, err := s.Update(t.Context(), func(tx *Tx) error {
			things.Put(tx, k("after"), &thing{Name: blob})
			return nil
		})
		return err
	}
	for {
		err := write()
		if err == nil {
			break
		}
		if !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("no room after deleting nearly all rows")
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("writing again %v after the deletes", time.Since(start))

	// Full again, and opened again with a larger quota: the alarm is on disk, and goes.
	fill()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.QuotaBytes = 64 << 20
	s = open(t, cfg, things)
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err := write(); err == nil {
			break
		} else if !errors.Is(err, ErrNoSpace) || time.Since(start) > 20*time.Second {
			t.Fatalf("with a larger quota: %v", err)
		}
	}
}

// Rewriting the same rows does not fill a database: writers are never refused because of history.
func TestHistoryDoesNotFillTheQuota(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Dir: t.TempDir(), QuotaBytes: 4 << 20, Logger: testLog(t)}, things)
	blob := strings.Repeat("x", 64<<10)
	for i := range 300 {
		update(t, s, func(tx *Tx) { things.Put(tx, k("row"), &thing{Name: blob, Count: i}) })
	}
}

// fullDiskChild fills the disk under an open store, writes until it is refused, and tells how it went.
func fullDiskChild(dir string) {
	ctx := context.Background()
	die := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s, err := Open(ctx, Config{Dir: filepath.Join(dir, "data"), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}, things)
	if err != nil {
		die(err)
	}
	l, err := s.Campaign(ctx, "x", "")
	if err != nil {
		die(err)
	}
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		die(err)
	}
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		die(err)
	}
	acked := 0
	for blob := strings.Repeat("x", 8<<10); ; acked++ {
		_, err := s.Update(ctx, func(tx *Tx) error {
			things.Put(tx, k(fmt.Sprintf("row/%d", acked)), &thing{Name: blob})
			return nil
		})
		var failed *FailedError
		if errors.As(err, &failed) {
			fmt.Println("acked", acked)
			fmt.Println("failed", err)
			break
		}
		if err != nil {
			die(err)
		}
	}
	<-s.Done()
	<-l.Done()
	fmt.Println("readable", things.Count(s.Snapshot(), scope, "row/"))
	if err := s.Close(); err != nil {
		die(err)
	}
	fmt.Println("closed")
}

// On a full disk the embedded member cannot write. The store says so, every caller returns, nothing
// panics, and what was acknowledged is there when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatal("mounting a small file system (needs root): ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fullDiskDirEnv+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	t.Logf("%s%s", out, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	var acked, readable int
	for line := range strings.Lines(string(out)) {
		fmt.Sscanf(line, "acked %d", &acked)
		fmt.Sscanf(line, "readable %d", &readable)
	}
	if !strings.Contains(string(out), "no space left on device") || !strings.HasSuffix(string(out), "closed\n") {
		t.Error("the cause is not told")
	}
	if readable < acked {
		t.Errorf("%d rows were acknowledged, the last snapshot had %d", acked, readable)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{Dir: filepath.Join(dir, "data"), Logger: testLog(t)}, things)
	if got := things.Count(s.Snapshot(), scope, "row/"); got < acked || got > acked+1 {
		t.Errorf("%d rows were acknowledged, the store has %d", acked, got)
	}
	if err := s.Close(); err != nil { // before the file system goes
		t.Error(err)
	}
}

func TestHistoryDue(t *testing.T) {
	t.Parallel()
	h := history{keep: 100}
	now := time.Unix(1e9, 0)
	step := func(after time.Duration, revision, want int64) {
		t.Helper()
		now = now.Add(after)
		if got := h.due(now, revision); got != want {
			t.Errorf("at revision %d: compact to %d, want %d", revision, got, want)
		}
	}
	step(0, 10, 0)
	step(time.Minute, 20, 0)
	step(keepHistory-time.Minute, 20, 10)
	step(time.Minute, 20, 20)
	step(time.Hour, 20, 0)     // nothing new
	step(time.Second, 150, 0)  // half as many again are let be,
	step(time.Second, 171, 71) // more not
	step(time.Second, 172, 0)
	step(keepHistory, 172, 172)
	step(24*time.Hour, 172, 0)
}
