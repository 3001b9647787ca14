package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A made specification of three GPUs by index and UUID, as NVIDIA's toolkit writes them.
func writeGPUs(t testing.TB, dir string) {
	t.Helper()
	library := filepath.Join(t.TempDir(), "libcuda.so")
	if err := os.WriteFile(library, []byte("driver"), 0o644); err != nil {
		t.Fatal(err)
	}
	var spec strings.Builder
	spec.WriteString("cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [NVIDIA_VISIBLE_DEVICES=void, DRIVER=1]\n")
	fmt.Fprintf(&spec, "  mounts: [{hostPath: %s, containerPath: /usr/lib/libcuda.so, options: [ro, bind]}]\ndevices:\n", library)
	all := ""
	for i := range 3 {
		node := filepath.Join(t.TempDir(), fmt.Sprintf("nvidia%d", i))
		// /dev/fuse's number: no container may open it unasked.
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{fmt.Sprint(i), fmt.Sprintf("GPU-%d", i)} {
			fmt.Fprintf(&spec, "- name: %q\n  containerEdits:\n    deviceNodes: [{path: /dev/nvidia%d, hostPath: %s}]\n", name, i, node)
		}
		all += fmt.Sprintf("{path: /dev/nvidia%d, hostPath: %s},", i, node)
	}
	fmt.Fprintf(&spec, "- name: all\n  containerEdits:\n    deviceNodes: [%s]\n", all)
	for name, body := range map[string]string{
		"nvidia.yaml": spec.String(),
		"other.json":  `{"cdiVersion":"0.6.0","kind":"example.com/gpu","devices":[{"name":"x1","containerEdits":{"env":["OTHER=1"]}}]}`,
		"disk.json":   `{"cdiVersion":"0.6.0","kind":"example.com/disk","devices":[{"name":"d1","containerEdits":{"env":["DISK=1"]}}]}`,
		"broken.json": `{`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGPUs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.config.CDIDir = t.TempDir()
	r := h.openForTest()
	before, err := r.GPUs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	writeGPUs(t, h.config.CDIDir)
	// What the machine itself has is not this test's.
	got, err := r.GPUs(t.Context())
	got = slices.DeleteFunc(got, func(id string) bool { return slices.Contains(before, id) })
	if want := []string{"GPU-0", "GPU-1", "GPU-2", "x1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("the GPUs are %q, %v", got, err)
	}
	image := importBusybox(t, r)
	const look = "env | grep -E 'NVIDIA|DRIVER|OTHER'; cat /usr/lib/libcuda.so; ls /dev | grep nvidia; (: </dev/nvidia1) && echo opened"
	c := testContainer(image, "two", look)
	c.Container.GpuIds = []string{"GPU-0", "GPU-1"}
	out := outputOf(t, r, c)
	for _, want := range []string{"NVIDIA_VISIBLE_DEVICES=GPU-0,GPU-1\n", "DRIVER=1\n", "driver", "nvidia0\nnvidia1\n", "opened"} {
		if !strings.Contains(out, want) {
			t.Errorf("with two GPUs no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "nvidia2") {
		t.Errorf("with two GPUs it sees a third:\n%s", out)
	}
	c = testContainer(image, "other", look)
	c.Container.GpuIds = []string{"x1"}
	if out := outputOf(t, r, c); !strings.Contains(out, "OTHER=1") || !strings.Contains(out, "NVIDIA_VISIBLE_DEVICES=x1") {
		t.Errorf("of another vendor: %s", out)
	}
	c = testContainer(image, "missing", look)
	c.Container.GpuIds = []string{"GPU-9"}
	if err := r.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), "the host has no CDI specification of the GPU nvidia.com/gpu=GPU-9") {
		t.Errorf("a GPU that is not there: %v", err)
	}
	// An image of CUDA asks for all of them.
	stored, err := r.unpacked(r.call(t.Context()), image)
	if err != nil {
		t.Fatal(err)
	}
	stored.config.Env = append(stored.config.Env, "NVIDIA_VISIBLE_DEVICES=all")
	r.images.put(stored)
	out = outputOf(t, r, testContainer(image, "none", look))
	if strings.Contains(out, "opened") || strings.Contains(out, "nvidia0") || !strings.Contains(out, "NVIDIA_VISIBLE_DEVICES=void\n") {
		t.Errorf("without GPUs:\n%s", out)
	}
}
