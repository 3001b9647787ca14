package network

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// From the kernel's uapi/linux/ip.h and if_link.h.
const (
	iflaInetConf         = 1  // IFLA_INET_CONF
	devconfRouteLocalnet = 26 // IPV4_DEVCONF_ROUTE_LOCALNET
)

// routeLocalnet lets packets between the host's loopback addresses and a link pass, as
// net.ipv4.conf.<link>.route_localnet does: without it, neither could the host reach mapped ports at
// 127.0.0.1, nor could tasks be redirected to the metadata server there. The rules keep the rest out;
// they are in place before any link is, and the watcher puts them back at once.
func (n *Network) routeLocalnet(l netlink.Link) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: n.raw}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.Attrs().Index)
	req.AddData(msg)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	inet := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(iflaInetConf, nil)
	inet.AddRtAttr(devconfRouteLocalnet, nl.Uint32Attr(1))
	req.AddData(spec)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("let the host's loopback addresses reach %s: %w", l.Attrs().Name, err)
	}
	return nil
}
