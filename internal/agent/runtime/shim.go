package runtime

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// ShimName is the name by which the berth binary is a containerd shim.
const ShimName = "containerd-shim-runc-v2"

// IsShim tells whether a process started with these arguments is to be the shim. main asks before
// anything else, because the shim's start is part of every launch.
func IsShim(args []string) bool {
	return len(args) > 0 && filepath.Base(args[0]) == ShimName
}

// ShimMain is the whole life of a shim process. It returns only when the shim is done, and exits the
// process itself when the shim fails.
func ShimMain() {
	// The registry holds the plugins that the embedded containerd chooses from; RunShim loads all that
	// is registered, so what it shall have is put in alone.
	registry.Reset()
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			return task.NewTaskService(ic.Context, publisher.(shim.Publisher), stop.(shutdown.Service))
		},
	})
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}
