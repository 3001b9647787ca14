package runtime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berthhq/berth/internal/agent"
)

const (
	// storageAge is how old an answer about a root filesystem may be; a slow walk is repeated less
	// often, so that it takes a hundredth of the time at most.
	storageAge   = 10 * time.Second
	storageShare = 100
	// storageWait is how long the first answer is waited for.
	storageWait = 250 * time.Millisecond
	// userHz is the unit of times in /proc and cpuacct.stat: 100 on every Linux architecture that Go
	// supports.
	userHz = 100
)

// usageFacts is what is remembered of a container between two readings.
type usageFacts struct {
	task        string
	hostNetwork bool
	storage     *storageUse
}

// storageUse is the size of a container's own layer, found out in the background.
type storageUse struct {
	bytes   uint64
	fresh   time.Time     // until when it is new enough
	looking chan struct{} // closed when the walk under way is over; nil: none is
}

// Usage reads a running container's use of CPUs, memory, processes, block devices, network and root
// filesystem. All but the last are current; the root filesystem's size, for which its directories are
// walked, may be some ten seconds old. No size of a root filesystem is enforced: overlayfs knows no
// quotas of its own, and those of the filesystem below are rarely there.
func (r *Runtime) Usage(ctx context.Context, id string) (agent.Usage, error) {
	if err := checkName(id); err != nil {
		return agent.Usage{}, err
	}
	call := r.call(ctx)
	got, err := r.engine.tasks.Get(call, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return agent.Usage{}, fmt.Errorf("read the container's usage: %w", errgrpc.ToNative(err))
	}
	if status := got.Process.Status; status == tasktypes.Status_STOPPED || status == tasktypes.Status_CREATED {
		return agent.Usage{}, errors.New("read the container's usage: it is not running")
	}
	facts, err := r.usageFacts(call, id)
	if err != nil {
		return agent.Usage{}, err
	}
	u := agent.Usage{At: time.Now()}
	u.HostCPU, u.OnlineCPUs = readHostCPU()
	path := r.cgroupPath(facts.task, id)
	if err := r.cgroups.usage(path, &u); err != nil {
		return agent.Usage{}, fmt.Errorf("read the container's usage: %w", err)
	}
	// A task's limit binds a container that has none, or a higher one.
	u.MemoryLimit = min(r.cgroups.memoryLimit(path), r.cgroups.memoryLimit(r.cgroupPath(facts.task)), r.host.memory)
	if !facts.hostNetwork {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", got.Process.Pid))
		if err != nil {
			return agent.Usage{}, fmt.Errorf("read the container's network counters: %w", err)
		}
		u.Network = parseNetDev(data)
	}
	u.StorageBytes = r.storageBytes(ctx, id)
	return u, nil
}

func (r *Runtime) usageFacts(ctx context.Context, id string) (usageFacts, error) {
	r.mu.Lock()
	facts, ok := r.usage[id]
	r.mu.Unlock()
	if ok {
		return facts, nil
	}
	record, err := r.engine.containers.Get(ctx, id)
	if err != nil {
		return usageFacts{}, fmt.Errorf("look for the container: %w", err)
	}
	var spec struct {
		Linux specs.Linux `json:"linux"`
	}
	if err := json.Unmarshal(record.Spec.GetValue(), &spec); err != nil {
		return usageFacts{}, fmt.Errorf("read the container's OCI spec: %w", err)
	}
	facts = usageFacts{task: record.Labels[labelTask], hostNetwork: true, storage: &storageUse{}}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			facts.hostNetwork = false
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.usage[id]; ok {
		return known, nil
	}
	r.usage[id] = facts
	return facts, nil
}

// storageBytes answers the size of the container's own layer as it was last found to be.
func (r *Runtime) storageBytes(ctx context.Context, id string) uint64 {
	r.mu.Lock()
	s := r.usage[id].storage
	if s == nil { // deleted meanwhile
		r.mu.Unlock()
		return 0
	}
	if s.looking == nil && time.Now().After(s.fresh) {
		done := make(chan struct{})
		s.looking = done
		r.background.Go(func() {
			begun := time.Now()
			use, err := r.engine.snapshots.Usage(r.call(r.life), id)
			r.mu.Lock()
			defer r.mu.Unlock()
			if err == nil {
				s.bytes = uint64(max(use.Size, 0))
			}
			s.fresh = time.Now().Add(max(storageAge, storageShare*time.Since(begun)))
			s.looking = nil
			close(done)
		})
	}
	looking, first := s.looking, s.fresh.IsZero()
	r.mu.Unlock()
	if looking != nil && first {
		select {
		case <-looking:
		case <-time.After(storageWait):
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.bytes
}

// usage fills in what the cgroup at path counts.
func (c cgroups) usage(path string, u *agent.Usage) error {
	if c.unified != "" {
		return unifiedUsage(filepath.Join(c.unified, path), u)
	}
	file := func(controller, name string) []byte {
		data, _ := os.ReadFile(filepath.Join(c.v1[controller], path, name))
		return data
	}
	total, err := os.ReadFile(filepath.Join(c.v1["cpuacct"], path, "cpuacct.usage"))
	if err != nil {
		return err
	}
	u.CPUTotal = time.Duration(parseCount(total))
	for core := range strings.FieldsSeq(string(file("cpuacct", "cpuacct.usage_percpu"))) {
		u.CPUPerCore = append(u.CPUPerCore, time.Duration(parseCount([]byte(core))))
	}
	stat := parseCounts(file("cpuacct", "cpuacct.stat"))
	u.CPUUser, u.CPUSystem = ticks(stat["user"]), ticks(stat["system"])
	throttling := parseCounts(file("cpu", "cpu.stat"))
	u.Periods, u.ThrottledPeriods = throttling["nr_periods"], throttling["nr_throttled"]
	u.Throttled = time.Duration(throttling["throttled_time"])
	u.MemoryBytes = parseCount(file("memory", "memory.usage_in_bytes"))
	u.MemoryMax = parseCount(file("memory", "memory.max_usage_in_bytes"))
	u.MemoryFailures = parseCount(file("memory", "memory.failcnt"))
	u.Memory = parseCounts(file("memory", "memory.stat"))
	u.PIDs, u.PIDsLimit = parseCount(file("pids", "pids.current")), parseCount(file("pids", "pids.max"))
	// The disk scheduler's own counters where it keeps any, or else the block layer's, as in Docker.
	read := func(name string) []byte {
		if data := file("blkio", "blkio.bfq."+name); len(data) > 0 {
			return data
		}
		return file("blkio", "blkio.throttle."+name)
	}
	u.BlockIO = parseBlkio(read("io_service_bytes_recursive"), read("io_serviced_recursive"))
	return nil
}

func unifiedUsage(dir string, u *agent.Usage) error {
	file := func(name string) []byte {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		return data
	}
	stat, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return err
	}
	cpu := parseCounts(stat)
	micros := func(name string) time.Duration { return time.Duration(cpu[name]) * time.Microsecond }
	u.CPUTotal, u.CPUUser, u.CPUSystem = micros("usage_usec"), micros("user_usec"), micros("system_usec")
	u.Periods, u.ThrottledPeriods, u.Throttled = cpu["nr_periods"], cpu["nr_throttled"], micros("throttled_usec")
	u.MemoryBytes = parseCount(file("memory.current"))
	u.MemoryMax = parseCount(file("memory.peak")) // since Linux 5.19
	u.MemoryFailures = parseCounts(file("memory.events"))["max"]
	u.Memory = parseCounts(file("memory.stat"))
	u.PIDs, u.PIDsLimit = parseCount(file("pids.current")), parseCount(file("pids.max"))
	u.BlockIO = parseIOStat(file("io.stat"))
	return nil
}

// memoryLimit answers the limit of the cgroup at path itself, in bytes; the highest number if it has
// none.
func (c cgroups) memoryLimit(path string) uint64 {
	file := filepath.Join(c.v1["memory"], path, "memory.limit_in_bytes")
	if c.unified != "" {
		file = filepath.Join(c.unified, path, "memory.max")
	}
	data, err := os.ReadFile(file)
	if limit := parseCount(data); err == nil && limit > 0 {
		return limit
	}
	return math.MaxUint64
}

// readHostCPU answers the time of all CPUs, idle or not, and how many there are, as Docker counts both.
func readHostCPU() (time.Duration, int) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	return parseHostCPU(data)
}

func parseHostCPU(data []byte) (total time.Duration, online int) {
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu") {
			break // the CPUs come first, and the line of the interrupts is long
		}
		if fields[0] != "cpu" {
			online++
			continue
		}
		// user, nice, system, idle, iowait, irq, softirq; Docker counts no steal.
		for _, field := range fields[1:min(len(fields), 8)] {
			total += ticks(parseCount([]byte(field)))
		}
	}
	return total, online
}

func ticks(n uint64) time.Duration { return time.Duration(n) * (time.Second / userHz) }

// parseCount reads one number; "max" and what is none is 0.
func parseCount(data []byte) uint64 {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// parseCounts reads lines of a name and a number.
func parseCounts(data []byte) map[string]uint64 {
	out := map[string]uint64{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[name] = n
		}
	}
	return out
}

// parseBlkio reads version 1's "8:0 Read 4096" lines of bytes and of operations.
func parseBlkio(bytesOf, opsOf []byte) []agent.BlockIO {
	devices := blockDevices{}
	each := func(data []byte, read, write func(*agent.BlockIO) *uint64) {
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) != 3 {
				continue // the line of the total
			}
			device := devices.of(fields[0])
			switch n := parseCount([]byte(fields[2])); {
			case device == nil:
			case fields[1] == "Read":
				*read(device) = n
			case fields[1] == "Write":
				*write(device) = n
			}
		}
	}
	each(bytesOf, func(b *agent.BlockIO) *uint64 { return &b.ReadBytes }, func(b *agent.BlockIO) *uint64 { return &b.WrittenBytes })
	each(opsOf, func(b *agent.BlockIO) *uint64 { return &b.ReadOps }, func(b *agent.BlockIO) *uint64 { return &b.WriteOps })
	return devices.list
}

// parseIOStat reads version 2's "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …" lines.
func parseIOStat(data []byte) []agent.BlockIO {
	devices := blockDevices{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		device := devices.of(fields[0])
		if device == nil {
			continue
		}
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			switch n := parseCount([]byte(value)); name {
			case "rbytes":
				device.ReadBytes = n
			case "wbytes":
				device.WrittenBytes = n
			case "rios":
				device.ReadOps = n
			case "wios":
				device.WriteOps = n
			}
		}
	}
	return devices.list
}

// blockDevices lists devices in the order in which they were first named.
type blockDevices struct {
	list []agent.BlockIO
}

// of answers the device of the name "major:minor", or nil. It holds until the next call.
func (d *blockDevices) of(name string) *agent.BlockIO {
	left, right, ok := strings.Cut(name, ":")
	major, err := strconv.ParseUint(left, 10, 32)
	minor, err2 := strconv.ParseUint(right, 10, 32)
	if !ok || err != nil || err2 != nil {
		return nil
	}
	for i := range d.list {
		if d.list[i].Major == major && d.list[i].Minor == minor {
			return &d.list[i]
		}
	}
	d.list = append(d.list, agent.BlockIO{Major: major, Minor: minor})
	return &d.list[len(d.list)-1]
}

// parseNetDev reads /proc/pid/net/dev: the interfaces of the process's namespace, but not loopback,
// which Docker does not count either.
func parseNetDev(data []byte) map[string]agent.InterfaceCounters {
	out := map[string]agent.InterfaceCounters{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		name = strings.TrimSpace(name)
		fields := strings.Fields(rest)
		if !ok || len(fields) < 12 || name == "lo" {
			continue // the two lines of the heading have no colon
		}
		n := func(i int) uint64 { return parseCount([]byte(fields[i])) }
		out[name] = agent.InterfaceCounters{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}
