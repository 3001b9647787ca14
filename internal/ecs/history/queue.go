package history

import (
	"time"

	"github.com/berthhq/berth/internal/store"
)

// queue is what is to be done about tasks, in order: each task at most once at a time, and again if it
// was asked for meanwhile.
type queue struct {
	waiting []store.Key
	known   map[store.Key]bool // of those in waiting
	busy    map[store.Key]bool
	again   map[store.Key]bool // of the busy ones
	late    map[store.Key]time.Time
}

func newQueue() *queue {
	return &queue{known: map[store.Key]bool{}, busy: map[store.Key]bool{}, again: map[store.Key]bool{}, late: map[store.Key]time.Time{}}
}

func (q *queue) add(k store.Key) {
	delete(q.late, k)
	switch {
	case q.busy[k]:
		q.again[k] = true
	case !q.known[k]:
		q.known[k] = true
		q.waiting = append(q.waiting, k)
	}
}

// next is the first in line.
func (q *queue) next() (store.Key, bool) {
	if len(q.waiting) == 0 {
		return store.Key{}, false
	}
	return q.waiting[0], true
}

// take begins with the first in line.
func (q *queue) take() {
	k := q.waiting[0]
	q.waiting = q.waiting[1:]
	delete(q.known, k)
	q.busy[k] = true
}

func (q *queue) done(k store.Key) {
	delete(q.busy, k)
	if q.again[k] {
		delete(q.again, k)
		q.add(k)
	}
}

// later has a task come up again at a time.
func (q *queue) later(k store.Key, at time.Time) {
	if !q.known[k] {
		q.late[k] = at
	}
}

// wake lines up those whose time has come.
func (q *queue) wake(now time.Time) {
	for k, at := range q.late {
		if !now.Before(at) {
			q.add(k)
		}
	}
}
