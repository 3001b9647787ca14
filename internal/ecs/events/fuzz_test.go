package events

import (
	"testing"

	"github.com/berthhq/berth/internal/blob"
)

// FuzzSegment reads what may stand in a bulk store where segments should: no panic, and nothing that
// would be read as records before the first or after the last.
func FuzzSegment(f *testing.F) {
	f.Add(segmentKey(1, 9), "17", "2026-11-23T05:00:00Z")
	f.Add(segmentPrefix+"00-1", "", "")
	f.Add(segmentPrefix+"9223372036854775808-1", "x", "y")
	f.Add("-", "-1", "")
	f.Fuzz(func(t *testing.T, key, revision, until string) {
		s, err := parseSegment(blob.Info{Key: key, Metadata: map[string]string{metaRevision: revision, metaUntil: until}})
		if err == nil && (s.first < 1 || s.last < s.first || s.key != key) {
			t.Errorf("%q is segment %+v", key, s)
		}
	})
}
