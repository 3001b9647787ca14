package runtime

import (
	"strings"
	"testing"

	"github.com/berthhq/berth/internal/agent"
)

// FuzzUsageFiles reads the kernel's files as they might come.
func FuzzUsageFiles(f *testing.F) {
	for _, seed := range []string{
		"8:0 Read 4096\n8:0 Write 8192\nTotal 12288\n", "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n254:1 \n",
		"cpu  1 2 3 4 5 6 7 100 0 0\ncpu0 1 0 0 0\nintr 5\n", "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n",
		"usage_usec 9\nuser_usec 5\n", "max\n", "18446744073709551615", "1 (a) b) S 2 3 4 5 6", "", ":::\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		data := []byte(text)
		lines := strings.Count(text, "\n") + 1
		if got := parseBlkio(data, data); len(got) > lines {
			t.Errorf("%d devices in %d lines", len(got), lines)
		}
		seen := map[[2]uint64]bool{}
		for _, b := range parseIOStat(data) {
			if seen[[2]uint64{b.Major, b.Minor}] {
				t.Errorf("%d:%d twice", b.Major, b.Minor)
			}
			seen[[2]uint64{b.Major, b.Minor}] = true
		}
		if _, online := parseHostCPU(data); online > lines {
			t.Errorf("%d CPUs in %d lines", online, lines)
		}
		if got := parseNetDev(data); len(got) > lines || got["lo"] != (agent.InterfaceCounters{}) {
			t.Errorf("%d interfaces in %d lines", len(got), lines)
		}
		parseCounts(data)
		parseCount(data)
		if state, _, _, ok := lineage(text); ok && state == "" {
			t.Error("a process without a state")
		}
	})
}

// FuzzSecurityOptions reads an option; what is taken means something.
func FuzzSecurityOptions(f *testing.F) {
	for _, seed := range []string{"no-new-privileges", "no-new-privileges:true", "label=disable", "apparmor=a:b", "seccomp:unconfined", "seccomp={", "x", "=", ":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, option string) {
		got, err := securityOptions([]string{option})
		if err != nil && got != (security{}) {
			t.Errorf("%q: %+v, %v", option, got, err)
		}
		if err == nil && got.seccomp == unconfined && !strings.HasSuffix(option, unconfined) {
			t.Errorf("%q takes the filter away", option)
		}
	})
}
