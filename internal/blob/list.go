package blob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
)

// listChunk is how many names of a directory a listing holds at a time.
const listChunk = 16 << 10

// List is as Store says.
func (d *Dir) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		dirs, rest := descend(prefix)
		l := lister{Dir: d, ctx: ctx, yield: yield, after: after}
		_, err := l.walk(path.Join(objectsDir, joinDirs(dirs)), prefix[:len(prefix)-len(rest)], rest)
		if err != nil {
			yield(Info{}, wrap(err, "list objects below", prefix))
		}
	}
}

type lister struct {
	*Dir
	ctx   context.Context
	yield func(Info, error) bool
	after string
}

// walk yields the objects of a directory whose keys begin with base+rest. more is false when the caller
// has enough.
func (l *lister) walk(dir, base, rest string) (more bool, err error) {
	wanted := func(e entry) bool {
		if !strings.HasPrefix(e.part, rest) { // no directory is on the way to the prefix: descend found those
			return false
		}
		key := base + e.part
		return key > l.after || e.kind != object && strings.HasPrefix(l.after, key)
	}
	var last *entry
	for {
		chunk, err := l.names(dir, listChunk, func(e entry) bool {
			return wanted(e) && (last == nil || order(e, *last) > 0)
		})
		if err != nil {
			return false, err
		}
		for i := range chunk {
			e := chunk[i]
			if err := l.ctx.Err(); err != nil {
				return false, err
			}
			if e.kind == object {
				more, err = l.object(path.Join(dir, e.name()), base+e.part)
			} else {
				more, err = l.walk(path.Join(dir, e.name()), base+e.part, "")
			}
			if err != nil || !more {
				return false, err
			}
		}
		if len(chunk) < listChunk {
			return true, nil
		}
		last = &chunk[len(chunk)-1]
	}
}

// order is that of the keys that the entries of one directory stand for: no two have one part, and only
// an object's is the beginning of another's.
func order(a, b entry) int { return strings.Compare(a.part, b.part) }

// names answers the first n entries of a directory, in order, that are wanted. A directory that is not
// there has none.
func (d *Dir) names(dir string, n int, wanted func(entry) bool) ([]entry, error) {
	f, err := d.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []entry
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if e, ok := parseName(name); ok && wanted(e) {
				found = append(found, e)
			}
		}
		if len(found) > 2*n {
			slices.SortFunc(found, order)
			found = found[:n]
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) { // the latter of a directory removed meanwhile
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, order)
	return found[:min(n, len(found))], nil
}

// object yields an object, unless it was deleted meanwhile.
func (l *lister) object(file, key string) (more bool, err error) {
	f, err := l.root.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	info, err := readInfo(f, key)
	if errors.Is(err, ErrCorrupt) {
		l.log.Error("An object in bulk storage is damaged.", "key", key, "error", err)
		info, err = damaged(f, key)
	}
	f.Close()
	if err != nil {
		return false, err
	}
	return l.yield(info, nil), nil
}

// damaged is what is known of an object that does not describe itself.
func damaged(f *os.File, key string) (Info, error) {
	st, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	return Info{Key: key, ModifiedAt: st.ModTime().UTC()}, nil
}
