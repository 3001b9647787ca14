// Package shim is the life of a shim: the process that a task's containers run under, which outlives
// berth. It stands apart from package runtime so that it can also be a binary of its own (berth-shim):
// two processes of it start at each launch, and what berth's other packages do at their start costs
// each some 15 ms of CPU.
package shim

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	containerdshim "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// Name is the name by which a binary is the shim.
const Name = "containerd-shim-runc-v2"

// Is tells whether a process started with these arguments is to be the shim, or the init process of
// a container or of a task's PID namespace. main asks before anything else, because the shim's start is part of every launch.
func Is(args []string) bool {
	return len(args) > 0 && (filepath.Base(args[0]) == Name || args[0] == InitPath || args[0] == PauseName)
}

// Main is the whole life of a shim, or of a container's init process. It returns only when the shim is
// done, and exits the process itself when the shim fails.
func Main() {
	switch os.Args[0] {
	case InitPath:
		os.Exit(initMain(os.Args[1:]))
	case PauseName:
		os.Exit(pauseMain(os.Args[1:]))
	}
	releaseLog := holdLog()
	// The registry holds the plugins that the embedded containerd chooses from; RunShim loads all that
	// is registered, so what it shall have is put in alone.
	registry.Reset()
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			releaseLog() // the shim opens its log before it loads plugins
			publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			// The watcher of OOM kills ends with a context that was cancelled, and takes the shim's own word
			// for its end for a failure, to be logged as fast as it can.
			ctx, cancel := context.WithCancel(context.WithoutCancel(ic.Context))
			context.AfterFunc(ic.Context, cancel)
			service, err := task.NewTaskService(ctx, publisher.(containerdshim.Publisher), stop.(shutdown.Service))
			if err != nil {
				return nil, err
			}
			return newUninterrupted(service, ownSocket()), nil
		},
	})
	containerdshim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}
