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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/agent/logger"
	"github.com/berthhq/berth/internal/agent/network"
	"github.com/berthhq/berth/internal/agent/runtime"
	"github.com/berthhq/berth/internal/agent/volumes"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/instance"
)

// host is the host's half: the agent and its rooms.
type host struct {
	runtime *runtime.Runtime
	network *network.Network
	output  *logger.Output
	volumes *volumes.Volumes
	agent   *agent.Agent
	log     *slog.Logger
}

// reservedPorts are never given to a task, as on Amazon's instances: ssh, Docker and the agent's own.
var reservedPorts = []string{"22", "2375", "2376", "51678", "51679"}

func openHost(ctx context.Context, in *instance.Instance, set settings, log *slog.Logger) (_ *host, err error) {
	h := &host{log: log}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.runtime, err = runtime.Open(ctx, runtime.Config{
		Root: in.Path("containerd"), RunDir: in.Run("c"), RuntimeDir: in.Path("runtime"), Instance: in.ID,
		RegistryMap: set.registryMap, Logger: log.With("room", "runtime"),
	}); err != nil {
		return nil, fmt.Errorf("start the container runtime: %w", err)
	}
	if h.network, err = network.Open(ctx, network.Config{
		Instance: in.ID, StateDir: in.Path("network"), RunDir: in.RunDir, Logger: log.With("room", "network"),
	}); err != nil {
		return nil, fmt.Errorf("prepare the network: %w", err)
	}
	if h.output, err = logger.Open(ctx, logger.Config{
		RunDir: in.RunDir, SpoolDir: in.Path("spool"), Cgroup: loggerCgroup(in), Logger: log.With("room", "logger"),
		Live: h.live,
	}); err != nil {
		return nil, fmt.Errorf("start the logger: %w", err)
	}
	if h.volumes, err = volumes.Open(volumes.Config{
		Dir: in.Path("volumes"), EFSDir: in.Path("efs"), Protected: []string{in.DataDir, in.RunDir},
		Logger: log.With("room", "volumes"),
	}); err != nil {
		return nil, fmt.Errorf("prepare the volumes: %w", err)
	}
	hello, err := hello(h.network, set)
	if err != nil {
		return nil, err
	}
	socket := in.Run("dispatch.sock")
	if h.agent, err = agent.New(agent.Config{
		Dir: in.Path("agent"), Runtime: h.runtime, Processes: h.runtime, Network: h.network, Bridge: h.network,
		Volumes: h.volumes, Output: h.output, Hello: hello,
		Logger: log.With("room", "agent"),
		Dial: func(context.Context) (*grpc.ClientConn, error) {
			// The socket's directory is the owner's alone; that is the credential.
			return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
	}); err != nil {
		return nil, fmt.Errorf("open the agent's record: %w", err)
	}
	return h, nil
}

func loggerCgroup(in *instance.Instance) string { return "berth-" + in.ID + "-logger" }

// live tells whether a task may yet write output.
func (h *host) live(taskID string) bool {
	return h.agent != nil && h.agent.Live(taskID) // the output is opened before the agent
}

// close lets go of the host. Containers and the logger go on.
func (h *host) close() {
	var errs []error
	if h.agent != nil {
		errs = append(errs, h.agent.Close())
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
		Attributes:       attributes(),
		ReservedTcpPorts: reservedPorts,
	}
	if _, port, err := net.SplitHostPort(set.listen); err == nil {
		h.ReservedTcpPorts = append([]string{port}, reservedPorts...)
	}
	return h, nil
}

// attributes are those that Amazon's agent registers for what this host can do.
func attributes() map[string]string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[goruntime.GOARCH]
	a := map[string]string{
		"ecs.os-type": "linux", "ecs.os-family": "LINUX", "ecs.cpu-architecture": arch,
		"ecs.capability.task-eni": "", "ecs.capability.task-cpu-mem-limit": "",
		"com.amazonaws.ecs.capability.privileged-container": "",
	}
	for minor := 17; minor <= 44; minor++ {
		a["com.amazonaws.ecs.capability.docker-remote-api.1."+strconv.Itoa(minor)] = ""
	}
	return a
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
