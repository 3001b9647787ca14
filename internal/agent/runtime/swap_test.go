package runtime

import (
	"os"
	"path/filepath"
	"testing"
)

// On a host of version 2 whose only cgroup with the memory controller will be Berth's, swap is limited
// from the first container on.
func TestUnifiedSwap(t *testing.T) {
	t.Parallel()
	_, err := os.Stat("/proc/swaps")
	knowsSwap := err == nil
	root := t.TempDir()
	c := cgroups{unified: root}
	if limit, _ := c.swap(); limit != knowsSwap {
		t.Errorf("without any cgroup: %v, and the kernel says %v", limit, knowsSwap)
	}
	write := func(file string) {
		if err := os.MkdirAll(filepath.Join(root, "a"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "a", file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("memory.max")
	if limit, _ := c.swap(); limit {
		t.Error("a kernel without accounting of swap is taken for one with it")
	}
	write("memory.swap.max")
	if limit, _ := c.swap(); !limit {
		t.Error("a kernel with accounting of swap is taken for one without")
	}
}
