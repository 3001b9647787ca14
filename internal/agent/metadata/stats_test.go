package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// usage is what a container has used n seconds after its start.
func usage(n int) agent.Usage {
	k := uint64(n)
	return agent.Usage{
		At: t0.Add(time.Duration(n) * time.Second), CPUTotal: time.Duration(n) * 300 * time.Millisecond,
		CPUUser: time.Duration(n) * 200 * time.Millisecond, CPUSystem: time.Duration(n) * 100 * time.Millisecond,
		HostCPU: 1000*time.Second + time.Duration(n)*2*time.Second, OnlineCPUs: 2,
		Periods: 10 * k, ThrottledPeriods: k, Throttled: time.Duration(n) * time.Millisecond,
		MemoryBytes: 4 << 20, MemoryLimit: 64 << 20, MemoryMax: 5 << 20, MemoryFailures: 1,
		Memory: map[string]uint64{"anon": 1 << 20, "inactive_file": 2 << 20},
		PIDs:   3, PIDsLimit: 100,
		BlockIO: []agent.BlockIO{{Major: 254, Minor: 0, ReadBytes: 4096, WrittenBytes: 8192, ReadOps: 1, WriteOps: 2}},
		Network: map[string]agent.InterfaceCounters{"eth0": {RxBytes: 1000 * k, RxPackets: 10 * k, TxBytes: 500 * k, TxPackets: 5 * k, TxDropped: 1}},
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	n := 0
	s, _ := server(t, processes{usage: func(id string) (agent.Usage, error) {
		if id != "ecs-cache-1-redis-eeee" {
			return agent.Usage{}, errors.New("no such container")
		}
		n += 10 // readings are old at once: t0 is long ago
		return usage(n), nil
	}}, nil)
	id := s.EndpointID(onBridge().Task, 0)
	for _, c := range []struct{ name, path string }{
		{"stats-first", "/v4/" + id + "/stats"},
		{"stats-second", "/v4/" + id + "/stats"},
		{"stats-task", "/v4/" + id + "/task/stats"},
		{"stats-v2", "/v2/stats/ecs-cache-1-redis-eeee"},
		{"stats-task-v3", "/v3/" + id + "/task/stats"},
	} {
		code, body := get(s.MetadataHandler(), bridgeAddr, c.path)
		if code != http.StatusOK {
			t.Fatalf("%s: %d %s", c.path, code, body)
		}
		golden(t, c.name, body)
	}
}

func TestReadingsAreSharedForASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads, total := 0, time.Duration(0)
		m := meter{processes: processes{usage: func(string) (agent.Usage, error) {
			reads++
			return agent.Usage{At: time.Now(), CPUTotal: total}, nil
		}}}
		read := func() reading {
			r, err := m.read(t.Context(), "c")
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { read() })
		}
		all.Wait()
		if reads != 1 {
			t.Errorf("%d readings for 50 who asked together", reads)
		}
		time.Sleep(2 * time.Second)
		total = time.Second
		if r := read(); reads != 2 || r.before.At.IsZero() || r.now.At.Sub(r.before.At) != 2*time.Second {
			t.Errorf("%d readings, %+v", reads, r)
		}
		time.Sleep(2 * time.Second)
		total = time.Millisecond // the container was started again
		if r := read(); !r.before.At.IsZero() || r.rates() != nil {
			t.Errorf("a reading is compared with one of before a restart: %+v", r)
		}
		time.Sleep(2 * forgetAfter)
		if _, err := m.read(t.Context(), "other"); err != nil || len(m.gauges) != 1 {
			t.Errorf("%v, %d containers remembered; want the one that was asked about", err, len(m.gauges))
		}
	})
}

func TestRates(t *testing.T) {
	t.Parallel()
	r := reading{before: usage(10), now: usage(20)}
	if got := r.rates(); got == nil || got.Rx != 1000 || got.Tx != 500 {
		t.Errorf("rates %+v; want 1000 and 500", got)
	}
	r.before.Network = map[string]agent.InterfaceCounters{"eth0": {RxBytes: 1 << 40}}
	if got := r.rates(); got == nil || got.Rx != 0 {
		t.Errorf("rates of an interface that began anew: %+v", got)
	}
	r.now.Network = nil
	if got := r.rates(); got != nil {
		t.Errorf("rates of the host's network: %+v", got)
	}
}

func TestFargateShowsStorageAndClock(t *testing.T) {
	t.Parallel()
	s, src := server(t, processes{usage: func(string) (agent.Usage, error) { return agent.Usage{StorageBytes: 3<<20 + 1}, nil }}, nil)
	snap := inVPC()
	snap.Task.LaunchType, snap.Task.EphemeralStorageGib = "FARGATE", 30
	src.set(snap)
	code, body := get(s.MetadataHandler(), vpcAddr, "/v4/"+s.EndpointID(snap.Task, 0)+"/task")
	var out struct {
		Cluster, LaunchType     string
		EphemeralStorageMetrics *ephemeralStorage
		ClockDrift              *clockDrift
	}
	if err := json.Unmarshal([]byte(body), &out); code != http.StatusOK || err != nil {
		t.Fatal(code, err)
	}
	if out.Cluster != snap.Task.ClusterArn || out.LaunchType != "FARGATE" {
		t.Errorf("cluster %s, launch type %s", out.Cluster, out.LaunchType)
	}
	if e := out.EphemeralStorageMetrics; e == nil || e.Reserved != 30720 || e.Utilized != 4 {
		t.Errorf("ephemeral storage %+v; want 30720 and 4 MiB", e)
	}
	if out.ClockDrift == nil || out.ClockDrift.Status == "" {
		t.Errorf("clock drift %+v", out.ClockDrift)
	}
}

func TestProtection(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 3, 4, 7, 0, 0, 0, time.UTC)
	var sent *dispatchpb.ProtectionRequest
	var reply *dispatchpb.ProtectionReply
	var failure error
	s, _ := server(t, processes{}, protector(func(_ context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
		sent = r
		return reply, failure
	}))
	path := "/api/" + s.EndpointID(inVPC().Task, 0) + "/task-protection/v1/state"
	for _, c := range []struct {
		name, method, body string
		reply              *dispatchpb.ProtectionReply
		err                error
		status             int
		want               string
	}{
		{"read", "GET", "", &dispatchpb.ProtectionReply{}, nil, 200,
			`{"protection":{"ExpirationDate":null,"ProtectionEnabled":false,"TaskArn":"ARN"}}`},
		{"set", "PUT", `{"ProtectionEnabled":true,"ExpiresInMinutes":60}`, &dispatchpb.ProtectionReply{Enabled: true, ExpiresAt: timestamppb.New(until)}, nil, 200,
			`{"protection":{"ExpirationDate":"2026-03-04T07:00:00Z","ProtectionEnabled":true,"TaskArn":"ARN"}}`},
		{"failure", "PUT", `{"ProtectionEnabled":true}`, &dispatchpb.ProtectionReply{FailureReason: "DEPLOYMENT_BLOCKED"}, nil, 200,
			`{"failure":{"Arn":"ARN","Detail":null,"Reason":"DEPLOYMENT_BLOCKED"}}`},
		{"refused", "PUT", `{"ProtectionEnabled":true}`, &dispatchpb.ProtectionReply{ErrorCode: "ClientException", ErrorMessage: "no"}, nil, 400,
			`{"error":{"Arn":"ARN","Code":"ClientException","Message":"no"}}`},
		{"server", "GET", "", &dispatchpb.ProtectionReply{ErrorCode: "ServerException", ErrorMessage: "no"}, nil, 500,
			`{"error":{"Arn":"ARN","Code":"ServerException","Message":"no"}}`},
		{"slow", "GET", "", nil, status.Error(codes.DeadlineExceeded, "late"), 504,
			`{"error":{"Arn":"ARN","Code":"RequestCanceled","Message":"Timed out calling ECS Task Protection API"}}`},
		{"away", "GET", "", nil, errors.New("dial /run/secret.sock"), 500,
			`{"error":{"Arn":"ARN","Code":"ServerException","Message":"the server cannot be reached"}}`},
		{"no member", "PUT", `{}`, nil, nil, 400,
			`{"error":{"Arn":"ARN","Code":"InvalidParameterException","Message":"Invalid request: does not contain 'ProtectionEnabled' field"}}`},
		{"zero", "PUT", `{"ProtectionEnabled":true,"ExpiresInMinutes":0}`, nil, nil, 400,
			`{"error":{"Arn":"ARN","Code":"InvalidParameterException","Message":"expiresInMinutes should be between 1 and 2880 minutes"}}`},
		{"unknown member", "PUT", `{"ProtectionEnabled":true,"x":1}`, nil, nil, 400,
			`{"error":{"Code":"InvalidParameterException","Message":"UpdateTaskProtection: failed to decode request"}}`},
		{"too long", "PUT", `{"ProtectionEnabled":true` + strings.Repeat(" ", maxProtectBody) + `}`, nil, nil, 400,
			`{"error":{"Code":"InvalidParameterException","Message":"UpdateTaskProtection: failed to decode request"}}`},
	} {
		sent, reply, failure = nil, c.reply, c.err
		code, body := ask(s.MetadataHandler(), c.method, vpcAddr, path, strings.NewReader(c.body))
		if want := strings.ReplaceAll(c.want, "ARN", vpcTask); code != c.status || body != want {
			t.Errorf("%s: %d %s; want %d %s", c.name, code, body, c.status, want)
		}
		if asked := c.reply != nil || c.err != nil; asked != (sent != nil) {
			t.Errorf("%s: the server was asked %v", c.name, sent)
		}
		if c.name == "set" && (sent.TaskArn != vpcTask || !sent.Update || !sent.Enabled || sent.ExpiresInMinutes != 60) {
			t.Errorf("asked %v", sent)
		}
	}
	code, body := get(s.MetadataHandler(), vpcAddr, "/api/x/task-protection/v1/state")
	if want := `{"error":{"Code":"ResourceNotFoundException","Message":"Failed to find a task for the request"}}`; code != 404 || body != want {
		t.Errorf("unknown ID: %d %s", code, body)
	}
}
