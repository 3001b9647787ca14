package metadata

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/agent"
)

// The answers of Docker's stats API, which is what a container's stats are on ECS.

type stats struct {
	Read     time.Time               `json:"read"`
	PreRead  time.Time               `json:"preread"`
	PIDs     pidsStats               `json:"pids_stats"`
	BlockIO  blockIOStats            `json:"blkio_stats"`
	NumProcs uint32                  `json:"num_procs"` // Windows alone has it
	Storage  struct{}                `json:"storage_stats"`
	CPU      cpuStats                `json:"cpu_stats"`
	PreCPU   cpuStats                `json:"precpu_stats"`
	Memory   memoryStats             `json:"memory_stats"`
	Name     string                  `json:"name,omitempty"`
	ID       string                  `json:"id,omitempty"`
	Networks map[string]networkStats `json:"networks,omitempty"`
}

// statsV4 is what ECS adds. An empty one, of a container that does not run, is {}.
type statsV4 struct {
	*stats
	NetworkRates *networkRates `json:"network_rate_stats,omitempty"`
}

type networkRates struct {
	Rx float64 `json:"rx_bytes_per_sec"`
	Tx float64 `json:"tx_bytes_per_sec"`
}

type pidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

type blockIOStats struct {
	ServiceBytes []blockIOEntry `json:"io_service_bytes_recursive"`
	Serviced     []blockIOEntry `json:"io_serviced_recursive"`
	Queue        []blockIOEntry `json:"io_queue_recursive"`
	ServiceTime  []blockIOEntry `json:"io_service_time_recursive"`
	WaitTime     []blockIOEntry `json:"io_wait_time_recursive"`
	Merged       []blockIOEntry `json:"io_merged_recursive"`
	Time         []blockIOEntry `json:"io_time_recursive"`
	Sectors      []blockIOEntry `json:"sectors_recursive"`
}

type blockIOEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

type cpuStats struct {
	Usage      cpuUsage   `json:"cpu_usage"`
	System     uint64     `json:"system_cpu_usage,omitempty"` // ns, of the host
	Online     uint32     `json:"online_cpus,omitempty"`
	Throttling throttling `json:"throttling_data"`
}

type cpuUsage struct {
	Total  uint64   `json:"total_usage"` // ns
	PerCPU []uint64 `json:"percpu_usage,omitempty"`
	Kernel uint64   `json:"usage_in_kernelmode"`
	User   uint64   `json:"usage_in_usermode"`
}

type throttling struct {
	Periods          uint64 `json:"periods"`
	ThrottledPeriods uint64 `json:"throttled_periods"`
	ThrottledTime    uint64 `json:"throttled_time"` // ns
}

type memoryStats struct {
	Usage    uint64            `json:"usage,omitempty"`
	MaxUsage uint64            `json:"max_usage,omitempty"`
	Stats    map[string]uint64 `json:"stats,omitempty"`
	Failures uint64            `json:"failcnt,omitempty"`
	Limit    uint64            `json:"limit,omitempty"`
}

type networkStats struct {
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	RxErrors  uint64 `json:"rx_errors"`
	RxDropped uint64 `json:"rx_dropped"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxErrors  uint64 `json:"tx_errors"`
	TxDropped uint64 `json:"tx_dropped"`
}

// reading is what a container's usage was when last asked for, and the time before; before is the zero
// Usage at the first time.
type reading struct {
	before, now agent.Usage
}

// stats renders a reading.
func (r reading) stats(id string) *stats {
	u := r.now
	out := &stats{
		Read: u.At.UTC(), PreRead: r.before.At.UTC(), Name: "/" + id, ID: id,
		PIDs: pidsStats{Current: u.PIDs, Limit: u.PIDsLimit},
		CPU:  cpu(u),
		Memory: memoryStats{
			Usage: u.MemoryBytes, MaxUsage: u.MemoryMax, Stats: u.Memory, Failures: u.MemoryFailures, Limit: u.MemoryLimit,
		},
	}
	if !r.before.At.IsZero() {
		out.PreCPU = cpu(r.before)
	}
	for _, b := range u.BlockIO {
		entry := func(op string, v uint64) blockIOEntry { return blockIOEntry{b.Major, b.Minor, op, v} }
		out.BlockIO.ServiceBytes = append(out.BlockIO.ServiceBytes, entry("read", b.ReadBytes), entry("write", b.WrittenBytes))
		out.BlockIO.Serviced = append(out.BlockIO.Serviced, entry("read", b.ReadOps), entry("write", b.WriteOps))
	}
	for name, n := range u.Network {
		if out.Networks == nil {
			out.Networks = make(map[string]networkStats, len(u.Network))
		}
		out.Networks[name] = networkStats(n)
	}
	return out
}

// rates is the traffic between the two readings; nil where there are no two, or no network of the
// container's own.
func (r reading) rates() *networkRates {
	seconds := r.now.At.Sub(r.before.At).Seconds()
	if r.before.At.IsZero() || seconds <= 0 || r.now.Network == nil {
		return nil
	}
	var out networkRates
	for name, n := range r.now.Network {
		// An interface that is new, or begun anew, has no rate yet.
		if b, ok := r.before.Network[name]; ok && n.RxBytes >= b.RxBytes && n.TxBytes >= b.TxBytes {
			out.Rx += float64(n.RxBytes-b.RxBytes) / seconds
			out.Tx += float64(n.TxBytes-b.TxBytes) / seconds
		}
	}
	return &out
}

func cpu(u agent.Usage) cpuStats {
	out := cpuStats{
		Usage:  cpuUsage{Total: ns(u.CPUTotal), Kernel: ns(u.CPUSystem), User: ns(u.CPUUser)},
		System: ns(u.HostCPU), Online: uint32(u.OnlineCPUs),
		Throttling: throttling{u.Periods, u.ThrottledPeriods, ns(u.Throttled)},
	}
	for _, d := range u.CPUPerCore {
		out.Usage.PerCPU = append(out.Usage.PerCPU, ns(d))
	}
	return out
}

func ns(d time.Duration) uint64 { return uint64(max(d, 0)) }

const (
	// readAgain is how old a reading may be. Docker, too, has a new one each second.
	readAgain    = time.Second
	readPatience = 2 * time.Second // less than writeTimeout
	// forgetAfter is when a container that nobody asks about is forgotten.
	forgetAfter = 5 * time.Minute
)

// meter reads what containers use, when somebody asks, and keeps the last two readings of each.
type meter struct {
	processes agent.Processes

	mu     sync.Mutex
	gauges map[string]*gauge // by container ID
}

type gauge struct {
	mu    sync.Mutex // held while it is read: those who ask together share one reading
	last  reading
	asked time.Time // under meter.mu
}

func (m *meter) read(ctx context.Context, id string) (reading, error) {
	g := m.gauge(id)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.last.now.At.IsZero() && time.Since(g.last.now.At) < readAgain {
		return g.last, nil
	}
	// The reading is not this asker's alone, who may have left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readPatience)
	defer cancel()
	u, err := m.processes.Usage(ctx, id)
	if err != nil {
		return reading{}, fmt.Errorf("read usage of container %s: %w", id, err)
	}
	if u.At.IsZero() {
		u.At = time.Now()
	}
	before := g.last.now
	if u.CPUTotal < before.CPUTotal {
		before = agent.Usage{} // the container has been started again
	}
	g.last = reading{before: before, now: u}
	return g.last, nil
}

func (m *meter) gauge(id string) *gauge {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.gauges[id]
	if g == nil {
		for other, old := range m.gauges {
			if now.Sub(old.asked) > forgetAfter {
				delete(m.gauges, other)
			}
		}
		if m.gauges == nil {
			m.gauges = map[string]*gauge{}
		}
		g = &gauge{}
		m.gauges[id] = g
	}
	g.asked = now
	return g
}

// task reads all containers of a task that run; those of the others are nil.
func (m *meter) task(ctx context.Context, snap agent.TaskSnapshot) map[string]*reading {
	out := make(map[string]*reading, len(snap.Task.Containers))
	for i := range snap.Task.Containers {
		known := containerKnown(snap, i)
		if knownOrder[known] < knownOrder[knownCreated] {
			continue
		}
		id := containerID(snap, i)
		out[id] = nil
		if known == knownStopped {
			continue
		}
		if r, err := m.read(ctx, id); err == nil {
			out[id] = &r
		}
	}
	return out
}

// stored is what a task's containers have written, in MiB, rounded up.
func stored(readings map[string]*reading) int64 {
	var sum uint64
	for _, r := range readings {
		if r != nil {
			sum += r.now.StorageBytes
		}
	}
	return int64((sum + 1<<20 - 1) >> 20)
}
