package harness

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeaksAreFound: a leak checker that finds nothing proves nothing.
func TestLeaksAreFound(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root: sudo make test")
	}
	raw := make([]byte, 4)
	rand.Read(raw)
	id, dir := hex.EncodeToString(raw), t.TempDir()
	if left := Leaks(id, dir); len(left) > 0 {
		t.Fatalf("before anything was made: %v", left)
	}

	fifo := filepath.Join(dir, "out")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("leak-test", mounted, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mounted, unix.MNT_DETACH)
	cmd := exec.Command("sleep", "60")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()

	left := strings.Join(Leaks(id, dir), "\n")
	for _, want := range []string{"FIFO " + fifo, "mount ", "process "} {
		if !strings.Contains(left, want) {
			t.Errorf("no %q in:\n%s", want, left)
		}
	}
}

func TestFindProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "read x", "the-token-of-TestFindProcess")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	Poll(t, 5*time.Second, "the process", func() bool { _, ok := FindProcess("the-token-of-TestFindProcess"); return ok })
	p, _ := FindProcess("the-token-of-TestFindProcess")
	if p.Pid != cmd.Process.Pid {
		t.Errorf("found %v, want process %d", p, cmd.Process.Pid)
	}
	if pss, err := p.PSS(); err != nil || pss <= 0 {
		t.Errorf("PSS %d: %v", pss, err)
	}
	if _, err := p.CPUTicks(); err != nil {
		t.Error(err)
	}
}
