package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that Berth made (ip route shows "proto 190").
const routeProtocol = 190

// claim is the hold of this process on a subnet: a locked file, which also records the instance, so
// that the subnet of one that has died is left alone while its tasks live.
type claim struct {
	subnet netip.Prefix
	file   *os.File
}

type claimRecord struct {
	Schema   int    `json:"schema"`
	Instance string `json:"instance"`
}

// remembered is the instance's own memory of its subnets, so that it gets the same ones again.
type remembered struct {
	Schema int          `json:"schema"`
	Subnet netip.Prefix `json:"subnet"`
	Bridge netip.Prefix `json:"bridge,omitzero"`
}

const schema = 1

// errBusy says that a subnet is another's.
var errBusy = errors.New("is in use")

// claimSubnets claims a subnet for tasks and one for the bridge.
func (n *Network) claimSubnets() error {
	if err := os.MkdirAll(n.cfg.PoolDir, 0o755); err != nil {
		return fmt.Errorf("make the directory of subnet claims: %w", err)
	}
	last, err := n.recall()
	if err != nil {
		return err
	}
	used, err := n.usedPrefixes()
	if err != nil {
		return err
	}
	if n.claim, err = n.claimSubnet(n.cfg.Pools, last.Subnet, used); err != nil {
		return err
	}
	used[n.claim.subnet] = "this Berth's awsvpc tasks"
	if n.bridge, err = n.claimSubnet(n.cfg.BridgePools, last.Bridge, used); err != nil {
		return err
	}
	now := remembered{schema, n.claim.subnet, n.bridge.subnet}
	for _, p := range []netip.Prefix{last.Subnet, last.Bridge} {
		if p.IsValid() && p != now.Subnet && p != now.Bridge {
			if err := n.abandon(p); err != nil {
				return err
			}
		}
	}
	return n.remember(now)
}

// claimSubnet claims the first free one of the instance's last subnet and the pools.
func (n *Network) claimSubnet(pools []netip.Prefix, last netip.Prefix, used map[netip.Prefix]string) (*claim, error) {
	if last.IsValid() {
		pools = slices.Insert(slices.Clone(pools), 0, last)
	}
	var why []string
	for _, p := range pools {
		if _, _, ok := Usable(p); !ok {
			return nil, fmt.Errorf("pool %v has no addresses for tasks", p)
		}
		p = p.Masked()
		c, err := n.tryClaim(p, used)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errBusy) {
			return nil, err
		}
		why = append(why, err.Error())
		n.log.Debug("subnet not taken", "subnet", p, "reason", err)
	}
	return nil, fmt.Errorf("no subnet is free for tasks: %s", strings.Join(slices.Compact(why), "; "))
}

// abandon removes what the instance had made for a subnet that it does not get again, unless that has
// become another's.
func (n *Network) abandon(p netip.Prefix) error {
	f, err := lockFile(n.lockPath(p))
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err != nil {
		return fmt.Errorf("give up subnet %v: %w", p, err)
	}
	c := &claim{p, f}
	if owner, err := c.owner(); err != nil || owner != string(n.inst) {
		c.close()
		return err
	}
	return errors.Join(n.removeSubnet(p), c.remove())
}

func (n *Network) lockPath(p netip.Prefix) string {
	return filepath.Join(n.cfg.PoolDir, strings.ReplaceAll(p.String(), "/", "_")+".lock")
}

func (n *Network) tryClaim(p netip.Prefix, used map[netip.Prefix]string) (*claim, error) {
	f, err := lockFile(n.lockPath(p))
	if err == unix.EWOULDBLOCK {
		return nil, fmt.Errorf("%v %w by another Berth", p, errBusy)
	}
	if err != nil {
		return nil, fmt.Errorf("claim subnet %v: %w", p, err)
	}
	c := &claim{p, f}
	owner, err := c.owner()
	if err == nil && owner != "" && owner != string(n.inst) {
		var alive bool
		if alive, err = n.hasTasks(instance(owner)); alive {
			err = fmt.Errorf("%v %w by tasks of instance %s, which does not run", p, errBusy, owner)
		}
	}
	if err == nil {
		for u, what := range used {
			if u.Overlaps(p) {
				err = fmt.Errorf("%v %w by %s", p, errBusy, what)
				break
			}
		}
	}
	if err == nil {
		err = c.record(string(n.inst))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// lockFile opens and locks the file at path, which another may remove meanwhile.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		var ours, there unix.Stat_t
		if unix.Fstat(int(f.Fd()), &ours) == nil && unix.Stat(path, &there) == nil && ours.Ino == there.Ino {
			return f, nil
		}
		f.Close()
	}
}

func (c *claim) owner() (string, error) {
	b := make([]byte, 4096)
	k, err := c.file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read claim of subnet %v: %w", c.subnet, err)
	}
	if k == 0 {
		return "", nil // new
	}
	var r claimRecord
	if err := json.Unmarshal(b[:k], &r); err != nil {
		return "", nil // torn in writing: that process made nothing yet
	}
	if r.Schema > schema {
		return "", fmt.Errorf("claim of subnet %v has schema %d, newer than %d", c.subnet, r.Schema, schema)
	}
	return r.Instance, nil
}

func (c *claim) record(inst string) error {
	b, err := json.Marshal(claimRecord{schema, inst})
	if err != nil {
		return err
	}
	_, err = c.file.WriteAt(b, 0)
	if err = errors.Join(err, c.file.Truncate(int64(len(b)))); err != nil {
		return fmt.Errorf("record the claim of subnet %v: %w", c.subnet, err)
	}
	return nil
}

func (c *claim) close() { c.file.Close() }

func (c *claim) remove() error {
	defer c.file.Close()
	if err := os.Remove(c.file.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the claim of subnet %v: %w", c.subnet, err)
	}
	return nil
}

func (n *Network) memory() string { return filepath.Join(n.cfg.StateDir, "network.json") }

func (n *Network) recall() (r remembered, err error) {
	b, err := os.ReadFile(n.memory())
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read the instance's subnets: %w", err)
	}
	if r.Schema > schema {
		return r, fmt.Errorf("%s has schema %d, newer than %d", n.memory(), r.Schema, schema)
	}
	return r, nil
}

func (n *Network) remember(r remembered) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := n.memory() + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(tmp, n.memory())
	}
	if err != nil {
		return fmt.Errorf("remember the instance's subnets: %w", err)
	}
	return nil
}

// hasTasks tells whether links of an instance are on this host.
func (n *Network) hasTasks(i instance) (bool, error) {
	if i.valid() != nil {
		return false, nil
	}
	links, err := n.nl.LinkList()
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	return slices.ContainsFunc(links, func(l netlink.Link) bool {
		return i.owns(l.Attrs().Name, l.Attrs().Alias)
	}), nil
}

// usedPrefixes is what the host's addresses and routes occupy, but for default routes and for what
// Berth made: that is guarded by claims.
func (n *Network) usedPrefixes() (map[netip.Prefix]string, error) {
	used := map[netip.Prefix]string{}
	links, err := n.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := n.nl.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		name := names[a.LinkIndex]
		if p, ok := prefixOf(a.IPNet.IP, a.IPNet.Mask); ok && !strings.HasPrefix(a.Label, "lo:be") && !berthLink(name) {
			used[p.Masked()] = fmt.Sprintf("address %v of %s", p, name)
		}
	}
	routes, err := n.nl.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Protocol == routeProtocol || r.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		if p, ok := prefixOf(r.Dst.IP, r.Dst.Mask); ok && p.Bits() > 0 {
			used[p.Masked()] = fmt.Sprintf("route %v by %s", p, names[r.LinkIndex])
		}
	}
	return used, nil
}

// berthLink tells whether a name has the form of the host's end of some instance's task.
func berthLink(name string) bool {
	return len(name) == 15 && strings.HasPrefix(name, "be") && strings.Trim(name[2:], "0123456789abcdef") == ""
}

func prefixOf(ip []byte, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	ones := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			ones++
		}
	}
	return netip.PrefixFrom(a.Unmap(), ones), true
}

// removeTable removes the instance's table, if there is one.
func removeTable(c *nftables.Conn, name string) error {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == name {
			c.DelTable(t)
			if err := c.Flush(); err != nil {
				return fmt.Errorf("remove nftables table %s: %w", name, err)
			}
		}
	}
	return nil
}
