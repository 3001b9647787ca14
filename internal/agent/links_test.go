package agent

import (
	"slices"
	"strings"
	"testing"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func linkedTask() *dispatchpb.Task {
	return &dispatchpb.Task{
		Arn: "arn:aws:ecs:eu-west-1:123456789012:task/demo/0123456789abcdef0123456789abcdef", Family: "app", Revision: 3,
		NetworkMode: "bridge",
		Containers: []*dispatchpb.Container{
			{Name: "web", Links: []string{"db:my-db", "cache", "gone:x", "alone"}},
			{Name: "db", PortMappings: []*dispatchpb.PortMapping{
				{ContainerPort: 53, Protocol: "udp"}, {ContainerPort: 5432}, {ContainerPortRange: "8000-8002", Protocol: "tcp"}, {ContainerPort: 8001, Protocol: "tcp"},
			}},
			{Name: "cache", Hostname: "store"},
			{Name: "alone"},
		},
	}
}

func linkedConnections() []Connection {
	return []Connection{{IPv4: "172.29.0.4"}, {IPv4: "172.29.0.5"}, {IPv4: "172.29.0.6"}, {}}
}

func TestLinkHosts(t *testing.T) {
	t.Parallel()
	task := linkedTask()
	want := "172.29.0.5 my-db " + containerHostname(task, 1, "") + " " + dockerName(task, 1) + "\n" +
		"172.29.0.6 cache store " + dockerName(task, 2) + "\n"
	if got := string(linkHosts(task, 0, linkedConnections())); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := linkHosts(task, 1, linkedConnections()); len(got) > 0 {
		t.Errorf("without links: %s", got)
	}
}

func TestLinkEnvironment(t *testing.T) {
	t.Parallel()
	task := linkedTask()
	got := linkEnvironment(task, 0, linkedConnections(), [][]string{
		nil, {"PATH=/bin", "HOME=/", "POSTGRES_DB=a=b", "broken"}, nil, {"X=1"},
	})
	want := strings.Fields(`
		MY_DB_PORT=tcp://172.29.0.5:5432
		MY_DB_PORT_5432_TCP=tcp://172.29.0.5:5432
		MY_DB_PORT_5432_TCP_ADDR=172.29.0.5
		MY_DB_PORT_5432_TCP_PORT=5432
		MY_DB_PORT_5432_TCP_PROTO=tcp
		MY_DB_PORT_8000_TCP=tcp://172.29.0.5:8000
		MY_DB_PORT_8000_TCP_ADDR=172.29.0.5
		MY_DB_PORT_8000_TCP_PORT=8000
		MY_DB_PORT_8000_TCP_PROTO=tcp
		MY_DB_PORT_8001_TCP=tcp://172.29.0.5:8001
		MY_DB_PORT_8001_TCP_ADDR=172.29.0.5
		MY_DB_PORT_8001_TCP_PORT=8001
		MY_DB_PORT_8001_TCP_PROTO=tcp
		MY_DB_PORT_8002_TCP=tcp://172.29.0.5:8002
		MY_DB_PORT_8002_TCP_ADDR=172.29.0.5
		MY_DB_PORT_8002_TCP_PORT=8002
		MY_DB_PORT_8002_TCP_PROTO=tcp
		MY_DB_PORT_8000_TCP_START=tcp://172.29.0.5:8000
		MY_DB_PORT_8000_TCP_PORT_START=8000
		MY_DB_PORT_8000_TCP_END=tcp://172.29.0.5:8002
		MY_DB_PORT_8000_TCP_PORT_END=8002
		MY_DB_PORT_53_UDP=udp://172.29.0.5:53
		MY_DB_PORT_53_UDP_ADDR=172.29.0.5
		MY_DB_PORT_53_UDP_PORT=53
		MY_DB_PORT_53_UDP_PROTO=udp
		MY_DB_NAME=/` + dockerName(task, 0) + `/my-db
		MY_DB_ENV_POSTGRES_DB=a=b
		CACHE_NAME=/` + dockerName(task, 0) + `/cache`)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := linkEnvironment(task, 3, linkedConnections(), make([][]string, 4)); got != nil {
		t.Errorf("without links: %q", got)
	}
}
