package process

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent/logger/spool"
	"github.com/berthhq/berth/internal/failpoint"
)

const (
	// pace is the least time between two rounds as long as no FIFO is behind. Containers that write
	// many small pieces cost a bounded number of wake-ups, and readers see output this much later.
	pace = 5 * time.Millisecond
	// drainQuiet is how long a stopped container's FIFO must stay empty, if a process that outlived
	// the container still holds its other end. Without such a process its end is certain at once.
	drainQuiet = 100 * time.Millisecond
	// drainLimit ends a drain when such a process keeps writing.
	drainLimit = 5 * time.Second
	// fullGrace is how long containers wait for a full disk before their output is thrown away.
	fullGrace = time.Second
	// fullRetry is how often a full disk is tried again.
	fullRetry = 100 * time.Millisecond
	// pipeBytes is the FIFOs' size: what a container can write while nobody reads.
	pipeBytes = 256 << 10
)

// loop reads FIFOs into spools. Everything in it belongs to its goroutine; others ask through do.
type loop struct {
	paths Paths
	boot  [16]byte
	limit int64
	log   *slog.Logger

	epoll, wake, null int
	requests          chan func()
	over              chan struct{} // closed when run ends; no request is answered then

	attached map[string]*attachment
	fifos    map[int32]*fifo // by file descriptor
	spools   map[string]*openSpool
	ready    []*fifo // may have data
	syncs    sync.WaitGroup
	stopped  bool
}

type attachment struct {
	id    string
	spool *openSpool
	fifos []*fifo // that are open
	drain *drain  // set once the container has stopped
}

type fifo struct {
	fd     int
	stream spool.Stream
	of     *attachment
	queued bool // in ready
	retry  time.Time
}

// openSpool is shared by the attachments of one container name: one that restarts may be attached
// anew before its last life is detached.
type openSpool struct {
	dir       string
	w         *spool.Writer
	users     int
	fullSince time.Time // the disk is full; zero: it is not
}

type drain struct {
	quietSince, deadline time.Time
	done                 []func(error)
}

func newLoop(p Paths, boot [16]byte, limit int64, log *slog.Logger) (*loop, error) {
	l := &loop{paths: p, boot: boot, limit: limit, log: log, requests: make(chan func(), 16), over: make(chan struct{}),
		attached: map[string]*attachment{}, fifos: map[int32]*fifo{}, spools: map[string]*openSpool{}}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if l.null, err = unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.wake)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &ev); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

// do runs f on the loop's goroutine, some time, or never if the loop is over.
func (l *loop) do(f func()) {
	select {
	case l.requests <- f:
		unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	case <-l.over:
	}
}

// run returns after stop.
func (l *loop) run() {
	events := make([]unix.EpollEvent, 64)
	var round time.Time
	for !l.stopped {
		n, err := unix.EpollWait(l.epoll, events, l.timeout(time.Now()))
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // cannot be: the descriptor is ours
		}
		// Small pieces are gathered: let a round take at least pace, but answer requests at once.
		if wait := pace - time.Since(round); wait > 0 && len(l.ready) == 0 {
			p := []unix.PollFd{{Fd: int32(l.wake), Events: unix.POLLIN}}
			unix.Poll(p, int(wait/time.Millisecond)+1)
		}
		round = time.Now()
		for _, ev := range events[:max(n, 0)] {
			if f := l.fifos[ev.Fd]; f != nil {
				l.queue(f)
			}
		}
		l.serve()
		l.move(round)
		l.drains(round)
	}
	for _, a := range l.attached {
		l.close(a, ErrOver)
	}
	l.syncs.Wait()
	close(l.over)
	unix.Close(l.epoll)
	unix.Close(l.null) // and the eventfd stays: a late do may write to it
}

// timeout is how long epoll may wait, in milliseconds.
func (l *loop) timeout(now time.Time) int {
	wait := -1
	sooner := func(d time.Duration) {
		if ms := max(0, int((d+time.Millisecond-1)/time.Millisecond)); wait < 0 || ms < wait {
			wait = ms
		}
	}
	for _, f := range l.ready {
		sooner(f.retry.Sub(now))
	}
	for _, a := range l.attached {
		if a.drain != nil {
			sooner(pace)
		}
	}
	return wait
}

func (l *loop) serve() {
	var b [8]byte
	unix.Read(l.wake, b[:])
	for {
		select {
		case f := <-l.requests:
			f()
		default:
			return
		}
	}
}

func (l *loop) queue(f *fifo) {
	if !f.queued {
		f.queued = true
		l.ready = append(l.ready, f)
	}
}

// move takes one chunk from each FIFO that has data.
func (l *loop) move(now time.Time) {
	ready := l.ready
	l.ready = l.ready[:0:0]
	for _, f := range ready {
		if f.fd < 0 {
			continue // closed by a request
		}
		f.queued = false
		if f.retry.After(now) || l.moveOne(f, now) {
			l.queue(f)
		}
	}
}

// moveOne takes a chunk and tells whether there may be more.
func (l *loop) moveOne(f *fifo, now time.Time) (more bool) {
	f.retry = time.Time{}
	n := buffered(f.fd)
	if n == 0 {
		return false // and epoll tells when that changes
	}
	if d := f.of.drain; d != nil {
		d.quietSince = now
	}
	s := f.of.spool
	failpoint.Hit("logger-process/splice/before")
	_, err := s.w.Splice(f.fd, f.stream, n, now)
	failpoint.Hit("logger-process/splice/after")
	switch {
	case err == nil:
		if !s.fullSince.IsZero() {
			l.log.Info("the spool takes output again", "spool", s.dir)
			s.fullSince = time.Time{}
		}
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	default:
		l.full(f, err, now)
	}
	return true
}

// full handles a spool that cannot be written, mostly because the disk is full. The container waits
// for a moment; then its output is thrown away, and counted, until the spool can be written again.
func (l *loop) full(f *fifo, err error, now time.Time) {
	s := f.of.spool
	if s.fullSince.IsZero() {
		s.fullSince = now
		l.log.Warn("cannot write to the spool", "spool", s.dir, "error", err)
	}
	if now.Sub(s.fullSince) >= fullGrace {
		lost := 0
		for {
			n, err := unix.Splice(f.fd, nil, l.null, nil, pipeBytes, unix.SPLICE_F_NONBLOCK)
			if n <= 0 || err != nil || lost > 16*pipeBytes {
				break
			}
			lost += int(n)
		}
		s.w.Lose(lost)
	}
	f.retry = now.Add(fullRetry)
}

// attach opens a container's FIFOs. It may be attached already.
func (l *loop) attach(r Record) error {
	if l.attached[r.ContainerID] != nil {
		return nil
	}
	failpoint.Hit("logger-process/open/before")
	a := &attachment{id: r.ContainerID}
	dir := l.paths.Spool(r.TaskID, r.Container)
	a.spool = l.spools[dir]
	if a.spool == nil {
		w, err := spool.OpenWriter(dir, spool.Options{LimitBytes: l.limit, Boot: l.boot, OnFull: l.syncLater})
		if err != nil {
			return err
		}
		a.spool = &openSpool{dir: dir, w: w}
		l.spools[dir] = a.spool
	}
	a.spool.users++
	l.attached[a.id] = a
	out, err := l.paths.FIFOs(r.ContainerID)
	for i, path := range []string{out, err} {
		if err := l.open(a, path, spool.Stream(i+1)); err != nil {
			l.close(a, nil)
			return err
		}
	}
	failpoint.Hit("logger-process/open/after")
	return nil
}

func (l *loop) open(a *attachment, path string, s spool.Stream) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open FIFO %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return fmt.Errorf("%s is not a FIFO", path)
	}
	unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeBytes) // the default, 64 KiB, will do
	f := &fifo{fd: fd, stream: s, of: a}
	// Edge-triggered: a FIFO whose writers are gone would otherwise be ready for ever.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		unix.Close(fd)
		return fmt.Errorf("epoll %s: %w", path, err)
	}
	a.fifos = append(a.fifos, f)
	l.fifos[int32(fd)] = f
	l.queue(f) // a predecessor may have left something
	return nil
}

// detach drains a stopped container; done is called when all it wrote is durable.
func (l *loop) detach(id string, done func(error)) {
	a := l.attached[id]
	if a == nil {
		done(nil)
		return
	}
	now := time.Now()
	if a.drain == nil {
		a.drain = &drain{quietSince: now, deadline: now.Add(drainLimit)}
	}
	a.drain.done = append(a.drain.done, done)
	for _, f := range a.fifos {
		l.queue(f)
	}
}

// drains ends the drains that are complete.
func (l *loop) drains(now time.Time) {
	for _, a := range l.attached {
		if a.drain == nil {
			continue
		}
		empty, ended := true, true
		for _, f := range a.fifos {
			// In this order: once the writers are gone, nothing is added.
			ended = ended && hungUp(f.fd)
			empty = empty && buffered(f.fd) == 0
		}
		quiet := empty && now.Sub(a.drain.quietSince) >= drainQuiet
		if empty && ended || quiet || now.After(a.drain.deadline) {
			l.close(a, nil)
		}
	}
}

// close ends an attachment and, with its last user, the spool. Who waits for its drain is told why
// there is none, or that everything is durable.
func (l *loop) close(a *attachment, why error) {
	for _, f := range a.fifos {
		delete(l.fifos, int32(f.fd))
		unix.Close(f.fd) // which also takes it out of epoll
		f.fd = -1
	}
	a.fifos = nil
	delete(l.attached, a.id)
	s := a.spool
	s.users--
	var done []func(error)
	if a.drain != nil {
		done = a.drain.done
	}
	if err := s.w.Flush(time.Now()); err != nil {
		// A full disk: what is lost is lost, and the container is to be done with nevertheless.
		l.log.Warn("cannot finish the spool", "spool", s.dir, "error", err)
	}
	var f *os.File
	if s.users == 0 {
		delete(l.spools, s.dir)
		f = s.w.Take()
	} else {
		f = s.w.Duplicate()
	}
	l.syncs.Go(func() { // it may take long, and others have output
		if f != nil {
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				l.log.Warn("sync a spool", "spool", s.dir, "error", err)
			}
		}
		for _, d := range done {
			d(why)
		}
	})
}

func (l *loop) syncLater(f *os.File) {
	l.syncs.Go(func() {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			l.log.Warn("sync a spool segment", "segment", f.Name(), "error", err)
		}
	})
}

// buffered is how many bytes are in a pipe.
func buffered(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // also known as FIONREAD
	if err != nil {
		return 0
	}
	return n
}

// hungUp tells that a FIFO has had writers and has none now.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}
