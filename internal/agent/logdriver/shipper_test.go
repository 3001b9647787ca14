package logdriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logger/spool"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeServer takes batches as the server does.
type fakeServer struct {
	mu      sync.Mutex
	events  []string
	batches int
	calls   int
	prepare int
	stream  string
	fail    func(call int) (*dispatchpb.PutLogsReply, error) // nil, nil: take it
	lose    func(call int) bool                              // taken, and the answer is lost
	bad     string                                           // what was beyond the limits
}

func (f *fakeServer) put(ctx context.Context, r *dispatchpb.PutLogsRequest) (*dispatchpb.PutLogsReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.fail != nil {
		if reply, err := f.fail(f.calls); reply != nil || err != nil {
			return reply, err
		}
	}
	f.stream = r.Stream
	if len(r.Events) == 0 {
		f.prepare++
		return &dispatchpb.PutLogsReply{}, nil
	}
	f.batches++
	size := 0
	for i, e := range r.Events {
		size += len(e.Message) + 26
		if i > 0 && e.Timestamp < r.Events[i-1].Timestamp {
			f.bad = "events out of order"
		}
		f.events = append(f.events, string(e.Message))
	}
	if size > 1<<20 || len(r.Events) > 10000 {
		f.bad = fmt.Sprintf("a batch of %d bytes and %d events", size, len(r.Events))
	}
	if f.lose != nil && f.lose(f.calls) {
		return nil, errors.New("the connection broke off")
	}
	return &dispatchpb.PutLogsReply{}, nil
}

func (f *fakeServer) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

const taskARN = "arn:aws:ecs:us-east-1:000000000000:task/demo/0123456789abcdef0123456789abcdef"

func testTask(driver string, options map[string]string) *dispatchpb.Task {
	return &dispatchpb.Task{Arn: taskARN, Family: "web", Revision: 3, ClusterArn: "arn:aws:ecs:us-east-1:000000000000:cluster/demo",
		Containers: []*dispatchpb.Container{{Name: "app", Image: "app:1", LogDriver: driver, LogOptions: options}}}
}

// bench is a host's spool and its drivers.
type bench struct {
	t      testing.TB
	dir    string
	server *fakeServer
	writer *spool.Writer
	task   *dispatchpb.Task

	drivers *Drivers
	stop    func()
}

func newBench(t testing.TB, dir string, task *dispatchpb.Task, o spool.Options) *bench {
	b := &bench{t: t, dir: dir, server: &fakeServer{}, task: task}
	var err error
	if b.writer, err = spool.OpenWriter(filepath.Join(dir, "spool", "0123456789abcdef0123456789abcdef", "app"), o); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open() {
	var err error
	if b.drivers, err = Open(Config{Dir: filepath.Join(b.dir, "records"), SpoolDir: filepath.Join(b.dir, "spool"), Put: b.server.put}); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.drivers.Run(ctx)
	}()
	b.stop = func() {
		cancel()
		<-done
	}
}

func (b *bench) start() {
	if err := b.drivers.Start(context.Background(), b.task, 0); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) write(s string) {
	if err := b.writer.Append(spool.Stdout, []byte(s), time.Now()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) finish() {
	if err := b.drivers.Finish(context.Background(), agent.ContainerID(b.task, 0)); err != nil {
		b.t.Fatal(err)
	}
}

func awslogsTask(more ...string) *dispatchpb.Task {
	options := map[string]string{"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}
	for i := 0; i < len(more); i += 2 {
		options[more[i]] = more[i+1]
	}
	return testTask("awslogs", options)
}

func wantEvents(t testing.TB, s *fakeServer, want ...string) {
	t.Helper()
	if got := s.got(); !slices.Equal(got, want) {
		t.Errorf("delivered %.300q, want %.300q", got, want)
	}
	if s.bad != "" {
		t.Error(s.bad)
	}
}

func TestAwslogs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask(), spool.Options{})
		defer b.writer.Close()
		b.open()
		defer func() { b.stop() }()
		b.start()
		if b.server.prepare != 1 || b.server.stream != "p/app/0123456789abcdef0123456789abcdef" {
			t.Errorf("the stream was made %d times as %q", b.server.prepare, b.server.stream)
		}
		b.write("one\ntwo\n\n\xffthree")
		time.Sleep(time.Second)
		wantEvents(t, b.server, "one", "two") // three has no end yet
		if !b.drivers.Pending("0123456789abcdef0123456789abcdef") {
			t.Error("nothing is pending of a container that runs")
		}
		b.finish()
		wantEvents(t, b.server, "one", "two", "\uFFFDthree")
		if b.drivers.Pending("0123456789abcdef0123456789abcdef") {
			t.Error("all is delivered, and yet pending")
		}
		if st := b.drivers.Stats(); st.Delivered != 3 || st.Containers != 0 {
			t.Errorf("%+v", st)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "records")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// TestOutage: nothing is lost or doubled while the server is away, and a stopped task's spool is kept.
func TestOutage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask(), spool.Options{})
		defer b.writer.Close()
		away := true
		b.server.fail = func(int) (*dispatchpb.PutLogsReply, error) {
			if away {
				return nil, errors.New("connection refused")
			}
			return nil, nil
		}
		b.open()
		b.start() // also now
		var want []string
		for i := range 100 {
			b.write(fmt.Sprintf("line %d\n", i))
			want = append(want, fmt.Sprintf("line %d", i))
			time.Sleep(time.Second)
		}
		began := time.Now()
		b.finish()
		if time.Since(began) > time.Second {
			t.Error("a task's end waits for a server that is away")
		}
		if st := b.drivers.Stats(); st.Failing != 1 || st.Retries == 0 || !b.drivers.Pending("0123456789abcdef0123456789abcdef") {
			t.Errorf("%+v", st)
		}
		b.stop()
		b.open() // a new Berth
		defer func() { b.stop() }()
		time.Sleep(time.Hour)
		b.server.mu.Lock()
		away = false
		b.server.mu.Unlock()
		time.Sleep(6 * time.Second)
		wantEvents(t, b.server, want...)
		if b.drivers.Pending("0123456789abcdef0123456789abcdef") {
			t.Error("still pending")
		}
	})
}

// TestGivenUp: what cannot be delivered for MaxAge after the container's end is dropped, and counted.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask(), spool.Options{})
		defer b.writer.Close()
		b.server.fail = func(int) (*dispatchpb.PutLogsReply, error) { return nil, errors.New("away") }
		b.open()
		defer func() { b.stop() }()
		b.start()
		b.write("a\nb\n")
		b.finish()
		time.Sleep(MaxAge + time.Minute)
		if st := b.drivers.Stats(); st.Dropped != 2 || st.Containers != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestRefusedForGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask(), spool.Options{})
		defer b.writer.Close()
		refusal := &dispatchpb.PutLogsReply{ErrorCode: "ResourceNotFoundException", ErrorMessage: "The specified log group does not exist."}
		b.server.fail = func(int) (*dispatchpb.PutLogsReply, error) { return refusal, nil }
		b.open()
		defer func() { b.stop() }()
		err := b.drivers.Start(t.Context(), b.task, 0)
		if errorText(err) != "failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist." {
			t.Error(err)
		}
		b.server.fail = nil
		b.start()
		b.server.fail = func(int) (*dispatchpb.PutLogsReply, error) { return refusal, nil }
		b.write("gone\n")
		time.Sleep(time.Second)
		b.server.mu.Lock()
		b.server.fail = func(int) (*dispatchpb.PutLogsReply, error) { return &dispatchpb.PutLogsReply{TooOld: 1}, nil }
		b.server.mu.Unlock()
		b.write("old\nkept\n")
		b.finish()
		if st := b.drivers.Stats(); st.Dropped != 2 || st.Delivered != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestMultilineTimer: the last event of several lines goes out without a next one, and its next life
// begins where it began.
func TestMultilineTimer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask("awslogs-datetime-format", `%H:%M:%S`), spool.Options{})
		defer b.writer.Close()
		b.open()
		b.start()
		b.write("06:40:01 panic\n  at a\n")
		time.Sleep(time.Second)
		wantEvents(t, b.server)
		b.stop()
		b.open()
		defer func() { b.stop() }()
		b.write("  at b\n")
		time.Sleep(5 * time.Second)
		wantEvents(t, b.server, "06:40:01 panic\n  at a\n  at b\n")
	})
}

// TestSpoolFull: beyond the spool's bound the oldest goes; that is told, counted, and in its place.
func TestSpoolFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask(), spool.Options{SegmentBytes: 4 << 10, LimitBytes: 16 << 10})
		defer b.writer.Close()
		b.open()
		defer func() { b.stop() }()
		for i := range 1000 {
			b.write(fmt.Sprintf("line %4d %s\n", i, strings.Repeat("x", 100)))
		}
		b.start()
		b.finish()
		got := b.server.got()
		if len(got) < 50 || !strings.Contains(got[0], "bytes of output are missing here") || !strings.HasPrefix(got[len(got)-1], "line  999") {
			t.Fatalf("%d events, %.300q", len(got), got)
		}
		if st := b.drivers.Stats(); st.LostBytes == 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestLongLines: a line of 256 KiB less 26 bytes is one event, a byte more makes two.
func TestLongLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, dir, awslogsTask(), spool.Options{})
		defer b.writer.Close()
		b.open()
		defer func() { b.stop() }()
		b.start()
		long := strings.Repeat("a", maxEventBytes)
		for range 6 {
			b.write(long + "\n" + long + "b\n")
		}
		b.finish()
		var want []string
		for range 6 {
			want = append(want, long, long, "b")
		}
		wantEvents(t, b.server, want...)
	})
}

// TestDeliveredIsWritten: whatever crashes and fails, what is delivered is what was written, in order;
// only what was under way in a crash, or whose answer was lost, is delivered again.
func TestDeliveredIsWritten(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	trial := 0
	rapid.Check(t, func(rt *rapid.T) {
		trial++
		dir := filepath.Join(base, fmt.Sprint(trial))
		multiline := rapid.Bool().Draw(rt, "multiline")
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 40).Draw(rt, "steps")
		flaky := rapid.SliceOfN(rapid.IntRange(0, 4), 8, 8).Draw(rt, "flaky")
		failure := ""
		synctest.Test(t, func(t *testing.T) {
			task := awslogsTask()
			if multiline {
				task = awslogsTask("awslogs-multiline-pattern", "^n")
			}
			b := newBench(t, dir, task, spool.Options{SegmentBytes: 2 << 10})
			defer b.writer.Close()
			b.server.fail = func(call int) (*dispatchpb.PutLogsReply, error) {
				switch flaky[call%8] {
				case 1:
					return nil, errors.New("away")
				case 2:
					return &dispatchpb.PutLogsReply{ErrorCode: "ServiceUnavailableException", Retry: true}, nil
				}
				return nil, nil
			}
			b.server.lose = func(call int) bool { return flaky[call%8] == 3 }
			flaky[0] = 0
			b.open()
			b.start()
			var all strings.Builder
			n := 0
			line := func(end string) {
				s := fmt.Sprintf("n%d %s%s", n, strings.Repeat("é", n%50), end)
				n++
				all.WriteString(s)
				stream := spool.Stdout
				if err := b.writer.Append(stream, []byte(s), time.Now()); err != nil {
					failure = err.Error()
				}
			}
			for _, s := range steps {
				switch s {
				case 0:
					b.stop()
					b.open()
				case 1, 2:
					time.Sleep(time.Duration(s) * 700 * time.Millisecond)
				case 3:
					line("") // goes on
				case 4:
					for range 200 {
						line("\n")
					}
				default:
					line("\n")
				}
			}
			b.finish()
			time.Sleep(time.Minute)
			defer b.stop()
			var want []string
			for l := range strings.SplitSeq(strings.TrimSuffix(all.String(), "\n"), "\n") {
				if multiline && l != "" {
					l += "\n"
				}
				if l != "" {
					want = append(want, l)
				}
			}
			// Take repetitions out: a batch that comes again begins with an event that was there.
			var got []string
			at := map[string]int{}
			for _, e := range b.server.got() {
				if i, ok := at[e]; ok {
					got = got[:i]
					for k, j := range at {
						if j >= i {
							delete(at, k)
						}
					}
				}
				at[e] = len(got)
				got = append(got, e)
			}
			if !slices.Equal(got, want) {
				failure = fmt.Sprintf("delivered %d events, want %d\n%.400q\n%.400q", len(got), len(want), got, want)
			}
			if b.server.bad != "" {
				failure = b.server.bad
			}
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}
