package network

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The host's own namespace is reached through a magic link, which O_NOFOLLOW would refuse.
func TestOpenOwnNetNS(t *testing.T) {
	t.Parallel()
	fd, err := openNetNS("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}
