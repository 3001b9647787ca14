package segment

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/berthhq/berth/internal/blob"
)

// Limits of what is appended.
const (
	MaxMessage = 1 << 20  // bytes of one event's message
	MaxBatch   = 16 << 20 // bytes of the messages of one Append
	MaxEvents  = 100_000  // events of one Append
	MaxName    = 1024     // bytes of an account, a region, a group's or a stream's name
)

var (
	// ErrInvalid says that what was appended is outside of the limits. Nothing of it was stored.
	ErrInvalid = errors.New("invalid log events")
	// ErrFull says that there is no room: the volume is full, or segments cannot be stored and the tables
	// that wait are full too. Nothing was stored; it may succeed later.
	ErrFull = errors.New("no space left for log events")
	// ErrClosed says that the store is closed.
	ErrClosed = errors.New("log store is closed")
	// ErrBroken says that the disk failed in a way that leaves unknown what it holds. The store must be
	// opened again.
	ErrBroken = errors.New("log store is broken")
)

// Config says where a store is and how much it may use. Zero values are the defaults.
type Config struct {
	Dir       string        // write-ahead log and catalogue; one process at a time
	Blob      blob.Store    // segments, under the keys "logs/"
	MaxBytes  int64         // of segments and write-ahead logs; beyond it the oldest go. 0: no bound
	SealBytes int64         // of messages, then a segment is made; default 64 MiB
	SealAfter time.Duration // age of the oldest event, then a segment is made; default 10 minutes
	Logger    *slog.Logger
	// OnPressure is called when use passes nine tenths of MaxBytes, before anything is dropped, and each
	// time that something was. It must return soon and not call the store.
	OnPressure func(Usage)
}

// Group names a log group.
type Group struct{ Account, Region, Name string }

func (g Group) compare(h Group) int {
	return cmp.Or(cmp.Compare(g.Account, h.Account), cmp.Compare(g.Region, h.Region), cmp.Compare(g.Name, h.Name))
}

// ID identifies an event: it is unique in a store, and orders by timestamp and then by ingestion. The
// zero ID is before all events.
type ID struct {
	Timestamp int64  // ms since 1970, never negative
	Seq       uint64 // number in the order of ingestion, from 1
}

// Compare orders IDs.
func (a ID) Compare(b ID) int {
	return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Seq, b.Seq))
}

// String writes an ID as 40 decimal digits, which order as the IDs do.
func (a ID) String() string { return fmt.Sprintf("%020d%020d", a.Timestamp, a.Seq) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	if len(s) != 40 {
		return ID{}, fmt.Errorf("event id %.50q: not 40 digits", s)
	}
	timestamp, err1 := strconv.ParseUint(s[:20], 10, 63)
	seq, err2 := strconv.ParseUint(s[20:], 10, 64)
	if err1 != nil || err2 != nil {
		return ID{}, fmt.Errorf("event id %q: not two numbers", s)
	}
	return ID{int64(timestamp), seq}, nil
}

var lastID = ID{math.MaxInt64, math.MaxUint64}

// Entry is an event to be stored.
type Entry struct {
	Timestamp int64  // ms since 1970, not negative
	Message   []byte // up to MaxMessage bytes, any
}

// Event is an event as it is stored.
type Event struct {
	Group      Group
	Stream     string
	ID         ID
	IngestedAt int64 // ms since 1970
	Message    []byte
}

// Appended says what an Append stored: entry i has the ID {its timestamp, FirstSeq+i}.
type Appended struct {
	FirstSeq   uint64
	IngestedAt int64
}

// Gap is a part of the store that is damaged.
type Gap struct {
	Object   string // the segment's key, or the write-ahead log's path
	Offset   int64
	Group    Group // zero, with the following, if it is not known
	From, To int64 // timestamps, both included
	Events   int
	Reason   error
}

func (g Gap) String() string {
	if g.Events == 0 {
		return fmt.Sprintf("%s at %d is damaged: %v", g.Object, g.Offset, g.Reason)
	}
	return fmt.Sprintf("%d events of %s from %s to %s are lost: %s at %d is damaged: %v", g.Events, g.Group.Name,
		time.UnixMilli(g.From).UTC().Format(time.RFC3339Nano), time.UnixMilli(g.To).UTC().Format(time.RFC3339Nano), g.Object, g.Offset, g.Reason)
}

// Usage is what a store uses and did.
type Usage struct {
	Segments      int
	SegmentBytes  int64 // stored
	LogBytes      int64 // of write-ahead logs, on local disk
	MaxBytes      int64
	RawBytes      int64 // of messages in segments, uncompressed
	PendingBytes  int64 // of messages not in segments yet
	Groups        int
	DroppedEvents int64 // since the store was opened, to stay below MaxBytes
	TailDropped   int64 // since the store was opened, by all tails
	SealError     error // why the last segment was not made, nil if it was
}

// Total is what MaxBytes bounds.
func (u Usage) Total() int64 { return u.SegmentBytes + u.LogBytes }

// StreamInfo is what a stream holds that can be read.
type StreamInfo struct {
	Stream       string
	First, Last  int64 // timestamps
	LastIngested int64
	Events       int64
	Bytes        int64 // of messages
}

// decoder reads the encodings that this package shares: varints, and strings behind their length. After
// the first failure it yields zeros; every length is checked against what there is.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many things follow, each of at least size bytes.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes(d.count(1))) }

func (d *decoder) group() Group { return Group{d.string(), d.string(), d.string()} }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendGroup(b []byte, g Group) []byte {
	return appendString(appendString(appendString(b, g.Account), g.Region), g.Name)
}
