package runtime

import (
	"bytes"
	"testing"

	"github.com/berthhq/berth/internal/agent"
)

// What was imported is what is meant: a task neither waits for a registry nor gets another image from
// it, until somebody pulls.
func TestImportedImageIsNotPulled(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	reg := newRegistry(t)
	reg.push(t, "app:1", busyboxImage(t, file{name: "other", body: "from the registry"}))
	ref := reg.host + "/app:1"
	reg.requests.Store(0)
	if _, err := r.Import(t.Context(), bytes.NewReader(archive(t, ref, busyboxImage(t))), nil); err != nil {
		t.Fatal(err)
	}
	local, err := r.Pull(t.Context(), ref, agent.PullDefault)
	if err != nil || reg.requests.Load() != 0 {
		t.Fatalf("Pull asked the registry %d times: %v", reg.requests.Load(), err)
	}
	remote, err := r.Pull(t.Context(), ref, agent.PullAlways)
	if err != nil || remote.Digest == local.Digest || reg.requests.Load() == 0 {
		t.Fatalf("PullAlways = %+v, %v, after %d requests; the import was %s", remote, err, reg.requests.Load(), local.Digest)
	}
	// From now on it is the registry's.
	before := reg.requests.Load()
	if again, err := r.Pull(t.Context(), ref, agent.PullDefault); err != nil || again.Digest != remote.Digest || reg.requests.Load() == before {
		t.Errorf("Pull after PullAlways = %+v, %v, with %d requests more", again, err, reg.requests.Load()-before)
	}
}
