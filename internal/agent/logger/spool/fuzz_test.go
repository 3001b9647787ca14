package spool

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// FuzzSegment feeds any bytes as a segment: reading and repairing must end, give out no more than
// there is, and agree with each other.
func FuzzSegment(f *testing.F) {
	seed := func(n int) []byte {
		dir := f.TempDir()
		w, err := OpenWriter(dir, Options{})
		if err != nil {
			f.Fatal(err)
		}
		for i := range n {
			w.Append(streams[i%2], bytes.Repeat([]byte("x\n"), i*i), epoch)
		}
		w.Close()
		b, _ := os.ReadFile(filepath.Join(dir, segmentName(1)))
		return b
	}
	whole := seed(5)
	f.Add(whole, uint16(0), byte(0))
	f.Add(whole, uint16(segmentHeaderSize+4), byte(0x80))
	f.Add(whole[:len(whole)-3], uint16(8), byte(1))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		if int(at) < len(b) {
			b = bytes.Clone(b)
			b[at] ^= flip
		}
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, segmentName(1)), b, 0o600)
		read := func() (n int) {
			r := NewReader(dir, Cursor{})
			defer r.Close()
			for {
				l, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					return -1
				}
				if l.Lost == 0 {
					n += len(l.Text)
				}
			}
			if n > len(b) {
				t.Fatalf("%d bytes of text from a segment of %d", n, len(b))
			}
			return n
		}
		before := read()
		w, err := OpenWriter(dir, Options{})
		if err != nil {
			return
		}
		w.Close()
		if after := read(); after < before {
			t.Fatalf("read %d before the repair, %d after", before, after)
		}
	})
}
