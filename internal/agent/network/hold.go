package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// portTable is the host ports that this process holds. A held port is a listening socket on all of the
// host's addresses: no other process can take the port, and one that has it is found out.
//
// The kernel leads what comes over IPv4 past the socket, to the container. What reaches it, as over
// IPv6, which containers do not have, is passed on by the process: as by Docker's userland proxy. UDP is
// passed on over IPv4 only.
type portTable struct {
	mu     sync.Mutex
	held   map[portKey]*hold
	lost   map[portKey]bool // which somebody else has, as was told
	last   uint16           // the last one chosen
	closed bool
}

type portKey struct {
	protocol uint8
	port     uint16
}

// hold is one held port.
type hold struct {
	owner  string // an endpointKey
	socket io.Closer
	stop   func() // ends the proxy
}

// holdPorts holds the ports asked for, choosing those that were left open: all of them or, with an
// error, none.
func (n *Network) holdPorts(owner string, address netip.Addr, asked []portsAsked) (bindings []binding, err error) {
	if len(asked) == 0 {
		return nil, nil
	}
	n.ports.mu.Lock()
	defer n.ports.mu.Unlock()
	taken := map[portKey]*hold{}
	defer func() {
		if err != nil {
			for _, h := range taken {
				h.socket.Close()
			}
		}
	}()
	take := func(k portKey) error {
		if n.ports.held[k] != nil || taken[k] != nil {
			return unix.EADDRINUSE
		}
		socket, err := listen(k)
		if err == nil {
			taken[k] = &hold{owner: owner, socket: socket}
		}
		return err
	}
	err = n.onHost(func() error {
		// Those with a number first, lest one be chosen for another.
		bindings = make([]binding, len(asked))
		for i, a := range asked {
			bindings[i] = binding(a)
			if a.Range || a.Host == 0 {
				continue
			}
			if err := take(portKey{bindings[i].protocol(), a.Host}); err != nil {
				return cannotBind(a.Host, err)
			}
		}
		var within portRange
		var except []portRange
		for i, a := range asked {
			if !a.Range && a.Host != 0 {
				continue
			}
			if within.First == 0 {
				if within, except, err = n.dynamicPorts(); err != nil {
					return err
				}
			}
			protocol := bindings[i].protocol()
			first, err := choose(within, except, n.ports.last, int(a.Count),
				func(p uint16) error { return take(portKey{protocol, p}) },
				func(p uint16) {
					k := portKey{protocol, p}
					taken[k].socket.Close()
					delete(taken, k)
				})
			if err != nil {
				return err
			}
			bindings[i].Host = first
			n.ports.last = first + a.Count - 1
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, b := range bindings {
		for k := range b.Count {
			key := portKey{b.protocol(), b.Host + k}
			n.keep(key, taken[key], netip.AddrPortFrom(address, b.Container+k))
		}
	}
	return bindings, nil
}

// keep adds a hold to the table. The table is locked.
func (n *Network) keep(k portKey, h *hold, to netip.AddrPort) {
	if n.ports.held == nil {
		n.ports.held = map[portKey]*hold{}
	}
	h.stop = func() { h.socket.Close() }
	if l, ok := h.socket.(net.Listener); ok {
		h.stop = n.forward(l, to)
	}
	n.ports.held[k] = h
}

// cannotBind says it as Docker does.
func cannotBind(port uint16, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		//lint:ignore ST1005 Docker's words
		return fmt.Errorf("Bind for %s:%d failed: port is already allocated", anyAddress, port)
	}
	//lint:ignore ST1005 likewise
	return fmt.Errorf("Bind for %s:%d failed: %w", anyAddress, port, err)
}

// holdAgain holds the ports of all endpoints that are not held. Where somebody else has come to have
// one, the container is still reached, but for IPv6.
func (n *Network) holdAgain() {
	type wish struct {
		owner string
		to    netip.AddrPort
	}
	n.ports.mu.Lock() // first, so that what is wanted is not released meanwhile
	defer n.ports.mu.Unlock()
	if n.ports.closed {
		return
	}
	wanted := map[portKey]wish{}
	n.endpoints.mu.Lock()
	for key, r := range n.endpoints.records {
		if r.leaving {
			continue
		}
		for _, m := range r.mappings() {
			if k := (portKey{m.protocol, m.port}); n.ports.held[k] == nil {
				wanted[k] = wish{key, m.to}
			}
		}
	}
	n.endpoints.mu.Unlock()
	if len(wanted) == 0 {
		return
	}
	lost := map[portKey]bool{}
	err := n.onHost(func() error {
		for k, w := range wanted {
			socket, err := listen(k)
			if err != nil {
				if !n.ports.lost[k] {
					n.log.Warn("a mapped port cannot be held", "endpoint", w.owner, "port", k.port, "error", err)
				}
				lost[k] = true
				continue
			}
			n.keep(k, &hold{owner: w.owner, socket: socket}, w.to)
		}
		return nil
	})
	n.ports.lost = lost
	if err != nil {
		n.log.Warn("cannot hold the mapped ports", "error", err)
	}
}

// release lets an endpoint's ports go.
func (t *portTable) release(owner string) {
	t.mu.Lock()
	var stop []*hold
	for k, h := range t.held {
		if h.owner == owner {
			stop = append(stop, h)
			delete(t.held, k)
		}
	}
	t.mu.Unlock()
	for _, h := range stop {
		h.stop()
	}
}

func (t *portTable) close() {
	t.mu.Lock()
	held := t.held
	t.held, t.closed = nil, true
	t.mu.Unlock()
	for _, h := range held {
		h.stop()
	}
}

// listen holds a port in the current network namespace. A TCP socket that does not listen would not
// keep others out that set SO_REUSEADDR.
func listen(k portKey) (io.Closer, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	if k.protocol == unix.IPPROTO_UDP {
		return lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", k.port))
	}
	return lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", k.port))
}

const (
	proxyDialTimeout = 10 * time.Second
	// proxyConnections bounds those that are passed on at the same time for one port.
	proxyConnections = 256
)

// forward passes on each connection that l accepts. The function that it returns closes l and all
// connections, and returns when nothing runs any more.
func (n *Network) forward(l net.Listener, to netip.AddrPort) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	free := make(chan struct{}, proxyConnections)
	running.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of descriptors, or the client has gone
				select {
				case <-ctx.Done():
					return
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			select {
			case free <- struct{}{}:
			default:
				c.Close()
				continue
			}
			running.Go(func() {
				defer func() { <-free }()
				n.pass(ctx, c.(*net.TCPConn), to)
			})
		}
	})
	return func() {
		cancel()
		l.Close()
		running.Wait()
	}
}

// pass connects and copies, until both sides have said all or ctx ends.
func (n *Network) pass(ctx context.Context, client *net.TCPConn, to netip.AddrPort) {
	defer client.Close()
	var server *net.TCPConn
	err := n.onHost(func() error {
		d := net.Dialer{Timeout: proxyDialTimeout}
		d.SetMultipathTCP(false)
		c, err := d.DialContext(ctx, "tcp4", to.String())
		if err == nil {
			server = c.(*net.TCPConn)
		}
		return err
	})
	if err != nil {
		client.SetLinger(0) // the client sees a reset
		return
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})()
	var upward sync.WaitGroup
	upward.Go(func() {
		io.Copy(server, client)
		server.CloseWrite()
		client.CloseRead()
	})
	io.Copy(client, server)
	client.CloseWrite()
	server.CloseRead()
	upward.Wait()
}
