package runtime

import (
	"slices"
	"testing"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// TestHidden: what a mount of a directory above a hidden one would show of it is masked, for a
// privileged container too.
func TestHidden(t *testing.T) {
	t.Parallel()
	dirs := []string{"/var/lib/berth", "/run/berth"}
	mounts := []agent.Mount{
		{Source: "/", Target: "/host"}, {Source: "/run", Target: "/run"}, {Source: "/var/lib/", Target: "/x/"},
		{Source: "/run/berthing", Target: "/no"}, {Source: "/run/b", Target: "/no"}, {Source: "/home", Target: "/no"},
		{Source: "/run/berth/1/c/containerd.sock", Target: "/offered.sock"},
	}
	want := []string{"/host/var/lib/berth", "/host/run/berth", "/run/berth", "/x/berth"}
	if got := hidden(dirs, mounts); !slices.Equal(got, want) {
		t.Errorf("hidden: %v; want %v", got, want)
	}
	for _, privileged := range []bool{false, true} {
		s, err := buildSpec(specInput{
			container: agent.ContainerSpec{ID: "c", TaskID: "t", Container: &dispatchpb.Container{Privileged: privileged, Command: []string{"x"}, HasCommand: true}, Mounts: mounts},
			host:      hostFacts{capabilities: defaultCapabilities, maxNoFile: 100, hidden: dirs},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range want {
			if !slices.Contains(s.Linux.MaskedPaths, p) {
				t.Errorf("privileged %v: %s is not masked: %v", privileged, p, s.Linux.MaskedPaths)
			}
		}
	}
}
