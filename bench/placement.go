package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"

	api "github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/ecs"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/store"
)

const account, region = "000000000000", "us-east-1"

// placement measures how fast tasks find a place, durably, on simulated hosts: the real store,
// orchestrator and service, with hosts that have registered and never run anything.
func placement(b *bench) {
	const small, large = 1000, 5000
	// One run lasts a second or two, and a disk's mood as long: the median of several, taken in turns.
	rounds := 5
	if b.short {
		rounds = 1
	}
	rates := map[int][]float64{}
	var calls, tasks float64
	for round := range rounds {
		for _, hosts := range []int{small, large} {
			s := newSimulation(b, hosts)
			rates[hosts] = append(rates[hosts], s.place(10_000))
			if hosts == small && round == 0 {
				calls, tasks = s.overHTTP()
			}
			s.close()
		}
	}
	median := func(hosts int) float64 {
		slices.Sort(rates[hosts])
		return rates[hosts][len(rates[hosts])/2]
	}
	b.add(Figure{Name: "placement, 10,000 tasks on 1,000 hosts", Value: median(small), Unit: "tasks/s", Bar: Bar{Least: 5000}})
	b.add(Figure{Name: "placement, 10,000 tasks on 5,000 hosts", Value: median(large), Unit: "tasks/s", Peer: "1,000 hosts", PeerValue: median(small), Bar: Bar{Least: 0.75}})
	b.add(Figure{Name: "RunTask over HTTP, one task each, 1,000 hosts", Value: calls, Unit: "calls/s"})
	b.add(Figure{Name: "RunTask over HTTP, ten tasks each, 1,000 hosts", Value: tasks, Unit: "tasks/s"})
	b.note("Placement: medians of %d runs, the sizes in turns; 1,000 RunTask of ten tasks, 64 at a time, through the ecs service in process; a call returns when its tasks are committed by etcd (fsync) and in the server's snapshot, which is checked at the end. Hosts are registered but simulated.", rounds)
	b.note("RunTask over HTTP: the Go SDK over loopback, signed and verified, 32 at a time, client and server sharing this machine's cores.")
}

// simulation is a server without agents.
type simulation struct {
	*bench
	service    *ecs.Service
	store      *store.Store
	ctx        context.Context
	close      func()
	definition string
}

func newSimulation(b *bench, hosts int) *simulation {
	must := func(what string, err error) {
		b.Helper()
		if err != nil {
			b.Fatalf("simulate %d hosts: %s: %v", hosts, what, err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	dir, err := os.MkdirTemp("", "bench-placement-")
	must("make a directory", err)
	db, err := store.Open(b.ctx, store.Config{Dir: dir, Logger: quiet}, state.Tables()...)
	must("open the store", err)
	o := orchestrator.New(orchestrator.Config{Store: db, ServerID: "bench", Logger: quiet})
	running, stop := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- o.Run(running) }()

	s := &simulation{bench: b, store: db, service: ecs.New(ecs.Config{Store: db, Orchestrator: o, Logger: quiet})}
	principal := caller.ForRoot(account)
	principal.Region = region
	s.ctx = caller.With(b.ctx, principal)
	s.close = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			b.Errorf("orchestrator: %v", err)
		}
		if err := db.Close(); err != nil {
			b.Errorf("close the store: %v", err)
		}
		os.RemoveAll(dir)
	})
	b.Cleanup(s.close)

	for i := range hosts {
		must("connect", o.HostConnected(b.ctx, &dispatchpb.Hello{
			HostId: fmt.Sprintf("%032x", i+1), Hostname: fmt.Sprint("host-", i), AgentVersion: "bench", BootId: "bench",
			CpuUnits: 64 << 10, MemoryMib: 256 << 10, AvailabilityZoneSuffix: string(rune('a' + i%3)),
			SubnetCidr: fmt.Sprintf("10.%d.%d.0/24", i/256, i%256),
			Attributes: map[string]string{"ecs.os-type": "linux", "ecs.cpu-architecture": "x86_64"},
		}))
	}
	_, err = s.service.CreateCluster(s.ctx, &api.CreateClusterInput{ClusterName: aws.String(cluster)})
	must("CreateCluster", err)
	out, err := s.service.RegisterTaskDefinition(s.ctx, &api.RegisterTaskDefinitionInput{
		Family: aws.String("bench"), NetworkMode: "none",
		ContainerDefinitions: []api.ContainerDefinition{{Name: aws.String("app"), Image: aws.String(imageName), Cpu: aws.Int32(128), Memory: aws.Int32(128)}},
	})
	must("RegisterTaskDefinition", err)
	s.definition = *out.TaskDefinition.TaskDefinitionArn
	s.run(1) // registers the hosts in the cluster
	return s
}

func (s *simulation) run(n int32) {
	out, err := s.service.RunTask(s.ctx, &api.RunTaskInput{Cluster: aws.String(cluster), TaskDefinition: &s.definition, Count: &n})
	if err != nil || len(out.Tasks) != int(n) {
		s.Errorf("RunTask: %v", err)
		return
	}
}

// place runs n tasks and answers the rate.
func (s *simulation) place(n int) float64 {
	before := placements(s.store)
	started := time.Now()
	parallel(64, n/10, func() { s.run(10) })
	took := time.Since(started)
	if got := placements(s.store) - before; got != n {
		s.Fatalf("%d tasks in the snapshot, want %d", got, n)
	}
	return float64(n) / took.Seconds()
}

func placements(db *store.Store) int { return state.Placements.Len(db.Snapshot()) }

// parallel makes n calls, so many at a time.
func parallel(workers, n int, call func()) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for next.Add(1) <= int64(n) {
				call()
			}
		})
	}
	all.Wait()
}

// overHTTP puts the front door before the service and answers calls of one task and tasks in calls of
// ten, a second.
func (s *simulation) overHTTP() (calls, tasks float64) {
	dir, err := os.MkdirTemp("", "bench-keys-")
	if err != nil {
		s.Fatalf("make a directory: %v", err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	keys, err := keyring.Open(dir, account)
	if err != nil {
		s.Fatalf("make a key: %v", err)
	}
	door, err := gateway.New(gateway.Config{Account: account, Region: region, Credentials: keys, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = door.Register(gateway.Service{Descriptor: api.Descriptor, Implementation: s.service})
	}
	if err != nil {
		s.Fatalf("make the front door: %v", err)
	}
	server := httptest.NewServer(door)
	defer server.Close()
	root := keys.Root()
	client := sdk.New(sdk.Options{Region: region, BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider(root.AccessKeyID, root.SecretAccessKey, "")})
	rate := func(n int, count int32) float64 {
		started := time.Now()
		parallel(32, n, func() {
			out, err := client.RunTask(s.ctx, &sdk.RunTaskInput{Cluster: aws.String(cluster), TaskDefinition: &s.definition, Count: &count})
			if err != nil || len(out.Tasks) != int(count) {
				s.Errorf("RunTask over HTTP: %v", err)
			}
		})
		return float64(n) / time.Since(started).Seconds()
	}
	rate(200, 1) // warms the connections up
	return rate(4000, 1), 10 * rate(1000, 10)
}
