//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

type points struct {
	mu   sync.Mutex
	seen map[string]int
	die  string
	at   int
	log  string
}

var active = sync.OnceValue(func() *points {
	p := &points{seen: map[string]int{}, at: 1, log: os.Getenv("BERTH_FAILPOINT_LOG")}
	name, n, found := strings.Cut(os.Getenv("BERTH_FAILPOINT"), "#")
	p.die = name
	if found {
		if at, err := strconv.Atoi(n); err == nil {
			p.at = at
		}
	}
	return p
})

// Hit marks a failpoint. Names read "room/operation/before" or "…/after".
func Hit(name string) {
	p := active()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[name]++
	if p.seen[name] == 1 && p.log != "" {
		if f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			f.WriteString(name + "\n")
			f.Close()
		}
	}
	if p.die == name && p.seen[name] == p.at {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
