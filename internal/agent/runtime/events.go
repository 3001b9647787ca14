package runtime

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/berthhq/berth/internal/agent"
)

// eventBuffer is how many events a slow subscriber may be behind before it misses some, as Events
// allows.
const eventBuffer = 1024

type exit struct {
	code int
	at   time.Time
}

// watchers spreads containerd's events to subscribers and remembers exits.
type watchers struct {
	mu          sync.Mutex
	subscribers map[chan agent.ContainerEvent]struct{}
	exits       map[string]exit      // of containers not yet deleted
	since       map[string]time.Time // an earlier exit of the container is from before its restart
	noted       chan struct{}        // closed at the next exit; nil when nobody waits
	cancel      context.CancelFunc
	done        chan struct{}
}

// start subscribes to the bus before it returns; each event that translate takes goes to all
// subscribers.
func (w *watchers) start(bus events.Subscriber, translate func(*events.Envelope) (agent.ContainerEvent, bool)) {
	ctx, cancel := context.WithCancel(context.Background())
	envelopes, errs := bus.Subscribe(ctx, `topic=="/tasks/exit"`, `topic=="/tasks/oom"`)
	w.cancel, w.done = cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		for {
			select {
			case envelope := <-envelopes:
				if event, ok := translate(envelope); ok {
					w.send(event)
				}
			case <-errs:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (w *watchers) send(event agent.ContainerEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.subscribers {
		select {
		case ch <- event:
		default:
		}
	}
}

// subscribe answers a channel that is closed when ctx ends.
func (w *watchers) subscribe(ctx context.Context) <-chan agent.ContainerEvent {
	ch := make(chan agent.ContainerEvent, eventBuffer)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subscribers == nil {
		w.subscribers = map[chan agent.ContainerEvent]struct{}{}
	}
	w.subscribers[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.subscribers, ch)
		close(ch)
	})
	return ch
}

func (w *watchers) note(id string, e exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.at.Before(w.since[id]) {
		return
	}
	if w.exits == nil {
		w.exits = map[string]exit{}
	}
	w.exits[id] = e
	if w.noted != nil {
		close(w.noted)
		w.noted = nil
	}
}

// await answers the container's exit, for which it waits until ctx ends or the time is over.
func (w *watchers) await(ctx context.Context, id string, wait time.Duration) (exit, bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		w.mu.Lock()
		e, ok := w.exits[id]
		if w.noted == nil {
			w.noted = make(chan struct{})
		}
		noted := w.noted
		w.mu.Unlock()
		if ok {
			return e, true
		}
		select {
		case <-noted:
		case <-ctx.Done():
			return exit{}, false
		}
	}
}

func (w *watchers) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.exits, id)
	delete(w.since, id)
}

// renew forgets the container's exit, and refuses what may still come of it: events are late at times.
func (w *watchers) renew(id string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.exits, id)
	if w.since == nil {
		w.since = map[string]time.Time{}
	}
	w.since[id] = at
}

func (w *watchers) close() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
	}
}

func decodeEvent(e *events.Envelope) (any, error) { return typeurl.UnmarshalAny(e.Event) }
