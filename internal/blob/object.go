package blob

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"time"
	"unicode/utf8"
)

// An object is one file:
//
//	bytes           as they were put
//	checksums       of each block of blockSize of them, CRC-32C, 4 bytes each, little endian
//	description     JSON, see description
//	trailer         length of the description and its CRC-32C, 4 bytes each, and magic
//
// So one pass writes it, whatever its size, and any range of it is read and verified alone.
const (
	blockSize   = 256 << 10
	trailerSize = 8 + len(magic)
	magic       = "berthob1"
	// maxDescription bounds what is kept beside an object's bytes. S3 takes 2 KiB of metadata and 8 KiB
	// of headers.
	maxDescription = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// description is what the file says of the object in it.
type description struct {
	Key         string            `json:"key"`
	Size        int64             `json:"size"`
	MD5         []byte            `json:"md5"`
	ModifiedAt  time.Time         `json:"modifiedAt"`
	ContentType string            `json:"contentType,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

// errMetadata says that the options of a put cannot be kept.
var errMetadata = fmt.Errorf("content type and metadata are not UTF-8 of less than %d bytes", maxDescription/2)

func (o PutOptions) check() error {
	n := len(o.ContentType)
	ok := utf8.ValidString(o.ContentType)
	for k, v := range o.Metadata {
		n += len(k) + len(v)
		ok = ok && utf8.ValidString(k) && utf8.ValidString(v)
	}
	if !ok || n >= maxDescription/2 {
		return errMetadata
	}
	return nil
}

// writeObject writes an object's file from r to w.
func writeObject(ctx context.Context, w io.Writer, key string, r io.Reader, o PutOptions) (Info, error) {
	var size int64
	var sums []byte
	sum := md5.New()
	buf := make([]byte, blockSize)
	for end := false; !end; {
		if err := ctx.Err(); err != nil {
			return Info{}, err
		}
		var n int
		var err error
		if n, end, err = fill(r, buf); err != nil {
			return Info{}, fmt.Errorf("reading what is to be put: %w", err)
		}
		if n == 0 {
			break
		}
		block := buf[:n]
		if _, err := w.Write(block); err != nil {
			return Info{}, err
		}
		sum.Write(block)
		sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(block, castagnoli))
		size += int64(n)
	}
	if err := o.check(); err != nil { // again: r may have added to it
		return Info{}, err
	}
	info := Info{Key: key, Size: size, ModifiedAt: time.Now().UTC(), ContentType: o.ContentType, Metadata: maps.Clone(o.Metadata)}
	sum.Sum(info.MD5[:0])
	d, err := json.Marshal(description{
		Key: key, Size: size, MD5: info.MD5[:], ModifiedAt: info.ModifiedAt, ContentType: o.ContentType, Metadata: o.Metadata,
	})
	if err != nil {
		return Info{}, fmt.Errorf("describing it: %w", err)
	}
	tail := append(sums, d...)
	tail = binary.LittleEndian.AppendUint32(tail, uint32(len(d)))
	tail = binary.LittleEndian.AppendUint32(tail, crc32.Checksum(d, castagnoli))
	tail = append(tail, magic...)
	if _, err := w.Write(tail); err != nil {
		return Info{}, err
	}
	return info, nil
}

// fill reads until b is full or r ends. It is not io.ReadFull, which makes io.ErrUnexpectedEOF of an end:
// that is what a client's body says when the client is gone, and no end.
func fill(r io.Reader, b []byte) (n int, end bool, err error) {
	for idle := 0; n < len(b); {
		m, err := r.Read(b[n:])
		n += m
		switch {
		case err == io.EOF:
			return n, true, nil
		case err != nil:
			return n, false, err
		case m > 0:
			idle = 0
		case idle == 100:
			return n, false, io.ErrNoProgress
		default:
			idle++
		}
	}
	return n, false, nil
}

func blocks(size int64) int64 { return (size + blockSize - 1) / blockSize }

// readInfo reads the description of the object in a file. What is not a whole object of that key is
// ErrCorrupt.
func readInfo(f *os.File, key string) (Info, error) {
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	// One read takes in the trailer and nearly every description.
	tail := make([]byte, min(st.Size(), 1024))
	if err := readAt(f, tail, st.Size()-int64(len(tail))); err != nil {
		return Info{}, err
	}
	if len(tail) < trailerSize || string(tail[len(tail)-len(magic):]) != magic {
		return Info{}, fmt.Errorf("%w: it has no end", ErrCorrupt)
	}
	trailer := tail[len(tail)-trailerSize:]
	length, sum := int64(binary.LittleEndian.Uint32(trailer)), binary.LittleEndian.Uint32(trailer[4:])
	if length > maxDescription*6 || length+int64(trailerSize) > st.Size() { // JSON takes up to six bytes for one
		return Info{}, fmt.Errorf("%w: its description cannot be %d bytes", ErrCorrupt, length)
	}
	var raw []byte
	if length+int64(trailerSize) <= int64(len(tail)) {
		raw = tail[int64(len(tail)-trailerSize)-length : len(tail)-trailerSize]
	} else {
		raw = make([]byte, length)
		if err := readAt(f, raw, st.Size()-int64(trailerSize)-length); err != nil {
			return Info{}, err
		}
	}
	if crc32.Checksum(raw, castagnoli) != sum {
		return Info{}, fmt.Errorf("%w: its description does not match its checksum", ErrCorrupt)
	}
	var d description
	if err := json.Unmarshal(raw, &d); err != nil {
		return Info{}, fmt.Errorf("%w: its description: %w", ErrCorrupt, err)
	}
	info := Info{Key: d.Key, Size: d.Size, ModifiedAt: d.ModifiedAt, ContentType: d.ContentType, Metadata: d.Metadata}
	if copy(info.MD5[:], d.MD5) != len(info.MD5) || d.Key != key || d.Size < 0 ||
		d.Size+4*blocks(d.Size)+length+int64(trailerSize) != st.Size() {
		return Info{}, fmt.Errorf("%w: its description is another object's", ErrCorrupt)
	}
	return info, nil
}

// readAt fills b; a file that ends before is corrupt.
func readAt(f *os.File, b []byte, at int64) error {
	if _, err := f.ReadAt(b, at); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends too early", ErrCorrupt)
	} else if err != nil {
		return err
	}
	return nil
}

// reader reads an object's file, block by block, each verified before any of it is handed out.
type reader struct {
	f      *os.File
	info   Info
	at     int64
	block  []byte // the block number `number`, verified; nil: none
	number int64
}

func (r *reader) Info() Info { return r.info }

func (r *reader) Close() error { return r.f.Close() }

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.info.Size
	case io.SeekStart:
	default:
		return 0, fmt.Errorf("seek %q: whence %d", r.info.Key, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek %q: to before the start", r.info.Key)
	}
	r.at = offset
	return offset, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at >= r.info.Size {
		return 0, io.EOF
	}
	if number := r.at / blockSize; r.block == nil || number != r.number {
		if err := r.load(number); err != nil {
			r.block = nil
			return 0, wrap(err, "read object", r.info.Key)
		}
	}
	n := copy(p, r.block[r.at-r.number*blockSize:])
	r.at += int64(n)
	return n, nil
}

func (r *reader) load(number int64) error {
	n := min(blockSize, r.info.Size-number*blockSize)
	if int64(cap(r.block)) < n {
		r.block = make([]byte, n)
	}
	r.block, r.number = r.block[:n], number
	var sum [4]byte
	if err := readAt(r.f, r.block, number*blockSize); err != nil {
		return err
	}
	if err := readAt(r.f, sum[:], r.info.Size+4*number); err != nil {
		return err
	}
	if crc32.Checksum(r.block, castagnoli) != binary.LittleEndian.Uint32(sum[:]) {
		return fmt.Errorf("%w: block %d does not match its checksum", ErrCorrupt, number)
	}
	return nil
}
