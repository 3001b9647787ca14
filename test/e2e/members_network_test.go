package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// networkMembers say how containers are reached and what they reach.
var networkMembers = []member{
	{[]string{"networkMode"}, acts, "none: loopback alone; host: the host's interfaces; bridge: an own namespace for each container; awsvpc: one for the task, with the address that DescribeTasks shows", func(w *world) {
		interfaces := "busybox ls /sys/class/net | busybox tr '\\n' ' '"
		w.says(nil, []string{"lo"}, w.shell(interfaces))
		w.says(bridged, []string{"eth0 lo"}, w.shell(interfaces))
		host := w.stopped(w.run(w.define(func(in *taskDefinition) { in.NetworkMode = types.NetworkModeHost }, w.shell(interfaces))))
		own, err := net.Interfaces()
		if err != nil {
			w.Fatal(err)
		}
		if line := strings.Join(w.b.Logs(id(host), "app"), " "); !slices.Contains(strings.Fields(line), own[0].Name) {
			w.Errorf("mode host sees %q", line)
		}
		task := w.stopped(w.run(w.define(vpc, w.shell("busybox ip -4 -o addr show eth0 | busybox awk '{print $4}'"))))
		address := detail(task, "privateIPv4Address")
		if lines := w.b.Logs(id(task), "app"); len(lines) != 1 || lines[0] != address+"/32" {
			w.Errorf("mode awsvpc has the address %q and not %q", lines, address)
		}
	}},
	{of("portMappings[].containerPort", "portMappings[].hostPort", "portMappings[].protocol"), acts, "in mode bridge a port of the host leads to the container's; 0 is a port of the host's choice; networkBindings say which", func(w *world) {
		fixed, err := strconv.Atoi(harness.FreePort(w))
		if err != nil {
			w.Fatal(err)
		}
		c := w.app("http", ":80", "from the bridge")
		c.PortMappings = []types.PortMapping{
			{ContainerPort: aws.Int32(80), HostPort: aws.Int32(int32(fixed))}, {ContainerPort: aws.Int32(81), Protocol: types.TransportProtocolUdp},
		}
		second := w.app("http", ":80", "dynamic")
		second.Name, second.PortMappings = aws.String("other"), []types.PortMapping{{ContainerPort: aws.Int32(80)}}
		task := w.running(w.run(w.define(bridged, c, second)))
		bindings := containerOf(task, "app").NetworkBindings
		i := slices.IndexFunc(bindings, func(b types.NetworkBinding) bool { return b.Protocol == types.TransportProtocolUdp })
		if len(bindings) != 2 || i < 0 || aws.ToInt32(bindings[i].HostPort) == 0 || aws.ToInt32(bindings[1-i].HostPort) != int32(fixed) {
			w.Fatalf("the bindings are %s", show(bindings))
		}
		w.fetches(fmt.Sprintf("http://127.0.0.1:%d", fixed), "from the bridge")
		dynamic := containerOf(task, "other").NetworkBindings
		if len(dynamic) != 1 {
			w.Fatalf("the bindings are %s", show(dynamic))
		}
		w.fetches(fmt.Sprintf("http://127.0.0.1:%d", aws.ToInt32(dynamic[0].HostPort)), "dynamic")
		w.fetches(fmt.Sprintf("http://%s:%d", hostAddress(w), fixed), "from the bridge")
		if l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", fixed)); err == nil {
			l.Close()
			w.Errorf("the mapped port %d can be taken by another process", fixed)
		}
		if reason := w.notPlaced(w.define(bridged, c)); reason != "RESOURCE:PORTS" {
			w.Errorf("a second task with the same host port is not placed because of %q", reason)
		}
	}},
	{of("portMappings[].containerPortRange"), acts, "as many ports of the host, one after the other; networkBindings say which", func(w *world) {
		c := w.app("http", ":8001", "in the range")
		c.PortMappings = []types.PortMapping{{ContainerPortRange: aws.String("8000-8002")}}
		task := w.running(w.run(w.define(bridged, c)))
		bindings := task.Containers[0].NetworkBindings
		if len(bindings) != 1 || aws.ToString(bindings[0].ContainerPortRange) != "8000-8002" {
			w.Fatalf("the bindings are %s", show(bindings))
		}
		var first, last int
		if _, err := fmt.Sscanf(aws.ToString(bindings[0].HostPortRange), "%d-%d", &first, &last); err != nil || last-first != 2 {
			w.Fatalf("the range on the host is %q", aws.ToString(bindings[0].HostPortRange))
		}
		w.fetches(fmt.Sprintf("http://127.0.0.1:%d", first+1), "in the range")
	}},
	{of("portMappings[].name", "portMappings[].appProtocol"), kept, "names for Service Connect, which comes with services", func(w *world) {
		w.echoes(func(in *taskDefinition) {
			in.NetworkMode = types.NetworkModeAwsvpc
			in.ContainerDefinitions[0].PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(80), Name: aws.String("web"), AppProtocol: types.ApplicationProtocolHttp}}
		}, func(d *types.TaskDefinition) any {
			m := d.ContainerDefinitions[0].PortMappings[0]
			return []string{aws.ToString(m.Name), string(m.AppProtocol)}
		}, []string{"web", "http"})
	}},
	{of("links"), acts, "the other container's address under its alias, and Docker's variables for it", func(w *world) {
		server := w.app("http", ":80", "linked")
		server.Name, server.Essential, server.PortMappings = aws.String("server"), aws.Bool(false), []types.PortMapping{{ContainerPort: aws.Int32(80)}}
		done := w.stopped(w.run(w.define(bridged, server, w.shell(`sleep 0.3; /testapp get http://db/; /testapp get "http://$DB_PORT_80_TCP_ADDR:$DB_PORT_80_TCP_PORT/"`, func(c *container) { c.Links = []string{"server:db"} }))))
		want := []string{"status 200", "linked", "status 200", "linked"}
		if got := w.b.Logs(id(done), "app"); !slices.Equal(got, want) {
			w.Errorf("through the link: %q", got)
		}
	}},
	{of("extraHosts[].hostname", "extraHosts[].ipAddress"), acts, "lines of /etc/hosts", func(w *world) {
		w.says(bridged, []string{"192.0.2.7 db.example"}, w.shell("grep example /etc/hosts", func(c *container) {
			c.ExtraHosts = []types.HostEntry{{Hostname: aws.String("db.example"), IpAddress: aws.String("192.0.2.7")}}
		}))
	}},
	{of("dnsServers", "dnsSearchDomains"), acts, "the lines of /etc/resolv.conf", func(w *world) {
		w.says(bridged, []string{"nameserver 192.0.2.53", "search corp.example"}, w.shell("grep -E '^(nameserver|search)' /etc/resolv.conf", func(c *container) {
			c.DnsServers, c.DnsSearchDomains = []string{"192.0.2.53"}, []string{"corp.example"}
		}))
	}},
	{of("disableNetworking"), acts, "in mode bridge, loopback alone", func(w *world) {
		w.says(bridged, []string{"lo"}, w.shell("busybox ls /sys/class/net", func(c *container) { c.DisableNetworking = aws.Bool(true) }))
	}},
	{[]string{"proxyConfiguration.containerName", "proxyConfiguration.properties[].name", "proxyConfiguration.properties[].value", "proxyConfiguration.type"}, refused, "App Mesh is not built yet", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.NetworkMode = types.NetworkModeAwsvpc
			in.ProxyConfiguration = &types.ProxyConfiguration{ContainerName: aws.String("app"), Type: types.ProxyConfigurationTypeAppmesh, Properties: []types.KeyValuePair{pair("ProxyIngressPort", "15000"), pair("ProxyEgressPort", "15001"), pair("AppPorts", "80"), pair("IgnoredUID", "1337")}}
		}, "UnsupportedFeatureException", "proxyConfiguration")
	}},
}

func vpc(in *taskDefinition) { in.NetworkMode = types.NetworkModeAwsvpc }

// detail is a detail of the task's network interface.
func detail(task types.Task, name string) string {
	for _, a := range task.Attachments {
		for _, d := range a.Details {
			if aws.ToString(d.Name) == name {
				return aws.ToString(d.Value)
			}
		}
	}
	return ""
}

// hostAddress is an address of the host that is not loopback's.
func hostAddress(w *world) string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		w.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	w.Fatal("this host has no IPv4 address but loopback's")
	return ""
}

// fetches polls a URL until its body is the one expected.
func (w *world) fetches(url, want string) {
	w.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	var last string
	harness.Poll(w, 20*time.Second, url+" to answer "+want, func() bool {
		resp, err := client.Get(url)
		if err != nil {
			last = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last = strings.TrimSpace(string(body))
		return last == want
	})
}
