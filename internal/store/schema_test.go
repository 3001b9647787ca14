package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// gadget is at version 3. Version 1 had memory as a string of MiB; version 2 had one host, not several.
type gadget struct {
	Memory int64    `json:"memory"`
	Hosts  []string `json:"hosts"`
}

func gadgetV1to2(b json.RawMessage) (json.RawMessage, error) {
	var row struct {
		Memory int64  `json:"memory,string"`
		Host   string `json:"host"`
	}
	if err := json.Unmarshal(b, &row); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"memory": row.Memory, "host": row.Host})
}

func gadgetV2to3(b json.RawMessage) (json.RawMessage, error) {
	var old struct {
		Memory int64  `json:"memory"`
		Host   string `json:"host"`
	}
	if err := json.Unmarshal(b, &old); err != nil {
		return nil, err
	}
	return json.Marshal(gadget{Memory: old.Memory, Hosts: []string{old.Host}})
}

var gadgets = DefineTable[gadget]("gadgets", 3, Migrate(1, gadgetV1to2), Migrate(2, gadgetV2to3),
	Index("byHost", func(_ Key, g *gadget) []string { return g.Hosts }))

// putRaw writes a value as some other version would have.
func putRaw(t *testing.T, s *Store, table, path, value string) {
	t.Helper()
	if _, err := s.client.Put(t.Context(), s.prefix+table+"/"+path, value); err != nil {
		t.Fatal(err)
	}
}

// testdata/gadgets-v<n>.json are rows as version n of the table wrote them: never to be changed.
func TestMigration(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		cfg := b.cfg(t)
		s := open(t, cfg, gadgets)
		fixtures, err := filepath.Glob("testdata/gadgets-v*.json")
		if err != nil || len(fixtures) != 3 {
			t.Fatal(fixtures, err)
		}
		for _, f := range fixtures {
			value, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			putRaw(t, s, "gadgets", k(filepath.Base(f)).path(), strings.TrimSpace(string(value)))
		}
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		check := func(s *Store) {
			t.Helper()
			n := 0
			for r := range gadgets.By(s.Snapshot(), "byHost", "host-1") {
				if n++; r.Value.Memory != 512 {
					t.Errorf("%s: %+v", r.ID, r.Value)
				}
			}
			if n != 3 {
				t.Errorf("%d rows, want 3", n)
			}
		}
		check(s) // as they came by watch
		s.Close()
		s = open(t, cfg, gadgets)
		check(s) // as they were read at Open

		// Reading rewrites nothing; writing writes the current version.
		update(t, s, func(tx *Tx) {
			r, _ := gadgets.Get(tx, k("gadgets-v1.json"))
			gadgets.Put(tx, r.Key, &gadget{Memory: 513, Hosts: r.Value.Hosts})
		})
		for id, want := range map[string]int{"gadgets-v1.json": 3, "gadgets-v2.json": 2} {
			resp, err := s.client.Get(t.Context(), s.prefix+"gadgets/"+k(id).path())
			if err != nil {
				t.Fatal(err)
			}
			if v, _, err := decodeEnvelope(resp.Kvs[0].Value); v != want || err != nil {
				t.Errorf("%s is stored as version %d (%v), want %d", id, v, err, want)
			}
		}
	})
}

func TestNewerDataIsRefused(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		for name, c := range map[string]struct {
			table, path, value string
			want               NewerSchemaError
		}{
			"row":    {"things", k("a").path(), `{"v":2,"d":{}}`, NewerSchemaError{"things", 2, 1}},
			"table":  {"novelties", k("a").path(), `{"v":4,"d":{}}`, NewerSchemaError{"novelties", 4, 0}},
			"format": {"@meta", Key{ID: "format"}.path(), `{"v":1,"d":{"format":2}}`, NewerSchemaError{"@format", 2, 1}},
		} {
			cfg := b.cfg(t)
			s := open(t, cfg, things)
			putRaw(t, s, c.table, c.path, c.value)
			if name != "format" {
				// A server that is running stops, rather than go on without the row.
				<-s.Done()
				var newer *NewerSchemaError
				var failed *FailedError
				if err := s.Err(); !errors.As(err, &failed) || !errors.As(err, &newer) || *newer != c.want {
					t.Errorf("%s: the running store ended with %v", name, s.Err())
				}
				if _, err := s.Update(t.Context(), func(tx *Tx) error { things.Put(tx, k("b"), &thing{}); return nil }); !errors.As(err, &newer) {
					t.Errorf("%s: Update of the ended store: %v", name, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("%s: closing: %v", name, err)
			}
			_, err := Open(t.Context(), cfg, things)
			var newer *NewerSchemaError
			if !errors.As(err, &newer) || *newer != c.want {
				t.Errorf("%s: Open: %v", name, err)
			} else {
				t.Log(err)
			}
		}
	})
}

func TestCorruptRowIsTold(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		for _, value := range []string{``, `null`, `{"v":1}`, `{"v":0,"d":{}}`, `{"v":1,"d":{"Count":"x"}}`, `{"v":1,"d":{`} {
			cfg := b.cfg(t)
			s := open(t, cfg, things)
			putRaw(t, s, "things", k("a").path(), value)
			<-s.Done()
			s.Close()
			_, err := Open(t.Context(), cfg, things)
			var corrupt *CorruptRowError
			if !errors.As(err, &corrupt) || corrupt.Path != "things/"+k("a").path() {
				t.Errorf("%q: %v", value, err)
			}
		}
	})
}

func TestWrongDefinitionsPanic(t *testing.T) {
	t.Parallel()
	step := func(b json.RawMessage) (json.RawMessage, error) { return b, nil }
	byHost := Index("byHost", func(Key, *thing) []string { return nil })
	for name, f := range map[string]func(){
		"name":              func() { DefineTable[thing]("a/b", 1) },
		"own name":          func() { DefineTable[thing]("@meta", 1) },
		"version":           func() { DefineTable[thing]("a", 0) },
		"missing migration": func() { DefineTable[thing]("a", 3, Migrate(1, step)) },
		"useless migration": func() { DefineTable[thing]("a", 1, Migrate(1, step)) },
		"index of others":   func() { DefineTable[gadget]("a", 1, byHost) },
		"index twice":       func() { DefineTable[thing]("a", 1, byHost, byHost) },
		"table not opened":  func() { gadgets.Len(bare(things).Snapshot()) },
		"no such index":     func() { things.By(bare(things).Snapshot(), "byName", "") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	if _, err := newSchema([]TableDef{things, DefineTable[gadget]("things", 1)}); err == nil {
		t.Error("two tables of one name")
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"d":{}}`, `{"v":12,"w":"abc","d":{"a":1}}`, `{"d":{},"v":1}`, ` {"v":1,"d":[]} `, `{"v":1,"d":null}`,
		`{"v":1,"d":{},"x":2}`, `{"v":1,"w":"a\"b","d":{}}`, `{"v":01,"d":1}`, `{"v":1e2,"d":1}`, `{"v":-1,"d":1}`, `{"v":1,"d":1}}`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		version, data, err := decodeEnvelope(b)
		if err != nil {
			return
		}
		if version < 1 {
			t.Fatalf("version %d", version)
		}
		if !json.Valid(data) {
			return // its decoder will say so
		}
		// What the short way accepts and is JSON, the long way reads the same.
		v2, d2, err := parseEnvelope(b)
		if err != nil || v2 != version || !bytes.Equal(bytes.TrimSpace(d2), bytes.TrimSpace(data)) {
			t.Fatalf("%q: the short way gives %d %q, the long way %d %q, %v", b, version, data, v2, d2, err)
		}
		v3, d3, err := decodeEnvelope(encodeEnvelope(version, "mark", data))
		if err != nil || v3 != version || !bytes.Equal(d3, data) {
			t.Fatalf("%q: encoded again it gives %d %q, %v", b, v3, d3, err)
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add("123456789012", "us-east-1", "default/0123")
	f.Add("", "", "host")
	f.Add("a/b%2F", "%", "/%//")
	f.Fuzz(func(t *testing.T, account, region, id string) {
		key := Key{Scope{account, region}, id}
		path := key.path()
		got, err := parsePath(path)
		if id == "" {
			if err == nil {
				t.Fatalf("%q: a key without ID", path)
			}
			return
		}
		if err != nil || got != key {
			t.Fatalf("%q gives %+v, %v, want %+v", path, got, err, key)
		}
		// A key of another scope never begins like this scope.
		if other := (Key{Scope{region, account}, id}).path(); account != region && strings.HasPrefix(other, key.Scope.path()) {
			t.Fatalf("%q begins with %q", other, key.Scope.path())
		}
		// Nor does an index entry of another value.
		if account != region && strings.HasPrefix(indexPrefix(account)+path, indexPrefix(region)) {
			t.Fatalf("index entries of %q and %q mix", account, region)
		}
	})
}

func FuzzStoredPath(f *testing.F) {
	f.Add("a/b/c")
	f.Add("%2f/%25/x")
	f.Fuzz(func(t *testing.T, path string) {
		if key, err := parsePath(path); err == nil && key.path() != path {
			t.Fatalf("%q is read as %+v, which is %q", path, key, key.path())
		}
	})
}
