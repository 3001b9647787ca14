package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FindingKind is how much a Finding matters.
type FindingKind string

const (
	Missing FindingKind = "missing" // without it awsvpc tasks cannot run
	Change  FindingKind = "change"  // Open will do this to the host
	Warning FindingKind = "warning" // something on the host may keep tasks from being reached
)

// Finding is one thing that an operator should know about a host.
type Finding struct {
	Kind FindingKind
	What string
	Why  string
}

// Doctor tells what the host lacks for task networks, and what Open with cfg will change. It changes
// nothing: features are tried out in a namespace that is gone afterwards.
func Doctor(ctx context.Context, cfg Config) ([]Finding, error) {
	inst := instance(cfg.Instance)
	if err := inst.valid(); err != nil {
		return nil, err
	}
	if cfg.Pools == nil {
		cfg.Pools = DefaultPools()
	}
	if cfg.BridgePools == nil {
		cfg.BridgePools = DefaultBridgePools()
	}
	findings := probe(inst)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	host, err := openHostNetNS(cfg.HostNetNS)
	if err != nil {
		return append(findings, Finding{Missing, "network namespaces", err.Error()}), nil
	}
	defer unix.Close(host)
	err = inNetNS(host, func() error {
		findings = append(findings, changes(inst, cfg)...)
		findings = append(findings, forwardPolicies(inst)...)
		return nil
	})
	if err != nil {
		return append(findings, Finding{Missing, "privileges",
			"entering a network namespace needs root, with CAP_NET_ADMIN and CAP_SYS_ADMIN: " + err.Error()}), nil
	}
	return findings, nil
}

// probe tries what a task needs.
func probe(inst instance) (missing []Finding) {
	lacks := func(what, why string, err error) {
		missing = append(missing, Finding{Missing, what, fmt.Sprintf("%s: %v", why, err)})
	}
	own := -1
	onThread(func() error {
		var err error
		if own, err = unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			lacks("network namespaces", "each awsvpc task has one (CONFIG_NET_NS)", err)
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			why := "each awsvpc task has one (CONFIG_NET_NS)"
			if errors.Is(err, unix.EPERM) {
				why = "making one needs root, with CAP_SYS_ADMIN"
			}
			lacks("network namespaces", why, err)
			return err
		}
		if nl, err := netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			lacks("netlink", "links, addresses and routes are made with it", err)
		} else {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "probe0"
			veth := netlink.NewVeth(attrs)
			veth.PeerName = "probe1"
			if err := nl.LinkAdd(veth); err != nil {
				lacks("veth", "it links a task with the host (CONFIG_VETH, module veth)", err)
			}
			nl.Close()
		}
		c, err := nftables.New()
		if err == nil {
			pools := [2]netip.Prefix{DefaultPools()[0], DefaultBridgePools()[0]}
			err = ruleset{inst: inst, subnet: pools[0], bridge: pools[1], metadata: 1, hostMetadata: true,
				ports: []mapping{{unix.IPPROTO_TCP, 80, netip.AddrPortFrom(nth(pools[1], 4), 80)}}}.install(c)
		}
		if err != nil {
			lacks("nftables", "it checks source addresses, maps ports and masquerades (modules nf_tables, nft_fib_inet, nft_nat, nft_masq, nft_chain_nat, nft_ct, nft_reject_inet)", err)
		}
		return nil
	}, func() error { return restoreNetNS(own) })
	return missing
}

// changes says what Open will do in the current namespace.
func changes(inst instance, cfg Config) []Finding {
	var c []Finding
	if b, err := os.ReadFile(forwardingFile); err == nil && strings.TrimSpace(string(b)) == "0" {
		c = append(c, Finding{Change, "net.ipv4.ip_forward is set to 1, and stays so",
			"the host routes between its awsvpc tasks and the network; other software may come to rely on it, so a reset does not undo it"})
	}
	c = append(c,
		Finding{Change, "a subnet is taken for tasks: " + firstFree(cfg.Pools),
			"each awsvpc task has an address of its own; the subnet gets an unreachable route, and its second address is added to lo, as which the host speaks to tasks"},
		Finding{Change, "a subnet is taken for network mode bridge: " + firstFree(cfg.BridgePools),
			"each container has an address of its own, likewise; other machines reach its mapped ports alone"},
		Finding{Change, "nftables table inet " + inst.table() + " is added",
			"it drops what tasks send with others' addresses, maps ports, and masquerades what tasks send outside; no other table is touched, but for Docker's chain for others"})
	return c
}

// firstFree says which one of the pools is taken.
func firstFree(pools []netip.Prefix) string {
	switch len(pools) {
	case 0:
		return "none"
	case 1:
		return pools[0].String()
	}
	return fmt.Sprintf("%v, or the first free one of %d more up to %v", pools[0], len(pools)-1, pools[len(pools)-1])
}

// forwardPolicies tells of others' rules that drop what is forwarded unless they know it: a verdict to
// accept in our own table would not override them. Docker's are asked to let our packets pass; of others'
// it warns.
func forwardPolicies(inst instance) []Finding {
	const why = "packets between awsvpc tasks, and between them and other machines, are dropped unless that firewall accepts them, as %s would; the host itself reaches its tasks"
	hint := fmt.Sprintf("iptables -I FORWARD -i %[1]s+ -j ACCEPT and -o %[1]s+", inst.linkPrefix())
	docker := Finding{Change, "rules in Docker's chain DOCKER-USER accept the interfaces " + inst.linkPrefix() + "*",
		"Docker drops what is forwarded for others; the two rules are put back when Docker or a firewall is started anew, and a reset removes them"}
	var f []Finding
	if c, err := nftables.New(); err == nil {
		joins, err := dockerUser(c)
		if err == nil && joins != nil {
			f = append(f, docker)
		}
		chains, _ := c.ListChains()
		for _, ch := range chains {
			ipv4 := ch.Table.Family == nftables.TableFamilyIPv4 || ch.Table.Family == nftables.TableFamilyINet
			drops := ipv4 && ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
			dockers := joins != nil && ch.Table.Family == nftables.TableFamilyIPv4 && ch.Table.Name == dockerTable
			if drops && !dockers {
				f = append(f, Finding{Warning, fmt.Sprintf("nftables chain %s %s has policy drop", ch.Table.Name, ch.Name), fmt.Sprintf(why, hint)})
			}
		}
	}
	legacy, _ := legacyDockerUser(inst)
	switch drops, err := legacyForwardDrops(); {
	case legacy.found:
		docker.What = "legacy iptables: " + docker.What
		f = append(f, docker)
		if _, err := legacyIPTables(context.Background()); err != nil {
			f = append(f, Finding{Warning, "legacy iptables cannot be changed: " + err.Error(), fmt.Sprintf(why, hint)})
		}
	case err == nil && drops:
		f = append(f, Finding{Warning, "the legacy iptables chain FORWARD has policy drop", fmt.Sprintf(why, hint)})
	}
	return f
}
