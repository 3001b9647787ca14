package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/plugins/services"
	_ "github.com/containerd/containerd/v2/plugins/services/containers"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/healthcheck"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/introspection"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/version"
	"github.com/containerd/plugin"
	"google.golang.org/grpc"
)

// SocketName is the file in the run directory that containerd's API is served at, for the monitoring
// agents and tools that know containerd: its namespace there is "berth". Who can open it can do to
// containers what Berth can, so it is root's alone, and reaches a container only by a bind mount that
// its task definition asks for.
const SocketName = "containerd.sock"

// socketPlugins are what the socket serves, besides the plugins that Berth itself needs.
var socketPlugins = []string{
	"io.containerd.service.v1." + services.ContainersService,
	"io.containerd.service.v1." + services.ContentService,
	"io.containerd.service.v1." + services.ImagesService,
	"io.containerd.service.v1." + services.SnapshotsService,
	"io.containerd.service.v1." + services.IntrospectionService,
	"io.containerd.grpc.v1.containers",
	"io.containerd.grpc.v1.content",
	"io.containerd.grpc.v1.diff",
	"io.containerd.grpc.v1.healthcheck",
	"io.containerd.grpc.v1.images",
	"io.containerd.grpc.v1.introspection",
	"io.containerd.grpc.v1.leases",
	"io.containerd.grpc.v1.namespaces",
	"io.containerd.grpc.v1.snapshots",
	"io.containerd.grpc.v1.tasks",
	"io.containerd.grpc.v1.version",
}

// serve offers the loaded plugins' services at the socket in the run directory.
func (e *engine) serve(loaded *plugin.Set, run string) error {
	e.api = grpc.NewServer()
	for _, p := range loaded.GetAll() {
		instance, err := p.Instance()
		if err != nil {
			return fmt.Errorf("containerd's plugin %s: %w", p.Registration.URI(), err)
		}
		if service, ok := instance.(interface{ Register(*grpc.Server) error }); ok {
			if err := service.Register(e.api); err != nil {
				return fmt.Errorf("serve containerd's plugin %s: %w", p.Registration.URI(), err)
			}
		}
	}
	path := filepath.Join(run, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	// Made under another name, so that it is never there with other rights than its own.
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path+".new")
	if err != nil {
		return fmt.Errorf("listen at containerd's socket: %w", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(path+".new", 0o600), os.Rename(path+".new", path)); err != nil {
		listener.Close()
		return fmt.Errorf("listen at containerd's socket: %w", err)
	}
	e.serving.Go(func() { e.api.Serve(listener) })
	return nil
}

// pluginsFor are the plugins to load.
func pluginsFor(socket bool) []string {
	if !socket {
		return enginePlugins
	}
	return slices.Concat(enginePlugins, socketPlugins)
}
