package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A block is two zstd frames: columns of what is known of the events, and their messages one behind the
// other. The columns, event by event in each:
//
//	stream (its place in the block's list of streams)   uvarint
//	timestamp                                           varint of the difference to the event before
//	ingestion number, time of ingestion                 the same, to the event before of its stream
//	length of the message                               uvarint
//
// What one Append stored differs by one and by nothing in the third row, which therefore costs next to nothing.
const (
	blockRaw    = 1 << 20 // bytes of messages, then the block is full
	blockEvents = 32 << 10
	maxBlockRaw = blockRaw + MaxMessage
	maxColumns  = blockEvents * 5 * binary.MaxVarintLen64
)

// item is an event within its group.
type item struct {
	id         ID
	ingestedAt int64
	stream     string
	message    []byte
}

// blockInfo is what an index says of a block.
type blockInfo struct {
	offset              int64
	columnsLen, dataLen int // compressed
	columnsRaw, dataRaw int
	columnsSum, dataSum uint32
	filterAt, filterLen int // within the segment's filters
	filterSum           uint32
	events              int
	min, max            ID
	streams             []int // of the group's, ascending
}

// codec compresses and decompresses with bounded memory. Encoders and decoders are safe for concurrent use.
type codec struct {
	enc  *zstd.Encoder
	fast *zstd.Encoder // half the work for a tenth more bytes
	dec  *zstd.Decoder
}

var sharedCodec = sync.OnceValues(func() (*codec, error) {
	encoder := func(l zstd.EncoderLevel) (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderCRC(false), zstd.WithWindowSize(2<<20))
	}
	enc, err := encoder(zstd.SpeedBetterCompression)
	if err != nil {
		return nil, err
	}
	fast, err := encoder(zstd.SpeedDefault)
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxIndex), zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(4<<20))
	if err != nil {
		return nil, err
	}
	return &codec{enc, fast, dec}, nil
})

// errDamaged says that what was read is not what was written.
var errDamaged = errors.New("does not match its checksum")

// open checks and decompresses into a buffer that has room for exactly raw bytes more than nothing.
func (c *codec) open(packed []byte, sum uint32, raw int, into []byte) ([]byte, error) {
	if checksum(packed) != sum {
		return nil, errDamaged
	}
	if cap(into) < raw {
		into = make([]byte, 0, raw)
	}
	out, err := c.dec.DecodeAll(packed, into[:0:raw])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(out) != raw {
		return nil, fmt.Errorf("%w: %d bytes in place of %d", errDamaged, len(out), raw)
	}
	return out, nil
}

// blockBuilder gathers the events of one group, in order, until a block is full.
type blockBuilder struct {
	ids      []ID
	ingested []int64
	streams  []int // of the group's
	lengths  []int
	data     []byte
}

func (b *blockBuilder) add(it item, stream int) {
	b.ids = append(b.ids, it.id)
	b.ingested = append(b.ingested, it.ingestedAt)
	b.streams = append(b.streams, stream)
	b.lengths = append(b.lengths, len(it.message))
	b.data = append(b.data, it.message...)
}

func (b *blockBuilder) full() bool { return len(b.data) >= blockRaw || len(b.ids) >= blockEvents }

func (b *blockBuilder) reset() {
	b.ids, b.ingested, b.streams, b.lengths, b.data = b.ids[:0], b.ingested[:0], b.streams[:0], b.lengths[:0], b.data[:0]
}

// packed is a block ready to be written.
type packed struct {
	info          blockInfo
	columns, data []byte
	filter        []byte
}

// packer makes blocks, one at a time.
type packer struct {
	enc     *zstd.Encoder
	filter  *filterBuilder
	columns []byte
	local   map[int]int
}

func newPacker(enc *zstd.Encoder) *packer {
	return &packer{enc: enc, filter: newFilterBuilder(), local: map[int]int{}}
}

func (p *packer) pack(b *blockBuilder) packed {
	out := packed{info: blockInfo{events: len(b.ids), min: b.ids[0], max: b.ids[len(b.ids)-1], dataRaw: len(b.data)}}
	clear(p.local)
	for _, s := range b.streams {
		if _, ok := p.local[s]; !ok {
			p.local[s] = len(out.info.streams)
			out.info.streams = append(out.info.streams, s)
		}
	}
	// Ascending numbers are short in the index; the columns count in that order.
	slices.Sort(out.info.streams)
	for i, s := range out.info.streams {
		p.local[s] = i
	}
	col := p.columns[:0]
	for _, s := range b.streams {
		col = binary.AppendUvarint(col, uint64(p.local[s]))
	}
	var last ID
	for _, id := range b.ids {
		col = binary.AppendVarint(col, id.Timestamp-last.Timestamp)
		last = id
	}
	before := make([]int64, len(out.info.streams))
	for i, id := range b.ids {
		of := &before[p.local[b.streams[i]]]
		col = binary.AppendVarint(col, int64(id.Seq)-*of)
		*of = int64(id.Seq)
	}
	clear(before)
	for i, at := range b.ingested {
		of := &before[p.local[b.streams[i]]]
		col = binary.AppendVarint(col, at-*of)
		*of = at
	}
	end := 0
	for _, n := range b.lengths {
		col = binary.AppendUvarint(col, uint64(n))
		p.filter.add(b.data[end : end+n])
		end += n
	}
	p.columns = col
	out.info.columnsRaw = len(col)
	out.columns = p.enc.EncodeAll(col, nil)
	out.data = p.enc.EncodeAll(b.data, make([]byte, 0, len(b.data)/6))
	out.filter = p.filter.finish()
	out.info.columnsLen, out.info.dataLen, out.info.filterLen = len(out.columns), len(out.data), len(out.filter)
	out.info.columnsSum = checksum(out.columns)
	out.info.dataSum = checksum(out.data)
	out.info.filterSum = checksum(out.filter)
	return out
}

// columns are a block's, decoded.
type columns struct {
	ids      []ID
	ingested []int64
	streams  []int // places in the block's list
	ends     []int // of the messages
}

func decodeColumns(b []byte, info *blockInfo) (*columns, error) {
	n := info.events
	d := decoder{b: b}
	if n > len(b)/5 {
		return nil, fmt.Errorf("%w: %d events in %d bytes", errDamaged, n, len(b))
	}
	c := &columns{make([]ID, n), make([]int64, n), make([]int, n), make([]int, n)}
	for i := range n {
		s := d.uvarint()
		if s >= uint64(len(info.streams)) {
			return nil, fmt.Errorf("%w: there is no stream %d", errDamaged, s)
		}
		c.streams[i] = int(s)
	}
	var last ID
	for i := range n {
		last.Timestamp += d.varint()
		c.ids[i].Timestamp = last.Timestamp
	}
	before := make([]int64, len(info.streams))
	for i, s := range c.streams {
		before[s] += d.varint()
		c.ids[i].Seq = uint64(before[s])
	}
	clear(before)
	for i, s := range c.streams {
		before[s] += d.varint()
		c.ingested[i] = before[s]
	}
	end := uint64(0)
	for i := range n {
		if end += d.uvarint(); end > uint64(info.dataRaw) {
			return nil, fmt.Errorf("%w: messages are longer than their block", errDamaged)
		}
		c.ends[i] = int(end)
		if i > 0 && c.ids[i-1].Compare(c.ids[i]) >= 0 {
			return nil, fmt.Errorf("%w: events are not in order", errDamaged)
		}
	}
	if d.bad || len(d.b) > 0 || end != uint64(info.dataRaw) {
		return nil, fmt.Errorf("%w: columns are malformed", errDamaged)
	}
	return c, nil
}
