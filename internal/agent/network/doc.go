// Package network gives awsvpc tasks their network namespaces: the agent's Network.
//
// A task's namespace is pinned by a bind mount at RunDir/netns/<task>. A veth pair leads into it:
//
//	host                                       task
//	be<instance><hash>, 169.254.1.1 ◄────────► eth0, <address>/32, the interface's MAC
//	route <address>/32, fixed neighbour        default via 169.254.1.1, fixed neighbour
//
// Addresses are routed, not bridged: nothing is broadcast, so no ARP is needed in either direction,
// and a task hears only what is sent to it. Tasks of one host reach each other and the host through
// the host's routing; the host speaks to them as the subnet's router, an address on lo.
//
// One nftables table, berth_<instance>, drops what a task sends with another address than its own and
// what is not IPv4, and masquerades what leaves the subnet. It is the same however many tasks there
// are: whether a source address belongs to an interface is asked of the routes. No other table is
// touched. Making and removing a task's network is therefore netlink alone.
//
// The subnet is claimed for the instance ([Open]), so that several instances and other software share
// a host. Everything made carries the instance in its name, is found again by that name after a crash,
// and is removed by [Network.Reset], except that forwarding stays enabled.
//
// Network mode none needs nothing from here: the OCI runtime brings lo up in a new namespace.
package network
