// Package network gives tasks their networks: the agent's Network for mode awsvpc, where a task has a
// namespace, and its Bridge for mode bridge, where each container has one. Network modes none and host
// need nothing from here.
//
// A namespace is pinned by a bind mount, RunDir/netns/<task> or RunDir/bridge/<task>/<container>/netns. A
// veth pair leads into it:
//
//	host                                       task or container
//	be<instance><hash>, 169.254.1.1 ◄────────► eth0, <address>/32, the interface's MAC
//	route <address>/32, fixed neighbour        default via 169.254.1.1, fixed neighbour
//
// Addresses are routed, not bridged: nothing is broadcast, so no ARP is needed in either direction,
// and a task hears only what is sent to it. Tasks of one host reach each other and the host through
// the host's routing; the host speaks to them as the subnet's router, an address on lo.
//
// There are two subnets. That of awsvpc tasks gets its addresses from the server. Addresses of the
// bridge subnet are given out here, beside a record in the endpoint's directory; from elsewhere its
// containers are reached through their mapped ports alone, as in Docker's default network. A mapped port
// is one on all of the host's addresses, its loopback included. The kernel leads it to the container,
// and the process holds it with a socket, which no other process can share.
//
// What tasks send to 169.254.170.2:80 is led to the metadata server on the host's loopback
// ([Network.ServeMetadata]).
//
// One nftables table, berth_<instance>, does the rest: see ruleset. It is the same however many tasks
// there are, but for its map of ports: whether a source address belongs to an interface is asked of the
// routes. Making and removing a task's network is therefore netlink alone. No other table is touched,
// with one exception: beside a Docker, two rules in its chain DOCKER-USER accept our interfaces. A
// watcher puts back what others take away.
//
// The subnets are claimed for the instance ([Open]), so that several instances and other software share
// a host. Everything made carries the instance in its name, is found again by that name after a crash,
// and is removed by [Network.Reset], except that forwarding stays enabled.
package network
