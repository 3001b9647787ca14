package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The test binary is its own child: with one of these set it does not run tests.
const (
	crashDirEnv    = "BERTH_STORE_CRASH_DIR"
	fullDiskDirEnv = "BERTH_STORE_FULL_DISK_DIR"
)

// crashChild writes until it is killed, and tells each commit after it was acknowledged. Writer w's n-th
// commit sets its counter to n and adds the row w/n, in one transaction.
func crashChild(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}, things)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	if _, err := s.Campaign(ctx, "crash", ""); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	const writers = 4
	for w := range writers {
		go func() {
			for {
				var n int
				_, err := s.Update(ctx, func(tx *Tx) error {
					r, ok := things.Get(tx, k(fmt.Sprintf("counter/%d", w)))
					n = 1
					if ok {
						n = r.Value.Count + 1
					}
					things.Put(tx, r.Key, &thing{Count: n})
					things.Put(tx, k(fmt.Sprintf("row/%d/%d", w, n)), &thing{Count: n, Name: strings.Repeat("x", 300)})
					return nil
				})
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Printf("ack %d %d\n", w, n)
			}
		}()
	}
	select {}
}

// Killed again and again in the middle of writing, the embedded member loses nothing it acknowledged,
// tears no transaction, and its successor leads at once.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := map[int]int{}
	rounds := 8
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		acks, killAt := 0, 50+37*round
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			line := scan.Text()
			var w, n int
			switch {
			case line == "ready":
				t.Logf("round %d: ready and leading after %v", round, time.Since(start))
			case strings.HasPrefix(line, "error"):
				t.Error(line)
			default:
				if _, err := fmt.Sscanf(line, "ack %d %d", &w, &n); err != nil {
					break // cut off by the kill
				}
				if n <= acked[w] {
					t.Errorf("round %d: writer %d acknowledges %d after %d", round, w, n, acked[w])
				}
				acked[w] = n
				if acks++; acks == killAt {
					cmd.Process.Kill()
				}
			}
		}
		io.Copy(io.Discard, out)
		cmd.Wait()
		if acks < killAt {
			t.Fatalf("round %d: the child ended by itself", round)
		}
		// Look every other round, so that killed members also meet what a killed member left.
		if round%2 == 0 {
			continue
		}
		s := open(t, Config{Dir: dir, Logger: testLog(t)}, things)
		if _, ok := s.Leader("crash"); ok {
			t.Error("a killed process still leads")
		}
		for w, n := range acked {
			c, ok := things.Get(s.Snapshot(), k(fmt.Sprintf("counter/%d", w)))
			if !ok || c.Value.Count < n {
				t.Fatalf("round %d: writer %d had %d acknowledged, the store has %+v", round, w, n, c.Value)
			}
			if rows := things.Count(s.Snapshot(), scope, fmt.Sprintf("row/%d/", w)); rows != c.Value.Count {
				t.Errorf("round %d: writer %d has %d rows and the counter %d: a transaction was torn", round, w, rows, c.Value.Count)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// listeners counts this process's listening sockets.
func listeners(t *testing.T) int {
	t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	n := 0
	for file, column := range map[string]struct{ state, inode int }{
		"tcp": {3, 9}, "tcp6": {3, 9}, "unix": {5, 6},
	} {
		b, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) <= column.inode || !own[f[column.inode]] {
				continue
			}
			if file == "unix" && f[3] == "00010000" || file != "unix" && f[column.state] == "0A" {
				n++
			}
		}
	}
	return n
}
