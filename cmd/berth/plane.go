package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	ecsapi "github.com/berthhq/berth/api/ecs"
	logsapi "github.com/berthhq/berth/api/logs"
	s3api "github.com/berthhq/berth/api/s3"
	stsapi "github.com/berthhq/berth/api/sts"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/dispatch"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs"
	"github.com/berthhq/berth/internal/ecs/events"
	"github.com/berthhq/berth/internal/ecs/history"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/instance"
	"github.com/berthhq/berth/internal/logs"
	"github.com/berthhq/berth/internal/logs/segment"
	"github.com/berthhq/berth/internal/s3"
	"github.com/berthhq/berth/internal/store"
	"github.com/berthhq/berth/internal/sts"
)

// settings are what `berth up` was told.
type settings struct {
	listen      string
	api         net.Listener // at listen; nil: no API, as for a `down` of a Berth that is not running
	account     string
	region      string
	dev         bool
	registryMap map[string]string
	profile     bool
}

// plane is the server's half: state, services, the front door and the hosts' streams.
type plane struct {
	store    *store.Store
	keys     *keyring.Keyring
	gateway  *gateway.Gateway
	orch     *orchestrator.Orchestrator
	dispatch *dispatch.Server
	blob     *blob.Dir
	segments *segment.Store
	logs     *logs.Service
	archive  *history.Archive
	archiver *history.Archiver
	events   *events.Log
	feed     *events.Feed
	hosts    net.Listener
	api      net.Listener // nil without an API
	log      *slog.Logger
}

// rootKey reads the instance's root key.
func rootKey(in *instance.Instance) (id, secret string, err error) {
	keys, err := keyring.Open(in.Path("keys"), account(in))
	if err != nil {
		return "", "", err
	}
	root := keys.Root()
	return root.AccessKeyID, root.SecretAccessKey, nil
}

// account is the one the instance was first started with.
func account(in *instance.Instance) string {
	if a := in.Settings().Account; a != "" {
		return a
	}
	return defaultAccount
}

func openPlane(ctx context.Context, in *instance.Instance, set settings, log *slog.Logger) (_ *plane, err error) {
	p := &plane{log: log, api: set.api}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.store, err = store.Open(ctx, store.Config{Dir: in.Path("etcd"), Logger: log.With("room", "store")},
		slices.Concat(state.Tables(), s3.Tables(), logs.Tables())...); err != nil {
		return nil, fmt.Errorf("open state in %s: %w", in.Path("etcd"), err)
	}
	if p.keys, err = keyring.Open(in.Path("keys"), set.account); err != nil {
		return nil, err
	}
	if p.blob, err = blob.OpenDir(in.Path("blob"), log.With("room", "blob")); err != nil {
		return nil, err
	}
	if p.segments, err = openSegments(in.Path("logs"), p.blob, log.With("room", "logs")); err != nil {
		return nil, err
	}
	p.archive = history.NewArchive(p.blob)
	p.orch = orchestrator.New(orchestrator.Config{
		Store: p.store, ServerID: in.ID, Archive: p.archive,
		Recorder: history.NewRecorder(p.archive, p.store, log.With("room", "history")), Logger: log.With("room", "orchestrator"),
	})
	if p.gateway, err = gateway.New(gateway.Config{
		Account: set.account, Region: set.region, Credentials: p.keys, Dev: set.dev,
		Log: log.With("room", "gateway"), Health: func(context.Context) error { return p.store.Err() },
	}); err != nil {
		return nil, err
	}
	ecsService := ecs.New(ecs.Config{
		Store: p.store, Orchestrator: p.orch, SharedKernelFargate: set.dev, Logger: log.With("room", "ecs"),
	})
	objects := s3.New(s3.Config{Store: p.store, Blobs: p.blob, Logger: log.With("room", "s3")})
	p.logs = logs.New(logs.Config{Store: p.store, Segments: p.segments, Logger: log.With("room", "logs")})
	if err := errors.Join(
		p.gateway.Register(gateway.Service{Descriptor: logsapi.Descriptor, Implementation: p.logs, MaxBody: logs.MaxBody}),
		p.gateway.Register(gateway.Service{Descriptor: ecsapi.Descriptor, Implementation: ecsService, Invalid: ecs.Invalid}),
		p.gateway.Register(gateway.Service{Descriptor: stsapi.Descriptor, Implementation: sts.New(p.keys, set.dev)}),
		p.gateway.Register(gateway.Service{
			Descriptor: s3api.Descriptor, Implementation: objects, MaxBody: s3.MaxBody, Invalid: s3.Invalid, Prepare: s3.Prepare(),
		}),
	); err != nil {
		return nil, err
	}
	if set.dev {
		p.gateway.Mount("POST /_berth/reset", p.gateway.Authenticated(p.gateway.Reset(func(ctx context.Context, account string) error {
			return errors.Join(p.orch.Clear(ctx, account), objects.Clear(ctx, account), p.logs.Clear(ctx, account))
		})))
	} else {
		p.gateway.Mount("POST /_berth/reset", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "POST /_berth/reset is for berth up --dev alone", http.StatusNotFound)
		}))
	}
	if p.events, err = events.Open(ctx, p.blob, log.With("room", "events")); err != nil {
		return nil, err
	}
	p.feed = events.NewFeed(p.store, p.events, ecsService.ContainerInstance, log.With("room", "events"))
	p.dispatch = dispatch.New(dispatch.Config{
		ServerID: in.ID, Assigner: assigner{p.orch, p.feed}, Logger: log.With("room", "dispatch"),
		Reporter: dispatch.APIReporter{ECS: ecsapi.Client{Invoker: p.gateway.Inside("dispatch.berth.internal")}, Observer: p.orch},
		ECS:      ecsapi.Client{Invoker: p.gateway.Inside("dispatch.berth.internal")},
		S3:       s3api.Client{Invoker: p.gateway.Inside("dispatch.berth.internal")},
		Logs:     logsapi.Client{Invoker: p.gateway.Inside("dispatch.berth.internal")},
	})
	p.archiver = history.NewArchiver(p.store, p.archive, p.dispatch, log.With("room", "history"))
	socket := in.Run("dispatch.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace hosts' socket: %w", err)
	}
	if p.hosts, err = net.Listen("unix", socket); err != nil {
		return nil, fmt.Errorf("listen for hosts: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, fmt.Errorf("protect hosts' socket: %w", err)
	}
	return p, nil
}

// assigner is the orchestrator, and tells the feed of events which hosts come and go.
type assigner struct {
	*orchestrator.Orchestrator
	feed *events.Feed
}

func (a assigner) HostConnected(ctx context.Context, hello *dispatchpb.Hello) error {
	if err := a.Orchestrator.HostConnected(ctx, hello); err != nil {
		return err
	}
	a.feed.HostChanged(hello.HostId)
	return nil
}

func (a assigner) HostDisconnected(ctx context.Context, hostID string) {
	a.Orchestrator.HostDisconnected(ctx, hostID)
	a.feed.HostChanged(hostID)
}

// run serves until ctx ends.
func (p *plane) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.orch.Run(ctx) })
	g.Go(func() error { return p.events.Run(ctx) })
	g.Go(func() error { return p.feed.Run(ctx) })
	g.Go(func() error { return p.archiver.Run(ctx) })
	g.Go(func() error {
		select {
		case <-p.store.Done():
			return fmt.Errorf("state: %w", p.store.Err())
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		srv := grpc.NewServer()
		dispatchpb.RegisterDispatchServer(srv, p.dispatch)
		stop := context.AfterFunc(ctx, srv.Stop)
		defer stop()
		return srv.Serve(p.hosts)
	})
	if p.api != nil {
		g.Go(func() error { return gateway.Serve(ctx, p.api, p.gateway, p.log.With("room", "gateway")) })
	}
	return g.Wait()
}

func (p *plane) close() {
	if p.api != nil {
		p.api.Close()
	}
	if p.hosts != nil {
		p.hosts.Close()
	}
	if p.logs != nil {
		p.logs.Close()
	}
	if p.segments != nil {
		if err := p.segments.Close(); err != nil {
			p.log.Warn("logs were not closed cleanly; they are durable all the same", "error", err)
		}
	}
	if p.blob != nil {
		if err := p.blob.Close(); err != nil {
			p.log.Warn("bulk storage was not closed cleanly; it is durable all the same", "error", err)
		}
	}
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			p.log.Warn("state was not closed cleanly; it is durable all the same", "error", err)
		}
	}
}
