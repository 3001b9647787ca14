package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Snapshot is all tables at one revision. It never changes, costs nothing to take, and may be held as
// long as one likes.
type Snapshot struct {
	revision int64
	seq      int64 // how many changes this process had applied before it; places it among the changes kept
	schema   *schema
	tables   []*tableState // by schema.slots
}

// Revision is the store's revision the snapshot stands for. Revisions only grow.
func (s *Snapshot) Revision() int64 { return s.revision }

func (s *Snapshot) get(spec *tableSpec, path string) *entry {
	return s.table(spec).get(path)
}

func (s *Snapshot) table(spec *tableSpec) *tableState { return s.tables[s.schema.slot(spec)] }

// bytes is about what the rows take in the database.
func (s *Snapshot) bytes() (n int64) {
	const overhead = 128 // etcd's and bbolt's, a row
	for _, t := range s.tables {
		it := t.rows.Root().Iterator()
		for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
			n += int64(e.size) + overhead
		}
	}
	return n
}

// schema is the set of tables a store was opened with.
type schema struct {
	specs  []*tableSpec
	slots  map[*tableSpec]int
	byName map[string]int
}

func newSchema(defs []TableDef) (*schema, error) {
	sc := &schema{slots: map[*tableSpec]int{}, byName: map[string]int{}}
	for _, d := range defs {
		spec := d.def()
		if _, dup := sc.byName[spec.name]; dup {
			return nil, fmt.Errorf("store: two tables named %s", spec.name)
		}
		sc.slots[spec] = len(sc.specs)
		sc.byName[spec.name] = len(sc.specs)
		sc.specs = append(sc.specs, spec)
	}
	return sc, nil
}

func (sc *schema) slot(spec *tableSpec) int {
	i, ok := sc.slots[spec]
	if !ok {
		panic("store: table " + spec.name + " was not given to Open")
	}
	return i
}

// parse finds the table and the row's path in an etcd key below the prefix.
func (sc *schema) parse(key string) (slot int, path string, err error) {
	name, path, ok := strings.Cut(key, "/")
	if !ok {
		return 0, "", errors.New("the key names no table")
	}
	slot, ok = sc.byName[name]
	if !ok {
		return 0, "", &NewerSchemaError{Table: name}
	}
	return slot, path, nil
}

func (sc *schema) empty() *Snapshot {
	s := &Snapshot{schema: sc, tables: make([]*tableState, len(sc.specs))}
	for i, spec := range sc.specs {
		st := &tableState{rows: iradix.New[*entry](), indexes: make([]*iradix.Tree[*entry], len(spec.indexes))}
		for j := range st.indexes {
			st.indexes[j] = iradix.New[*entry]()
		}
		s.tables[i] = st
	}
	return s
}

// entry is one decoded row, shared by every snapshot it is in.
type entry struct {
	key         Key
	path        string
	val         any // *T
	create, mod int64
	size        int      // of key and value as stored
	index       []string // its keys in the table's indexes, each prefixed with the index's number
}

// tableState is a table's rows and indexes: persistent trees, never changed in place.
type tableState struct {
	rows    *iradix.Tree[*entry]
	indexes []*iradix.Tree[*entry]
}

func (t *tableState) get(path string) *entry {
	e, _ := t.rows.Get([]byte(path))
	return e
}

// newEntry decodes a stored row.
func newEntry(spec *tableSpec, path string, value []byte, create, mod int64) (*entry, error) {
	key, err := parsePath(path)
	if err == nil {
		var val any
		if val, err = spec.read(value); err == nil {
			e := makeEntry(spec, key, path, val, create, mod)
			e.size = len(path) + len(value)
			return e, nil
		}
	}
	var newer *NewerSchemaError
	if errors.As(err, &newer) {
		return nil, err
	}
	return nil, &CorruptRowError{Path: spec.name + "/" + path, Err: err}
}

func makeEntry(spec *tableSpec, key Key, path string, val any, create, mod int64) *entry {
	e := &entry{key: key, path: path, val: val, create: create, mod: mod}
	for i, x := range spec.indexes {
		values := x.values(key, val)
		for j, v := range values {
			if slices.Contains(values[:j], v) {
				continue
			}
			e.index = append(e.index, string(rune(i))+indexPrefix(v)+path)
		}
	}
	return e
}

// indexPrefix begins the key of every row that has the value, and of no other: the value is terminated
// by 0x00 0x01, and a 0x00 within it is written 0x00 0xff.
func indexPrefix(value string) string {
	if strings.IndexByte(value, 0) >= 0 {
		value = strings.ReplaceAll(value, "\x00", "\x00\xff")
	}
	return value + "\x00\x01"
}

// builder makes the next snapshot out of the one before.
type builder struct {
	base *Snapshot
	open []*tableTxn // by slot, nil: unchanged
}

type tableTxn struct {
	rows    *iradix.Txn[*entry]
	indexes []*iradix.Txn[*entry]
}

func (b *builder) txn(slot int) *tableTxn {
	if b.open == nil {
		b.open = make([]*tableTxn, len(b.base.tables))
	}
	if b.open[slot] == nil {
		st := b.base.tables[slot]
		t := &tableTxn{rows: st.rows.Txn(), indexes: make([]*iradix.Txn[*entry], len(st.indexes))}
		for i, x := range st.indexes {
			t.indexes[i] = x.Txn()
		}
		b.open[slot] = t
	}
	return b.open[slot]
}

// put inserts or replaces a row and returns the one before.
func (b *builder) put(slot int, e *entry) (old *entry) {
	t := b.txn(slot)
	old, _ = t.rows.Insert([]byte(e.path), e)
	if old != nil {
		t.unindex(old)
	}
	for _, k := range e.index {
		t.indexes[k[0]].Insert([]byte(k[1:]), e)
	}
	return old
}

func (b *builder) delete(slot int, path string) (old *entry) {
	t := b.txn(slot)
	old, _ = t.rows.Delete([]byte(path))
	if old != nil {
		t.unindex(old)
	}
	return old
}

func (t *tableTxn) unindex(e *entry) {
	for _, k := range e.index {
		t.indexes[k[0]].Delete([]byte(k[1:]))
	}
}

func (b *builder) build(revision int64) *Snapshot {
	s := &Snapshot{revision: revision, seq: b.base.seq + 1, schema: b.base.schema, tables: slices.Clone(b.base.tables)}
	for i, t := range b.open {
		if t == nil {
			continue
		}
		st := &tableState{rows: t.rows.CommitOnly(), indexes: make([]*iradix.Tree[*entry], len(t.indexes))}
		for j, x := range t.indexes {
			st.indexes[j] = x.CommitOnly()
		}
		s.tables[i] = st
	}
	return s
}

// diff tells how a became b, in order of tables and keys. Rows are compared by identity: a row that did
// not change is the same entry in both.
func diff(a, b *Snapshot) []RowChange {
	var out []RowChange
	for i, spec := range b.schema.specs {
		if a.tables[i] == b.tables[i] {
			continue
		}
		x, y := a.tables[i].rows.Root().Iterator(), b.tables[i].rows.Root().Iterator()
		kx, ex, okx := x.Next()
		ky, ey, oky := y.Next()
		for okx || oky {
			var c int
			switch {
			case !okx:
				c = 1
			case !oky:
				c = -1
			default:
				c = bytes.Compare(kx, ky)
			}
			switch {
			case c < 0:
				out = append(out, rowChange(spec, ex, nil))
			case c > 0:
				out = append(out, rowChange(spec, nil, ey))
			case ex.mod != ey.mod:
				out = append(out, rowChange(spec, ex, ey))
			}
			if c <= 0 {
				kx, ex, okx = x.Next()
			}
			if c >= 0 {
				ky, ey, oky = y.Next()
			}
		}
	}
	return out
}

func rowChange(spec *tableSpec, old, new *entry) RowChange {
	c := RowChange{Table: spec.name}
	if old != nil {
		c.Key, c.Old = old.key, old.val
	}
	if new != nil {
		c.Key, c.New, c.ModRevision = new.key, new.val, new.mod
	}
	return c
}
