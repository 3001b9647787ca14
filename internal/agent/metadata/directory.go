package metadata

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"sync"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// directory finds containers by their endpoint IDs and tasks by their addresses. It is an index over
// the source, made anew when something is not found in it; what is found is always asked of the
// source, so an index that has grown old tells nothing wrong.
type directory struct {
	source     Source
	endpointID func(t *dispatchpb.Task, i int) string

	mu     sync.RWMutex
	byID   map[[sha256.Size]byte]place
	byAddr map[netip.Addr]string // ARN
	ids    map[string][]string   // endpoint IDs of a task's containers, by its ARN
}

// place is a container.
type place struct {
	arn string
	i   int
	id  string
}

// container is what was asked for, as it is now.
type container struct {
	agent.TaskSnapshot
	i int
}

// byEndpointID finds a container. How long it takes tells nothing of the IDs there are: the key is a
// hash, and the ID is compared in constant time.
func (d *directory) byEndpointID(id string) (container, bool) {
	if len(id) != idLength {
		return container{}, false
	}
	for fresh := false; ; fresh = true {
		if p, ok := d.place(id); ok {
			if snap, ok := d.source.Task(p.arn); ok && p.i < len(snap.Task.Containers) {
				return container{snap, p.i}, true
			}
		}
		if fresh {
			return container{}, false
		}
		d.rebuild()
	}
}

// place looks into the index alone.
func (d *directory) place(id string) (place, bool) {
	if len(id) != idLength {
		return place{}, false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	p, ok := d.byID[sha256.Sum256([]byte(id))]
	return p, ok && subtle.ConstantTimeCompare([]byte(p.id), []byte(id)) == 1
}

// byAddress finds the task that has an address.
func (d *directory) byAddress(addr netip.Addr) (agent.TaskSnapshot, bool) {
	if !addr.IsValid() || addr.IsLoopback() {
		return agent.TaskSnapshot{}, false
	}
	for fresh := false; ; fresh = true {
		if arn, ok := d.indexed(addr); ok {
			if snap, ok := d.source.Task(arn); ok && has(snap, addr) {
				return snap, true
			}
		}
		if fresh {
			return agent.TaskSnapshot{}, false
		}
		d.rebuild()
	}
}

// indexed looks into the index alone.
func (d *directory) indexed(addr netip.Addr) (arn string, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	arn, ok = d.byAddr[addr]
	return arn, ok
}

func (d *directory) rebuild() {
	tasks := d.source.Snapshot().Tasks
	d.mu.RLock()
	known := d.ids
	d.mu.RUnlock()
	byID := make(map[[sha256.Size]byte]place)
	byAddr := make(map[netip.Addr]string)
	ids := make(map[string][]string, len(tasks))
	for _, snap := range tasks {
		arn := snap.Task.Arn
		own := known[arn]
		if len(own) != len(snap.Task.Containers) {
			own = make([]string, len(snap.Task.Containers))
			for i := range own {
				own[i] = d.endpointID(snap.Task, i)
			}
		}
		ids[arn] = own
		for i, id := range own {
			byID[sha256.Sum256([]byte(id))] = place{arn, i, id}
		}
		for addr := range addresses(snap) {
			byAddr[addr] = arn
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byID, d.byAddr, d.ids = byID, byAddr, ids
}

// addresses yields those that a task's containers have. A task whose network has been taken away has
// none: the next may have got them.
func addresses(snap agent.TaskSnapshot) func(yield func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		switch snap.Status.GetLastStatus() {
		case "DEPROVISIONING", "STOPPED":
			return
		}
		give := func(text string) bool {
			addr, err := netip.ParseAddr(text)
			return err != nil || yield(addr)
		}
		if snap.Task.NetworkMode == "awsvpc" && !give(snap.Task.NetworkInterface.GetPrivateIpv4()) {
			return
		}
		for _, c := range snap.Status.GetContainers() {
			if !give(c.PrivateIpv4) {
				return
			}
		}
	}
}

func has(snap agent.TaskSnapshot, addr netip.Addr) bool {
	for a := range addresses(snap) {
		if a == addr {
			return true
		}
	}
	return false
}
