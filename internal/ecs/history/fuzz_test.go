package history

import (
	"testing"
	"time"
)

// FuzzMark reads back what was written, and refuses the rest without a panic.
func FuzzMark(f *testing.F) {
	f.Add(taskID, int64(0), true)
	f.Add("7245358d-557b-45a1-aa09-a9e2685da0c3", int64(1795410000), false)
	f.Add("", int64(-1), true)
	f.Fuzz(func(t *testing.T, id string, at int64, failed bool) {
		parseMark(id)
		parseMark(timePrefix + id)
		when := time.Unix(at, 0).UTC()
		if when.Year() < 1000 || when.Year() > 9999 {
			return
		}
		m, ok := parseMark(markKey(runKind, id, when, failed))
		if !ok || m.kind != runKind || m.id != id || m.failed != failed {
			t.Errorf("%q came back as %+v", id, m)
		}
	})
}
