package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// hostFiles are the host's own name service files. Tests put others in their place.
type hostFiles struct {
	hosts, hostname, resolvConf string
	// upstreamResolvConf names the resolvers behind a local one, as systemd-resolved writes them.
	upstreamResolvConf []string
}

func defaultHostFiles() hostFiles {
	return hostFiles{
		hosts:      "/etc/hosts",
		hostname:   "/etc/hostname",
		resolvConf: "/etc/resolv.conf",
		upstreamResolvConf: []string{
			"/run/systemd/resolve/resolv.conf",
			"/run/NetworkManager/no-stub-resolv.conf",
		},
	}
}

// write generates /etc/hosts, /etc/hostname and /etc/resolv.conf for container i under dir and returns
// their mounts. A file of the same name is overwritten in place: a container that has it mounted
// keeps it. Nothing is synced to disk; the files are of use only to containers that the same power
// cut ends. address is the container's, empty without one; links are the lines that its links add.
func (h hostFiles) write(dir string, t *dispatchpb.Task, i int, address string, links []byte) ([]Mount, error) {
	c := t.Containers[i]
	dir = filepath.Join(dir, strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var mounts []Mount
	add := func(target string, content []byte) error {
		source := filepath.Join(dir, filepath.Base(target))
		if err := os.WriteFile(source, content, 0o644); err != nil {
			return err
		}
		mounts = append(mounts, Mount{Source: source, Target: target})
		return nil
	}

	resolv, err := h.resolver(t.NetworkMode == networkHost, c.DnsServers, c.DnsSearchDomains)
	if err != nil {
		return nil, err
	}
	var hosts []byte
	if t.NetworkMode == networkHost {
		if hosts, err = readOptional(h.hosts); err != nil {
			return nil, err
		}
		hosts = append(hosts, extraHosts(c)...)
		name, err := readOptional(h.hostname)
		if err != nil {
			return nil, err
		}
		if err := add("/etc/hostname", name); err != nil {
			return nil, err
		}
	} else {
		name := containerHostname(t, i, "")
		if address == "" {
			address = "127.0.1.1" // Debian's way to give the name of a host without a network an address
		}
		hosts = fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s\n%s%s", address, withAlias(name), extraHosts(c), links)
		if err := add("/etc/hostname", []byte(name+"\n")); err != nil {
			return nil, err
		}
	}
	if err := add("/etc/hosts", hosts); err != nil {
		return nil, err
	}
	if err := add("/etc/resolv.conf", resolv); err != nil {
		return nil, err
	}
	return mounts, nil
}

// withAlias adds the first label to a name that has several.
func withAlias(name string) string {
	if short, _, found := strings.Cut(name, "."); found {
		return name + " " + short
	}
	return name
}

func extraHosts(c *dispatchpb.Container) []byte {
	var b []byte
	for _, h := range c.ExtraHosts {
		b = fmt.Appendf(b, "%s %s\n", h.Value, h.Name)
	}
	return b
}

// resolver makes a resolv.conf: the host's, with servers and search domains replaced where the
// definition gives some. A server on the host's loopback address cannot be reached from a namespace
// of one's own; the resolvers it forwards to take its place.
func (h hostFiles) resolver(hostNetwork bool, servers, search []string) ([]byte, error) {
	own, err := readOptional(h.resolvConf)
	if err != nil {
		return nil, err
	}
	if hostNetwork && len(servers) == 0 && len(search) == 0 {
		return own, nil
	}
	conf := parseResolvConf(own)
	if !hostNetwork {
		conf.servers = reachable(conf.servers)
		for _, path := range h.upstreamResolvConf {
			if len(conf.servers) > 0 || len(servers) > 0 {
				break
			}
			up, err := readOptional(path)
			if err != nil {
				return nil, err
			}
			conf.servers = reachable(parseResolvConf(up).servers)
		}
	}
	if len(servers) > 0 {
		conf.servers = servers
	}
	if len(search) > 0 {
		conf.search = search
	}
	return conf.bytes(), nil
}

// resolvConf is a resolv.conf(5).
type resolvConf struct {
	servers, search []string
	other           []string // options and sortlist, as written
}

func parseResolvConf(b []byte) resolvConf {
	var r resolvConf
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.servers = append(r.servers, fields[1])
		case "search", "domain": // the last one wins
			r.search = fields[1:]
		case "options", "sortlist":
			r.other = append(r.other, strings.Join(fields, " "))
		}
	}
	return r
}

func (r resolvConf) bytes() []byte {
	var b []byte
	for _, s := range r.servers {
		b = fmt.Appendf(b, "nameserver %s\n", s)
	}
	if len(r.search) > 0 {
		b = fmt.Appendf(b, "search %s\n", strings.Join(r.search, " "))
	}
	for _, o := range r.other {
		b = fmt.Appendf(b, "%s\n", o)
	}
	return b
}

// reachable keeps the servers that a namespace with one routed IPv4 address can reach.
func reachable(servers []string) []string {
	var out []string
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		if err == nil && a.Unmap().Is4() && !a.Unmap().IsLoopback() && !a.Unmap().IsUnspecified() {
			out = append(out, s)
		}
	}
	return out
}

func readOptional(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
