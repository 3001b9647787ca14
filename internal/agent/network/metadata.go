package network

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// ServeMetadata leads what tasks of network modes awsvpc and bridge send to 169.254.170.2:80 to the
// server that listens on the port of the host's 127.0.0.1. The server sees the address of the container,
// or of the awsvpc task, that asks. Nothing else listens at that address, and nothing else on the host's
// loopback can be reached so.
//
// hostMode tells whether the host's own processes, and with them the containers of network mode host,
// are led there too. That is so for one instance of a host, the first, and where the host has a route to
// that address, as a default route is; otherwise containers of network mode host must be given a URL that
// names the loopback address and the port.
//
// It holds until Close or Reset. A crash leaves the redirect as it is, until the next Open.
func (n *Network) ServeMetadata(ctx context.Context, port uint16) (hostMode bool, err error) {
	if port == 0 {
		return false, errors.New("serve metadata: no port")
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	n.rules.mu.Lock()
	defer n.rules.mu.Unlock()
	if n.rules.hostMetadata == nil {
		if n.rules.hostMetadata, err = n.claimHostMetadata(); err != nil {
			return false, fmt.Errorf("serve metadata: %w", err)
		}
	}
	n.rules.metadata = port
	if err := n.installRulesLocked(); err != nil {
		return false, fmt.Errorf("serve metadata: %w", err)
	}
	return n.rules.hostMetadata != nil, nil
}

// claimHostMetadata claims the redirect for the host's processes. It is nil if that is another
// instance's, which runs, or has died and left its rules; or if there is no way out that would be
// redirected.
func (n *Network) claimHostMetadata() (*claim, error) {
	if routes, err := n.nl.RouteGet(metadataAddr.AsSlice()); err != nil || len(routes) == 0 {
		return nil, nil
	}
	f, err := lockFile(filepath.Join(n.cfg.PoolDir, metadataAddr.String()+".lock"))
	if err == unix.EWOULDBLOCK {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("claim %v: %w", metadataAddr, err)
	}
	c := &claim{file: f}
	owner, err := c.owner()
	if err == nil && owner != "" && owner != string(n.inst) {
		var left bool
		if left, err = n.hasTable(instance(owner).table()); left {
			c.close()
			return nil, nil
		}
	}
	if err == nil {
		err = c.record(string(n.inst))
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (n *Network) hasTable(name string) (bool, error) {
	c, err := n.nftables()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == name {
			return true, nil
		}
	}
	return false, nil
}
