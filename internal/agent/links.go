package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// Links are Docker's, of its default bridge network: the linked container gets names in /etc/hosts and
// environment variables that tell where it is. They open nothing and close nothing: containers of
// network mode bridge reach each other's addresses with and without links.
//
// Other than in Docker, what the image says of the linked container is not known here: the ports that
// it exposes beyond the mapped ones.

// link is one of a container's links, "container" or "container:alias".
type link struct {
	to    int // index of the linked container in the task
	alias string
}

// linksOf answers the links of container i whose other container is in the task, in their order.
func linksOf(t *dispatchpb.Task, i int) []link {
	var links []link
	for _, l := range t.Containers[i].Links {
		name, alias, _ := strings.Cut(l, ":")
		to := slices.IndexFunc(t.Containers, func(c *dispatchpb.Container) bool { return c.Name == name })
		if to >= 0 {
			links = append(links, link{to, cmp.Or(alias, name)})
		}
	}
	return links
}

// linkHosts are the lines that the links of container i add to its /etc/hosts, after those of its
// extraHosts and before its own: address, alias, host name and name of the linked container.
// connections has an element for each of the task's containers; one without an address has no line.
func linkHosts(t *dispatchpb.Task, i int, connections []Connection) []byte {
	var b []byte
	for _, l := range linksOf(t, i) {
		address := connections[l.to].IPv4
		if address == "" {
			continue
		}
		b = fmt.Appendf(b, "%s %s %s", address, l.alias, containerHostname(t, l.to, ""))
		if name := dockerName(t, l.to); name != l.alias {
			b = fmt.Appendf(b, " %s", name)
		}
		b = append(b, '\n')
	}
	return b
}

// linkEnvironment are the variables, "NAME=value", that the links of container i add. In Docker they
// come before the container's own, which win. connections and environments, what each of the task's
// containers was given, have an element for each container.
func linkEnvironment(t *dispatchpb.Task, i int, connections []Connection, environments [][]string) []string {
	var env []string
	for _, l := range linksOf(t, i) {
		address := connections[l.to].IPv4
		if address == "" {
			continue
		}
		prefix := strings.ReplaceAll(strings.ToUpper(l.alias), "-", "_")
		env = append(env, linkPortVariables(prefix, address, mappedPorts(t.Containers[l.to]))...)
		env = append(env, prefix+"_NAME=/"+dockerName(t, i)+"/"+l.alias)
		for _, kv := range environments[l.to] {
			// Docker leaves out what each image has.
			if name, _, ok := strings.Cut(kv, "="); ok && name != "HOME" && name != "PATH" {
				env = append(env, prefix+"_ENV_"+kv)
			}
		}
	}
	return env
}

// linkPortVariables are Docker's variables for a linked container's ports, which are in order.
func linkPortVariables(prefix, address string, ports []exposedPort) []string {
	var env []string
	add := func(p exposedPort, suffix, format string, args ...any) {
		env = append(env, fmt.Sprintf("%s_PORT_%d_%s%s=%s", prefix, p.number, strings.ToUpper(p.protocol), suffix, fmt.Sprintf(format, args...)))
	}
	if len(ports) > 0 {
		env = append(env, prefix+"_PORT="+ports[0].url(address))
	}
	for k := 0; k < len(ports); {
		first, last := ports[k], ports[k]
		for ; k < len(ports) && ports[k].protocol == first.protocol && ports[k].number <= last.number+1; k++ {
			last = ports[k]
			add(last, "", "%s", last.url(address))
			add(last, "_ADDR", "%s", address)
			add(last, "_PORT", "%d", last.number)
			add(last, "_PROTO", "%s", last.protocol)
		}
		if first != last {
			add(first, "_START", "%s", first.url(address))
			add(first, "_PORT_START", "%d", first.number)
			add(first, "_END", "%s", last.url(address))
			add(first, "_PORT_END", "%d", last.number)
		}
	}
	return env
}

// exposedPort is a container's port.
type exposedPort struct {
	protocol string
	number   int
}

func (p exposedPort) url(address string) string {
	return p.protocol + "://" + address + ":" + strconv.Itoa(p.number)
}

// mappedPorts are the container's ports in its mappings, once each: TCP first, as Docker orders them.
func mappedPorts(c *dispatchpb.Container) []exposedPort {
	var ports []exposedPort
	for _, m := range c.PortMappings {
		protocol := cmp.Or(m.Protocol, "tcp")
		first, last := int(m.ContainerPort), int(m.ContainerPort)
		if a, b, ok := strings.Cut(m.ContainerPortRange, "-"); ok {
			var errs [2]error
			first, errs[0] = strconv.Atoi(a)
			last, errs[1] = strconv.Atoi(b)
			if errs != [2]error{} {
				continue
			}
		}
		for number := max(first, 1); number <= min(last, 65535); number++ {
			ports = append(ports, exposedPort{protocol, number})
		}
	}
	slices.SortFunc(ports, func(a, b exposedPort) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.number, b.number)) // tcp before udp
	})
	return slices.Compact(ports)
}
