package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/events/exchange"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	runtimev2 "github.com/containerd/containerd/v2/core/runtime/v2"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	metadataplugin "github.com/containerd/containerd/v2/plugins/metadata"
	"github.com/containerd/containerd/v2/plugins/services"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/events"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/tasks"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	overlayplugin "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
)

// namespace is the only containerd namespace used. Instances are told apart by their directories.
const namespace = "berth"

const snapshotter = "overlayfs"

// engine is the embedded containerd: the plugins Berth needs, each loaded by name and configured for
// this instance, and called directly. containerd's own server package is not used: it reads its
// configuration into structures shared by the whole process, and several instances may live in one.
type engine struct {
	client     *containerd.Client
	containers containers.Store
	content    content.Store
	images     images.Store
	snapshots  snapshots.Snapshotter
	tasks      tasks.TasksClient
	events     *exchange.Exchange
	collector  collector
	leases     leases.Manager

	listener net.Listener
	server   *ttrpc.Server
	api      *grpc.Server // nil: not served
	closers  []io.Closer  // in the order opened
	cancel   context.CancelFunc
	serving  sync.WaitGroup
}

// collector removes content and snapshots that nothing refers to.
type collector interface {
	ScheduleAndWait(context.Context) (gc.Stats, error)
}

const taskPlugin = "io.containerd.runtime.v2.task"

// enginePlugins are the plugins loaded, besides those they require. An allow list: any package linked
// into the binary may have registered more.
var enginePlugins = []string{
	"io.containerd.event.v1.exchange",
	"io.containerd.content.v1.content",
	"io.containerd.snapshotter.v1.overlayfs",
	"io.containerd.metadata.v1.bolt",
	"io.containerd.gc.v1.scheduler",
	"io.containerd.lease.v1.manager",
	"io.containerd.differ.v1.walking",
	"io.containerd.warning.v1.deprecations",
	"io.containerd.shim.v1.manager",
	taskPlugin,
	"io.containerd.service.v1." + services.TasksService,
	"io.containerd.service.v1." + services.DiffService,
	"io.containerd.service.v1." + services.NamespacesService,
	"io.containerd.grpc.v1.events",
}

// loading serializes engines being opened: containerd's plugins set package variables while they
// start.
var loading sync.Mutex

// socketsDir holds the shims' sockets.
func socketsDir(run string) string { return filepath.Join(run, "s") }

// grpcAddress only enters the names of the shims' sockets: nobody listens there.
func grpcAddress(run string) string { return filepath.Join(run, "grpc") }

// openEngine starts containerd with its durable state in root and its volatile state in run. It
// re-connects to the shims it finds. watch, if not nil, is called as soon as events can be
// subscribed to, before shims found dead are cleaned up. created names the containers that had been
// created when the last engine closed. With socket, its API is served in run.
func openEngine(ctx context.Context, root, run string, socket bool, created []string, watch func(*exchange.Exchange)) (_ *engine, err error) {
	loading.Lock()
	defer loading.Unlock()

	sockets := socketsDir(run)
	for dir, mode := range map[string]os.FileMode{root: 0o700, run: 0o711, sockets: 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("make containerd's directory: %w", err)
		}
	}
	if err := prepareTemporaryMounts(); err != nil {
		return nil, err
	}
	configs := map[string]any{
		"io.containerd.shim.v1.manager":          &runtimev2.ShimConfig{SocketDir: sockets},
		"io.containerd.metadata.v1.bolt":         &metadataplugin.BoltConfig{ContentSharingPolicy: metadataplugin.SharingPolicyShared},
		"io.containerd.snapshotter.v1.overlayfs": &overlayplugin.Config{},
	}
	ttrpcPath := filepath.Join(run, "ttrpc")

	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e := &engine{cancel: cancel}
	defer func() {
		if err != nil {
			e.close()
		}
	}()

	var ready sync.WaitGroup
	loaded := plugin.NewPluginSet()
	wanted := pluginsFor(socket)
	graph := registry.Graph(func(r *plugin.Registration) bool { return !slices.Contains(wanted, r.URI()) })
	for _, p := range graph {
		id := p.URI()
		ic := plugin.NewContext(ctx, loaded, map[string]string{
			plugins.PropertyRootDir:      filepath.Join(root, id),
			plugins.PropertyStateDir:     filepath.Join(run, id),
			plugins.PropertyGRPCAddress:  grpcAddress(run),
			plugins.PropertyTTRPCAddress: ttrpcPath,
		})
		ic.RegisterReadiness = func() func() { ready.Add(1); return ready.Done }
		if config, ok := configs[id]; ok {
			ic.Config = config
		} else {
			ic.Config = p.Config
		}
		if id == taskPlugin {
			release, err := holdExited(ctx, loaded, created)
			if err != nil {
				return nil, err
			}
			defer release()
		}
		result := p.Init(ic)
		instance, err := result.Instance()
		if err != nil {
			return nil, fmt.Errorf("start containerd's plugin %s: %w", id, err)
		}
		if closer, ok := instance.(io.Closer); ok {
			e.closers = append(e.closers, closer)
		}
		if err := loaded.Add(result); err != nil {
			return nil, fmt.Errorf("start containerd's plugin %s: %w", id, err)
		}
		if exchange, ok := instance.(*exchange.Exchange); ok {
			e.events = exchange
			if watch != nil {
				watch(exchange)
			}
		}
	}
	if len(graph) != len(wanted) {
		return nil, fmt.Errorf("containerd has %d of the %d plugins needed", len(graph), len(wanted))
	}
	ready.Wait()
	if err := e.connect(loaded); err != nil {
		return nil, err
	}
	if err := e.listen(ctx, loaded, ttrpcPath); err != nil {
		return nil, err
	}
	if socket {
		if err := e.serve(loaded, run); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// holdExited keeps containerd from deleting containers that ended while it was not there: it takes a
// shim without processes for the rest of a failed creation, unless a sandbox of that name is known,
// and with it would go the exit code. The names are released when the shims are loaded.
func holdExited(ctx context.Context, loaded *plugin.Set, created []string) (release func(), err error) {
	db, err := instanceOf[*metadata.DB](loaded, plugins.MetadataPlugin, "bolt")
	if err != nil {
		return nil, err
	}
	ctx = inNamespace(ctx)
	store := metadata.NewSandboxStore(db)
	stale, err := store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the containers held: %w", err)
	}
	held := map[string]bool{}
	for _, s := range stale {
		held[s.ID] = true
	}
	err = db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		for _, id := range created {
			if held[id] {
				continue
			}
			if _, err := store.Create(ctx, sandbox.Sandbox{ID: id}); err != nil {
				return err
			}
			held[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hold the containers: %w", err)
	}
	return func() {
		err := db.Update(func(tx *bolt.Tx) error {
			ctx := boltutil.WithTransaction(ctx, tx)
			for id := range held {
				if err := store.Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
					return err
				}
			}
			return nil
		})
		if err != nil {
			// They are only names, and the next start removes them.
			log.G(ctx).WithError(err).Warn("release the containers held")
		}
	}, nil
}

// connect takes what Berth calls out of the loaded plugins.
func (e *engine) connect(loaded *plugin.Set) error {
	db, err := instanceOf[*metadata.DB](loaded, plugins.MetadataPlugin, "bolt")
	if err != nil {
		return err
	}
	if e.tasks, err = instanceOf[tasks.TasksClient](loaded, plugins.ServicePlugin, services.TasksService); err != nil {
		return err
	}
	if e.collector, err = instanceOf[collector](loaded, plugins.GCPlugin, "scheduler"); err != nil {
		return err
	}
	if e.leases, err = instanceOf[leases.Manager](loaded, plugins.LeasePlugin, "manager"); err != nil {
		return err
	}
	differ, err := instanceOf[diffapi.DiffClient](loaded, plugins.ServicePlugin, services.DiffService)
	if err != nil {
		return err
	}
	spaces, err := instanceOf[namespacesapi.NamespacesClient](loaded, plugins.ServicePlugin, services.NamespacesService)
	if err != nil {
		return err
	}
	e.containers = metadata.NewContainerStore(db)
	e.images = metadata.NewImageStore(db)
	e.content = db.ContentStore()
	e.snapshots = db.Snapshotter(snapshotter)
	e.client, err = containerd.New("", containerd.WithDefaultNamespace(namespace), containerd.WithServices(
		containerd.WithContainerStore(e.containers),
		containerd.WithImageStore(e.images),
		containerd.WithContentStore(e.content),
		containerd.WithSnapshotters(db.Snapshotters()),
		containerd.WithTaskClient(e.tasks),
		containerd.WithDiffClient(differ),
		containerd.WithNamespaceClient(spaces),
		containerd.WithEventService(e.events),
		containerd.WithLeasesService(e.leases),
	))
	if err != nil {
		return fmt.Errorf("connect to the embedded containerd: %w", err)
	}
	return nil
}

// listen serves the one socket: shims forward their events to it.
func (e *engine) listen(ctx context.Context, loaded *plugin.Set, path string) error {
	forward, err := instanceOf[interface{ RegisterTTRPC(*ttrpc.Server) error }](loaded, plugins.GRPCPlugin, "events")
	if err != nil {
		return err
	}
	if e.server, err = ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser())); err != nil {
		return fmt.Errorf("make the shims' event server: %w", err)
	}
	if err := forward.RegisterTTRPC(e.server); err != nil {
		return fmt.Errorf("register the shims' event service: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	if e.listener, err = net.Listen("unix", path); err != nil {
		return fmt.Errorf("listen for the shims' events: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("listen for the shims' events: %w", err)
	}
	e.serving.Go(func() { e.server.Serve(ctx, e.listener) })
	return nil
}

// close ends the engine; shims and containers stay.
func (e *engine) close() error {
	var errs []error
	if e.api != nil {
		e.api.Stop()
	}
	if e.server != nil {
		errs = append(errs, e.server.Close())
	}
	e.cancel()
	e.serving.Wait()
	for _, c := range slices.Backward(e.closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func instanceOf[T any](loaded *plugin.Set, kind plugin.Type, id string) (T, error) {
	var none T
	p := loaded.Get(kind, id)
	if p == nil {
		return none, fmt.Errorf("containerd lacks its plugin %s.%s", kind, id)
	}
	instance, err := p.Instance()
	if err != nil {
		return none, fmt.Errorf("containerd's plugin %s.%s: %w", kind, id, err)
	}
	typed, ok := instance.(T)
	if !ok {
		return none, fmt.Errorf("containerd's plugin %s.%s is a %T, not a %T", kind, id, instance, none)
	}
	return typed, nil
}

// inNamespace gives ctx containerd's namespace.
func inNamespace(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}
