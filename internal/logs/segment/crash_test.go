package segment

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthhq/berth/internal/blob"
)

// The test binary is its own child: with crashDirEnv set it appends until it kills itself, at the hit of
// crashAtEnv ("name#n").
const (
	crashDirEnv = "BERTH_SEGMENT_CRASH_DIR"
	crashAtEnv  = "BERTH_SEGMENT_CRASH_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir, os.Getenv(crashAtEnv))
	}
	goleak.VerifyTestMain(m)
}

func openDirs(dir string, now func() time.Time, hit func(string)) (*Store, *blob.Dir, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	b, err := blob.OpenDir(filepath.Join(dir, "blob"), log)
	if err != nil {
		return nil, nil, err
	}
	s, err := open(Config{Dir: filepath.Join(dir, "local"), Blob: b, SealBytes: 2000, Logger: log}, now, hit)
	return s, b, err
}

// crashChild appends events 0, 1, … and tells which were acknowledged.
func crashChild(dir, at string) {
	name, nth, _ := strings.Cut(at, "#")
	hits := 0
	s, _, err := openDirs(dir, time.Now, func(hit string) {
		if hit != name {
			return
		}
		if hits++; fmt.Sprint(hits) == nth {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	// However long the background takes to come by the place, on a machine that has much else to do.
	for n, end := 0, time.Now().Add(time.Minute); time.Now().Before(end); n++ {
		fmt.Println("begin", n)
		if _, err := s.Append(context.Background(), benchGroup, "s", []Entry{{int64(n), fmt.Appendf(nil, "%d %0100d", n, n)}}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("done", n)
	}
	os.Exit(0)
}

// Killed at any point, the store has each acknowledged event once, and one more at most.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"append/before#1", "append/before#40", "append/after#1", "append/after#55", "seal/before#1", "seal/before#3",
		"seal/after#1", "seal/after#4", "compact/before#1", "compact/after#1", "compact/before#2", "compact/after#2", "delete/after#1", "delete/after#5"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("/dev/shm", "segment")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), crashDirEnv+"="+dir, crashAtEnv+"=segment/"+at)
			out, err := cmd.Output()
			if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended by itself: %v\n%.2000s", err, out)
			}
			done := -1
			for scan := bufio.NewScanner(bytes.NewReader(out)); scan.Scan(); {
				fmt.Sscanf(scan.Text(), "done %d", &done)
			}
			for _, without := range []string{"", catalogueFile} {
				if without != "" {
					if err := os.Remove(filepath.Join(dir, "local", without)); err != nil {
						t.Fatal(err)
					}
				}
				s, b, err := openDirs(dir, time.Now, func(string) {})
				if err != nil {
					t.Fatal(err)
				}
				next := 0
				if err := s.Scan(t.Context(), benchGroup, ScanOptions{Gap: func(g Gap) { t.Error(g) }}, func(e Event) bool {
					if !bytes.HasPrefix(e.Message, fmt.Appendf(nil, "%d ", next)) {
						t.Errorf("%.20q in place of event %d", e.Message, next)
						return false
					}
					next++
					return true
				}); err != nil {
					t.Error(err)
				}
				if next != done+1 && next != done+2 {
					t.Errorf("%d events after %d were acknowledged", next, done+1)
				}
				s.Close()
				b.Close()
			}
		})
	}
}
