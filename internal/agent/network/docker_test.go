package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fakeDocker makes what Docker makes with iptables-nft: a chain FORWARD that drops what nobody accepts,
// and asks DOCKER-USER first.
func fakeDocker(t testing.TB, h *host) (c *nftables.Conn, user *nftables.Chain) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(h.ns))
	must(t, err)
	policy := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	forward := c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	user = c.AddChain(&nftables.Chain{Name: "DOCKER-USER", Table: table})
	c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: user.Name}}})
	c.AddRule(&nftables.Rule{Table: table, Chain: user, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictReturn}}})
	must(t, c.Flush())
	return c, user
}

func TestDockerOnTheSameHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	c, user := fakeDocker(t, h)
	cfg := h.config(t, "0005d005")
	findings, err := Doctor(t.Context(), cfg)
	must(t, err)
	if w := kinds(findings, Warning); len(w) > 0 {
		t.Errorf("the doctor warns of Docker: %q", w)
	}
	if ch := kinds(findings, Change); !slices.ContainsFunc(ch, func(s string) bool { return strings.Contains(s, "DOCKER-USER accept the interfaces be0005*") }) {
		t.Errorf("the doctor does not tell what it will add: %q", ch)
	}

	n := h.open(t, cfg)
	other := h.open(t, h.config(t, "0006d006"))
	container, _ := h.connect(t, n, "c", tcp(8080, 80))
	task, taskIP := h.setup(t, n, "awsvpc", 4)
	answer(t, container, "0.0.0.0:80", "container")
	answer(t, task, "0.0.0.0:80", "task")
	answer(t, h.world, "0.0.0.0:80", "world")
	joined := func(want int) func() error {
		return func() error {
			rules, err := c.GetRules(user.Table, user)
			if err == nil && len(rules) != want {
				err = fmt.Errorf("the chain has %d rules, want %d", len(rules), want)
			}
			return err
		}
	}
	paths := func() {
		t.Helper()
		for _, p := range []struct {
			ns int
			to string
		}{{container, h.worldIP + ":80"}, {h.world, h.uplinkIP + ":8080"}, {task, h.uplinkIP + ":8080"}, {h.ns, taskIP + ":80"}} {
			if _, err := knock(p.ns, p.to); err != nil {
				t.Errorf("to %s: %v", p.to, err)
			}
		}
	}
	eventually(t, joined(5)) // two of each instance, and Docker's own
	paths()

	c.FlushChain(user) // Docker makes its chains anew
	c.AddRule(&nftables.Rule{Table: user.Table, Chain: user, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictReturn}}})
	must(t, c.Flush())
	eventually(t, joined(5))
	paths()

	// iptables-restore writes the comment as a match.
	rules, err := c.GetRules(user.Table, user)
	must(t, err)
	comment := xt.Comment(n.inst.comment())
	for _, r := range rules {
		if n.marked(r) {
			must(t, c.DelRule(r))
			r.Handle, r.UserData = 0, nil
			r.Exprs = slices.Insert(r.Exprs, 2, expr.Any(&expr.Match{Name: "comment", Info: &comment}))
			c.InsertRule(r)
		}
	}
	must(t, c.Flush())
	must(t, n.joinDocker())
	must(t, joined(5)())

	must(t, n.Reset(t.Context()))
	must(t, joined(3)())
	must(t, other.Reset(t.Context()))
	must(t, joined(1)())
}

// A task does not come to reach what a container of Docker's does not publish.
func TestDockerStaysIsolated(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	fakeDocker(t, h)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "docker0"
	must(t, h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge, err := h.nl.LinkByName("docker0")
	must(t, err)
	gateway, err := netlink.ParseAddr("172.17.0.1/16")
	must(t, err)
	must(t, h.nl.AddrAdd(bridge, gateway))
	must(t, h.nl.LinkSetUp(bridge))
	docker, dockerNL := makeNS(t, filepath.Join(t.TempDir(), "docker"))
	attrs.Name, attrs.MasterIndex = "veth0", bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(docker)
	must(t, h.nl.LinkAdd(veth))
	must(t, h.nl.LinkSetUp(veth))
	eth0, err := dockerNL.LinkByName("eth0")
	must(t, err)
	addr, err := netlink.ParseAddr("172.17.0.2/16")
	must(t, err)
	must(t, dockerNL.AddrAdd(eth0, addr))
	must(t, dockerNL.LinkSetUp(eth0))
	must(t, dockerNL.RouteAdd(&netlink.Route{Gw: gateway.IP}))
	answer(t, docker, "0.0.0.0:80", "docker")

	n := h.open(t, h.config(t, "0008d008"))
	must(t, n.joinDocker())
	container, _ := h.connect(t, n, "c", tcp(8080, 80))
	task, _ := h.setup(t, n, "awsvpc", 4)
	answer(t, container, "0.0.0.0:80", "container")
	if seen, err := knock(docker, "172.17.0.1:8080"); err != nil || seen != "container 172.17.0.2" {
		t.Errorf("Docker's container to a mapped port: %q, %v", seen, err)
	}
	for name, ns := range map[string]int{"container": container, "awsvpc task": task} {
		if seen, err := knock(ns, "172.17.0.2:80"); err == nil {
			t.Errorf("the %s reached a port that is not published: %s", name, seen)
		}
	}
	if seen, err := knock(h.ns, "172.17.0.2:80"); err != nil {
		t.Errorf("the host itself: %q, %v", seen, err)
	}
}

func TestDockerBridge(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"docker0": true, "docker_gwbridge": true, "br-0123456789ab": true,
		"br-lan": false, "br0": false, "br-0123456789ag": false, "docker1": false, "virbr0": false,
	} {
		if dockerBridge(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// The kernel's legacy table, with a program that changes it in the place of iptables-legacy.
func TestLegacyDocker(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	legacy := &fakeLegacy{t: t}
	if err := inNetNS(h.ns, legacy.load); err != nil {
		t.Logf("this kernel has no legacy iptables (%v): there can be no such Docker", err)
		return
	}
	n := h.open(t, h.config(t, "0007d007"))
	n.watcher.stop()
	legacy.docker = true
	must(t, inNetNS(h.ns, legacy.commit))
	n.iptables = legacy.run
	for range 2 { // the second time there is nothing to do
		must(t, n.joinDocker())
		want := []string{
			"-w 5 -t filter -I DOCKER-USER -i be0007+ -m comment --comment berth 0007d007 -j ACCEPT",
			"-w 5 -t filter -I DOCKER-USER -o be0007+ -m comment --comment berth 0007d007 -j ACCEPT",
		}
		if !slices.Equal(legacy.calls, want) {
			t.Fatalf("called %q, want %q", legacy.calls, want)
		}
	}
	legacy.rules = nil // Docker makes its chains anew
	must(t, inNetNS(h.ns, legacy.commit))
	must(t, n.joinDocker())
	if len(legacy.rules) != 2 {
		t.Errorf("after Docker's restart: %q", legacy.rules)
	}
	findings, err := Doctor(t.Context(), n.cfg)
	must(t, err)
	if c := kinds(findings, Change); !slices.ContainsFunc(c, func(s string) bool { return strings.HasPrefix(s, "legacy iptables: rules in Docker's chain") }) {
		t.Errorf("the doctor does not tell of legacy Docker: %q", c)
	}
	must(t, n.leaveDocker())
	if len(legacy.rules) != 0 {
		t.Errorf("left: %q", legacy.rules)
	}
	legacy.fail = errors.New("no xtables lock")
	if err := n.joinDocker(); !errors.Is(err, legacy.fail) {
		t.Errorf("a failure is not told: %v", err)
	}
}

// fakeLegacy keeps a legacy filter table with the chain DOCKER-USER, and changes it as iptables does.
type fakeLegacy struct {
	t             testing.TB
	mu            sync.Mutex
	info, entries []byte // as the kernel makes them
	docker        bool
	rules         []string // "-i be0007+": those of DOCKER-USER
	calls         []string
	fail          error
}

func (f *fakeLegacy) load() (err error) {
	f.info, f.entries, err = legacyTable("filter")
	return err
}

// run is called in the host's namespace.
func (f *fakeLegacy) run(args ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.Join(args, " "))
	if f.fail != nil {
		return f.fail
	}
	rule := args[6] + " " + args[7] + " " + args[11]
	switch args[4] {
	case "-I":
		f.rules = slices.Insert(f.rules, 0, rule)
	case "-D":
		i := slices.Index(f.rules, rule)
		if i < 0 {
			return errors.New("Bad rule")
		}
		f.rules = slices.Delete(f.rules, i, i+1)
	}
	return f.commit()
}

// commit replaces the kernel's table (IPT_SO_SET_REPLACE).
func (f *fakeLegacy) commit() error {
	const errorLen = iptEntryLen + 64
	end := len(f.entries) - errorLen // the table's last entry, an error
	entries := slices.Clone(f.entries[:end])
	count := binary.NativeEndian.Uint32(f.info[76:])
	if f.docker {
		entries = append(entries, legacyError(dockerChain)...)
		for _, r := range f.rules {
			flag, rest, _ := strings.Cut(r, " ")
			iface, comment, _ := strings.Cut(rest, " ")
			entries = append(entries, legacyAccept(flag, iface, comment)...)
		}
		entries = append(entries, legacyStandard(nil, -5)...) // XT_RETURN
		count += uint32(len(f.rules)) + 2
	}
	entries = append(entries, legacyError("ERROR")...)
	return replaceTable(f.info, entries, count)
}

// legacyEntry is a struct ipt_entry with matches and a target.
func legacyEntry(matches, target []byte) []byte {
	b := make([]byte, iptEntryLen)
	binary.NativeEndian.PutUint16(b[88:], uint16(iptEntryLen+len(matches)))
	binary.NativeEndian.PutUint16(b[90:], uint16(iptEntryLen+len(matches)+len(target)))
	return append(append(b, matches...), target...)
}

func legacyStandard(matches []byte, verdict int32) []byte {
	target := make([]byte, 40)
	binary.NativeEndian.PutUint16(target, 40)
	binary.NativeEndian.PutUint32(target[32:], uint32(verdict))
	return legacyEntry(matches, target)
}

func legacyError(name string) []byte {
	target := make([]byte, 64)
	binary.NativeEndian.PutUint16(target, 64)
	copy(target[2:], "ERROR")
	copy(target[32:], name)
	return legacyEntry(nil, target)
}

func legacyAccept(flag, iface, comment string) []byte {
	match := make([]byte, 32+256)
	binary.NativeEndian.PutUint16(match, uint16(len(match)))
	copy(match[2:], "comment")
	copy(match[32:], comment)
	e := legacyStandard(match, -2) // NF_ACCEPT
	at := 16
	if flag == "-o" {
		at = 32
	}
	copy(e[at:], iface)
	copy(e[at+32:], strings.Repeat("\xff", len(strings.TrimSuffix(iface, "+")))) // the mask: a wildcard
	return e
}

func replaceTable(info, entries []byte, count uint32) error {
	old := binary.NativeEndian.Uint32(info[76:])
	_, now, err := legacyTable("filter")
	if err == nil { // the counters of what is replaced: one for each entry
		old = 0
		for at := 0; at < len(now); at += int(binary.NativeEndian.Uint16(now[at+90:])) {
			old++
		}
	}
	counters := make([]byte, 16*old)
	b := make([]byte, 96, 96+len(entries))
	copy(b, info[:iptNameLen+4])
	binary.NativeEndian.PutUint32(b[36:], count)
	binary.NativeEndian.PutUint32(b[40:], uint32(len(entries)))
	copy(b[44:], info[36:76])
	binary.NativeEndian.PutUint32(b[84:], old)
	binary.NativeEndian.PutUint64(b[88:], uint64(uintptr(unsafe.Pointer(&counters[0]))))
	b = append(b, entries...)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s), unix.IPPROTO_IP, 64,
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	runtime.KeepAlive(counters)
	if errno != 0 {
		return fmt.Errorf("replace the table: %w", errno)
	}
	return nil
}

func FuzzFindLegacyChain(f *testing.F) {
	table := slices.Concat(legacyStandard(nil, -2), legacyError(dockerChain), legacyAccept("-i", "be0000", "berth x"), legacyError("ERROR"))
	f.Add(table)
	f.Add(table[:len(table)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, entries []byte) {
		findLegacyChain(entries, dockerChain, "be0000", "berth x") // must not read outside
	})
}

func TestFindLegacyChain(t *testing.T) {
	t.Parallel()
	table := slices.Concat(
		legacyStandard(nil, -2),
		legacyError("OTHER"), legacyAccept("-i", "be0000", "berth x"), legacyStandard(nil, -5),
		legacyError(dockerChain), legacyAccept("-i", "be0000", "berth x"), legacyAccept("-i", "be0000", "berth y"),
		legacyAccept("-o", "be0001", "berth x"), legacyAccept("-i", "be0000+", "berth x"), legacyStandard(nil, -5),
		legacyError("ERROR"))
	got, err := findLegacyChain(table, dockerChain, "be0000", "berth x")
	if want := (legacyChain{true, [2]int{2, 0}}); err != nil || got != want {
		t.Errorf("found %v, %v; want %v", got, err, want)
	}
	if got, err := findLegacyChain(table, "NONE", "be0000", "berth x"); err != nil || got.found {
		t.Errorf("found %v, %v", got, err)
	}
	if _, err := findLegacyChain(table[:len(table)-1], dockerChain, "", ""); err == nil {
		t.Error("a table that is cut off was accepted")
	}
}
