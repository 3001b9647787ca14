package metadata

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// source is an agent that holds what a test gives it.
type source struct {
	mu    sync.Mutex
	tasks []agent.TaskSnapshot
}

func (s *source) Snapshot() agent.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return agent.Snapshot{Tasks: slices.Clone(s.tasks)}
}

func (s *source) Task(arn string) (agent.TaskSnapshot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.Task.Arn == arn {
			return t, true
		}
	}
	return agent.TaskSnapshot{}, false
}

func (s *source) set(tasks ...agent.TaskSnapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = tasks
}

// processes answers readings as a test wants them.
type processes struct {
	agent.Processes
	usage func(id string) (agent.Usage, error)
}

func (p processes) Usage(_ context.Context, id string) (agent.Usage, error) {
	if p.usage == nil {
		return agent.Usage{}, errors.New("not running")
	}
	return p.usage(id)
}

type protector func(ctx context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error)

func (p protector) Protect(ctx context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
	return p(ctx, r)
}

const (
	arnPrefix  = "arn:aws:ecs:us-east-1:111122223333:"
	vpcTask    = arnPrefix + "task/default/0123456789abcdef0123456789abcdef"
	bridgeTask = arnPrefix + "task/default/11111111111111111111111111111111"
	hostTask   = arnPrefix + "task/other/22222222222222222222222222222222"
	vpcAddr    = "10.90.0.7"
	bridgeAddr = "172.29.0.3"
)

var t0 = time.Date(2026, 3, 4, 5, 6, 7, 891_000_000, time.UTC)

func after(seconds int) *timestamppb.Timestamp {
	return timestamppb.New(t0.Add(time.Duration(seconds) * time.Second))
}

// inVPC is a service's task in network mode awsvpc, with all that version 4 shows.
func inVPC() agent.TaskSnapshot {
	return agent.TaskSnapshot{
		Task: &dispatchpb.Task{
			Arn: vpcTask, ClusterArn: arnPrefix + "cluster/default", Family: "shop", Revision: 3, DesiredStatus: "RUNNING",
			LaunchType: "EC2", NetworkMode: "awsvpc", CpuUnits: 512, MemoryMib: 1024, AvailabilityZone: "us-east-1a", VpcId: "vpc-0a1b2c3d",
			Group: "service:shop", Tags: map[string]string{"team": "blue"}, ContainerInstanceArn: arnPrefix + "container-instance/default/cafe",
			NetworkInterface: &dispatchpb.NetworkInterface{
				PrivateIpv4: vpcAddr, MacAddress: "02:00:00:00:00:07", PrivateDnsName: "ip-10-90-0-7.ec2.internal",
			},
			Volumes: []*dispatchpb.Volume{{Name: "data", Type: "TASK"}, {Name: "etc", Type: "HOST", HostPath: "/etc/shop"}},
			Containers: []*dispatchpb.Container{
				{
					Name: "web", Arn: arnPrefix + "container/default/aaaa", Image: "shop/web:1", CpuUnits: 256, MemoryMib: 512,
					DockerLabels: map[string]string{"tier": "front"}, LogDriver: "awslogs", LogOptions: map[string]string{"awslogs-group": "shop"},
					Mounts: []*dispatchpb.Mount{{Volume: "data", Target: "/data"}, {Volume: "etc", Target: "/etc/shop", ReadOnly: true}},
				},
				{
					Name: "job", Arn: arnPrefix + "container/default/bbbb", Image: "shop/job:1",
					RestartPolicy: &dispatchpb.RestartPolicy{Enabled: true},
				},
				{Name: "late", Arn: arnPrefix + "container/default/cccc", Image: "shop/late:1"},
				{Name: "later", Arn: arnPrefix + "container/default/dddd", Image: "shop/later:1"},
			},
		},
		Status: &dispatchpb.TaskStatus{
			Arn: vpcTask, LastStatus: "ACTIVATING", PullStartedAt: after(0), PullStoppedAt: after(1),
			Containers: []*dispatchpb.ContainerStatus{
				{
					Name: "web", RuntimeId: "ecs-shop-3-web-aaaa", LastStatus: "RUNNING", ImageDigest: "sha256:11", ImageId: "sha256:aa",
					CreatedAt: after(2), StartedAt: after(3), HealthStatus: "HEALTHY", HealthSince: after(4), HealthOutput: "ok\n",
				},
				{
					Name: "job", RuntimeId: "ecs-shop-3-job-bbbb", LastStatus: "STOPPED", ImageDigest: "sha256:22", ImageId: "sha256:bb",
					CreatedAt: after(2), StartedAt: after(3), FinishedAt: after(5), HasExitCode: true, ExitCode: 3, RestartCount: 2,
				},
				{Name: "late", LastStatus: "PENDING", ImageDigest: "sha256:33", ImageId: "sha256:cc"},
				{Name: "later", LastStatus: "PENDING"},
			},
		},
	}
}

// onBridge is a task in network mode bridge with bindings.
func onBridge() agent.TaskSnapshot {
	return agent.TaskSnapshot{
		Task: &dispatchpb.Task{
			Arn: bridgeTask, ClusterArn: arnPrefix + "cluster/default", Family: "cache", Revision: 1, DesiredStatus: "RUNNING",
			LaunchType: "EC2", NetworkMode: "bridge",
			Containers: []*dispatchpb.Container{
				{Name: "redis", Arn: arnPrefix + "container/default/eeee", Image: "redis:7", MemoryMib: 64, HealthCheck: &dispatchpb.HealthCheck{}},
				{Name: "mute", Arn: arnPrefix + "container/default/ffff", Image: "mute:1", DisableNetworking: true},
			},
		},
		Status: &dispatchpb.TaskStatus{
			Arn: bridgeTask, LastStatus: "RUNNING",
			Containers: []*dispatchpb.ContainerStatus{
				{
					Name: "redis", RuntimeId: "ecs-cache-1-redis-eeee", LastStatus: "RUNNING", ImageDigest: "sha256:44", ImageId: "sha256:dd",
					CreatedAt: after(0), StartedAt: after(1), PrivateIpv4: bridgeAddr, HealthStatus: "UNKNOWN", HealthSince: after(1),
					NetworkBindings: []*dispatchpb.PortMapping{
						{BindIp: "0.0.0.0", ContainerPort: 6379, HostPort: 32768, Protocol: "tcp"},
						{BindIp: "0.0.0.0", ContainerPortRange: "8000-8001", HostPortRange: "40000-40001", Protocol: "udp"},
					},
				},
				{Name: "mute", RuntimeId: "ecs-cache-1-mute-ffff", LastStatus: "RUNNING", ImageDigest: "sha256:55", CreatedAt: after(0)},
			},
		},
	}
}

func onHost() agent.TaskSnapshot {
	return agent.TaskSnapshot{
		Task: &dispatchpb.Task{
			Arn: hostTask, ClusterArn: arnPrefix + "cluster/other", Family: "agentd", Revision: 9, DesiredStatus: "RUNNING",
			LaunchType: "EC2", NetworkMode: "host",
			Containers: []*dispatchpb.Container{{
				Name: "d", Arn: arnPrefix + "container/other/abcd", Image: "d:1", GpuIds: []string{"GPU-1"},
				PortMappings: []*dispatchpb.PortMapping{{ContainerPort: 8126, HostPort: 8126, Protocol: "tcp"}},
			}},
		},
		Status: &dispatchpb.TaskStatus{
			Arn: hostTask, LastStatus: "RUNNING",
			Containers: []*dispatchpb.ContainerStatus{{Name: "d", RuntimeId: "ecs-agentd-9-d-abcd", LastStatus: "RUNNING", CreatedAt: after(0)}},
		},
	}
}

// server is a Server over the three tasks.
func server(t testing.TB, use processes, protect Protector) (*Server, *source) {
	t.Helper()
	src := &source{}
	src.set(inVPC(), onBridge(), onHost())
	s, err := New(Config{
		Dir: t.TempDir(), Tasks: src, Usage: use, Protect: protect, Version: "0.1",
		Subnet: netip.MustParsePrefix("10.90.0.0/24"), DNSServers: []string{"10.90.0.2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The golden files need IDs that are always the same.
	s.secret = []byte("0123456789abcdef0123456789abcdef")
	return s, src
}

// get asks as a client at an address does.
func get(h http.Handler, from, path string) (status int, body string) {
	return ask(h, http.MethodGet, from, path, nil)
}

func ask(h http.Handler, method, from, path string, body io.Reader) (int, string) {
	r := httptest.NewRequest(method, path, body)
	r.Host = "169.254.170.2"
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(from), 40000).String()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}
