package blob

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The test binary is its own child: with crashDirEnv set it writes until it kills itself, at the hit of
// crashAtEnv ("name#n").
const (
	crashDirEnv = "BERTH_BLOB_CRASH_DIR"
	crashAtEnv  = "BERTH_BLOB_CRASH_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir, os.Getenv(crashAtEnv))
	}
	os.Exit(m.Run())
}

// crashChild puts versions 1, 2, … of one object and deletes each third, and tells what it is about to do
// and what was acknowledged.
func crashChild(dir, at string) {
	name, nth, _ := strings.Cut(at, "#")
	d, err := OpenDir(dir, discard())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	hits := 0
	d.hit = func(hit string) {
		if hit != name {
			return
		}
		if hits++; fmt.Sprint(hits) == nth {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx := context.Background()
	for n := 1; n < 30; n++ {
		fmt.Println("begin", n)
		if n%3 == 0 {
			err = d.Delete(ctx, "a/b/k")
		} else {
			_, err = d.Put(ctx, "a/b/k", strings.NewReader(version(n)), PutOptions{})
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("done", n)
	}
	os.Exit(0)
}

func version(n int) string { return strings.Repeat(fmt.Sprint(n, ";"), 40_000) }

// Killed at any point, the store has what was acknowledged or what was under way, whole, and opens with
// nothing left over.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"blob/put/before", "blob/put/after", "blob/delete/before", "blob/delete/after"} {
		for _, nth := range []int{1, 2, 5} {
			t.Run(fmt.Sprintf("%s#%d", point, nth), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), crashDirEnv+"="+dir, fmt.Sprintf("%s=%s#%d", crashAtEnv, point, nth))
				out, err := cmd.Output()
				if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
					t.Fatalf("the child ended by itself: %v\n%s", err, out)
				}
				begun, done := 0, 0
				for scan := bufio.NewScanner(strings.NewReader(string(out))); scan.Scan(); {
					fmt.Sscanf(scan.Text(), "begin %d", &begun)
					fmt.Sscanf(scan.Text(), "done %d", &done)
				}
				d := openDir(t, dir)
				content := func(n int) string {
					if n == 0 || n%3 == 0 {
						return ""
					}
					return version(n)
				}
				got, _, err := get(d, "a/b/k")
				if got != content(begun) && got != content(done) || (err == nil) != (got != "") {
					t.Errorf("after %d begun and %d done there is %.20q, %v", begun, done, got, err)
				}
				want := 0
				if got != "" {
					want = 1
				}
				if left := files(t, dir); len(left) != want {
					t.Errorf("files left: %q", left)
				}
			})
		}
	}
}
