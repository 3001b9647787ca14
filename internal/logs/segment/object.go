package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/berthhq/berth/internal/blob"
)

// A segment is an object:
//
//	segment = "berthsg1" blocks index footer filters index footer
//	footer  = index-offset(8) index-length(4) index-raw-length(4) index-crc(4) filters-offset(8)
//	          filters-length(4) version(4) crc(4) "berthsg1"
//
// The index and its footer are there twice: the last ones are found from the object's size, with one
// read of its last indexTail bytes in nearly every case; the first ones from the catalogue when those
// are damaged. The index says of every group its streams and its blocks.
const (
	segmentMagic  = "berthsg1"
	segmentFormat = 1
	footerSize    = 48
	indexTail     = 64 << 10
	maxIndex      = 64 << 20
	keyPrefix     = "logs/segments/"
)

// streamStat is what a segment has of a stream.
type streamStat struct {
	name         string
	first, last  int64
	lastIngested int64
	events       int64
	bytes        int64
	maxSeq       uint64
}

func (s *streamStat) add(id ID, ingestedAt int64, size int) {
	if s.events == 0 || id.Timestamp < s.first {
		s.first = id.Timestamp
	}
	s.last = max(s.last, id.Timestamp)
	s.maxSeq = max(s.maxSeq, id.Seq)
	s.lastIngested = max(s.lastIngested, ingestedAt)
	s.events++
	s.bytes += int64(size)
}

type groupIndex struct {
	group   Group
	streams []streamStat
	blocks  []blockInfo
}

// index is all that is known of a segment without its blocks.
type index struct {
	meta      segmentMeta
	groups    []groupIndex // in order
	filtersAt int64
	filters   int
	size      int // about, in memory
}

func (x *index) find(g Group) *groupIndex {
	i, ok := slices.BinarySearchFunc(x.groups, g, func(a groupIndex, g Group) int { return a.group.compare(g) })
	if !ok {
		return nil
	}
	return &x.groups[i]
}

// segmentMeta is what the catalogue has of a segment.
type segmentMeta struct {
	Key        string
	Size       int64
	MinSeq     uint64
	MaxSeq     uint64
	Generation int // 0: of a write-ahead log
	Events     int64
	RawBytes   int64
	Groups     []groupMeta
	// Logs and Replaces name the write-ahead logs, by their salts, and the segments whose events are in
	// this one.
	Logs     []uint64 `json:",omitempty"`
	Replaces []string `json:",omitempty"`
	// FirstFooter is where the first footer is.
	FirstFooter int64
	// Fast says that it was made in haste and would be smaller if made again.
	Fast bool `json:",omitempty"`
}

type groupMeta struct {
	Group
	From, To int64 // timestamps, both included
	MinSeq   uint64
	MaxSeq   uint64
	Events   int64
	RawBytes int64
}

func (m *segmentMeta) group(g Group) *groupMeta {
	for i := range m.Groups {
		if m.Groups[i].Group == g {
			return &m.Groups[i]
		}
	}
	return nil
}

func segmentKey(minSeq, maxSeq uint64, generation int) string {
	return fmt.Sprintf("%s%016x-%016x-%d", keyPrefix, minSeq, maxSeq, generation)
}

func (x *index) encode() []byte {
	b := binary.AppendUvarint(nil, x.meta.MinSeq)
	b = binary.AppendUvarint(b, x.meta.MaxSeq)
	b = binary.AppendUvarint(b, uint64(x.meta.Generation))
	b = binary.AppendUvarint(b, uint64(len(x.meta.Logs)))
	for _, l := range x.meta.Logs {
		b = binary.AppendUvarint(b, l)
	}
	b = binary.AppendUvarint(b, uint64(len(x.meta.Replaces)))
	for _, r := range x.meta.Replaces {
		b = appendString(b, r)
	}
	b = binary.AppendUvarint(b, uint64(len(x.groups)))
	for _, g := range x.groups {
		b = appendGroup(b, g.group)
		b = binary.AppendUvarint(b, uint64(len(g.streams)))
		for _, s := range g.streams {
			b = appendString(b, s.name)
			for _, v := range []int64{s.first, s.last - s.first, s.lastIngested, s.events, s.bytes, int64(s.maxSeq)} {
				b = binary.AppendVarint(b, v)
			}
		}
		b = binary.AppendUvarint(b, uint64(len(g.blocks)))
		for _, k := range g.blocks {
			for _, v := range []int{int(k.offset), k.columnsLen, k.dataLen, k.columnsRaw, k.dataRaw, k.filterAt, k.filterLen, k.events, int(k.min.Timestamp), int(k.max.Timestamp - k.min.Timestamp)} {
				b = binary.AppendUvarint(b, uint64(v))
			}
			b = binary.AppendUvarint(b, k.min.Seq)
			b = binary.AppendUvarint(b, k.max.Seq)
			b = binary.LittleEndian.AppendUint32(b, k.columnsSum)
			b = binary.LittleEndian.AppendUint32(b, k.dataSum)
			b = binary.LittleEndian.AppendUint32(b, k.filterSum)
			b = binary.AppendUvarint(b, uint64(len(k.streams)))
			last := 0
			for _, s := range k.streams {
				b = binary.AppendUvarint(b, uint64(s-last))
				last = s
			}
		}
	}
	return b
}

// sum32 reads four bytes.
func (d *decoder) sum32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// limited reads a number that may be at most limit.
func (d *decoder) limited(limit int64) int {
	v := d.uvarint()
	if v > uint64(limit) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(v)
}

// decodeIndex reads what encode wrote, of an object of that size.
func decodeIndex(b []byte, size int64, f footer) (*index, error) {
	d := decoder{b: b}
	x := &index{filtersAt: f.filtersAt, filters: f.filters}
	m := &x.meta
	m.Size, m.MinSeq, m.MaxSeq, m.Generation = size, d.uvarint(), d.uvarint(), d.limited(1<<31)
	for range d.count(1) {
		m.Logs = append(m.Logs, d.uvarint())
	}
	for range d.count(1) {
		m.Replaces = append(m.Replaces, d.string())
	}
	x.size = 2 * len(b)
	for range d.count(5) {
		g := groupIndex{group: d.group()}
		meta := groupMeta{Group: g.group}
		for range d.count(7) {
			s := streamStat{name: d.string(), first: d.varint()}
			s.last, s.lastIngested, s.events, s.bytes = s.first+d.varint(), d.varint(), d.varint(), d.varint()
			s.maxSeq = uint64(d.varint())
			g.streams = append(g.streams, s)
			x.size += 80
		}
		for range d.count(24) {
			k := blockInfo{offset: int64(d.limited(size)), columnsLen: d.limited(size), dataLen: d.limited(size),
				columnsRaw: d.limited(maxColumns), dataRaw: d.limited(maxBlockRaw), filterAt: d.limited(int64(f.filters)), filterLen: d.limited(int64(f.filters)),
				events: d.limited(blockEvents)}
			k.min.Timestamp = int64(d.limited(lastID.Timestamp))
			k.max.Timestamp = k.min.Timestamp + int64(d.limited(lastID.Timestamp-k.min.Timestamp))
			k.min.Seq, k.max.Seq = d.uvarint(), d.uvarint()
			k.columnsSum, k.dataSum, k.filterSum = d.sum32(), d.sum32(), d.sum32()
			last := 0
			for range d.count(1) {
				last += d.limited(int64(len(g.streams)))
				k.streams = append(k.streams, last)
			}
			if d.bad || last >= len(g.streams) || k.events == 0 || k.filterLen == 0 || k.filterLen%64 != 0 ||
				k.offset+int64(k.columnsLen)+int64(k.dataLen) > size || k.filterAt+k.filterLen > f.filters {
				return nil, fmt.Errorf("%w: a block that cannot be", errDamaged)
			}
			if n := len(g.blocks); n == 0 || k.min.Timestamp < meta.From {
				meta.From = k.min.Timestamp
			}
			meta.To = max(meta.To, k.max.Timestamp)
			meta.Events += int64(k.events)
			meta.RawBytes += int64(k.dataRaw)
			g.blocks = append(g.blocks, k)
			x.size += 160 + 8*len(k.streams)
		}
		if len(x.groups) > 0 && x.groups[len(x.groups)-1].group.compare(g.group) >= 0 {
			return nil, fmt.Errorf("%w: groups are not in order", errDamaged)
		}
		meta.MinSeq, meta.MaxSeq = m.MinSeq, m.MaxSeq
		m.Events += meta.Events
		m.RawBytes += meta.RawBytes
		m.Groups = append(m.Groups, meta)
		x.groups = append(x.groups, g)
	}
	if d.bad || len(d.b) > 0 {
		return nil, fmt.Errorf("%w: the index is malformed", errDamaged)
	}
	return x, nil
}

type footer struct {
	indexAt   int64
	indexLen  int
	indexRaw  int
	indexSum  uint32
	filtersAt int64
	filters   int
}

func (f footer) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(f.indexAt))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.indexLen))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.indexRaw))
	b = binary.LittleEndian.AppendUint32(b, f.indexSum)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.filtersAt))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.filters))
	b = binary.LittleEndian.AppendUint32(b, segmentFormat)
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	return append(b, segmentMagic...)
}

// decodeFooter reads the footer of an object of that size.
func decodeFooter(b []byte, size int64) (footer, error) {
	if string(b[40:]) != segmentMagic || checksum(b[:36]) != binary.LittleEndian.Uint32(b[36:]) {
		return footer{}, fmt.Errorf("%w: the footer", errDamaged)
	}
	if v := binary.LittleEndian.Uint32(b[32:]); v != segmentFormat {
		return footer{}, fmt.Errorf("segment of format %d; this version of Berth knows %d", v, segmentFormat)
	}
	f := footer{int64(binary.LittleEndian.Uint64(b)), int(binary.LittleEndian.Uint32(b[8:])), int(binary.LittleEndian.Uint32(b[12:])),
		binary.LittleEndian.Uint32(b[16:]), int64(binary.LittleEndian.Uint64(b[20:])), int(binary.LittleEndian.Uint32(b[28:]))}
	if f.indexAt < 0 || f.indexAt+int64(f.indexLen) > size || f.indexRaw > maxIndex || f.filtersAt < 0 || f.filtersAt+int64(f.filters) > size {
		return footer{}, fmt.Errorf("%w: a footer that cannot be", errDamaged)
	}
	return f, nil
}

// readRange reads a part of an object.
func readRange(r io.ReadSeeker, at int64, n int) ([]byte, error) {
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: it ends too early", errDamaged)
	}
	return b, err
}

// readIndex reads a segment's index; firstFooter is where the other one's footer is, 0 if not known.
func readIndex(ctx context.Context, store blob.Store, c *codec, key string, firstFooter int64) (*index, error) {
	r, err := store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	x, err := readIndexFrom(r, r.Info().Size, c)
	if err != nil && firstFooter > 0 {
		if b, second := readRange(r, firstFooter, footerSize); second == nil {
			if f, second := decodeFooter(b, r.Info().Size); second == nil {
				if packed, second := readRange(r, f.indexAt, f.indexLen); second == nil {
					x, err = openIndex(packed, r.Info().Size, f, c)
				}
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the index of %s: %w", key, err)
	}
	x.meta.Key = key
	return x, nil
}

func readIndexFrom(r io.ReadSeeker, size int64, c *codec) (*index, error) {
	if size < footerSize {
		return nil, fmt.Errorf("%w: it has no footer", errDamaged)
	}
	n := min(size, indexTail)
	tail, err := readRange(r, size-n, int(n))
	if err != nil {
		return nil, err
	}
	f, err := decodeFooter(tail[n-footerSize:], size)
	if err != nil {
		return nil, err
	}
	var packed []byte
	if at := f.indexAt - (size - n); at >= 0 {
		packed = tail[at : at+int64(f.indexLen)]
	} else if packed, err = readRange(r, f.indexAt, f.indexLen); err != nil {
		return nil, err
	}
	return openIndex(packed, size, f, c)
}

func openIndex(packed []byte, size int64, f footer, c *codec) (*index, error) {
	raw, err := c.open(packed, f.indexSum, f.indexRaw, nil)
	if err != nil {
		return nil, err
	}
	x, err := decodeIndex(raw, size, f)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// segmentWriter writes a segment to w: events of one group after the other, in order. Blocks are packed
// by as many goroutines as there are processors.
type segmentWriter struct {
	w     io.Writer
	at    int64
	codec *codec
	x     index

	packers chan *packer
	free    chan *blockBuilder
	pending []pendingBlock
	builder *blockBuilder
	ids     map[string]int // of the group's streams
	filters []byte
	wg      sync.WaitGroup
	// onFirst is called before the first write.
	onFirst func()
}

type pendingBlock struct {
	group int
	done  chan packed
}

func newSegmentWriter(w io.Writer, c *codec, fast bool) *segmentWriter {
	n := runtime.GOMAXPROCS(0)
	s := &segmentWriter{w: w, codec: c, onFirst: func() {}, packers: make(chan *packer, n), free: make(chan *blockBuilder, n+2), builder: &blockBuilder{}}
	for range n {
		enc := c.enc
		if fast {
			enc = c.fast
		}
		s.packers <- newPacker(enc)
	}
	return s
}

func (s *segmentWriter) write(b []byte) error {
	n, err := s.w.Write(b)
	s.at += int64(n)
	return err
}

// begin starts a group.
func (s *segmentWriter) begin(g Group) error {
	if s.at == 0 {
		s.onFirst()
		if err := s.write([]byte(segmentMagic)); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.x.groups = append(s.x.groups, groupIndex{group: g})
	s.x.meta.Groups = append(s.x.meta.Groups, groupMeta{Group: g})
	s.ids = map[string]int{}
	return nil
}

func (s *segmentWriter) add(it item) error {
	g, meta := &s.x.groups[len(s.x.groups)-1], &s.x.meta.Groups[len(s.x.groups)-1]
	id, ok := s.ids[it.stream]
	if !ok {
		id = len(g.streams)
		s.ids[it.stream] = id
		g.streams = append(g.streams, streamStat{name: it.stream})
	}
	g.streams[id].add(it.id, it.ingestedAt, len(it.message))
	if meta.Events == 0 {
		meta.From, meta.MinSeq = it.id.Timestamp, it.id.Seq
	}
	meta.To, meta.MinSeq, meta.MaxSeq = it.id.Timestamp, min(meta.MinSeq, it.id.Seq), max(meta.MaxSeq, it.id.Seq)
	meta.Events++
	meta.RawBytes += int64(len(it.message))
	s.builder.add(it, id)
	if s.builder.full() {
		return s.flush()
	}
	return nil
}

// flush hands the block to a packer, and writes those that are ready before it when there are many.
func (s *segmentWriter) flush() error {
	if len(s.builder.ids) == 0 {
		return nil
	}
	b, done := s.builder, make(chan packed, 1)
	p := <-s.packers
	s.pending = append(s.pending, pendingBlock{len(s.x.groups) - 1, done})
	s.wg.Go(func() {
		done <- p.pack(b)
		s.packers <- p
		b.reset()
		select {
		case s.free <- b:
		default:
		}
	})
	select {
	case s.builder = <-s.free:
	default:
		s.builder = &blockBuilder{}
	}
	if len(s.pending) > cap(s.packers) {
		return s.writeOne()
	}
	return nil
}

func (s *segmentWriter) writeOne() error {
	k := <-s.pending[0].done
	g := &s.x.groups[s.pending[0].group]
	s.pending = s.pending[1:]
	k.info.offset, k.info.filterAt = s.at, len(s.filters)
	s.filters = append(s.filters, k.filter...)
	g.blocks = append(g.blocks, k.info)
	if err := s.write(k.columns); err != nil {
		return err
	}
	return s.write(k.data)
}

// finish writes what is left and the end, and answers what the segment has; Key is the caller's to set.
// It must be called, or abort.
func (s *segmentWriter) finish(generation int, logs []uint64, replaces []string) (*index, error) {
	defer s.abort()
	if err := s.flush(); err != nil {
		return nil, err
	}
	for len(s.pending) > 0 {
		if err := s.writeOne(); err != nil {
			return nil, err
		}
	}
	m := &s.x.meta
	m.Generation, m.Logs, m.Replaces = generation, logs, replaces
	for i, g := range m.Groups {
		if i == 0 {
			m.MinSeq = g.MinSeq
		}
		m.MinSeq, m.MaxSeq = min(m.MinSeq, g.MinSeq), max(m.MaxSeq, g.MaxSeq)
		m.Events += g.Events
		m.RawBytes += g.RawBytes
	}
	raw := s.x.encode()
	if len(raw) > maxIndex {
		return nil, fmt.Errorf("the index of a segment is %d bytes, more than %d", len(raw), maxIndex)
	}
	idx := s.codec.enc.EncodeAll(raw, nil)
	f := footer{s.at, len(idx), len(raw), checksum(idx), s.at + int64(len(idx)) + footerSize, len(s.filters)}
	m.FirstFooter = s.at + int64(len(idx))
	s.x.filtersAt, s.x.filters, s.x.size = f.filtersAt, f.filters, 2*len(raw)
	second := f
	second.indexAt = f.filtersAt + int64(f.filters)
	for _, b := range [][]byte{idx, f.encode(), s.filters, idx, second.encode()} {
		if err := s.write(b); err != nil {
			return nil, err
		}
	}
	m.Size = s.at
	return &s.x, nil
}

// abort waits for the packers.
func (s *segmentWriter) abort() { s.wg.Wait() }
