package spool

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// FuzzSegment feeds any bytes as a segment: scanning must end, stay within what there is, and only
// give out chunks that encode to the bytes they were read from.
func FuzzSegment(f *testing.F) {
	w := mustWriter(f, f.TempDir(), Options{})
	for i := range 5 {
		w.Append(streams[i%2], bytes.Repeat([]byte("x\n"), i*i), epoch)
	}
	w.Close()
	whole, err := os.ReadFile(filepath.Join(w.dir, segmentName(1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, uint16(0), byte(0))
	f.Add(whole, uint16(segmentHeaderSize+4), byte(0x80))
	f.Add(whole[:len(whole)-3], uint16(8), byte(1))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		b = bytes.Clone(b)
		if int(at) < len(b) {
			b[at] ^= flip
		}
		head, err := parseSegmentHeader(b)
		if err == nil && !bytes.Equal(head.encode(), b[:segmentHeaderSize]) {
			// Bytes 12 to 16 are not kept; all others must be.
			copy(b[12:16], []byte{0, 0, 0, 0})
			if h := head.encode(); !bytes.Equal(h[:60], b[:60]) {
				t.Fatalf("header %v is not what was read", head)
			}
		}
		if len(b) >= segmentHeaderSize {
			head.salt = binary.LittleEndian.Uint32(b[56:]) // damage to the header shall not hide the chunks
		}
		sc := newScanner(bytes.NewReader(b), head.salt)
		for last := sc.off; ; last = sc.off {
			c, data, damaged, err := sc.next(int64(len(b)))
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			start := sc.off - chunkHeaderSize - int64(len(data))
			if start < last || sc.off > int64(len(b)) || damaged != (start > last) {
				t.Fatalf("chunk at %d to %d, after %d, of %d bytes, damaged %v", start, sc.off, last, len(b), damaged)
			}
			again := make([]byte, chunkHeaderSize)
			c.encode(again, head.salt, data)
			if again[27] = b[start+27]; !bytes.Equal(again[:27], b[start:start+27]) {
				t.Fatalf("chunk %v is not what was read", c)
			}
		}
		openChunk(bytes.NewReader(b), head.salt, sc.off, int64(len(b)))
	})
}
