package runtime

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	r := newHost(t).openForTest()
	c := testContainer(importBusybox(t, r), "c1",
		"dd if=/dev/zero of=/big bs=1M count=3; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo >/ready; exec sleep 1000")
	c.Container.MemoryMib = 64
	run(t, r, c)
	waitUntil(t, "it has used something", func() bool {
		code, _, err := r.Exec(t.Context(), "c1", []string{"cat", "/ready"})
		return err == nil && code == 0
	})
	u, err := r.Usage(t.Context(), "c1")
	if err != nil {
		t.Fatalf("usage: %v", err)
	}
	if u.CPUTotal < 10*time.Millisecond || u.CPUTotal > 20*time.Second || u.HostCPU < u.CPUTotal || u.OnlineCPUs < 1 {
		t.Errorf("CPU: %+v", u)
	}
	if u.MemoryBytes == 0 || u.MemoryBytes > u.MemoryLimit || u.MemoryLimit != 64<<20 || len(u.Memory) < 5 {
		t.Errorf("memory: %+v", u)
	}
	if u.PIDs != 1 || u.PIDsLimit != pidsLimit {
		t.Errorf("processes: %d of %d", u.PIDs, u.PIDsLimit)
	}
	if u.StorageBytes < 3<<20 || u.StorageBytes > 4<<20 {
		t.Errorf("storage: %d", u.StorageBytes)
	}
	if u.Network == nil {
		t.Error("no network counters")
	}

	host := testContainer(c.Image, "c2", "exec sleep 1000")
	host.HostNetwork = true
	run(t, r, host)
	if err := r.PrepareTask(t.Context(), agent.TaskSpec{ID: host.TaskID, MemoryMiB: 48}); err != nil {
		t.Fatal(err)
	}
	if u, err := r.Usage(t.Context(), "c2"); err != nil || u.Network != nil || u.MemoryLimit != 48<<20 {
		t.Errorf("with the host's network and a task's limit: %+v, %v", u, err)
	}
	if err := r.Signal(t.Context(), "c2", "KILL"); err != nil {
		t.Fatal(err)
	}
	waitPhase(t, r, "c2", agent.PhaseStopped)
	if _, err := r.Usage(t.Context(), "c2"); err == nil {
		t.Error("a stopped container has usage")
	}
}

// Version 2's files, as Linux 6.12 writes them.
func TestUnifiedUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, body := range map[string]string{
		"cpu.stat":       "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnice_usec 0\nnr_periods 7\nnr_throttled 3\nthrottled_usec 11\nnr_bursts 0\n",
		"memory.current": "4096\n", "memory.max": "max\n", "memory.peak": "8192\n",
		"memory.events": "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n",
		"memory.stat":   "anon 1\nfile 2\ninactive_file 3\n",
		"pids.current":  "2\n", "pids.max": "100\n",
		"io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n254:1 \n7:0 rbytes=5 wbytes=0 rios=1 wios=0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got agent.Usage
	groups := cgroups{unified: filepath.Dir(dir)}
	if err := groups.usage(filepath.Base(dir), &got); err != nil {
		t.Fatal(err)
	}
	want := agent.Usage{
		CPUTotal: 9 * time.Microsecond, CPUUser: 5 * time.Microsecond, CPUSystem: 4 * time.Microsecond,
		Throttled: 11 * time.Microsecond, Periods: 7, ThrottledPeriods: 3,
		MemoryBytes: 4096, MemoryMax: 8192, MemoryFailures: 6,
		Memory: map[string]uint64{"anon": 1, "file": 2, "inactive_file": 3}, PIDs: 2, PIDsLimit: 100,
		BlockIO: []agent.BlockIO{
			{Major: 8, ReadBytes: 10, WrittenBytes: 20, ReadOps: 1, WriteOps: 2}, {Major: 7, ReadBytes: 5, ReadOps: 1},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("usage is\n%+v, not\n%+v", got, want)
	}
	if limit := groups.memoryLimit(filepath.Base(dir)); limit != 1<<64-1 {
		t.Errorf("no limit is %d", limit)
	}
}

func TestParseUsage(t *testing.T) {
	t.Parallel()
	io := parseBlkio([]byte("8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\nTotal 12288\n"), []byte("8:0 Read 1\n8:0 Write 2\nx Read 3\n"))
	if want := []agent.BlockIO{{Major: 8, ReadBytes: 4096, WrittenBytes: 8192, ReadOps: 1, WriteOps: 2}}; !reflect.DeepEqual(io, want) {
		t.Errorf("block I/O is %+v", io)
	}
	total, online := parseHostCPU([]byte("cpu  1 2 3 4 5 6 7 100 0 0\ncpu0 1 0 0 0\ncpu1 0\nintr 5 5 5\n"))
	if total != 280*time.Millisecond || online != 2 {
		t.Errorf("the host's CPUs: %v, %d", total, online)
	}
	net := parseNetDev([]byte("Inter-|   Receive  |  Transmit\n face |bytes    packets errs\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"))
	if want := (map[string]agent.InterfaceCounters{"eth0": {RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8}}); !reflect.DeepEqual(net, want) {
		t.Errorf("network is %+v", net)
	}
}
