package metadata

import (
	"sync"
	"time"
)

// The limits of Amazon's agent (ECS_TASK_METADATA_RPS_LIMIT=40,60).
const (
	steadyRate = 40 // requests a second
	burst      = 60
)

// maxBuckets is how many askers are told apart at once.
const maxBuckets = 4096

// throttle is a token bucket for each asker.
type throttle struct {
	mu      sync.Mutex
	buckets map[string]bucket
	pruned  time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

// fill is what a bucket holds at a later moment.
func (b bucket) fill(now time.Time) float64 {
	return min(burst, b.tokens+now.Sub(b.at).Seconds()*steadyRate)
}

// allow takes a token, if there is one.
func (t *throttle) allow(key string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.buckets[key]
	if !ok {
		if len(t.buckets) >= maxBuckets && now.Sub(t.pruned) >= time.Second {
			t.prune(now)
		}
		if len(t.buckets) >= maxBuckets {
			return false
		}
		b = bucket{burst, now}
	}
	if t.buckets == nil {
		t.buckets = map[string]bucket{}
	}
	b = bucket{b.fill(now), now}
	if ok = b.tokens >= 1; ok {
		b.tokens--
	}
	t.buckets[key] = b
	return ok
}

// prune forgets buckets that are full: they are as good as new.
func (t *throttle) prune(now time.Time) {
	t.pruned = now
	for key, b := range t.buckets {
		if b.fill(now) >= burst {
			delete(t.buckets, key)
		}
	}
}
