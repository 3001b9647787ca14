package process

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ReadyFD is the descriptor that the process closes after writing "ready\n", once it listens.
const ReadyFD = 3

// Main runs the logger process and returns its exit status. It is started by the agent, with
// arguments of its own making:
//
//	-run-dir DIR -spool-dir DIR [-limit BYTES] [-build ID] [-cgroup NAME]
func Main(args []string) int {
	flags := flag.NewFlagSet("berth logger", flag.ContinueOnError)
	var p Paths
	flags.StringVar(&p.RunDir, "run-dir", "", "directory of the socket and the FIFOs")
	flags.StringVar(&p.SpoolDir, "spool-dir", "", "directory of the spools")
	limit := flags.Int64("limit", 0, "the most bytes kept of a container; 0: 64 MiB")
	build := flags.String("build", "", "what to answer when asked who this is")
	cgroup := flags.String("cgroup", "", "the cgroup to move to")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if p.RunDir == "" || p.SpoolDir == "" {
		fmt.Fprintln(os.Stderr, "berth logger is started by Berth itself")
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ready := os.NewFile(ReadyFD, "ready")
	unix.CloseOnExec(ReadyFD)
	if err := run(p, *limit, *build, *cgroup, ready, log); err != nil {
		log.Error("the logger ends", "error", err)
		fmt.Fprintf(ready, "%v\n", err)
		return 1
	}
	return 0
}

func run(p Paths, limit int64, build, cgroup string, ready io.WriteCloser, log *slog.Logger) error {
	if err := p.Make(); err != nil {
		return err
	}
	unlock, err := lock(p.Lock())
	if err != nil {
		return err
	}
	defer unlock()
	os.Chdir("/")
	if cgroup != "" {
		joinCgroup(cgroup, log)
	}
	// Better that the kernel kills anything else when memory is short. It may not let us say so.
	os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0)
	boot, err := bootID()
	if err != nil {
		return err
	}
	l, err := newLoop(p, boot, limit, log)
	if err != nil {
		return err
	}
	records, err := p.All()
	if err != nil {
		log.Error("some containers' output is not read", "error", err)
	}
	for _, r := range records {
		if err := l.attach(r); err != nil {
			log.Error("a container's output is not read", "container", r.ContainerID, "error", err)
		}
	}
	listener, err := listen(p.Socket())
	if err != nil {
		return err
	}
	s := &server{loop: l, build: build, log: log, listener: listener}

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	go func() {
		<-signals
		s.end()
		l.do(func() { l.stopped = true })
	}()
	go s.serve()
	io.WriteString(ready, "ready\n")
	ready.Close()

	debug.SetGCPercent(25)
	debug.FreeOSMemory() // what starting took
	l.run()
	s.end()
	s.hangUp()
	return nil
}

// lock takes the lock, for which a predecessor that is ending may need a moment.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("logger's lock: %w", err)
	}
	const wait = 500 * time.Millisecond
	for end := time.Now().Add(wait); ; time.Sleep(2 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("another logger has not ended within %v: %w", wait, err)
		}
	}
}

func bootID() (id [16]byte, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("read the boot ID: %w", err)
	}
	if n, err := hex.Decode(id[:], bytes.ReplaceAll(bytes.TrimSpace(b), []byte("-"), nil)); err != nil || n != len(id) {
		return id, fmt.Errorf("the boot ID %q is none", b)
	}
	return id, nil
}
