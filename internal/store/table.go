package store

import (
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"regexp"
	"strings"
)

// Row is a row as read. Value is shared by all readers: it must never be changed.
type Row[T any] struct {
	Key
	Value          *T
	CreateRevision int64 // 0 in a Tx for a row that it put itself
	ModRevision    int64 // 0 in a Tx for a row that it put itself
}

// TableDef is a table of any type, as Open takes it. *Table[T] implements it.
type TableDef interface{ def() *tableSpec }

// Table is the definition of a table whose rows are Ts: a value without state, to be declared once, at
// package level, and passed to Open.
type Table[T any] struct{ spec *tableSpec }

func (t *Table[T]) def() *tableSpec { return t.spec }

// Name is the table's name.
func (t *Table[T]) Name() string { return t.spec.name }

type tableSpec struct {
	name       string
	version    int
	row        reflect.Type
	decode     func([]byte) (any, error) // JSON of the current version → *T
	indexes    []indexSpec
	migrations map[int]func(json.RawMessage) (json.RawMessage, error)
}

type indexSpec struct {
	name   string
	row    reflect.Type
	values func(Key, any) []string
}

// Option is an option of DefineTable.
type Option interface{ apply(*tableSpec) }

type optionFunc func(*tableSpec)

func (f optionFunc) apply(s *tableSpec) { f(s) }

// Index keeps rows findable by the values that the function gives for them. The function must be pure:
// the same row gives the same values. A row may have none, or several.
func Index[T any](name string, values func(Key, *T) []string) Option {
	return optionFunc(func(s *tableSpec) {
		s.indexes = append(s.indexes, indexSpec{
			name:   name,
			row:    reflect.TypeFor[T](),
			values: func(k Key, v any) []string { return values(k, v.(*T)) },
		})
	})
}

// Migrate gives the step from schema version from to version from+1. Every version below the current
// one needs its step, for ever.
func Migrate(from int, step func(json.RawMessage) (json.RawMessage, error)) Option {
	return optionFunc(func(s *tableSpec) { s.migrations[from] = step })
}

var tableName = regexp.MustCompile(`^[a-z][A-Za-z0-9_-]{0,62}$`)

// DefineTable defines a table. Version is the version of T's JSON form and starts at 1: raise it, with a
// Migrate step, when an older binary would misread what is written, or this one what was written before.
// A wrong definition is a mistake in the program, and panics.
func DefineTable[T any](name string, version int, opts ...Option) *Table[T] {
	if !tableName.MatchString(name) {
		panic("store: bad table name " + name)
	}
	return defineTable[T](name, version, opts...)
}

func defineTable[T any](name string, version int, opts ...Option) *Table[T] {
	s := &tableSpec{
		name:    name,
		version: version,
		row:     reflect.TypeFor[T](),
		decode: func(b []byte) (any, error) {
			v := new(T)
			if err := json.Unmarshal(b, v); err != nil {
				return nil, err
			}
			return v, nil
		},
		migrations: map[int]func(json.RawMessage) (json.RawMessage, error){},
	}
	for _, o := range opts {
		o.apply(s)
	}
	if version < 1 {
		panic("store: schema versions of table " + name + " start at 1")
	}
	for v := 1; v < version; v++ {
		if s.migrations[v] == nil {
			panic(fmt.Sprintf("store: table %s lacks the migration from version %d", name, v))
		}
	}
	if len(s.migrations) != version-1 {
		panic("store: table " + name + " has a migration from a version it never had")
	}
	for i, x := range s.indexes {
		if x.row != s.row {
			panic(fmt.Sprintf("store: index %s of table %s is over %v, the rows are %v", x.name, name, x.row, s.row))
		}
		for _, y := range s.indexes[:i] {
			if x.name == y.name {
				panic("store: table " + name + " has two indexes named " + x.name)
			}
		}
	}
	return &Table[T]{s}
}

// read decodes a stored value, migrating it to the current version.
func (s *tableSpec) read(value []byte) (any, error) {
	version, data, err := decodeEnvelope(value)
	if err != nil {
		return nil, err
	}
	if version > s.version {
		return nil, &NewerSchemaError{Table: s.name, Stored: version, Known: s.version}
	}
	for v := version; v < s.version; v++ {
		if data, err = s.migrations[v](data); err != nil {
			return nil, fmt.Errorf("migrating from version %d: %w", v, err)
		}
	}
	return s.decode(data)
}

// write encodes a value for storing.
func (s *tableSpec) write(val any, mark string) ([]byte, error) {
	data, err := json.Marshal(val)
	if err != nil {
		return nil, err
	}
	return encodeEnvelope(s.version, mark, data), nil
}

func (s *tableSpec) index(name string) int {
	for i, x := range s.indexes {
		if x.name == name {
			return i
		}
	}
	panic("store: table " + s.name + " has no index " + name)
}

// View is what tables are read from: a *Snapshot or a *Tx.
type View interface {
	get(*tableSpec, string) *entry
	table(*tableSpec) *tableState
}

func rowOf[T any](e *entry) Row[T] {
	return Row[T]{Key: e.key, Value: e.val.(*T), CreateRevision: e.create, ModRevision: e.mod}
}

// Get reads one row. Through a Tx it also guards the row: the transaction commits only if the row is
// then as it was read, absence included.
func (t *Table[T]) Get(v View, k Key) (Row[T], bool) {
	e := v.get(t.spec, k.path())
	if e == nil {
		return Row[T]{Key: k}, false
	}
	return rowOf[T](e), true
}

// List gives the rows of a scope whose ID begins with idPrefix, in order of their IDs. Through a Tx it
// does not guard the rows: Get those that the decision rests on.
func (t *Table[T]) List(v View, sc Scope, idPrefix string) iter.Seq[Row[T]] {
	return t.ListFrom(v, sc, idPrefix, "")
}

// ListFrom is List from the ID from on, included: the way to page.
func (t *Table[T]) ListFrom(v View, sc Scope, idPrefix, from string) iter.Seq[Row[T]] {
	state := v.table(t.spec)
	scope := sc.path()
	prefix := scope + idPrefix
	return func(yield func(Row[T]) bool) {
		it := state.rows.Root().Iterator()
		if from > idPrefix {
			it.SeekLowerBound([]byte(scope + from))
		} else {
			it.SeekPrefix([]byte(prefix))
		}
		for _, e, ok := it.Next(); ok && strings.HasPrefix(e.path, prefix); _, e, ok = it.Next() {
			if !yield(rowOf[T](e)) {
				return
			}
		}
	}
}

// All gives the table's rows of all accounts and regions.
func (t *Table[T]) All(v View) iter.Seq[Row[T]] {
	state := v.table(t.spec)
	return func(yield func(Row[T]) bool) {
		it := state.rows.Root().Iterator()
		for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
			if !yield(rowOf[T](e)) {
				return
			}
		}
	}
}

// By gives the rows for which the index has that value, ordered by scope and ID. Through a Tx it does
// not guard the rows.
func (t *Table[T]) By(v View, index, value string) iter.Seq[Row[T]] {
	state := v.table(t.spec)
	tree := state.indexes[t.spec.index(index)]
	return func(yield func(Row[T]) bool) {
		it := tree.Root().Iterator()
		it.SeekPrefix([]byte(indexPrefix(value)))
		for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
			if !yield(rowOf[T](e)) {
				return
			}
		}
	}
}

// Len is the number of rows in the table, of all accounts and regions.
func (t *Table[T]) Len(v View) int { return v.table(t.spec).rows.Len() }

// Count is the number of rows that List would give.
func (t *Table[T]) Count(v View, sc Scope, idPrefix string) int {
	n := 0
	for range t.List(v, sc, idPrefix) {
		n++
	}
	return n
}

// CountBy is the number of rows that By would give.
func (t *Table[T]) CountBy(v View, index, value string) int {
	n := 0
	for range t.By(v, index, value) {
		n++
	}
	return n
}
