package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestContainerID(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$`) // containerd's
	rapid.Check(t, func(rt *rapid.T) {
		task := testTask("0123456789abcdef0123456789abcdef", 2)
		task.Family = rapid.StringMatching(`[a-zA-Z0-9_-]{1,255}`).Draw(rt, "family")
		task.Revision = rapid.Int64Range(1, 1_000_000).Draw(rt, "revision")
		task.Containers[0].Name = rapid.StringMatching(`[a-zA-Z0-9_-]{1,255}`).Draw(rt, "name")
		task.Containers[1].Name = task.Containers[0].Name + "x"
		task.LaunchType = rapid.SampledFrom([]string{"EC2", "FARGATE"}).Draw(rt, "launch type")
		a, b := containerID(task, 0), containerID(task, 1)
		if len(a) > 76 || !valid.MatchString(a) {
			rt.Fatalf("containerd refuses %q", a)
		}
		if a == b || a != containerID(cloneTask(task), 0) {
			rt.Fatalf("%q and %q", a, b)
		}
	})
	// By their forms agents of monitoring vendors find containers.
	task := testTask("0123456789abcdef0123456789abcdef", 1)
	if got := containerID(task, 0); !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(got) {
		t.Errorf("the ID %q has not the form of Docker's", got)
	}
	if got := dockerName(task, 0); !regexp.MustCompile(`^ecs-web-3-c0-[0-9a-f]{16}$`).MatchString(got) {
		t.Errorf("the name %q has not the form of the agent's", got)
	}
	task.LaunchType = "FARGATE"
	if got := containerID(task, 0); !regexp.MustCompile(`^0123456789abcdef0123456789abcdef-[0-9]{10}$`).MatchString(got) {
		t.Errorf("the ID %q has not the form of Fargate's", got)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	given := func(kv ...string) (out []*dispatchpb.KeyValue) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, &dispatchpb.KeyValue{Name: kv[i], Value: kv[i+1]})
		}
		return out
	}
	for name, c := range map[string]struct {
		env    []*dispatchpb.KeyValue
		launch string
		want   []string
	}{
		"nothing given": {nil, "EC2",
			[]string{"AWS_EXECUTION_ENV=AWS_ECS_EC2", "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1"}},
		"either region given": {given("AWS_DEFAULT_REGION", "eu-west-1"), "FARGATE",
			[]string{"AWS_EXECUTION_ENV=AWS_ECS_FARGATE", "AWS_DEFAULT_REGION=eu-west-1"}},
		"own execution environment": {given("AWS_EXECUTION_ENV", "mine", "AWS_REGION", ""), "EC2",
			[]string{"AWS_EXECUTION_ENV=mine", "AWS_REGION="}},
		"given twice": {given("A", "1", "B", "2", "A", "3", "AWS_REGION", "r"), "EC2",
			[]string{"AWS_EXECUTION_ENV=AWS_ECS_EC2", "B=2", "A=3", "AWS_REGION=r"}},
	} {
		task := testTask("a", 1)
		task.LaunchType = c.launch
		task.Containers[0].Environment = c.env
		if got := environment(task, task.Containers[0], nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	task := testTask("a", 1)
	task.Containers[0].DockerLabels = map[string]string{"mine": "1", "com.amazonaws.ecs.cluster": "forged"}
	got := labels(task, task.Containers[0])
	if got["mine"] != "1" || got["com.amazonaws.ecs.cluster"] != "default" || got["com.amazonaws.ecs.task-arn"] != task.Arn ||
		got["com.amazonaws.ecs.task-definition-version"] != "3" || len(got) != 6 {
		t.Fatalf("labels %v", got)
	}
}

func TestGeneratedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	h := hostFiles{
		hosts: file("hosts", "127.0.0.1 localhost\n10.0.0.1 db\n"), hostname: file("hostname", "metal\n"),
		resolvConf:         file("resolv", "# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan corp\n"),
		upstreamResolvConf: []string{filepath.Join(dir, "none"), file("upstream", "nameserver 10.0.0.2\nnameserver fe80::1%eth0\n")},
	}
	for name, c := range map[string]struct {
		change                  func(task *dispatchpb.Task)
		hosts, hostname, resolv string
	}{
		"awsvpc": {
			change:   func(task *dispatchpb.Task) { awsvpc(task) },
			hosts:    "127.0.0.1 localhost\n172.31.0.5 ip-172-31-0-5.ec2.internal ip-172-31-0-5\n",
			hostname: "ip-172-31-0-5.ec2.internal\n",
			resolv:   "nameserver 10.0.0.2\nsearch lan corp\noptions edns0 trust-ad\n",
		},
		"awsvpc with its own servers and hosts": {
			change: func(task *dispatchpb.Task) {
				c := awsvpc(task).Containers[0]
				c.DnsServers, c.DnsSearchDomains = []string{"8.8.8.8"}, []string{"example.com"}
				c.ExtraHosts = []*dispatchpb.KeyValue{{Name: "cache", Value: "10.1.1.1"}}
			},
			hosts:    "127.0.0.1 localhost\n172.31.0.5 ip-172-31-0-5.ec2.internal ip-172-31-0-5\n10.1.1.1 cache\n",
			hostname: "ip-172-31-0-5.ec2.internal\n",
			resolv:   "nameserver 8.8.8.8\nsearch example.com\noptions edns0 trust-ad\n",
		},
		"host": {
			change:   func(task *dispatchpb.Task) { task.NetworkMode = networkHost },
			hosts:    "127.0.0.1 localhost\n10.0.0.1 db\n",
			hostname: "metal\n",
			resolv:   "# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan corp\n",
		},
		"none": {
			change:   func(task *dispatchpb.Task) { task.Containers[0].Hostname = "lonely" },
			hosts:    "127.0.0.1 localhost\n127.0.1.1 lonely\n",
			hostname: "lonely\n",
			resolv:   "nameserver 10.0.0.2\nsearch lan corp\noptions edns0 trust-ad\n",
		},
	} {
		task := testTask("a", 1)
		c.change(task)
		address := ""
		if task.NetworkMode == networkAWSVPC {
			address = task.NetworkInterface.PrivateIpv4
		}
		mounts, err := h.write(filepath.Join(dir, "tasks", name), task, 0, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, m := range mounts {
			b, err := os.ReadFile(m.Source)
			if err != nil {
				t.Fatal(err)
			}
			got[m.Target] = string(b)
		}
		for target, want := range map[string]string{"/etc/hosts": c.hosts, "/etc/hostname": c.hostname, "/etc/resolv.conf": c.resolv} {
			if got[target] != want {
				t.Errorf("%s: %s is %q, want %q", name, target, got[target], want)
			}
		}
	}
}

func TestPortOfAStranger(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, pm := range []*dispatchpb.PortMapping{
		{ContainerPort: int32(ln.Addr().(*net.TCPAddr).Port), Protocol: "tcp"},
		{ContainerPort: 1, HostPort: int32(udp.LocalAddr().(*net.UDPAddr).Port), Protocol: "udp"},
	} {
		err := portsFree(context.Background(), []*dispatchpb.PortMapping{pm})
		if err == nil || !strings.Contains(err.Error(), "bind: address already in use") {
			t.Errorf("%v: %v", pm, err)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.53\nsearch lan\noptions ndots:5\n"))
	f.Add([]byte("; comment\ndomain x\nnameserver fe80::1%eth0\nnameserver ::ffff:10.0.0.1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := parseResolvConf(b)
		c.servers = reachable(c.servers)
		again := parseResolvConf(c.bytes())
		if !slices.Equal(again.servers, c.servers) || !slices.Equal(again.search, c.search) || !slices.Equal(again.other, c.other) {
			t.Fatalf("%q was read as %+v and again as %+v", b, c, again)
		}
	})
}
