package network

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Others change the host too: a firewall that is loaded anew takes all tables with it, and Docker its
// own chains. The watcher looks at what should be there whenever netfilter's tables change, and now and
// then in any case.
type watcher struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
}

const (
	// lookInterval is for what the kernel does not announce: legacy iptables, and ports set free.
	lookInterval = 5 * time.Second
	// settle is how long not to look again: changes come in groups. It is also how long, at most, the
	// host is without our rules.
	settle = 50 * time.Millisecond
)

func (w *watcher) stop() {
	if w.cancel != nil {
		w.cancel()
	}
	w.running.Wait()
}

// watch repairs until the watcher is stopped.
func (n *Network) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	n.watcher.cancel = cancel
	changes := make(chan struct{}, 1)
	if events, err := n.tableEvents(); err != nil {
		n.log.Warn("changes of nftables are not announced", "error", err)
	} else {
		context.AfterFunc(ctx, func() { events.Close() })
		n.watcher.running.Go(func() { announce(events, changes) })
	}
	n.watcher.running.Go(func() {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		told := ""
		for ctx.Err() == nil {
			switch err := n.repair(); {
			case err == nil:
				told = ""
			case err.Error() != told: // the same one is told once
				told = err.Error()
				n.log.Warn("the host's network is not as it should be", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
			select {
			case <-ctx.Done():
			case <-ticker.C:
			case <-changes:
			}
		}
	})
}

// tableEvents opens a socket on which the kernel announces each change of nftables.
func (n *Network) tableEvents() (events *os.File, err error) {
	err = n.onHost(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
			unix.Close(fd)
			return err
		}
		events = os.NewFile(uintptr(fd), "nftables events")
		return nil
	})
	return events, err
}

// announce tells of changes, until events is closed. What they are does not matter.
func announce(events *os.File, changes chan<- struct{}) {
	b := make([]byte, 8192)
	for {
		_, err := events.Read(b)
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // ENOBUFS: there were more than fitted
			return
		}
		select {
		case changes <- struct{}{}:
		default:
		}
	}
}

// repair makes good what others took away, and changes nothing else.
func (n *Network) repair() error {
	n.holdAgain()
	return errors.Join(n.repairTable(), n.joinDocker())
}

// repairTable installs the table if it is not there.
func (n *Network) repairTable() error {
	n.rules.mu.Lock()
	defer n.rules.mu.Unlock()
	if there, err := n.hasTable(n.inst.table()); there || err != nil {
		return err
	}
	n.log.Warn("the nftables table is gone: installing it again", "table", n.inst.table())
	return n.installRulesLocked()
}
