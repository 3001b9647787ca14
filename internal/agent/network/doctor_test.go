package network

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
)

func kinds(findings []Finding, k FindingKind) (what []string) {
	for _, f := range findings {
		if f.Kind == k {
			what = append(what, f.What)
		}
		if f.What == "" || f.Why == "" {
			what = append(what, "an empty finding")
		}
	}
	return what
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cfg := h.config(t, "00004444")
	must(t, inNetNS(h.ns, func() error { return os.WriteFile(forwardingFile, []byte("0"), 0) }))
	before := h.state(t)
	findings, err := Doctor(t.Context(), cfg)
	must(t, err)
	if m := kinds(findings, Missing); len(m) > 0 {
		t.Errorf("missing: %q", m)
	}
	if c := kinds(findings, Change); len(c) != 4 || !strings.Contains(c[0], "ip_forward") {
		t.Errorf("changes: %q", c)
	}
	if w := kinds(findings, Warning); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	if h.state(t) != before {
		t.Error("the doctor changed the host")
	}

	h.open(t, cfg)
	findings, err = Doctor(t.Context(), cfg)
	must(t, err)
	if c := kinds(findings, Change); len(c) != 3 {
		t.Errorf("changes once forwarding is on: %q", c)
	}

	c, err := nftables.New(nftables.WithNetNSFd(h.ns))
	must(t, err)
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	must(t, c.Flush())
	findings, err = Doctor(t.Context(), cfg)
	must(t, err)
	if w := kinds(findings, Warning); !slices.Equal(w, []string{"nftables chain filter FORWARD has policy drop"}) {
		t.Errorf("warnings: %q", w)
	}
}

func TestDoctorOfThisHost(t *testing.T) {
	t.Parallel()
	findings, err := Doctor(t.Context(), Config{Instance: "00006666"})
	must(t, err)
	if m := kinds(findings, Missing); len(m) > 0 {
		t.Errorf("missing: %q", m)
	}
	t.Logf("%+v", findings)
	if _, err := Doctor(t.Context(), Config{Instance: "../../x"}); err == nil {
		t.Error("a bad instance was accepted")
	}
}

// The kernel makes the legacy table when it is asked for; then the policy is set as iptables -P does.
func TestLegacyForwardPolicy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	drops := func() (drops bool) {
		t.Helper()
		must(t, inNetNS(h.ns, func() (err error) {
			drops, err = legacyForwardDrops()
			return err
		}))
		return drops
	}
	if drops() {
		t.Error("without a table, packets are dropped")
	}
	var info, entries []byte
	err := inNetNS(h.ns, func() (err error) {
		info, entries, err = legacyTable("filter")
		return err
	})
	if err != nil {
		t.Logf("this kernel has no legacy iptables (%v): nothing to detect", err)
		return
	}
	if drops() {
		t.Error("with policy ACCEPT, packets are dropped")
	}
	must(t, inNetNS(h.ns, func() error { return setForwardPolicy(info, entries, verdictDrop) }))
	if !drops() {
		t.Error("policy DROP is not seen")
	}
	findings, err := Doctor(t.Context(), h.config(t, "00005555"))
	must(t, err)
	if w := kinds(findings, Warning); len(w) != 1 || !strings.Contains(w[0], "legacy") {
		t.Errorf("warnings: %q", w)
	}
}

// setForwardPolicy replaces the table by itself with another policy.
func setForwardPolicy(info, entries []byte, verdict int32) error {
	entries = slices.Clone(entries)
	at := binary.NativeEndian.Uint32(info[iptNameLen+4+4*(iptHooks+hookForward):])
	target := binary.NativeEndian.Uint16(entries[at+88:])
	binary.NativeEndian.PutUint32(entries[at+uint32(target)+32:], uint32(verdict))
	return replaceTable(info, entries, binary.NativeEndian.Uint32(info[76:]))
}

func FuzzChainPolicy(f *testing.F) {
	info := make([]byte, iptInfoLen)
	info[iptNameLen] = 1 << hookForward
	entries := make([]byte, 160)
	entries[88] = iptEntryLen
	f.Add(info, entries)
	info = slices.Clone(info)
	info[iptNameLen+4+4*(iptHooks+hookForward)] = 8
	f.Add(info, entries)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, info, entries []byte) {
		chainPolicy(info, entries, hookForward) // must not read outside
	})
}
