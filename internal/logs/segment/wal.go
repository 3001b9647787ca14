package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A write-ahead log is a header and records. Each record is one Append:
//
//	log    = "berthlg1" salt(8) crc(4) zero(4)
//	record = salt(8) body-length(4) events(4) first-seq(8) ingested-at(8) body-crc(4) header-crc(4) body
//	body   = account region group stream, events times: timestamp-delta message-length, messages
//
// Both checksums are CRC-32C, so a damaged body does not hide the next record, and one behind a damaged
// header is found by the log's random salt, which nobody who writes messages knows.
const (
	walMagic      = "berthlg1"
	walHeaderSize = 24
	recHeaderSize = 40
	maxBody       = MaxBatch + MaxEvents*20 + 4*(MaxName+10)
	walSuffix     = ".wal"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// record is one Append, as it is in the log and in memory.
type record struct {
	group      Group
	stream     string
	firstSeq   uint64
	ingestedAt int64
	times      []int64
	ends       []uint32 // of the messages in data
	data       []byte   // part of raw
	raw        []byte   // header and body
}

func (r *record) message(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = r.ends[i-1]
	}
	return r.data[start:r.ends[i]:r.ends[i]]
}

// checkAppend says whether a batch is within the limits, and the size of its messages.
func checkAppend(g Group, stream string, entries []Entry) (int, error) {
	for _, name := range []string{g.Account, g.Region, g.Name, stream} {
		if len(name) > MaxName {
			return 0, fmt.Errorf("%w: a name of %d bytes", ErrInvalid, len(name))
		}
	}
	if len(entries) == 0 || len(entries) > MaxEvents {
		return 0, fmt.Errorf("%w: %d events at once", ErrInvalid, len(entries))
	}
	size := 0
	for i, e := range entries {
		if e.Timestamp < 0 {
			return 0, fmt.Errorf("%w: event %d has the timestamp %d", ErrInvalid, i, e.Timestamp)
		}
		if len(e.Message) > MaxMessage {
			return 0, fmt.Errorf("%w: event %d has %d bytes", ErrInvalid, i, len(e.Message))
		}
		if size += len(e.Message); size > MaxBatch {
			return 0, fmt.Errorf("%w: more than %d bytes at once", ErrInvalid, MaxBatch)
		}
	}
	return size, nil
}

// newRecord copies what is to be appended. The header is written by seal.
func newRecord(g Group, stream string, entries []Entry, size int) *record {
	r := &record{group: g, stream: stream, times: make([]int64, len(entries)), ends: make([]uint32, len(entries))}
	b := make([]byte, recHeaderSize, recHeaderSize+len(g.Account)+len(g.Region)+len(g.Name)+len(stream)+16+len(entries)*6+size)
	b = appendString(appendGroup(b, g), stream)
	last, end := int64(0), uint32(0)
	for i, e := range entries {
		b = binary.AppendVarint(b, e.Timestamp-last)
		b = binary.AppendUvarint(b, uint64(len(e.Message)))
		last = e.Timestamp
		end += uint32(len(e.Message))
		r.times[i], r.ends[i] = e.Timestamp, end
	}
	start := len(b)
	for _, e := range entries {
		b = append(b, e.Message...)
	}
	r.raw, r.data = b, b[start:]
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-recHeaderSize))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(entries)))
	binary.LittleEndian.PutUint32(b[32:], checksum(b[recHeaderSize:]))
	return r
}

// seal gives the record its place in a log.
func (r *record) seal(salt, firstSeq uint64, ingestedAt int64) {
	r.firstSeq, r.ingestedAt = firstSeq, ingestedAt
	binary.LittleEndian.PutUint64(r.raw, salt)
	binary.LittleEndian.PutUint64(r.raw[16:], firstSeq)
	binary.LittleEndian.PutUint64(r.raw[24:], uint64(ingestedAt))
	binary.LittleEndian.PutUint32(r.raw[36:], checksum(r.raw[:36]))
}

var errRecord = errors.New("record does not match its checksum")

// recordHeader reads a header; the length is that of the body.
func recordHeader(b []byte, salt uint64) (length int, ok bool) {
	if binary.LittleEndian.Uint64(b) != salt || checksum(b[:36]) != binary.LittleEndian.Uint32(b[36:]) {
		return 0, false
	}
	n := binary.LittleEndian.Uint32(b[8:])
	return int(n), n <= maxBody
}

// parseRecord reads a record with a good header. It keeps raw.
func parseRecord(raw []byte) (*record, error) {
	body := raw[recHeaderSize:]
	if checksum(body) != binary.LittleEndian.Uint32(raw[32:]) {
		return nil, errRecord
	}
	d := decoder{b: body}
	r := &record{raw: raw, firstSeq: binary.LittleEndian.Uint64(raw[16:]), ingestedAt: int64(binary.LittleEndian.Uint64(raw[24:]))}
	r.group, r.stream = d.group(), d.string()
	n := int(binary.LittleEndian.Uint32(raw[12:]))
	if n == 0 || n > len(d.b)/2 || r.firstSeq == 0 || r.firstSeq+uint64(n) < r.firstSeq {
		return nil, fmt.Errorf("record cannot have %d events from %d", n, r.firstSeq)
	}
	r.times, r.ends = make([]int64, n), make([]uint32, n)
	last, end := int64(0), uint64(0)
	for i := range n {
		last += d.varint()
		end += d.uvarint()
		if d.bad || last < 0 || end > maxBody {
			return nil, fmt.Errorf("record is malformed at event %d", i)
		}
		r.times[i], r.ends[i] = last, uint32(end)
	}
	if end != uint64(len(d.b)) {
		return nil, fmt.Errorf("record has %d bytes of messages, not %d", len(d.b), end)
	}
	r.data = d.b
	return r, nil
}

// wal is a log that is written. What was written and not synced is cut again when that fails.
type wal struct {
	f    *os.File
	path string
	salt uint64
	size atomic.Int64 // synced
}

func walPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", n, walSuffix))
}

// createWAL makes log number n, durable before it is used.
func createWAL(dir string, n, salt uint64) (_ *wal, err error) {
	path := walPath(dir, n)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create write-ahead log: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create write-ahead log: %w", err), f.Close(), os.Remove(path))
		}
	}()
	header := make([]byte, walHeaderSize)
	copy(header, walMagic)
	binary.LittleEndian.PutUint64(header[8:], salt)
	binary.LittleEndian.PutUint32(header[16:], checksum(header[:16]))
	if _, err := f.Write(header); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	w := &wal{f: f, path: path, salt: salt}
	w.size.Store(walHeaderSize)
	return w, nil
}

// commit writes records and syncs them. When it fails, broken says that it is not known any more what
// the file holds.
func (w *wal) commit(records []*record) (broken bool, err error) {
	at := w.size.Load()
	for _, r := range records {
		if _, err = w.f.WriteAt(r.raw, at); err != nil {
			break
		}
		at += int64(len(r.raw))
	}
	if err == nil {
		if err = unix.Fdatasync(int(w.f.Fd())); err != nil {
			// The pages may be marked clean although they were not written: their content is lost for good.
			broken = true
		}
	}
	if err == nil {
		w.size.Store(at)
		return false, nil
	}
	if cut := w.f.Truncate(w.size.Load()); cut != nil {
		broken = true
		err = errors.Join(err, cut)
	}
	return broken, fmt.Errorf("write ahead: %w", err)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// listWALs answers the numbers of the logs in dir, in order.
func listWALs(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []uint64
	for _, e := range entries {
		var n uint64
		if _, err := fmt.Sscanf(e.Name(), "%x", &n); err == nil && strings.HasSuffix(e.Name(), walSuffix) && filepath.Base(walPath(dir, n)) == e.Name() {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found, nil
}

// readSalt answers the salt of a log, 0 if it has no good header.
func readSalt(r io.ReaderAt, size int64) (uint64, error) {
	header := make([]byte, walHeaderSize)
	if size < walHeaderSize {
		return 0, nil
	}
	if _, err := r.ReadAt(header, 0); err != nil {
		return 0, fmt.Errorf("read write-ahead log: %w", err)
	}
	if string(header[:8]) != walMagic || checksum(header[:16]) != binary.LittleEndian.Uint32(header[16:]) {
		if size < walHeaderSize+recHeaderSize {
			return 0, nil
		}
		// The salt is at the beginning of the first record too.
		if _, err := r.ReadAt(header[8:16], walHeaderSize); err != nil {
			return 0, fmt.Errorf("read write-ahead log: %w", err)
		}
	}
	return binary.LittleEndian.Uint64(header[8:]), nil
}

// readWAL reads a log's records. Damaged ones are told to gap; what a crash left at the end half
// written is not damage, since nobody was told that it was stored, and neither is a log without a header.
func readWAL(r io.ReaderAt, size int64, yield func(*record), gap func(at int64, reason error)) error {
	salt, err := readSalt(r, size)
	if err != nil || salt == 0 {
		return err
	}
	at, next := int64(walHeaderSize), uint64(0)
	var pending error
	var pendingAt int64
	head := make([]byte, recHeaderSize)
	for at+recHeaderSize <= size {
		if _, err := r.ReadAt(head, at); err != nil {
			return fmt.Errorf("read write-ahead log: %w", err)
		}
		length, ok := recordHeader(head, salt)
		if !ok || at+recHeaderSize+int64(length) > size {
			if pending == nil {
				pending, pendingAt = errors.New("a record's header is damaged"), at
			}
			found, err := findRecord(r, salt, at+1, size)
			if err != nil {
				return err
			}
			if found < 0 {
				return nil // a torn end
			}
			at = found
			continue
		}
		raw := make([]byte, recHeaderSize+length)
		if _, err := r.ReadAt(raw, at); err != nil {
			return fmt.Errorf("read write-ahead log: %w", err)
		}
		rec, err := parseRecord(raw)
		if err == nil && rec.firstSeq < next {
			err = errors.New("a record is out of order")
		}
		switch {
		case err != nil && pending == nil:
			pending, pendingAt = err, at
		case err == nil:
			if pending != nil {
				gap(pendingAt, pending)
				pending = nil
			}
			next = rec.firstSeq + uint64(len(rec.times))
			yield(rec)
		}
		at += int64(len(raw))
	}
	return nil
}

// findRecord answers where the next good header is, from at on; -1: nowhere.
func findRecord(r io.ReaderAt, salt uint64, at, size int64) (int64, error) {
	var want [8]byte
	binary.LittleEndian.PutUint64(want[:], salt)
	buf := make([]byte, min(1<<20, size-at))
	for at+recHeaderSize <= size {
		n := min(int64(len(buf)), size-at)
		if _, err := r.ReadAt(buf[:n], at); err != nil {
			return 0, fmt.Errorf("read write-ahead log: %w", err)
		}
		for i := 0; int64(i)+recHeaderSize <= n; i++ {
			if [8]byte(buf[i:]) != want {
				continue
			}
			if length, ok := recordHeader(buf[i:i+recHeaderSize], salt); ok && at+int64(i+recHeaderSize+length) <= size {
				return at + int64(i), nil
			}
		}
		at += max(1, n-recHeaderSize+1)
	}
	return -1, nil
}
