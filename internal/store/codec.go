package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Scope is the account and the region a row belongs to. Rows that belong to no account, such as
// hosts, have the zero Scope.
type Scope struct {
	Account string // twelve digits
	Region  string
}

// Key names a row within its table.
type Key struct {
	Scope
	ID string // not empty; may contain '/', e.g. "demo/0123abcd"
}

// K makes a Key.
func K(sc Scope, id string) Key { return Key{Scope: sc, ID: id} }

func (k Key) String() string { return k.path() }

// path is the row's place below its table: "account/region/id". Account and region are escaped so
// that they hold no '/'; the ID is last and stays as it is.
func (k Key) path() string { return k.Scope.path() + k.ID }

func (s Scope) path() string { return escape(s.Account) + "/" + escape(s.Region) + "/" }

func (k Key) validate() error {
	if k.ID == "" {
		return errors.New("store: a key needs an ID")
	}
	if len(k.ID)+len(k.Account)+len(k.Region) > 2048 {
		return fmt.Errorf("store: key of %d bytes is too long", len(k.ID)+len(k.Account)+len(k.Region))
	}
	return nil
}

var (
	escaper   = strings.NewReplacer("%", "%25", "/", "%2F")
	unescaper = strings.NewReplacer("%25", "%", "%2F", "/")
)

func escape(s string) string {
	if strings.ContainsAny(s, "%/") {
		return escaper.Replace(s)
	}
	return s
}

func unescape(s string) string {
	if strings.IndexByte(s, '%') >= 0 {
		return unescaper.Replace(s)
	}
	return s
}

// parsePath is the inverse of Key.path.
func parsePath(path string) (Key, error) {
	account, rest, ok1 := strings.Cut(path, "/")
	region, id, ok2 := strings.Cut(rest, "/")
	if !ok1 || !ok2 || id == "" {
		return Key{}, errors.New("the key has not the form account/region/id")
	}
	k := Key{Scope{unescape(account), unescape(region)}, id}
	if k.path() != path {
		return Key{}, errors.New("the key is not escaped as this store does it")
	}
	return k, nil
}

// encodeEnvelope wraps a row's JSON: {"v":version,"w":"mark","d":data}. The mark is different for every
// transaction: it tells whether a commit whose answer was lost took place. Empty, it is left out.
func encodeEnvelope(version int, mark string, data []byte) []byte {
	b := make([]byte, 0, len(data)+len(mark)+32)
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(version), 10)
	if mark != "" {
		b = append(b, `,"w":"`...)
		b = append(b, mark...)
		b = append(b, '"')
	}
	b = append(b, `,"d":`...)
	b = append(b, data...)
	return append(b, '}')
}

// decodeEnvelope takes a stored value apart. What encodeEnvelope writes is taken apart without a pass over
// the data, which its decoder validates; any other JSON spelling of the same is read as well.
func decodeEnvelope(b []byte) (version int, data []byte, err error) {
	if version, data, ok := cutEnvelope(b); ok {
		return version, data, nil
	}
	return parseEnvelope(b)
}

func cutEnvelope(b []byte) (version int, data []byte, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"v":`))
	if !ok {
		return 0, nil, false
	}
	n := bytes.IndexByte(rest, ',')
	if n < 1 || n > 9 || rest[0] < '1' || rest[0] > '9' {
		return 0, nil, false
	}
	if version, err := strconv.Atoi(string(rest[:n])); err == nil {
		rest = rest[n:]
		if r, ok := bytes.CutPrefix(rest, []byte(`,"w":"`)); ok {
			end := bytes.IndexByte(r, '"')
			if end < 0 || bytes.IndexByte(r[:end], '\\') >= 0 {
				return 0, nil, false
			}
			rest = r[end+1:]
		}
		if d, ok := bytes.CutPrefix(rest, []byte(`,"d":`)); ok && len(d) > 1 && d[len(d)-1] == '}' {
			return version, d[:len(d)-1], true
		}
	}
	return 0, nil, false
}

func parseEnvelope(b []byte) (version int, data []byte, err error) {
	var env struct {
		V int             `json:"v"`
		D json.RawMessage `json:"d"`
	}
	if err := json.Unmarshal(b, &env); err != nil {
		return 0, nil, err
	}
	if env.V < 1 || env.D == nil {
		return 0, nil, errors.New("the envelope lacks a version or data")
	}
	return env.V, env.D, nil
}
