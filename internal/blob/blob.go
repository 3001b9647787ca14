package blob

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// ErrNotFound says that there is no object of that key.
var ErrNotFound = errors.New("no such object")

// ErrCorrupt says that an object's bytes are not those that were put.
var ErrCorrupt = errors.New("object is corrupt")

// Store holds objects: bytes under a key, whole or not at all. A key is 1 to MaxKey bytes of UTF-8
// and orders byte by byte; slashes in it mean nothing to the store. Every method is safe for
// concurrent use; of concurrent puts of one key the last to finish stays.
type Store interface {
	// Put stores r's bytes. When it returns, they survive a crash of the process and of the machine. An
	// error of r, or ctx's end, leaves what was there before.
	Put(ctx context.Context, key string, r io.Reader, o PutOptions) (Info, error)
	// Get opens an object, or ErrNotFound. What is read is one version of it, whatever is put meanwhile.
	// Bytes that do not match their checksum end in ErrCorrupt, at the latest at the end of a whole read.
	Get(ctx context.Context, key string) (Reader, error)
	// Stat is Get without the bytes.
	Stat(ctx context.Context, key string) (Info, error)
	// Delete removes an object. One that is not there is not an error.
	Delete(ctx context.Context, key string) error
	// List yields the objects whose keys have the prefix and are greater than after, in key order, until
	// the caller has enough. An error is yielded last.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// Reader reads one object.
type Reader interface {
	io.ReadSeekCloser
	Info() Info
}

// PutOptions go with an object's bytes.
type PutOptions struct {
	ContentType string
	// Metadata is names and values of the user's. It is taken when r has ended, so that a reader may add
	// to it what it learnt of the bytes.
	Metadata map[string]string
	// IfNoneMatch stores only if there is no object of that key; otherwise the error is ErrExists.
	IfNoneMatch bool
}

// ErrExists says that an object of that key is there already.
var ErrExists = errors.New("object exists")

// Info describes an object.
type Info struct {
	Key         string
	Size        int64
	MD5         [16]byte
	ModifiedAt  time.Time
	ContentType string
	Metadata    map[string]string
}
