package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logdriver"
	"github.com/berthhq/berth/internal/agent/logger"
	"github.com/berthhq/berth/internal/agent/metadata"
	"github.com/berthhq/berth/internal/agent/network"
	"github.com/berthhq/berth/internal/agent/runtime"
	"github.com/berthhq/berth/internal/agent/volumes"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/instance"
)

// host is the host's half: the agent and its rooms.
type host struct {
	runtime  *runtime.Runtime
	network  *network.Network
	output   *logger.Output
	volumes  *volumes.Volumes
	metadata *metadata.Server
	drivers  *logdriver.Drivers
	logs     *grpc.ClientConn // the drivers' way to the server
	agent    *agent.Agent
	log      *slog.Logger
}

// reservedPorts are never given to a task, as on Amazon's instances: ssh, Docker and the agent's own.
var reservedPorts = []string{"22", "2375", "2376", "51678", "51679", "51680"}

func openHost(ctx context.Context, in *instance.Instance, set settings, log *slog.Logger) (_ *host, err error) {
	h := &host{log: log}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	// What is Berth's own no container gets, also of the other instances that run.
	own := []string{in.DataDir, filepath.Dir(in.RunDir)}
	if h.runtime, err = runtime.Open(ctx, runtime.Config{
		Root: in.Path("containerd"), RunDir: in.Run("c"), RuntimeDir: in.Path("runtime"), Instance: in.ID,
		RegistryMap: set.registryMap, Hidden: own, Logger: log.With("room", "runtime"),
	}); err != nil {
		return nil, fmt.Errorf("start the container runtime: %w", err)
	}
	if h.network, err = network.Open(ctx, network.Config{
		Instance: in.ID, StateDir: in.Path("network"), RunDir: in.RunDir, Logger: log.With("room", "network"),
		DynamicPorts: os.Getenv("ECS_DYNAMIC_HOST_PORT_RANGE"), // as Amazon's agent calls it
	}); err != nil {
		return nil, fmt.Errorf("prepare the network: %w", err)
	}
	if h.output, err = logger.Open(ctx, logger.Config{
		RunDir: in.RunDir, SpoolDir: in.Path("spool"), Cgroup: loggerCgroup(in), Logger: log.With("room", "logger"),
		Live: h.live,
	}); err != nil {
		return nil, fmt.Errorf("start the logger: %w", err)
	}
	socket := in.Run("dispatch.sock")
	if h.logs, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second}})); err != nil {
		return nil, fmt.Errorf("reach the server for logs: %w", err)
	}
	if h.drivers, err = logdriver.Open(logdriver.Config{
		Dir: in.Path("logdriver"), SpoolDir: in.Path("spool"), Put: h.putLogs, Hidden: own, Logger: log.With("room", "logdriver"),
	}); err != nil {
		return nil, fmt.Errorf("prepare the log drivers: %w", err)
	}
	if h.volumes, err = volumes.Open(volumes.Config{
		Dir: in.Path("volumes"), EFSDir: in.Path("efs"), Protected: own,
		Allowed: []string{in.Run("c", runtime.SocketName)}, Logger: log.With("room", "volumes"),
	}); err != nil {
		return nil, fmt.Errorf("prepare the volumes: %w", err)
	}
	if h.metadata, err = metadata.New(metadata.Config{
		Dir: in.Path("metadata"), Version: version, Subnet: h.network.Subnet(), Logger: log.With("room", "metadata"),
	}); err != nil {
		return nil, fmt.Errorf("prepare the metadata endpoints: %w", err)
	}
	hello, err := hello(h.network, set)
	if err != nil {
		return nil, err
	}
	if hello.GpuIds, err = h.runtime.GPUs(ctx); err != nil {
		log.Warn("this host offers no GPUs: its CDI specifications cannot be read", "error", err)
	}
	if h.agent, err = agent.New(agent.Config{
		Dir: in.Path("agent"), Runtime: h.runtime, Processes: h.runtime, Network: h.network, Bridge: h.network,
		Volumes: h.volumes, Metadata: h.metadata, Output: h.output, LogDrivers: h.drivers, Hello: hello,
		Logger: log.With("room", "agent"),
		Dial: func(context.Context) (*grpc.ClientConn, error) {
			// The socket's directory is the owner's alone; that is the credential.
			return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
	}); err != nil {
		return nil, fmt.Errorf("open the agent's record: %w", err)
	}
	h.metadata.Use(h.agent, h.runtime, h.agent)
	return h, nil
}

// run runs the host's tasks, and answers their containers, until ctx ends.
func (h *host) run(ctx context.Context) error {
	tasks, introspection, err := h.listen(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.metadata.Serve(ctx, tasks, introspection) })
	g.Go(func() error { return h.drivers.Run(ctx) })
	g.Go(func() error { return h.agent.Run(ctx) })
	return g.Wait()
}

// listen opens what containers ask at, and leads them there. Several instances share a host: the first
// has the ports of Amazon's agent. The introspection API, which has no other place, is then its alone
// and introspection is nil.
func (h *host) listen(ctx context.Context) (tasks, introspection net.Listener, err error) {
	var lc net.ListenConfig
	for _, port := range []int{metadata.Port, metadata.Port + 1, 0} {
		if tasks, err = lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			break
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listen for the containers' questions: %w", err)
	}
	port := tasks.Addr().(*net.TCPAddr).Port
	hostMode, err := h.network.ServeMetadata(ctx, uint16(port))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("lead containers to the metadata endpoints: %w", err), tasks.Close())
	}
	if !hostMode {
		h.metadata.HostMode("http://" + tasks.Addr().String())
	}
	// On all addresses, for containers to reach it at the host's; it answers those on this host alone.
	if introspection, err = lc.Listen(ctx, "tcp4", ":"+strconv.Itoa(metadata.IntrospectionPort)); err != nil {
		h.log.Info("no introspection API: its port is taken", "error", err)
		introspection = nil
	}
	return tasks, introspection, nil
}

func loggerCgroup(in *instance.Instance) string { return "berth-" + in.ID + "-logger" }

// live tells whether a task may yet write output.
func (h *host) live(taskID string) bool {
	return h.agent != nil && h.agent.Live(taskID) // the output is opened before the agent
}

// putLogs has the server put what containers wrote. It is called while the host runs.
func (h *host) putLogs(ctx context.Context, r *dispatchpb.PutLogsRequest) (*dispatchpb.PutLogsReply, error) {
	r.HostId = h.agent.HostID()
	return dispatchpb.NewDispatchClient(h.logs).PutLogs(ctx, r)
}

// close lets go of the host. Containers and the logger go on.
func (h *host) close() {
	var errs []error
	if h.agent != nil {
		errs = append(errs, h.agent.Close())
	}
	if h.logs != nil {
		errs = append(errs, h.logs.Close())
	}
	if h.output != nil {
		errs = append(errs, h.output.Close())
	}
	if h.network != nil {
		errs = append(errs, h.network.Close())
	}
	if h.runtime != nil {
		errs = append(errs, h.runtime.Close())
	}
	if err := errors.Join(errs...); err != nil {
		h.log.Warn("the host's half was not closed cleanly", "error", err)
	}
}

// hello is what the host says of itself.
func hello(n *network.Network, set settings) (*dispatchpb.Hello, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read host name: %w", err)
	}
	memory, err := memoryMiB()
	if err != nil {
		return nil, err
	}
	h := &dispatchpb.Hello{
		Hostname: name, AgentVersion: version,
		CpuUnits: int64(goruntime.NumCPU()) * 1024, MemoryMib: memory,
		SubnetCidr: n.Subnet().String(), AvailabilityZoneSuffix: "a",
		Attributes:       attributes("/sys"),
		ReservedTcpPorts: reservedPorts,
	}
	if _, port, err := net.SplitHostPort(set.listen); err == nil {
		h.ReservedTcpPorts = append([]string{port}, reservedPorts...)
	}
	return h, nil
}

// memoryMiB is the host's memory.
func memoryMiB() (int64, error) {
	f, err := os.Open(filepath.Join("/proc", "meminfo"))
	if err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("read memory size: no MemTotal in /proc/meminfo")
}
