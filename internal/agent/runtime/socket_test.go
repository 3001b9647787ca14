package runtime

import (
	"os"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// What knows containerd finds it at the socket, if it is root.
func TestSocket(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	r := h.openForTest()
	run(t, r, testContainer(importBusybox(t, r), "c1", "exec sleep 1000"))
	path := filepath.Join(h.config.RunDir, SocketName)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket is %v, %v", info, err)
	}
	client, err := containerd.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(t.Context(), namespace)
	if v, err := client.Version(ctx); err != nil {
		t.Errorf("version: %v, %v", v, err)
	}
	container, err := client.LoadContainer(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := task.Status(ctx); err != nil || status.Status != containerd.Running {
		t.Errorf("status: %+v, %v", status, err)
	}
	if metrics, err := task.Metrics(ctx); err != nil || metrics.ID != "c1" {
		t.Errorf("metrics: %v, %v", metrics, err)
	}
	if images, err := client.ListImages(ctx); err != nil || len(images) == 0 {
		t.Errorf("images: %v, %v", images, err)
	}
	if all, err := client.NamespaceService().List(ctx); err != nil || len(all) != 1 || all[0] != namespace {
		t.Errorf("namespaces: %v, %v", all, err)
	}

	closed := newHost(t)
	closed.config.NoSocket = true
	closed.openForTest()
	if _, err := os.Stat(filepath.Join(closed.config.RunDir, SocketName)); !os.IsNotExist(err) {
		t.Errorf("a socket that is not wanted: %v", err)
	}
}
