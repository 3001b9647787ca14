package store

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("store: closed")
	// ErrNoSpace is returned to writers while the database is at its quota. Nothing was written.
	ErrNoSpace = errors.New("store: the database is at its quota; delete rows or raise the quota")
	// ErrConflict is returned by Update when other writers changed what the function had read at every
	// one of its attempts. Nothing was written.
	ErrConflict = errors.New("store: too many conflicting writes")
	// ErrNotLeader is returned by Update when a leadership that the transaction requires is lost. Nothing
	// was written.
	ErrNotLeader = errors.New("store: leadership lost")
	// ErrUnknownOutcome is returned by Update when the answer to a commit was lost, and it could not be
	// found out whether the commit took place. The caller must look before it does the same again.
	ErrUnknownOutcome = errors.New("store: the commit's answer was lost, it may or may not have taken place")
	// ErrInUse is returned by Open when another process has the directory open.
	ErrInUse = errors.New("store: the directory is in use by another process")
)

// TooLargeError is returned by Update, before anything is sent, for a transaction over the limits
// MaxOps and MaxBytes.
type TooLargeError struct {
	Ops   int // distinct rows read or written, plus required leaderships
	Bytes int // keys and encoded values
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("store: transaction of %d operations and %d bytes is over the limit of %d operations or %d bytes",
		e.Ops, e.Bytes, MaxOps, MaxBytes)
}

// NewerSchemaError says that stored data was written by a newer Berth than this one. Opening such a
// store is refused, because an older binary would drop what it does not know.
type NewerSchemaError struct {
	Table  string // a table, or "@format" for the store's own layout
	Stored int    // the version found
	Known  int    // the newest version this binary knows; 0: it does not know the table at all
}

func (e *NewerSchemaError) Error() string {
	if e.Known == 0 {
		return fmt.Sprintf("store: the data has a table %q (version %d) that this Berth does not know: it was written by a newer Berth; run that version or newer",
			e.Table, e.Stored)
	}
	return fmt.Sprintf("store: table %q holds data of schema version %d, this Berth knows up to version %d: it was written by a newer Berth; run that version or newer",
		e.Table, e.Stored, e.Known)
}

// CorruptRowError says that a stored row cannot be decoded.
type CorruptRowError struct {
	Path string // table/account/region/id
	Err  error
}

func (e *CorruptRowError) Error() string {
	return fmt.Sprintf("store: row %s cannot be decoded: %v", e.Path, e.Err)
}
func (e *CorruptRowError) Unwrap() error { return e.Err }

// FailedError is what every call returns after the store has failed for good: the embedded member
// stopped, or data arrived that this binary must not touch. The process has to be started again.
type FailedError struct{ Cause error }

func (e *FailedError) Error() string { return "store: stopped: " + e.Cause.Error() }
func (e *FailedError) Unwrap() error { return e.Cause }
