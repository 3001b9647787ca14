package taskdef

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// maxPorts is how many host ports an instance can reserve, so no task can ask for more.
const maxPorts = 100

var (
	rangePattern    = regexp.MustCompile(`^([0-9]{1,5})-([0-9]{1,5})$`)
	portNamePattern = regexp.MustCompile(`^[a-z0-9_][a-z0-9_-]{0,63}$`)
)

// parseRange reads a containerPortRange, "8000-8010", both ends included.
func parseRange(s string) (first, last int, ok bool) {
	m := rangePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, false
	}
	first, _ = strconv.Atoi(m[1])
	last, _ = strconv.Atoi(m[2])
	return first, last, first >= 1 && first < last && last <= 65535
}

// validatePorts checks port mappings one by one and, in the network modes where the task's containers
// share ports, against each other.
func validatePorts(def *ecs.RegisterTaskDefinitionInput) error {
	mode := def.NetworkMode
	u := portUse{mode: mode, taken: map[string][]span{}, names: map[string]bool{}}
	total := 0
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		name := api.Value(c.Name)
		if total += len(c.PortMappings); total > maxPorts {
			return clientError("A task definition can have at most %d port mappings.", maxPorts)
		}
		for j := range c.PortMappings {
			m := &c.PortMappings[j]
			if mode == ecs.NetworkModeNone {
				return clientError("Port mappings are not supported when networkMode=none.")
			}
			if err := validateMapping(m, name, mode); err != nil {
				return err
			}
			if err := u.claim(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func validateMapping(m *ecs.PortMapping, container string, mode ecs.NetworkMode) error {
	if err := oneOf("portMappings.protocol", m.Protocol, ecs.TransportProtocolTcp, ecs.TransportProtocolUdp); err != nil {
		return err
	}
	if err := oneOf("portMappings.appProtocol", m.AppProtocol, ecs.ApplicationProtocolHttp, ecs.ApplicationProtocolHttp2, ecs.ApplicationProtocolGrpc); err != nil {
		return err
	}
	if m.Name != nil && !portNamePattern.MatchString(*m.Name) {
		return invalidSetting("name", container)
	}
	if m.ContainerPortRange != nil {
		switch _, _, ok := parseRange(*m.ContainerPortRange); {
		case m.ContainerPort != nil || m.HostPort != nil:
			return clientError("Invalid port mapping for container '%s', cannot specify both single port and port range.", container)
		case !ok || mode == ecs.NetworkModeHost:
			return invalidSetting("containerPortRange", container)
		}
		return nil
	}
	port, hostPort := api.Value(m.ContainerPort), api.Value(m.HostPort)
	switch {
	case port < 1 || port > 65535:
		return invalidSetting("containerPort", container)
	case hostPort < 0 || hostPort > 65535:
		return invalidSetting("hostPort", container)
	case (mode == ecs.NetworkModeAwsvpc || mode == ecs.NetworkModeHost) && hostPort != port:
		return clientError("When networkMode=%s, the host ports and container ports in port mappings must match.", string(mode))
	}
	return nil
}

// span is a run of ports, both ends included.
type span struct{ first, last int }

// portUse is what the mappings so far have claimed.
type portUse struct {
	mode  ecs.NetworkMode
	taken map[string][]span // by protocol
	names map[string]bool
}

func (u *portUse) claim(m *ecs.PortMapping) error {
	if name := api.Value(m.Name); name != "" {
		if u.names[name] {
			mode := u.mode
			if mode == "" {
				mode = ecs.NetworkModeBridge
			}
			return clientError("When networkMode=%s, port mapping name is already used", string(mode))
		}
		u.names[name] = true
	}
	var s span
	switch {
	case u.mode == ecs.NetworkModeAwsvpc && m.ContainerPortRange != nil:
		s.first, s.last, _ = parseRange(*m.ContainerPortRange)
	case u.mode == ecs.NetworkModeAwsvpc:
		s = span{int(*m.ContainerPort), int(*m.ContainerPort)}
	case api.Value(m.HostPort) > 0:
		s = span{int(*m.HostPort), int(*m.HostPort)}
	default:
		return nil // the host chooses
	}
	protocol := strings.ToUpper(string(m.Protocol))
	if i := slices.IndexFunc(u.taken[protocol], func(t span) bool { return s.first <= t.last && t.first <= s.last }); i >= 0 {
		port := max(s.first, u.taken[protocol][i].first)
		if u.mode == ecs.NetworkModeAwsvpc {
			return clientError("%s container port '%d' is used multiple times in task when networkMode=awsvpc.", protocol, port)
		}
		return clientError("%s host port '%d' is mapped multiple times in task.", protocol, port)
	}
	u.taken[protocol] = append(u.taken[protocol], s)
	return nil
}
