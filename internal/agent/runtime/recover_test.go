package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

// A kill between hiding and removing a bundle left a name behind that no container can have; Berth
// did not start any more.
func TestHiddenBundlesAreRemoved(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	hidden := filepath.Join(bundlesDir(run), ".ecs-web-1-app-0123")
	shown := filepath.Join(bundlesDir(run), "ecs-web-1-app-4567")
	for _, dir := range []string{filepath.Join(hidden, "rootfs"), shown} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	bundles, err := readBundles(run)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := bundles["ecs-web-1-app-4567"]; !ok || len(bundles) != 1 {
		t.Errorf("bundles = %v", bundles)
	}
	if _, err := os.Stat(hidden); !os.IsNotExist(err) {
		t.Errorf("the hidden bundle is still there: %v", err)
	}
}
