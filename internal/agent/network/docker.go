package network

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// A Docker on the same host drops what is forwarded unless it knows it: its FORWARD chain has the policy
// drop, and a verdict to accept in our own table does not override that. Docker asks first the chain
// DOCKER-USER, which it keeps for others. There we accept what our interfaces send and receive; what may
// come in is our own table's to say. No other rule is touched.
//
// The chain is in the nftables table that iptables-nft makes, or in legacy iptables. The rules are
// written as iptables writes them, so that it goes on to list them. What they accept, Docker's own rules
// for forwarding see no more; so our table keeps tasks from what Docker's containers do not publish.
const (
	dockerTable = "filter"
	dockerChain = "DOCKER-USER"
)

// comment marks our rules in others' chains.
func (i instance) comment() string { return "berth " + string(i) }

// direction is one of the two that are accepted.
type direction struct {
	key  expr.MetaKey
	flag string // iptables'
}

var directions = [2]direction{{expr.MetaKeyIIFNAME, "-i"}, {expr.MetaKeyOIFNAME, "-o"}}

// joinDocker adds our rules to Docker's chain, if there is one, where they are not in it.
func (n *Network) joinDocker() error {
	c, err := n.nftables()
	if err != nil {
		return err
	}
	if err := n.knowBridges(); err != nil { // before anything is accepted
		return err
	}
	chain, err := dockerUser(c)
	if err == nil && chain != nil {
		err = n.joinChain(c, chain)
	}
	return errors.Join(err, n.onHost(n.joinLegacy))
}

// knowBridges makes the table know Docker's bridges.
func (n *Network) knowBridges() error {
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Type() == "bridge" && dockerBridge(l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	n.rules.mu.Lock()
	defer n.rules.mu.Unlock()
	if slices.Equal(names, n.rules.bridges) {
		return nil
	}
	n.rules.bridges = names
	if err := n.installRulesLocked(); err != nil {
		n.rules.bridges = nil // so that it is tried again
		return err
	}
	return nil
}

// dockerBridge tells whether an interface has a name that Docker gives its bridges: that of its default
// network, that of swarms, or one made of a network's ID.
func dockerBridge(name string) bool {
	id, ok := strings.CutPrefix(name, "br-")
	return name == "docker0" || name == "docker_gwbridge" || ok && len(id) == 12 && strings.Trim(id, "0123456789abcdef") == ""
}

// leaveDocker removes them.
func (n *Network) leaveDocker() error {
	c, err := n.nftables()
	if err != nil {
		return err
	}
	chain, err := dockerUser(c)
	if err == nil && chain != nil {
		err = n.leaveChain(c, chain)
	}
	return errors.Join(err, n.onHost(n.leaveLegacy))
}

// dockerUser finds Docker's chain in nftables; nil without one.
func dockerUser(c *nftables.Conn) (*nftables.Chain, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Name == dockerChain && ch.Table.Name == dockerTable {
			return ch, nil
		}
	}
	return nil, nil
}

func (n *Network) joinChain(c *nftables.Conn, chain *nftables.Chain) error {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return fmt.Errorf("list the rules of %s: %w", dockerChain, err)
	}
	joined := false
	for _, d := range directions {
		if n.ours(rules, d.key) {
			continue
		}
		c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain,
			Exprs: []expr.Any{
				&expr.Meta{Key: d.key, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(n.inst.linkPrefix())},
				&expr.Counter{},
				&expr.Verdict{Kind: expr.VerdictAccept},
			},
			UserData: userdata.AppendString(nil, userdata.TypeComment, n.inst.comment())})
		joined = true
	}
	if !joined {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("accept our interfaces in %s: %w", dockerChain, err)
	}
	n.log.Info("Docker's chain accepts our interfaces", "chain", dockerChain, "interfaces", n.inst.linkPrefix()+"*")
	return nil
}

// ours tells whether our rule for a direction is among the rules.
func (n *Network) ours(rules []*nftables.Rule, key expr.MetaKey) bool {
	for _, r := range rules {
		if !n.marked(r) {
			continue
		}
		for _, e := range r.Exprs {
			if m, ok := e.(*expr.Meta); ok && m.Key == key {
				return true
			}
		}
	}
	return false
}

// marked tells whether a rule bears our comment. iptables reads the form in which we write it, and may
// write the rule back with a match in its place.
func (n *Network) marked(r *nftables.Rule) bool {
	if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && strings.TrimRight(comment, "\x00") == n.inst.comment() {
		return true
	}
	for _, e := range r.Exprs {
		if m, ok := e.(*expr.Match); ok && m.Name == "comment" {
			if text, ok := m.Info.(*xt.Comment); ok && string(*text) == n.inst.comment() {
				return true
			}
		}
	}
	return false
}

func (n *Network) leaveChain(c *nftables.Conn, chain *nftables.Chain) error {
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return fmt.Errorf("list the rules of %s: %w", dockerChain, err)
	}
	for _, r := range rules {
		if n.marked(r) {
			if err := c.DelRule(r); err != nil {
				return fmt.Errorf("remove our rule from %s: %w", dockerChain, err)
			}
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) { // somebody was faster
		return fmt.Errorf("remove our rules from %s: %w", dockerChain, err)
	}
	return nil
}

// joinLegacy does the same in legacy iptables, which only its own program changes: that guards the table
// with a lock of its own.
func (n *Network) joinLegacy() error {
	chain, err := legacyDockerUser(n.inst)
	if err != nil || !chain.found {
		return err
	}
	for i, d := range directions {
		if chain.ours[i] == 0 {
			if err := n.iptables(n.legacyRule("-I", d)...); err != nil {
				return fmt.Errorf("accept our interfaces in legacy %s: %w", dockerChain, err)
			}
		}
	}
	return nil
}

func (n *Network) leaveLegacy() error {
	chain, err := legacyDockerUser(n.inst)
	if err != nil {
		return err
	}
	for i, d := range directions {
		for range chain.ours[i] {
			if err := n.iptables(n.legacyRule("-D", d)...); err != nil {
				return fmt.Errorf("remove our rules from legacy %s: %w", dockerChain, err)
			}
		}
	}
	return nil
}

func (n *Network) legacyRule(verb string, d direction) []string {
	return []string{"-w", "5", "-t", dockerTable, verb, dockerChain, d.flag, n.inst.linkPrefix() + "+",
		"-m", "comment", "--comment", n.inst.comment(), "-j", "ACCEPT"}
}

func legacyDockerUser(i instance) (legacyChain, error) {
	entries, err := legacyEntries(dockerTable)
	if err != nil || entries == nil {
		return legacyChain{}, err
	}
	return findLegacyChain(entries, dockerChain, i.linkPrefix(), i.comment())
}

// runIPTables runs the program of legacy iptables in the current network namespace.
func runIPTables(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	path, err := legacyIPTables(ctx)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// legacyIPTables finds the program. A host with legacy rules has it, by one of two names.
func legacyIPTables(ctx context.Context) (string, error) {
	for _, name := range []string{"iptables-legacy", "iptables"} {
		for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} { // a service may have a short PATH
			path, err := exec.LookPath(dir + name)
			if err != nil {
				continue
			}
			version, err := exec.CommandContext(ctx, path, "--version").Output()
			if err == nil && !strings.Contains(string(version), "nf_tables") {
				return path, nil
			}
		}
	}
	return "", errors.New("the program iptables-legacy is not there")
}
