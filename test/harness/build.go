package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Tags are the build tags of the shipped binary.
const Tags = "embed_runc,no_btrfs,no_devmapper,no_zfs,netgo,osusergo,grpcnotrace"

// Root is the directory of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var builds sync.Map // what → func() (string, error)

// once makes a file once a process, whoever asks first, and answers its path.
func once(t T, what string, make func() (string, error)) string {
	t.Helper()
	f, _ := builds.LoadOrStore(what, sync.OnceValues(make))
	path, err := f.(func() (string, error))()
	if err != nil {
		t.Fatalf("build %s: %v", what, err)
	}
	return path
}

// Binary is the berth binary under test: $BERTH_BIN, or one built from this tree.
func Binary(t T) string {
	t.Helper()
	if bin := os.Getenv("BERTH_BIN"); bin != "" {
		abs, err := filepath.Abs(bin)
		if err != nil {
			t.Fatalf("BERTH_BIN: %v", err)
		}
		return abs
	}
	return BinaryOf(t, "berth", "test", "")
}

// FailpointBinary is berth with the failpoints compiled in.
func FailpointBinary(t T) string {
	t.Helper()
	return BinaryOf(t, "berth-failpoints", "test", "failpoints")
}

// BinaryOf builds berth under a file name, with a version stamp and extra build tags.
func BinaryOf(t T, name, version, tags string) string {
	t.Helper()
	return once(t, name, func() (string, error) {
		if out, err := exec.Command(filepath.Join(Root(), "scripts", "build-runc.sh")).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build runc: %w\n%s", err, out)
		}
		all := Tags
		if tags != "" {
			all += "," + tags
		}
		return goBuild(name, "./cmd/berth", "-tags", all, "-ldflags", "-s -w -X main.version="+version)
	})
}

// TestApp is the static program of test/testapp.
func TestApp(t T) string {
	t.Helper()
	return once(t, "testapp", func() (string, error) {
		return goBuild("testapp", "./test/testapp", "-ldflags", "-s -w")
	})
}

func goBuild(name, pkg string, flags ...string) (string, error) {
	out := filepath.Join(CacheDir(), name)
	if err := os.MkdirAll(CacheDir(), 0o755); err != nil {
		return "", err
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out}, flags...)
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, msg)
	}
	return out, nil
}

// CacheDir keeps what the tests build, between runs.
func CacheDir() string { return filepath.Join(Root(), "test", "e2e", ".cache") }
