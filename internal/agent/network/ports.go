package network

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// portRange is the ports from First to Last.
type portRange struct{ First, Last uint16 }

func (r portRange) contains(p uint16) bool { return p >= r.First && p <= r.Last }

// parsePorts reads "8000-8010", or "8000".
func parsePorts(s string) (portRange, error) {
	a, b, found := strings.Cut(s, "-")
	if !found {
		b = a
	}
	first, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return portRange{}, fmt.Errorf("%q is not a range of ports", s)
	}
	last, err := strconv.ParseUint(b, 10, 16)
	if err != nil || first == 0 || last < first {
		return portRange{}, fmt.Errorf("%q is not a range of ports", s)
	}
	return portRange{uint16(first), uint16(last)}, nil
}

// portsAsked is a port mapping of a definition: a port, or with Range a range.
type portsAsked struct {
	Protocol  string `json:"protocol"`
	Container uint16 `json:"container"`      // the first
	Count     uint16 `json:"count"`          // 1 or more
	Host      uint16 `json:"host,omitempty"` // 0: to be chosen
	Range     bool   `json:"range,omitempty"`
}

func (a portsAsked) proto() *dispatchpb.PortMapping {
	if a.Range {
		return &dispatchpb.PortMapping{Protocol: a.Protocol, ContainerPortRange: rangeText(a.Container, a.Count)}
	}
	return &dispatchpb.PortMapping{Protocol: a.Protocol, ContainerPort: int32(a.Container), HostPort: int32(a.Host)}
}

// binding is what was asked for, with the host's first port.
type binding portsAsked

// anyAddress is where ports are reached: at all of the host's addresses.
const anyAddress = "0.0.0.0"

func (b binding) protocol() uint8 {
	if b.Protocol == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func (b binding) proto() *dispatchpb.PortMapping {
	p := portsAsked(b).proto()
	p.BindIp = anyAddress
	if b.Range {
		p.HostPortRange = rangeText(b.Host, b.Count)
	}
	return p
}

func rangeText(first, count uint16) string { return fmt.Sprintf("%d-%d", first, first+count-1) }

// parseMappings validates an endpoint's ports.
func parseMappings(e agent.Endpoint) ([]portsAsked, error) {
	var asked []portsAsked
	if e.Isolated {
		return nil, nil // as Docker ignores them then
	}
	for _, m := range e.Ports {
		a := portsAsked{Protocol: cmp.Or(m.Protocol, "tcp"), Count: 1}
		if a.Protocol != "tcp" && a.Protocol != "udp" {
			return nil, fmt.Errorf("protocol %q of a port mapping is neither tcp nor udp", m.Protocol)
		}
		if m.ContainerPortRange != "" {
			r, err := parsePorts(m.ContainerPortRange)
			if err != nil {
				return nil, fmt.Errorf("port mapping: %w", err)
			}
			a.Range, a.Container, a.Count = true, r.First, r.Last-r.First+1
		} else {
			if m.ContainerPort < 1 || m.ContainerPort > 65535 || m.HostPort < 0 || m.HostPort > 65535 {
				return nil, fmt.Errorf("port mapping %d:%d is not one of ports", m.HostPort, m.ContainerPort)
			}
			a.Container, a.Host = uint16(m.ContainerPort), uint16(m.HostPort)
		}
		asked = append(asked, a)
	}
	return asked, nil
}

// reservedPorts are never chosen: SSH, the Docker daemon, and Amazon's agent.
var reservedPorts = []portRange{{22, 22}, {2375, 2376}, {51678, 51680}}

// Both are per network namespace.
const (
	localPortsFile    = "/proc/sys/net/ipv4/ip_local_port_range"
	reservedPortsFile = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

// defaultDynamicPorts is Amazon's agent's where the kernel does not tell its range.
var defaultDynamicPorts = portRange{49153, 65535}

// dynamicPorts is the range to choose host ports from, and those in it to leave alone. It is called in
// the host's network namespace.
func (n *Network) dynamicPorts() (within portRange, except []portRange, err error) {
	within = defaultDynamicPorts
	if n.cfg.DynamicPorts != "" {
		if within, err = parsePorts(n.cfg.DynamicPorts); err != nil {
			return within, nil, err
		}
	} else if b, err := os.ReadFile(localPortsFile); err == nil {
		if r, err := parsePorts(strings.Join(strings.Fields(string(b)), "-")); err == nil {
			within = r
		}
	}
	except = reservedPorts
	b, err := os.ReadFile(reservedPortsFile)
	if err != nil {
		return within, except, nil // older than 2.6.35, or hidden
	}
	return within, append(parsePortList(string(b)), except...), nil
}

// parsePortList reads "22,8000-8010"; what is not a port is left out.
func parsePortList(s string) []portRange {
	var list []portRange
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		if r, err := parsePorts(part); err == nil {
			list = append(list, r)
		}
	}
	return list
}

// choose finds count ports in a row within a range, after the last one that was chosen, and from the
// range's start when its end is reached: as Amazon's agent does. take tries to take a port; giveBack
// takes that back.
func choose(within portRange, except []portRange, last uint16, count int, take func(uint16) error, giveBack func(uint16)) (first uint16, err error) {
	start := int(within.First)
	if within.contains(last) && last < within.Last {
		start = int(last) + 1
	}
	var why error
	run := 0 // how many ports before the next are taken
	drop := func(next int) {
		for ; run > 0; run-- {
			giveBack(uint16(next - run))
		}
	}
	try := func(from, to int) (uint16, bool) {
		for p := from; p <= to; p++ {
			port, excepted := uint16(p), false
			for _, r := range except {
				excepted = excepted || r.contains(port)
			}
			var err error
			if !excepted {
				err = take(port)
			}
			if excepted || err != nil {
				why = cmp.Or(err, why)
				drop(p)
				continue
			}
			if run++; run == count {
				return uint16(p - count + 1), true
			}
		}
		drop(to + 1)
		return 0, false
	}
	if p, ok := try(start, int(within.Last)); ok {
		return p, nil
	}
	// A row that begins before start may end after it.
	if p, ok := try(int(within.First), min(start+count-2, int(within.Last))); ok {
		return p, nil
	}
	what := "a host port is unavailable"
	if count > 1 {
		what = fmt.Sprintf("%d contiguous host ports are unavailable", count)
	}
	if why != nil {
		return 0, fmt.Errorf("%s in %d-%d; the last one: %w", what, within.First, within.Last, why)
	}
	return 0, fmt.Errorf("%s in %d-%d", what, within.First, within.Last)
}
