package logs_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/api"
	logsapi "github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/logs"
	"github.com/berthhq/berth/internal/logs/segment"
	"github.com/berthhq/berth/internal/store"
)

const (
	account = "123456789012"
	region  = "eu-central-1"
)

// world is the service behind a gateway, called in process: judged by the model as a call from outside.
type world struct {
	logsapi.Client
	service  *logs.Service
	store    *store.Store
	gateway  *gateway.Gateway
	blobs    *blob.Dir
	dir      string
	segments *segment.Store
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	var err error
	if w.store, err = store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: log}, logs.Tables()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.blobs, err = blob.OpenDir(t.TempDir(), log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.blobs.Close() })
	w.open(t)
	t.Cleanup(func() {
		w.service.Close()
		w.segments.Close()
	})
	return w
}

// open starts the service, also again: what is in memory is lost, what is durable is not.
func (w *world) open(t testing.TB) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if w.segments != nil {
		w.service.Close()
		if err := w.segments.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if w.segments, err = segment.Open(segment.Config{Dir: w.dir, Blob: w.blobs, SealBytes: 16 << 10, Logger: log}); err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Open(t.TempDir(), account)
	if err != nil {
		t.Fatal(err)
	}
	if w.gateway, err = gateway.New(gateway.Config{Account: account, Region: region, Credentials: keys, Log: log, Dev: true}); err != nil {
		t.Fatal(err)
	}
	w.service = logs.New(logs.Config{Store: w.store, Segments: w.segments, Logger: log})
	if err := w.gateway.Register(gateway.Service{Descriptor: logsapi.Descriptor, Implementation: w.service, MaxBody: logs.MaxBody}); err != nil {
		t.Fatal(err)
	}
	w.Client = logsapi.Client{Invoker: w.gateway.Inside("test.berth.internal").At(account, region)}
}

// group makes a group with streams.
func (w *world) group(t testing.TB, name string, streams ...string) {
	t.Helper()
	if _, err := w.CreateLogGroup(t.Context(), &logsapi.CreateLogGroupInput{LogGroupName: &name}); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if _, err := w.CreateLogStream(t.Context(), &logsapi.CreateLogStreamInput{LogGroupName: &name, LogStreamName: &s}); err != nil {
			t.Fatal(err)
		}
	}
}

// batch makes events, one for each message, a millisecond apart.
func batch(at time.Time, messages ...string) (events []logsapi.InputLogEvent) {
	for i, m := range messages {
		events = append(events, logsapi.InputLogEvent{Timestamp: api.Ptr(at.UnixMilli() + int64(i)), Message: &m})
	}
	return events
}

func (w *world) put(t testing.TB, group, stream string, at time.Time, messages ...string) {
	t.Helper()
	out, err := w.PutLogEvents(t.Context(), &logsapi.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream, LogEvents: batch(at, messages...)})
	if err != nil || out.RejectedLogEventsInfo != nil {
		t.Fatalf("%v, %+v", err, out)
	}
}

// wantError holds an error against its code and a part of its text; code "" wants none.
func wantError(t testing.TB, err error, code, text string) {
	t.Helper()
	known := api.Error(nil)
	switch {
	case code == "" && err == nil:
	case !errors.As(err, &known):
		t.Errorf("got %v, want %s %s", err, code, text)
	case known.ErrorCode() != code || !strings.Contains(known.ErrorMessage(), text):
		t.Errorf("got %s: %s, want %s: %s", known.ErrorCode(), known.ErrorMessage(), code, text)
	}
}

func messages[E any](events []E, of func(*E) *string) (out []string) {
	for i := range events {
		out = append(out, *of(&events[i]))
	}
	return out
}
