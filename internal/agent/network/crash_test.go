//go:build failpoints

package network

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// crashing is what a process does that dies at a failpoint.
func crashing(t testing.TB, n *Network) {
	e := agent.Endpoint{TaskID: "task", Container: "c", Ports: []*dispatchpb.PortMapping{tcp(0, 80), udp(5353, 53)}}
	_, err := n.Connect(t.Context(), e)
	must(t, err)
	must(t, n.Disconnect(t.Context(), e.TaskID, e.Container))
	_, err = n.Setup(t.Context(), "awsvpc", nicOf(n, 4))
	must(t, err)
	must(t, n.Teardown(t.Context(), "awsvpc"))
}

// go test -tags failpoints ./internal/agent/network -run TestCrash

// TestCrashChild is run by TestCrash in a process of its own.
func TestCrashChild(t *testing.T) {
	var cfg Config
	text := os.Getenv("BERTH_NETWORK_CRASH")
	if text == "" {
		return
	}
	must(t, json.Unmarshal([]byte(text), &cfg))
	n, err := Open(t.Context(), cfg)
	must(t, err)
	defer n.Close()
	crashing(t, n)
}

// Wherever a process dies, the next one sees what it left, goes on, and leaves nothing.
func TestCrash(t *testing.T) {
	h := newHost(t)
	empty := h.state(t)
	cfg := h.config(t, "0000f001")
	child := func(env string) string {
		t.Helper()
		text, err := json.Marshal(cfg)
		must(t, err)
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
		cmd.Env = append(os.Environ(), "BERTH_NETWORK_CRASH="+string(text), env)
		out, err := cmd.CombinedOutput()
		return fmt.Sprintf("%v\n%s", err, out)
	}
	log := filepath.Join(t.TempDir(), "log")
	if out := child("BERTH_FAILPOINT_LOG=" + log); !strings.HasPrefix(out, "<nil>") {
		t.Fatal(out)
	}
	names, err := os.ReadFile(log)
	must(t, err)
	if k := len(strings.Fields(string(names))); k < 15 {
		t.Fatalf("only %d failpoints: %s", k, names)
	}
	for _, name := range strings.Fields(string(names)) {
		if out := child("BERTH_FAILPOINT=" + name); !strings.HasPrefix(out, "signal: killed") {
			t.Errorf("at %s: %s", name, out)
		}
		n := h.open(t, cfg)
		// Even numbers go on, the others clean up what they are told of.
		if len(name)%2 == 0 {
			crashing(t, n)
		}
		list, err := n.Connected(t.Context())
		must(t, err)
		for _, e := range list {
			must(t, n.Disconnect(t.Context(), e.TaskID, e.Container))
		}
		ids, err := n.List(t.Context())
		must(t, err)
		for _, id := range ids {
			must(t, n.Teardown(t.Context(), id))
		}
		if k := mounts(t, cfg.RunDir); k > 0 {
			t.Errorf("at %s: %d mounts are left", name, k)
		}
		if left, err := namesIn(n.endpointsDir()); err != nil || len(left) > 0 {
			t.Errorf("at %s: left %v, %v", name, left, err)
		}
		must(t, n.Reset(t.Context()))
		if got := h.state(t); got != empty {
			t.Errorf("at %s: after reset:\n%s\nat first:\n%s", name, got, empty)
		}
	}
}
