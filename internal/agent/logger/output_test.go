package logger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logger/process"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// The test binary is the logger process and the "container" as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "logger":
			os.Exit(Main(os.Args[2:]))
		case "write-lines":
			n, _ := strconv.Atoi(os.Args[2])
			writeLines(os.Stdout, n)
			os.Exit(0)
		}
	}
	goleak.VerifyTestMain(m)
}

// writeLines writes numbered lines of different lengths, in pieces that end anywhere.
func writeLines(w io.Writer, n int) {
	var buf []byte
	for i := range n {
		buf = append(buf, numbered(i)...)
		if len(buf) > rand.IntN(6000) {
			cut := len(buf)
			if i < n-1 {
				cut = 1 + rand.IntN(len(buf))
			}
			if _, err := w.Write(buf[:cut]); err != nil {
				panic(err)
			}
			buf = buf[cut:]
		}
	}
	if _, err := w.Write(buf); err != nil {
		panic(err)
	}
}

func numbered(i int) string { return fmt.Sprintf("%08d %s\n", i, strings.Repeat("x", i%171)) }

type fixture struct {
	*Output
	cfg Config
}

func open(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	run, err := os.MkdirTemp("/tmp", "berth-logger-") // short: it is to hold a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{cfg: Config{RunDir: run, SpoolDir: filepath.Join(t.TempDir(), "spool"), Command: []string{self, "logger"}}}
	if change != nil {
		change(&f.cfg)
	}
	f.reopen(t)
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(f.paths.Log())
			t.Logf("the logger's log:\n%s", b)
		}
		if err := f.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) reopen(t testing.TB) {
	t.Helper()
	o, err := Open(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Output = o
}

func (f *fixture) pid(t testing.TB) int {
	t.Helper()
	h, err := process.Call(t.Context(), f.paths.Socket(), process.Request{Op: process.OpHello})
	if err != nil {
		return 0
	}
	return h.PID
}

// shim holds a container's FIFOs open as the shim does.
type shim struct{ out, err *os.File }

func (f *fixture) attach(t testing.TB, task, name, id string) *shim {
	t.Helper()
	out, err, e := f.Attach(t.Context(), task, name, id)
	if e != nil {
		t.Fatal(e)
	}
	return &shim{openFIFO(t, out), openFIFO(t, err)}
}

func openFIFO(t testing.TB, path string) *os.File {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != os.ModeNamedPipe|0o600 {
		t.Fatalf("FIFO %s: %v, %v", path, st, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	return f
}

func (s *shim) close() {
	s.out.Close()
	s.err.Close()
}

func (f *fixture) detach(t testing.TB, id string) {
	t.Helper()
	if err := f.Detach(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) read(t testing.TB, q agent.OutputQuery) []*dispatchpb.LogLine {
	t.Helper()
	var lines []*dispatchpb.LogLine
	err := f.Read(t.Context(), q, func(l *dispatchpb.LogLine) error {
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func texts(lines []*dispatchpb.LogLine) (s []string) {
	for _, l := range lines {
		s = append(s, string(l.Text))
	}
	return s
}

// checkLines fails unless lines are n numbered ones, each once and in order.
func checkLines(t testing.TB, lines []*dispatchpb.LogLine, n int) {
	t.Helper()
	for i, l := range lines {
		if string(l.Text)+"\n" != numbered(i) || l.Partial {
			t.Fatalf("line %d is %q (partial %v)", i, l.Text, l.Partial)
		}
	}
	if len(lines) != n {
		t.Fatalf("%d lines of %d", len(lines), n)
	}
}

func TestAttachReadDetach(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	if st, err := os.Stat(filepath.Dir(f.paths.Socket())); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the socket's directory: %v, %v", st, err)
	}
	if st, err := os.Stat(f.paths.Socket()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st, err)
	}
	a := f.attach(t, "task1", "web", "c1")
	f.attach(t, "task1", "web", "c1").close() // again
	a.out.WriteString("one\ntwo\n")
	a.err.WriteString("oops\nno newline")
	if ids, _ := f.Attached(t.Context()); !slices.Equal(ids, []string{"c1"}) {
		t.Errorf("attached: %v", ids)
	}
	if err := f.Remove(t.Context(), "task1"); err == nil {
		t.Error("the spool of an attached container was removed")
	}
	a.close()
	start := time.Now()
	f.detach(t, "c1")
	if d := time.Since(start); d > drainLimitForTest {
		t.Errorf("detach took %v", d)
	}
	f.detach(t, "c1") // again
	if ids, _ := f.Attached(t.Context()); len(ids) != 0 {
		t.Errorf("attached: %v", ids)
	}
	out, err := f.paths.FIFOs("c1")
	for _, p := range []string{out, err} {
		if _, e := os.Lstat(p); !errors.Is(e, os.ErrNotExist) {
			t.Errorf("%s is left: %v", p, e)
		}
	}
	got := texts(f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1}))
	slices.Sort(got)
	if want := []string{"no newline", "one", "oops", "two"}; !slices.Equal(got, want) {
		t.Errorf("read %q", got)
	}
	if ids, err := f.Tasks(); err != nil || !slices.Equal(ids, []string{"task1"}) {
		t.Errorf("tasks: %v, %v", ids, err)
	}
	for range 2 {
		if err := f.Remove(t.Context(), "task1"); err != nil {
			t.Error(err)
		}
	}
	if got := f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1}); len(got) > 0 {
		t.Errorf("after removal: %q", texts(got))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const drainLimitForTest = 3 * time.Second // generous: machines are busy

// The logger process is killed again and again while a container writes; every line arrives once.
func TestKilledLoggerLosesNothing(t *testing.T) {
	t.Parallel()
	const lines = 110_000 // more than 10 MB
	f := open(t, nil)
	a := f.attach(t, "task1", "app", "c1")
	self, _ := os.Executable()
	cmd := exec.Command(self, "write-lines", strconv.Itoa(lines))
	cmd.Stdout = a.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	kills := 0
	for done := false; !done; {
		select {
		case err := <-exited:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(time.Duration(rand.IntN(40)) * time.Millisecond):
			if pid := f.pid(t); pid != 0 && kills < 8 {
				syscall.Kill(pid, syscall.SIGKILL)
				kills++
			}
		}
	}
	a.close() // before the last of it may have been read
	f.detach(t, "c1")
	if kills < 3 {
		t.Errorf("only %d kills: that shows little", kills)
	}
	t.Logf("%d kills", kills)
	checkLines(t, f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1}), lines)
}

// Berth is upgraded again and again while a container writes.
func TestHandover(t *testing.T) {
	t.Parallel()
	const lines = 60_000
	f := open(t, nil)
	a := f.attach(t, "task1", "app", "c1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		writeLines(a.out, lines)
	}()
	pids := map[int]bool{f.pid(t): true}
	for i := range 5 {
		f.Close()
		f.cfg.Build = fmt.Sprintf("build-%d", i)
		f.reopen(t)
		pids[f.pid(t)] = true
	}
	if len(pids) != 6 {
		t.Errorf("%d processes served 6 builds", len(pids))
	}
	<-done
	a.close()
	f.detach(t, "c1")
	checkLines(t, f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1}), lines)
}

// Output flows while there is no Berth, and the next one finds the same process.
func TestProcessOutlivesBerth(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	a := f.attach(t, "task1", "app", "c1")
	pid := f.pid(t)
	sid, err := unix.Getsid(pid)
	if err != nil || sid != pid {
		t.Errorf("the process's session is %d, %v, not its own %d", sid, err, pid)
	}
	f.Close()
	writeLines(a.out, 20_000)
	f.reopen(t)
	if got := f.pid(t); got != pid {
		t.Errorf("process %d, not %d", got, pid)
	}
	if ids, _ := f.Attached(t.Context()); !slices.Equal(ids, []string{"c1"}) {
		t.Errorf("attached: %v", ids)
	}
	a.close()
	f.detach(t, "c1")
	checkLines(t, f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1}), 20_000)
}

// A process that is stopped does not answer; the next Berth replaces it.
func TestStoppedProcessIsReplaced(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	a := f.attach(t, "task1", "app", "c1")
	pid := f.pid(t)
	f.Close()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	for stopped := false; !stopped; { // which each of its threads does in its own time
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		must(t, err)
		stopped = len(tasks) > 0
		for _, path := range tasks {
			b, _ := os.ReadFile(path)
			stopped = stopped && bytes.Contains(b, []byte("State:\tT"))
		}
	}
	a.out.WriteString("while it is stopped\n")
	f.reopen(t)
	if f.pid(t) == pid {
		t.Error("it is not replaced")
	}
	a.close()
	f.detach(t, "c1")
	if got := texts(f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1})); !slices.Equal(got, []string{"while it is stopped"}) {
		t.Errorf("read %q", got)
	}
}

// A process that outlived the container still holds the FIFO, and may write for ever.
func TestDetachIsBounded(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	quiet := f.attach(t, "task1", "quiet", "c1")
	quiet.out.WriteString("said\n")
	f.detach(t, "c1")
	if got := texts(f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1})); !slices.Equal(got, []string{"said"}) {
		t.Errorf("read %q", got)
	}
	noisy := f.attach(t, "task2", "noisy", "c2")
	fd := int(noisy.out.Fd())
	must(t, unix.SetNonblock(fd, true))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Write(fd, []byte("still here\n"))
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := f.Detach(ctx, "c2"); err != nil {
		t.Error(err)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	a := f.attach(t, "task1", "app", "c1")
	got := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- f.Read(t.Context(), agent.OutputQuery{TaskID: "task1", Follow: true, Tail: -1}, func(l *dispatchpb.LogLine) error {
			got <- fmt.Sprintf("%s %s %q %v", l.Container, l.Stream, l.Text, l.Partial)
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case s := <-got:
			if s != want {
				t.Errorf("got %s, want %s", s, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s does not come", want)
		}
	}
	a.out.WriteString("line\n")
	expect(`app stdout "line" false`)
	a.err.WriteString("prompt: ")
	expect(`app stderr "prompt: " true`)
	b := f.attach(t, "task1", "side", "c2")
	b.out.WriteString("late\n")
	expect(`side stdout "late" false`)
	a.err.WriteString("answer\n")
	expect(`app stderr "answer" false`)
	a.close()
	f.detach(t, "c1")
	b.out.WriteString("last")
	b.close()
	f.detach(t, "c2")
	select {
	case s := <-got: // with or without having been shown before the end was known
		if !strings.HasPrefix(s, `side stdout "last"`) {
			t.Errorf("got %s", s)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the last line does not come")
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("following does not end")
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	f.attach(t, "task1", "app", "c1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := f.Read(ctx, agent.OutputQuery{TaskID: "task1", Follow: true}, func(*dispatchpb.LogLine) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMergeTailSince(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	a, b := f.attach(t, "task1", "a", "c1"), f.attach(t, "task1", "b", "c2")
	var middle time.Time
	for i := range 6 {
		if i == 3 {
			middle = time.Now()
		}
		fmt.Fprintf([]*shim{a, b}[i%2].out, "line %d\n", i)
		// The next line's time is that of a later round: wait until this one is there.
		for len(f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1})) <= i {
			if t.Context().Err() != nil {
				t.Fatal("the line does not come")
			}
		}
	}
	for _, c := range []struct {
		q    agent.OutputQuery
		want string
	}{
		{agent.OutputQuery{Tail: -1}, "0 1 2 3 4 5"},
		{agent.OutputQuery{Tail: 2}, "2 3 4 5"},
		{agent.OutputQuery{Tail: -1, Since: middle}, "3 4 5"},
		{agent.OutputQuery{Tail: 1, Since: middle}, "4 5"},
		{agent.OutputQuery{Tail: -1, Container: "b"}, "1 3 5"},
		{agent.OutputQuery{Tail: -1, Container: "none"}, ""},
	} {
		c.q.TaskID = "task1"
		got := strings.ReplaceAll(strings.Join(texts(f.read(t, c.q)), " "), "line ", "")
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	for _, name := range []string{"", "..", "a/b", "a\x00", strings.Repeat("x", 300)} {
		if _, _, err := f.Attach(t.Context(), name, "c", "id"); err == nil {
			t.Errorf("task %q was attached", name)
		}
		if _, _, err := f.Attach(t.Context(), "t", "c", name); err == nil {
			t.Errorf("container %q was attached", name)
		}
		if err := f.Remove(t.Context(), name); err == nil {
			t.Errorf("task %q was removed", name)
		}
		if err := f.Detach(t.Context(), name); err == nil {
			t.Errorf("container %q was detached", name)
		}
		if err := f.Read(t.Context(), agent.OutputQuery{TaskID: name}, nil); err == nil {
			t.Errorf("task %q was read", name)
		}
	}
	if _, _, err := f.Attach(t.Context(), "t", "c", "id"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Attach(t.Context(), "t", "other", "id"); err == nil {
		t.Error("one container was attached under two names")
	}
}

// On a full disk containers go on, what is lost is counted, and it recovers.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount a small tmpfs (tests need root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(disk, "ballast") // of somebody else
	if err := os.WriteFile(ballast, make([]byte, 600<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, func(c *Config) { c.SpoolDir = filepath.Join(disk, "spool") })
	a := f.attach(t, "task1", "app", "c1")
	const lines = 20_000 // 2 MB
	done := make(chan struct{})
	go func() {
		defer close(done)
		writeLines(a.out, lines)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the container is blocked")
	}
	os.Remove(ballast)
	// It finds out when it tries again; what is written until then is lost too.
	written := 0
	for seen := false; !seen; {
		if t.Context().Err() != nil {
			t.Fatal("output is not taken again")
		}
		a.out.WriteString("again\n")
		written += len("again\n")
		last := f.read(t, agent.OutputQuery{TaskID: "task1", Tail: 1})
		seen = len(last) > 0 && string(last[len(last)-1].Text) == "again"
	}
	a.out.WriteString("the end\n")
	a.close()
	f.detach(t, "c1")
	var size, lost, markers int
	got := f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1})
	for _, l := range got {
		var n int
		if _, err := fmt.Sscanf(string(l.Text), "[berth: %d bytes", &n); err == nil {
			lost += n
			markers++
			if !strings.Contains(string(l.Text), "disk was full") {
				t.Errorf("marker %q", l.Text)
			}
			continue
		}
		size += len(l.Text) + 1
	}
	total := written + len("the end\n")
	for i := range lines {
		total += len(numbered(i))
	}
	// A line that was cut by a loss is shown without its end: its newline was lost, or not written.
	if diff := size + lost - total; markers == 0 || lost == 0 || diff < 0 || diff > markers {
		t.Errorf("read %d and lost %d in %d gaps, of %d", size, lost, markers, total)
	}
	if s := string(got[len(got)-1].Text); s != "the end" {
		t.Errorf("the last line is %q", s)
	}
}

// 100 containers are one process's work, in little memory.
func TestManyContainers(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	var shims []*shim
	for i := range 100 {
		shims = append(shims, f.attach(t, "task1", fmt.Sprint("c", i), fmt.Sprint("id", i)))
	}
	for range 20 {
		for _, s := range shims {
			s.out.WriteString("out\n")
			s.err.WriteString("err\n")
		}
	}
	pss := pssKiB(t, f.pid(t))
	for i, s := range shims {
		s.close()
		f.detach(t, fmt.Sprint("id", i))
	}
	if got := f.read(t, agent.OutputQuery{TaskID: "task1", Tail: -1}); len(got) != 4000 {
		t.Errorf("%d lines of 4000", len(got))
	}
	t.Logf("PSS with 100 containers: %d KiB", pss)
	if pss > 40<<10 {
		t.Errorf("the process takes %d KiB", pss)
	}
}

func pssKiB(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &n); err == nil {
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}

// BenchmarkThroughput is how fast one container can write.
func BenchmarkThroughput(b *testing.B) {
	f := open(b, nil)
	a := f.attach(b, "task1", "app", "c1")
	buf := bytes.Repeat([]byte("a line of some hundred bytes, as programs like to write them, one after the other, all day\n"), 300)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		a.out.Write(buf)
	}
	a.close()
	f.detach(b, "c1")
}

// BenchmarkAttach is what a container's output adds to its launch, and to its end.
func BenchmarkAttach(b *testing.B) {
	f := open(b, nil)
	i := 0
	for b.Loop() {
		id := fmt.Sprint("id", i)
		i++
		out, err, e := f.Attach(b.Context(), "task1", "app", id)
		if e != nil {
			b.Fatal(e)
		}
		b.StopTimer()
		s := &shim{openFIFO(b, out), openFIFO(b, err)}
		s.close()
		f.detach(b, id)
		b.StartTimer()
	}
}
