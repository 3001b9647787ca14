package segment

import (
	"container/list"
	"context"
	"fmt"
)

// cacheBytes bounds the indexes and filters that are kept in memory.
const cacheBytes = 64 << 20

type cacheKey struct {
	key     string
	filters bool
}

type cached struct {
	key   cacheKey
	value any
	size  int
}

// cache keeps what was used last. Store.cacheMu guards it.
type cache struct {
	limit, used int
	entries     map[cacheKey]*list.Element
	order       list.List // latest first
}

func (c *cache) get(k cacheKey) any {
	e := c.entries[k]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).value
}

func (c *cache) put(k cacheKey, value any, size int) {
	c.remove(k)
	if size > c.limit/2 {
		return
	}
	if c.entries == nil {
		c.entries = map[cacheKey]*list.Element{}
	}
	c.entries[k] = c.order.PushFront(&cached{k, value, size})
	for c.used += size; c.used > c.limit; {
		c.remove(c.order.Back().Value.(*cached).key)
	}
}

func (c *cache) remove(k cacheKey) {
	if e := c.entries[k]; e != nil {
		c.used -= e.Value.(*cached).size
		c.order.Remove(e)
		delete(c.entries, k)
	}
}

// index reads a segment's index, or has it.
func (s *Store) index(ctx context.Context, seg *segment) (*index, error) {
	k := cacheKey{seg.meta.Key, false}
	s.cacheMu.Lock()
	v := s.cache.get(k)
	s.cacheMu.Unlock()
	if v != nil {
		return v.(*index), nil
	}
	x, err := readIndex(ctx, s.blob, s.codec, seg.meta.Key, seg.meta.FirstFooter)
	if err != nil {
		return nil, err
	}
	s.cacheMu.Lock()
	s.cache.put(k, x, x.size)
	s.cacheMu.Unlock()
	return x, nil
}

// filters reads the filters of a segment's blocks, or has them. Of those who want them at once, one reads.
func (s *Store) filters(ctx context.Context, seg *segment, x *index) ([]byte, error) {
	k := cacheKey{seg.meta.Key, true}
	seg.filterMu.Lock()
	defer seg.filterMu.Unlock()
	s.cacheMu.Lock()
	v := s.cache.get(k)
	s.cacheMu.Unlock()
	if v != nil {
		return v.([]byte), nil
	}
	r, err := s.blob.Get(ctx, seg.meta.Key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := readRange(r, x.filtersAt, x.filters)
	if err != nil {
		return nil, fmt.Errorf("read the filters of %s: %w", seg.meta.Key, err)
	}
	s.cacheMu.Lock()
	s.cache.put(k, b, len(b))
	s.cacheMu.Unlock()
	return b, nil
}

// forget drops what is cached of a segment that is gone.
func (s *Store) forget(key string) {
	s.cacheMu.Lock()
	defer s.cacheMu.Unlock()
	s.cache.remove(cacheKey{key, false})
	s.cache.remove(cacheKey{key, true})
}

// buffer answers an empty buffer with room for n bytes, at best a used one.
func (s *Store) buffer(n int) []byte {
	if b, ok := s.buffers.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:0]
	}
	return make([]byte, 0, max(n, blockRaw+blockRaw/16))
}

func (s *Store) recycle(b []byte) {
	if b != nil {
		s.buffers.Put(&b)
	}
}
