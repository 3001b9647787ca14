package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/failpoint"
)

// record is what an endpoint was given. It stands beside the namespace, in a file that is gone after a
// reboot as the namespace is, and is written before anything is made: an address and ports once given
// stay given, whatever happens to the agent.
type record struct {
	Schema   int          `json:"schema"`
	Isolated bool         `json:"isolated,omitempty"`
	Address  netip.Addr   `json:"address,omitzero"`
	Gateway  netip.Addr   `json:"gateway,omitzero"`
	Bindings []binding    `json:"bindings,omitempty"`
	Asked    []portsAsked `json:"asked,omitempty"`
	leaving  bool         // its ports are mapped no more
}

// mappings are the record's bindings, port by port.
func (r record) mappings() []mapping {
	var m []mapping
	for _, b := range r.Bindings {
		for k := range b.Count {
			m = append(m, mapping{b.protocol(), b.Host + k, netip.AddrPortFrom(r.Address, b.Container+k)})
		}
	}
	return m
}

// endpoints is what the instance's endpoints have, by endpointKey.
type endpoints struct {
	mu      sync.Mutex
	records map[string]record
	last    netip.Addr // the last address given out
}

// mappings are those of all endpoints.
func (e *endpoints) mappings() []mapping {
	e.mu.Lock()
	defer e.mu.Unlock()
	var m []mapping
	for _, r := range e.records {
		if !r.leaving {
			m = append(m, r.mappings()...)
		}
	}
	return m
}

func (e *endpoints) get(key string) (record, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, ok := e.records[key]
	return r, ok
}

func (e *endpoints) put(key string, r record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.records[key] = r
}

func (e *endpoints) remove(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.records, key)
}

// reserve gives the endpoint an address of the subnet. Addresses go round, so that one that was given
// back is left alone for a while: others may still be talking to it.
func (e *endpoints) reserve(key string, subnet netip.Prefix) (netip.Addr, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	used := map[netip.Addr]bool{}
	for _, r := range e.records {
		used[r.Address] = true
	}
	first, last, _ := Usable(subnet)
	next := func(a netip.Addr) netip.Addr {
		if a = a.Next(); !IsUsable(subnet, a) {
			return first
		}
		return a
	}
	start := last
	if IsUsable(subnet, e.last) {
		start = e.last
	}
	for a := next(start); ; a = next(a) {
		if !used[a] {
			e.last = a
			e.records[key] = record{Address: a}
			return a, nil
		}
		if a == start {
			return netip.Addr{}, fmt.Errorf("all addresses of %v are in use", subnet)
		}
	}
}

// An endpoint has a directory, <RunDir>/bridge/<task>/<container>, with its namespace and its record.
func (n *Network) endpointsDir() string { return filepath.Join(n.cfg.RunDir, "bridge") }

func (n *Network) endpointDir(taskID, container string) string {
	return filepath.Join(n.endpointsDir(), taskID, container)
}

const (
	namespaceFile = "netns"
	recordFile    = "endpoint.json"
)

// Connect implements agent.Bridge. What an interrupted Connect left is completed.
func (n *Network) Connect(ctx context.Context, e agent.Endpoint) (agent.Connection, error) {
	fail := func(err error) (agent.Connection, error) {
		return agent.Connection{}, fmt.Errorf("connect container %q of task %s: %w", e.Container, e.TaskID, err)
	}
	if err := errors.Join(validTask(e.TaskID), validContainer(e.Container)); err != nil {
		return fail(err)
	}
	asked, err := parseMappings(e)
	if err != nil {
		return fail(err)
	}
	key := endpointKey(e.TaskID, e.Container)
	defer n.tasks.lock(key)()
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	failpoint.Hit("network/connect/before")
	dir := n.endpointDir(e.TaskID, e.Container)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	r, known := n.endpoints.get(key)
	if !known {
		if r, err = n.allocate(key, dir, e.Isolated, asked); err != nil {
			return fail(err)
		}
	} else if r.Isolated != e.Isolated || !slices.Equal(r.Asked, asked) {
		return fail(errors.New("it is connected, with other ports"))
	} else if r.leaving {
		r.leaving = false
		n.endpoints.put(key, r)
	}
	failpoint.Hit("network/connect/record")

	path := filepath.Join(dir, namespaceFile)
	ns, inside, err := n.enterNamespace(path)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(ns)
	defer inside.Close()
	failpoint.Hit("network/connect/namespace")
	if r.Isolated {
		if err := loopback(inside); err != nil {
			return fail(err)
		}
		return agent.Connection{NetNS: path}, nil
	}
	nic := nic{r.Address, macOf(r.Address)}
	l := link{name: n.inst.link(key), alias: n.inst.alias(key), nic: nic, gateway: r.Gateway}
	if err := n.connect(l, ns, inside); err != nil {
		return fail(err)
	}
	failpoint.Hit("network/connect/link")
	if err := n.mapPorts(r.mappings(), true); err != nil {
		return fail(err)
	}
	n.forgetFlows(r)
	failpoint.Hit("network/connect/after")
	c := agent.Connection{NetNS: path, IPv4: r.Address.String(), Gateway: r.Gateway.String(), MAC: nic.mac.String()}
	for _, b := range r.Bindings {
		c.Bindings = append(c.Bindings, b.proto())
	}
	return c, nil
}

// allocate chooses the endpoint's address and ports, holds the ports, and records all of it.
func (n *Network) allocate(key, dir string, isolated bool, asked []portsAsked) (r record, err error) {
	r = record{Schema: schema, Isolated: isolated, Asked: asked}
	if !isolated {
		r.Gateway = Gateway(n.bridge.subnet)
		if r.Address, err = n.endpoints.reserve(key, n.bridge.subnet); err != nil {
			return record{}, err
		}
		defer func() {
			if err != nil { // the directory stays, by which Connected knows of the attempt
				n.ports.release(key)
				n.endpoints.remove(key)
			}
		}()
		if r.Bindings, err = n.holdPorts(key, r.Address, asked); err != nil {
			return record{}, err
		}
	}
	failpoint.Hit("network/connect/held")
	if err := writeRecord(dir, r); err != nil {
		return record{}, err
	}
	n.endpoints.put(key, r)
	return r, nil
}

// writeRecord needs not reach the disk: a power cut ends the endpoint too.
func writeRecord(dir string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, recordFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("record the endpoint: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("record the endpoint: %w", err)
	}
	return nil
}

// readRecord answers false where there is none: that Connect made nothing yet.
func readRecord(dir string) (r record, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err == nil {
		r, err = parseRecord(b)
	}
	if err != nil {
		return r, false, fmt.Errorf("read what endpoint %s has: %w", dir, err)
	}
	return r, true, nil
}

func parseRecord(b []byte) (r record, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if r.Schema > schema {
		return r, fmt.Errorf("it has schema %d, newer than %d", r.Schema, schema)
	}
	return r, r.valid()
}

// valid tells whether the bindings are of ports that exist.
func (r record) valid() error {
	if len(r.Bindings) > 0 && !r.Address.Is4() {
		return errors.New("it has ports, but no address")
	}
	for _, b := range r.Bindings {
		const ports = 1 << 16
		if b.Count == 0 || b.Host == 0 || b.Container == 0 || int(b.Host)+int(b.Count) > ports || int(b.Container)+int(b.Count) > ports {
			return fmt.Errorf("it has the impossible binding %+v", b)
		}
	}
	return nil
}

// loadEndpoints reads the records of all endpoints, and holds their ports again.
func (n *Network) loadEndpoints() error {
	n.endpoints.records = map[string]record{}
	list, err := n.listEndpoints()
	if err != nil {
		return err
	}
	for _, e := range list {
		key := endpointKey(e.TaskID, e.Container)
		r, ok, err := readRecord(n.endpointDir(e.TaskID, e.Container))
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		n.endpoints.records[key] = r
		if r.Address.Compare(n.endpoints.last) > 0 {
			n.endpoints.last = r.Address
		}
	}
	n.holdAgain()
	return nil
}

// listEndpoints lists the endpoints' directories.
func (n *Network) listEndpoints() ([]agent.Endpoint, error) {
	tasks, err := namesIn(n.endpointsDir())
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	var list []agent.Endpoint
	for _, task := range tasks {
		containers, err := namesIn(filepath.Join(n.endpointsDir(), task))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // removed meanwhile
			return nil, fmt.Errorf("list endpoints: %w", err)
		}
		for _, c := range containers {
			list = append(list, agent.Endpoint{TaskID: task, Container: c})
		}
	}
	return list, nil
}

// Connected implements agent.Bridge. It also names endpoints whose Connect or Disconnect was
// interrupted.
func (n *Network) Connected(context.Context) ([]agent.Endpoint, error) {
	list, err := n.listEndpoints()
	if err != nil {
		return nil, err
	}
	for i := range list {
		e := &list[i]
		if r, ok := n.endpoints.get(endpointKey(e.TaskID, e.Container)); ok {
			e.Isolated = r.Isolated
			for _, a := range r.Asked {
				e.Ports = append(e.Ports, a.proto())
			}
		}
	}
	return list, nil
}

// Disconnect implements agent.Bridge. First nobody is led to the container any more; the record goes
// last, since its address and ports are given to others then.
func (n *Network) Disconnect(ctx context.Context, taskID, container string) error {
	if err := errors.Join(validTask(taskID), validContainer(container)); err != nil {
		return fmt.Errorf("disconnect container: %w", err)
	}
	key := endpointKey(taskID, container)
	defer n.tasks.lock(key)()
	if err := ctx.Err(); err != nil {
		return err
	}
	failpoint.Hit("network/disconnect/before")
	if err := n.disconnect(key, n.endpointDir(taskID, container)); err != nil {
		return fmt.Errorf("disconnect container %q of task %s: %w", container, taskID, err)
	}
	failpoint.Hit("network/disconnect/after")
	return nil
}

func (n *Network) disconnect(key, dir string) error {
	r, known := n.endpoints.get(key)
	if known {
		r.leaving = true
		n.endpoints.put(key, r)
		if err := n.mapPorts(r.mappings(), false); err != nil {
			return err
		}
	}
	failpoint.Hit("network/disconnect/unmapped")
	if err := n.removeLink(n.inst.link(key)); err != nil {
		return err
	}
	failpoint.Hit("network/disconnect/link")
	n.forgetFlows(r)
	if err := removeNetNS(filepath.Join(dir, namespaceFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	failpoint.Hit("network/disconnect/namespace")
	for _, f := range []string{recordFile + ".new", recordFile, ""} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the endpoint's record: %w", err)
		}
	}
	// The task's directory goes with its last endpoint.
	if err := os.Remove(filepath.Dir(dir)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove the task's directory: %w", err)
	}
	n.ports.release(key)
	n.endpoints.remove(key)
	return nil
}

// forgetFlows drops what the kernel remembers of UDP flows through the endpoint's ports. A client that
// goes on sending from the same port would otherwise be led for good to where its first packet went.
// What cannot be dropped ends by itself, some time after the client has paused.
func (n *Network) forgetFlows(r record) {
	f := flowsTo{address: r.Address, ports: map[uint16]bool{}, local: map[netip.Addr]bool{}}
	for _, m := range r.mappings() {
		if m.protocol == unix.IPPROTO_UDP {
			f.ports[m.port] = true
		}
	}
	if len(f.ports) == 0 {
		return
	}
	addrs, err := n.nl.AddrList(nil, netlink.FAMILY_V4)
	for _, a := range addrs {
		f.local[toAddr(a.IP)] = true
	}
	if err == nil {
		_, err = n.nl.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
	}
	if err != nil {
		n.log.Warn("cannot drop the UDP flows of an endpoint", "address", r.Address, "error", err)
	}
}

// flowsTo matches UDP flows that began with a packet to one of the ports of the host, and lead to the
// endpoint or to the host itself.
type flowsTo struct {
	address netip.Addr
	ports   map[uint16]bool
	local   map[netip.Addr]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowsTo) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == unix.IPPROTO_UDP && f.ports[flow.Forward.DstPort] &&
		(toAddr(flow.Reverse.SrcIP) == f.address || f.local[toAddr(flow.Forward.DstIP)])
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
