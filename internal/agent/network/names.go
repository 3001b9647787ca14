package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// instance is what an instance's things on the host are called.
type instance string

func (i instance) valid() error {
	if len(i) != 8 || strings.Trim(string(i), "0123456789abcdef") != "" {
		return fmt.Errorf("instance %q is not 8 hexadecimal digits", string(i))
	}
	return nil
}

// table is the nftables table.
func (i instance) table() string { return "berth_" + string(i) }

// linkPrefix begins the names of the host's ends. A name has 15 characters at most, so two instances
// may share a prefix, though hardly a name; the alias tells whose a link is.
func (i instance) linkPrefix() string { return "be" + string(i[:4]) }

// link is the name of the host's end for a task, or for an endpoint by its key.
func (i instance) link(id string) string {
	sum := sha256.Sum256([]byte(string(i) + "/" + id))
	return i.linkPrefix() + hex.EncodeToString(sum[:])[:9]
}

func (i instance) aliasPrefix() string { return "berth " + string(i) + " " }

func (i instance) alias(id string) string {
	const most = 255 // IFALIASZ, with its NUL
	alias := i.aliasPrefix() + id
	return alias[:min(len(alias), most)]
}

// loLabel marks the gateway's address on lo.
func (i instance) loLabel() string { return "lo:be" + string(i) }

// owns tells whether a link is this instance's, or was left half made by it.
func (i instance) owns(name, alias string) bool {
	return strings.HasPrefix(name, i.linkPrefix()) && (alias == "" || strings.HasPrefix(alias, i.aliasPrefix()))
}

// endpointKey names a container of a task. No task ID has a slash.
func endpointKey(taskID, container string) string { return taskID + "/" + container }

func validContainer(name string) error {
	ok := name != "" && len(name) <= 255
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	if !ok {
		return fmt.Errorf("container name %q cannot be part of a file name", name)
	}
	return nil
}

func validTask(id string) error {
	ok := id != "" && len(id) <= 128 && id[0] != '.'
	for _, r := range id {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if !ok {
		return fmt.Errorf("task ID %q cannot be part of a file name", id)
	}
	return nil
}

// nic is a network interface, validated.
type nic struct {
	addr netip.Addr
	mac  net.HardwareAddr
}

func parseNIC(subnet netip.Prefix, n *dispatchpb.NetworkInterface) (nic, error) {
	addr, err := netip.ParseAddr(n.GetPrivateIpv4())
	if err != nil {
		return nic{}, fmt.Errorf("address of the network interface: %w", err)
	}
	if !IsUsable(subnet, addr) {
		return nic{}, fmt.Errorf("address %v is not one for tasks in this host's subnet %v", addr, subnet)
	}
	if n.GetMacAddress() == "" {
		return nic{addr, macOf(addr)}, nil
	}
	mac, err := net.ParseMAC(n.GetMacAddress())
	if err != nil {
		return nic{}, fmt.Errorf("MAC address of the network interface: %w", err)
	}
	if len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
		return nic{}, fmt.Errorf("MAC address %v is not that of an Ethernet interface", mac)
	}
	return nic{addr, mac}, nil
}

// macOf is a hardware address that is locally administered, and unique where the address is.
func macOf(addr netip.Addr) net.HardwareAddr {
	b := addr.As4()
	return append(net.HardwareAddr{0x02, 0xbe}, b[:]...)
}
