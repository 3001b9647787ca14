package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// SaveCursor writes c to a file, replacing it as a whole.
func SaveCursor(path string, c Cursor) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("save log cursor: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return fmt.Errorf("save log cursor: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("save log cursor: %w", err)
	}
	return nil
}

// LoadCursor reads what SaveCursor wrote. Without the file it is the zero Cursor.
func LoadCursor(path string) (Cursor, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Cursor{}, nil
	}
	var c Cursor
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return Cursor{}, fmt.Errorf("load log cursor: %w", err)
	}
	return c, nil
}

// TailCursor returns where the last n lines in dir begin. A begun line counts as one.
func TailCursor(dir string, n int) (Cursor, error) {
	segs, err := segments(dir)
	if err != nil || len(segs) == 0 {
		return Cursor{}, err
	}
	// Find a segment far enough back, then walk forward from it.
	var from Cursor
	for i, total := len(segs)-1, 0; i >= 0 && total <= n; i-- {
		base, lines, err := countLines(dir, segs[i])
		if err != nil {
			return Cursor{}, err
		}
		if i > 0 {
			from = Cursor{base, base}
		} else {
			from = Cursor{}
		}
		total += lines
	}
	r := NewReader(dir, from)
	defer r.Close()
	ring := []Cursor{from} // where each of the last lines begins
	for {
		l, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Cursor{}, err
		}
		if l.Partial || l.Lost > 0 {
			continue
		}
		ring = append(ring, r.Cursor())
		if len(ring) > 2*(n+1) {
			ring = append(ring[:0], ring[len(ring)-n-1:]...)
		}
	}
	for _, s := range streams {
		if _, ok := r.Flush(s, true); ok {
			ring = append(ring, r.Cursor())
		}
	}
	return ring[max(0, len(ring)-1-n)], nil
}

func countLines(dir string, seq uint64) (base uint64, lines int, err error) {
	f, head, err := openSegment(dir, seq, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errSegmentHeader) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	sc := newScanner(f, head.salt)
	for {
		_, data, _, err := sc.next(st.Size())
		if err == io.EOF {
			return head.base, lines, nil
		}
		if err != nil {
			return 0, 0, err
		}
		for _, b := range data {
			if b == '\n' {
				lines++
			}
		}
	}
}

// SinceCursor returns a place before all output at or after t, without reading what is far older.
func SinceCursor(dir string, t time.Time) (Cursor, error) {
	segs, err := segments(dir)
	if err != nil {
		return Cursor{}, err
	}
	for i := len(segs) - 1; i > 0; i-- {
		f, head, err := openSegment(dir, segs[i], os.O_RDONLY)
		if err != nil {
			continue // damaged or gone: an earlier one serves too
		}
		f.Close()
		if head.created < t.UnixNano() {
			return Cursor{head.base, head.base}, nil
		}
	}
	return Cursor{}, nil
}
