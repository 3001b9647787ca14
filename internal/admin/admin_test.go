package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/ecs/history"
)

// fake is a Backend.
type fake struct {
	exited chan struct{}
	lines  int
	err    error
	follow chan LogLine
	end    func() // what Exit has done, in place of closing exited
}

func (f *fake) Status(context.Context) (Status, error) {
	return Status{Account: "1", Hosts: []Host{}}, f.err
}
func (f *fake) StopTasks(_ context.Context, _ string, line func(string)) error {
	line("1 task to stop")
	line("0 tasks to stop")
	return f.err
}
func (f *fake) Exit() {
	if f.end != nil {
		f.end()
		return
	}
	close(f.exited)
}
func (f *fake) Logs(ctx context.Context, q LogQuery, line func(LogLine) error) error {
	for i := range f.lines {
		if err := line(LogLine{Container: q.Container, Text: []byte(fmt.Sprint(i))}); err != nil {
			return err
		}
	}
	for q.Follow {
		select {
		case l := <-f.follow:
			if err := line(l); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return f.err
}
func (f *fake) Import(_ context.Context, r io.Reader, p func(agent.ImageProgress)) ([]string, error) {
	raw, err := io.ReadAll(r)
	p(agent.ImageProgress{Item: "layer", Current: int64(len(raw))})
	return []string{string(raw)}, errors.Join(err, f.err)
}
func (f *fake) PullImage(_ context.Context, ref string, p func(agent.ImageProgress)) (agent.Image, error) {
	p(agent.ImageProgress{Item: "layer"})
	return agent.Image{Ref: ref}, f.err
}
func (f *fake) ListImages(context.Context) ([]agent.ImageInfo, error) {
	return []agent.ImageInfo{{Ref: "a"}}, f.err
}
func (f *fake) RemoveImage(context.Context, string) error { return f.err }
func (f *fake) Explain(_ context.Context, ref string) ([]history.Explanation, error) {
	return []history.Explanation{{ID: ref}}, f.err
}
func (f *fake) Events(_ context.Context, q EventQuery, each func(json.RawMessage) error, missed func(string) error) error {
	if err := missed("some"); err != nil {
		return err
	}
	return errors.Join(each(json.RawMessage(fmt.Sprintf(`{"since":%q,"follow":%t}`, q.Since.Format(time.RFC3339), q.Follow))), f.err)
}

// serve answers on a socket for the length of the test.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth-admin-") // t.TempDir's paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	// One left by a dead Berth is in the way.
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	if f.end != nil {
		f.end = func() { cancel(); <-ended } // the worst case: all is over before Exit returns
	}
	go func() {
		defer close(ended)
		done <- Serve(ctx, socket, f, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	c := NewClient(socket)
	for start := time.Now(); ; {
		if _, err := c.ListImages(t.Context()); !errors.Is(err, ErrNotRunning) {
			return c
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the socket was not served")
		}
	}
}

func TestExitIsAnsweredBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for range 20 {
		if err := serve(t, &fake{end: func() {}}).Exit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNotRunningSaysWhatToDo(t *testing.T) {
	t.Parallel()
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "berth up") {
		t.Errorf("%v; want ErrNotRunning and what to do", err)
	}
}

func TestCallsAndTheirErrors(t *testing.T) {
	t.Parallel()
	for _, fail := range []error{nil, errors.New("it is full")} {
		t.Run(fmt.Sprint(fail), func(t *testing.T) {
			t.Parallel()
			c, ctx := serve(t, &fake{err: fail, lines: 3}), t.Context()
			_, statusErr := c.Status(ctx)
			_, imagesErr := c.ListImages(ctx)
			_, importErr := c.Import(ctx, strings.NewReader("x"), func(agent.ImageProgress) {})
			_, pullErr := c.PullImage(ctx, "ref", func(agent.ImageProgress) {})
			_, explainErr := c.Explain(ctx, "a")
			for name, err := range map[string]error{
				"status": statusErr, "images": imagesErr, "import": importErr, "pull": pullErr,
				"explain": explainErr, "events": c.Events(ctx, EventQuery{}, func(json.RawMessage) error { return nil }, func(string) error { return nil }),
				"rm": c.RemoveImage(ctx, "a"), "logs": c.Logs(ctx, LogQuery{}, func(LogLine) error { return nil }),
			} {
				if (err == nil) != (fail == nil) || err != nil && err.Error() != fail.Error() {
					t.Errorf("%s: %v; want %v", name, err, fail)
				}
			}
		})
	}
}

func TestLogsArriveInOrderAndAtOnce(t *testing.T) {
	t.Parallel()
	f := &fake{lines: 100_000, follow: make(chan LogLine)}
	c := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	err := c.Logs(ctx, LogQuery{Follow: true, Container: "web"}, func(l LogLine) error {
		if string(l.Text) == "last" {
			cancel()
			return nil
		}
		if string(l.Text) != fmt.Sprint(n) || l.Container != "web" {
			return fmt.Errorf("line %d: %q of %q", n, l.Text, l.Container)
		}
		if n++; n == f.lines {
			// What is written while nothing else is must not wait for more.
			go func() { f.follow <- LogLine{Text: []byte("last")} }()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != f.lines {
		t.Errorf("%d lines, %v", n, err)
	}
}

func TestWhatIsAskedForArrives(t *testing.T) {
	t.Parallel()
	c, ctx := serve(t, &fake{}), t.Context()
	if got, err := c.Explain(ctx, "arn:aws:ecs:x:1:task/a/b&c"); err != nil || len(got) != 1 || got[0].ID != "arn:aws:ecs:x:1:task/a/b&c" {
		t.Errorf("explain: %+v, %v", got, err)
	}
	var events, missed []string
	err := c.Events(ctx, EventQuery{Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Follow: true},
		func(raw json.RawMessage) error { events = append(events, string(raw)); return nil },
		func(text string) error { missed = append(missed, text); return nil })
	if err != nil || !slices.Equal(events, []string{`{"since":"2026-01-02T03:04:05Z","follow":true}`}) || !slices.Equal(missed, []string{"some"}) {
		t.Errorf("events: %q, missed %q, %v", events, missed, err)
	}
}

func TestDownEndsTheServer(t *testing.T) {
	t.Parallel()
	f := &fake{exited: make(chan struct{})}
	c := serve(t, f)
	var told []string
	if err := c.Down(t.Context(), func(l string) { told = append(told, l) }); err != nil {
		t.Fatal(err)
	}
	<-f.exited
	if len(told) != 2 {
		t.Errorf("told %q", told)
	}
}

func TestNotRunning(t *testing.T) {
	t.Parallel()
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context())
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("Status: %v; want ErrNotRunning", err)
	}
}
