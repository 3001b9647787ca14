package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthhq/berth/internal/blob"
)

// The catalogue is a file of records, each a change and its checksum: length(4) crc(4) JSON. The first
// record is the whole catalogue; the file is written anew when the changes are more than that.
const (
	catalogueFile    = "catalogue"
	catalogueVersion = 1
	stateKey         = "logs/state"
	maxChange        = 1 << 30
)

// change is a step of the catalogue, or all of it.
type change struct {
	Version int            // of the format
	Add     []*segmentMeta `json:",omitempty"`
	Remove  []string       `json:",omitempty"` // segments; their objects are still to be deleted
	Deleted []string       `json:",omitempty"` // objects
	Pending []string       `json:",omitempty"` // in the first record: removed, not deleted
	NextSeq uint64         // none from here on was ever given
	State   *state         `json:",omitempty"`
}

// state is what objects of segments do not tell. It is an object too.
type state struct {
	Version   int // of the format
	Revision  int64
	NextSeq   uint64
	Retention []retention
	Dropped   []drop
}

type retention struct {
	Group
	Days int
}

// drop hides what was ingested before Seq: of a stream, or of the group if All is set, or what has a
// timestamp before Before if that is set.
type drop struct {
	Group
	Stream string `json:",omitempty"`
	All    bool   `json:",omitempty"`
	Before int64  `json:",omitempty"`
	Seq    uint64
}

// catalogue is guarded by Store.catMu.
type catalogue struct {
	path     string
	f        *os.File
	size     int64 // of the file
	base     int64 // of its first record
	segments map[string]*segmentMeta
	pending  map[string]bool
	nextSeq  uint64
	state    state
}

func (c *catalogue) apply(ch *change) {
	for _, m := range ch.Add {
		c.segments[m.Key] = m
		delete(c.pending, m.Key)
	}
	for _, k := range ch.Remove {
		delete(c.segments, k)
		c.pending[k] = true
	}
	for _, k := range ch.Deleted {
		delete(c.pending, k)
	}
	for _, k := range ch.Pending {
		c.pending[k] = true
	}
	c.nextSeq = max(c.nextSeq, ch.NextSeq)
	if ch.State != nil && ch.State.Revision >= c.state.Revision {
		c.state = *ch.State
	}
}

func encodeChange(ch *change) ([]byte, error) {
	ch.Version = catalogueVersion
	body, err := json.Marshal(ch)
	if err != nil {
		return nil, err
	}
	return appendChange(nil, body), nil
}

func appendChange(b, body []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, checksum(body))
	return append(b, body...)
}

// decodeChanges reads a catalogue's file up to where it is damaged, and says how far that is.
func decodeChanges(b []byte, yield func(*change)) (good int, err error) {
	for at := 0; ; {
		rest := b[at:]
		if len(rest) < 8 {
			return at, nil
		}
		n := int64(binary.LittleEndian.Uint32(rest))
		if n > int64(len(rest)-8) || n > maxChange {
			return at, nil
		}
		body := rest[8 : 8+n]
		if checksum(body) != binary.LittleEndian.Uint32(rest[4:]) {
			return at, nil
		}
		var ch change
		if err := json.Unmarshal(body, &ch); err != nil {
			return at, nil
		}
		if ch.Version > catalogueVersion || ch.State != nil && ch.State.Version > catalogueVersion {
			return at, fmt.Errorf("log catalogue of format %d; this version of Berth knows %d", ch.Version, catalogueVersion)
		}
		if slices.Contains(ch.Add, nil) {
			return at, nil
		}
		yield(&ch)
		at += 8 + int(n)
	}
}

// openCatalogue reads the catalogue; what is missing of it, readObjects finds.
func openCatalogue(dir string) (*catalogue, error) {
	c := &catalogue{path: filepath.Join(dir, catalogueFile), segments: map[string]*segmentMeta{}, pending: map[string]bool{}, nextSeq: 1}
	b, err := os.ReadFile(c.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read log catalogue: %w", err)
	}
	if _, err := decodeChanges(b, c.apply); err != nil {
		return nil, err
	}
	return c, nil
}

// rewrite makes the file anew, of one record.
func (c *catalogue) rewrite() error {
	all := &change{NextSeq: c.nextSeq, State: &c.state}
	for _, m := range c.segments {
		all.Add = append(all.Add, m)
	}
	for k := range c.pending {
		all.Pending = append(all.Pending, k)
	}
	b, err := encodeChange(all)
	if err != nil {
		return err
	}
	temp := c.path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(temp, c.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(c.path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write log catalogue: %w", err), f.Close())
	}
	if c.f != nil {
		c.f.Close()
	}
	c.f, c.size, c.base = f, int64(len(b)), int64(len(b))
	return nil
}

// commit makes a change durable, and then known.
func (c *catalogue) commit(ch *change) error {
	ch.NextSeq = max(ch.NextSeq, c.nextSeq)
	b, err := encodeChange(ch)
	if err != nil {
		return err
	}
	if c.f == nil || c.size+int64(len(b)) > 2*c.base+1<<20 {
		// The old file is whole until the new one is.
		if err := c.rewrite(); err != nil {
			return err
		}
	}
	if _, err = c.f.WriteAt(b, c.size); err == nil {
		err = c.f.Sync()
	}
	if err != nil {
		// What the file has behind its good part is not known: the next commit writes it anew.
		c.f.Close()
		c.f = nil
		return fmt.Errorf("write log catalogue: %w", err)
	}
	c.size += int64(len(b))
	c.apply(ch)
	return nil
}

// reconcile compares the catalogue with the objects: it adopts what a crash left uncatalogued, forgets
// what is not there, and marks for deletion what is there twice. It answers the salts of the logs whose
// events are in segments.
func (c *catalogue) reconcile(ctx context.Context, store blob.Store, cd *codec, gap func(Gap)) (map[uint64]bool, error) {
	listed := map[string]int64{}
	for info, err := range store.List(ctx, keyPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list log segments: %w", err)
		}
		listed[info.Key] = info.Size
	}
	for key, m := range c.segments {
		if _, ok := listed[key]; !ok {
			for _, g := range m.Groups {
				gap(Gap{Object: key, Group: g.Group, From: g.From, To: g.To, Events: int(g.Events), Reason: blob.ErrNotFound})
			}
			delete(c.segments, key)
		}
	}
	for key := range c.pending {
		if _, ok := listed[key]; !ok {
			delete(c.pending, key)
		}
	}
	for key := range listed {
		if c.segments[key] != nil || c.pending[key] {
			continue
		}
		x, err := readIndex(ctx, store, cd, key, 0)
		switch {
		case errors.Is(err, errDamaged) || errors.Is(err, blob.ErrCorrupt):
			gap(Gap{Object: key, Reason: err}) // it stays: a person may want to look at it
		case err != nil:
			return nil, err
		default:
			m := x.meta
			c.segments[key] = &m
			c.nextSeq = max(c.nextSeq, m.MaxSeq+1)
		}
	}
	sealed := map[uint64]bool{}
	for _, m := range c.segments {
		for _, l := range m.Logs {
			sealed[l] = true
		}
	}
	// What replaces is removed later than what it replaces, so one pass is enough, in any order.
	var twice []string
	for _, m := range c.segments {
		for _, key := range m.Replaces {
			if _, ok := listed[key]; ok && key != m.Key {
				twice = append(twice, key)
			}
		}
	}
	for _, key := range twice {
		delete(c.segments, key)
		c.pending[key] = true
	}
	return sealed, c.readState(ctx, store)
}

// readState takes the object's state if the catalogue has lost a newer one.
func (c *catalogue) readState(ctx context.Context, store blob.Store) error {
	r, err := store.Get(ctx, stateKey)
	if errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrCorrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(r); errors.Is(err, blob.ErrCorrupt) {
		return nil
	} else if err != nil {
		return err
	}
	var st state
	if err := json.Unmarshal(buf.Bytes(), &st); err != nil {
		return fmt.Errorf("read %s: %w", stateKey, err)
	}
	if st.Version > catalogueVersion {
		return fmt.Errorf("%s of format %d; this version of Berth knows %d", stateKey, st.Version, catalogueVersion)
	}
	if st.Revision > c.state.Revision {
		c.state = st
	}
	c.nextSeq = max(c.nextSeq, st.NextSeq)
	return nil
}

// writeState puts the state's object.
func writeState(ctx context.Context, store blob.Store, st state) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	_, err = store.Put(ctx, stateKey, strings.NewReader(string(b)), blob.PutOptions{ContentType: "application/json"})
	return err
}
