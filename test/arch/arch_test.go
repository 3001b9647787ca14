package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berthhq/berth"

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p pkg) room() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "-tags=failpoints", "./...")
	cmd.Dir = "../.."
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, problems.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(room, dir string) bool { return room == dir || strings.HasPrefix(room, dir+"/") }

func anyWithin(room string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return within(room, dir) })
}

// services are the rooms that implement an AWS service.
var services = []string{"internal/ecs", "internal/logs", "internal/s3", "internal/sts"}

// TestRooms holds the rules that docs/architecture.md states: for each, who may import what.
func TestRooms(t *testing.T) {
	t.Parallel()
	outside := func(prefixes ...string) func(string) bool {
		return func(imp string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return imp == p || strings.HasPrefix(imp, p+"/") })
		}
	}
	rules := []struct {
		why     string
		matches func(imported string) bool
		allowed []string // the rooms that may import it
	}{
		{"only the store knows etcd", outside("go.etcd.io/etcd", "go.etcd.io/raft"), []string{"internal/store"}},
		{"only the runtime knows containerd", outside("github.com/containerd"), []string{"internal/agent/runtime", "bench"}},
		{"only the network knows netlink and nftables", outside("github.com/vishvananda/netlink", "github.com/google/nftables"),
			[]string{"internal/agent/network", "cmd/berth", "test/harness", "bench"}},
		{"the SDK is a client for tests, not the server's types", outside("github.com/aws"),
			[]string{"test", "bench"}},
		{"only tests and tools make images", outside("github.com/google/go-containerregistry"),
			[]string{"internal/agent/runtime", "test", "bench", "examples"}},
		{"Berth imports nothing of its tests", outside(module + "/test"), []string{"test", "bench", "examples"}},
	}
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for _, rule := range rules {
				if rule.matches(imp) && !anyWithin(p.room(), rule.allowed) {
					t.Errorf("%s imports %s: %s", p.room(), imp, rule.why)
				}
			}
		}
	}
}

// TestServicesKnowEachOtherByTheirAPI: no service imports another's package, also not in its tests.
func TestServicesKnowEachOtherByTheirAPI(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		i := slices.IndexFunc(services, func(s string) bool { return within(p.room(), s) })
		if i < 0 {
			continue
		}
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for j, other := range services {
				if i != j && within(strings.TrimPrefix(imp, module+"/"), other) {
					t.Errorf("%s imports the service %s", p.room(), imp)
				}
			}
		}
	}
}

// TestPureRooms: rooms that decide import nothing that acts.
func TestPureRooms(t *testing.T) {
	t.Parallel()
	pure := map[string][]string{ // room → what of Berth it may import
		"internal/ecs/placement":       {"internal/ecs/placement/query"},
		"internal/ecs/placement/query": {},
		"internal/ecs/lifecycle":       {"api/ecs"},
		"internal/ecs/taskdef":         {"api/ecs", "api"},
		"internal/caller":              {},
		"internal/failpoint":           {},
	}
	acts := []string{"net", "net/http", "os", "os/exec", "syscall", "database/sql"}
	seen := 0
	for _, p := range packages(t) {
		may, ok := pure[p.room()]
		if !ok {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			if room, own := strings.CutPrefix(imp, module+"/"); own && !slices.Contains(may, room) {
				t.Errorf("%s imports %s, and may import of Berth only %v", p.room(), room, may)
			}
			if slices.Contains(acts, imp) && p.room() != "internal/failpoint" {
				t.Errorf("%s imports %s: it decides and does not act", p.room(), imp)
			}
		}
	}
	if seen != len(pure) {
		t.Errorf("found %d of the %d pure rooms: update the list", seen, len(pure))
	}
}

// TestAPIKnowsNothing: the generated contract imports nothing of Berth but itself.
func TestAPIKnowsNothing(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if !within(p.room(), "api") {
			continue
		}
		for _, imp := range p.Imports {
			if room, own := strings.CutPrefix(imp, module+"/"); own && !within(room, "api") {
				t.Errorf("%s imports %s", p.room(), path.Base(imp))
			}
		}
	}
}
