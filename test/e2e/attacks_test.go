package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/test/harness"
)

// The tests in this file attack Berth, its host and its neighbours from inside containers, and expect to
// be refused. Each has a part that succeeds, which shows that the attack was made at all.

// hosted is network mode host.
func hosted(in *taskDefinition) { in.NetworkMode = types.NetworkModeHost }

// waits is a container that prints lines, which the shell expands, and waits.
func (w *world) waits(lines ...string) container {
	return w.shell(`for line in "` + strings.Join(lines, `" "`) + `"; do echo "$line"; done; trap 'exit 0' TERM; sleep 1000 & wait`)
}

// in is the same cluster for a subtest.
func (w *world) in(t *testing.T) *world {
	sub := *w
	sub.T, sub.awsvpc = t, map[string]bool{}
	return &sub
}

// output is what a task's container "app" wrote, once the task has ended.
func (w *world) output(task types.Task) []string {
	w.Helper()
	w.stopped(task)
	return w.b.Logs(id(task), "app")
}

// neighbour is a task that is attacked: it runs, and has an endpoint ID.
type neighbour struct {
	types.Task
	endpoint string
}

func (w *world) neighbour(change func(*taskDefinition)) neighbour {
	w.Helper()
	task := w.run(w.define(change, w.waits("$ECS_CONTAINER_METADATA_URI_V4")))
	line := w.logs(task, func(l []string) bool { return len(l) > 0 })[0]
	return neighbour{w.running(task), line[strings.LastIndexByte(line, '/')+1:]}
}

// get is a request as send takes it.
func get(path string) string { return `GET ` + path + ` HTTP/1.0\r\n\r\n` }

// sends is a script that sends requests to the container's metadata endpoint; $id is its own ID there.
func sends(requests []string) string {
	return `uri=${ECS_CONTAINER_METADATA_URI_V4#http://}; id=${uri##*/}; at=${uri%%/*}; case $at in *:*) ;; *) at=$at:80;; esac
/testapp send $at "` + strings.Join(requests, `" "`) + `"`
}

// TestMetadataOfAnotherTask: no container gets a word of another task's, whether it has come by the ID
// that the other asks with, or guesses one; and what it gets tells not which of the two it was.
func TestMetadataOfAnotherTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	modes := map[string]func(*taskDefinition){"awsvpc": vpc, "bridge": bridged, "host": hosted}
	victims := map[string]neighbour{}
	for mode, change := range modes {
		victims[mode] = w.neighbour(change)
	}
	guess := strings.Repeat("0", 32) + "-0123456789"
	paths := func(endpoint string) (all []string) {
		for _, p := range []string{"/v3/%s", "/v3/%s/task", "/v3/%s/stats", "/v3/%s/task/stats", "/v4/%s", "/v4/%s/task", "/v4/%s/taskWithTags", "/v4/%s/stats", "/v4/%s/task/stats", "/v4/%s/associations/gpu", "/api/%s/task-protection/v1/state"} {
			all = append(all, get(fmt.Sprintf(p, endpoint)))
		}
		return append(all, `PUT /api/`+endpoint+`/task-protection/v1/state HTTP/1.0\r\nContent-Length: 26\r\n\r\n{\x22ProtectionEnabled\x22:true}`)
	}
	for attacker, change := range modes {
		for victim, v := range victims {
			// Where the network is the host's, its metadata is as well: Berth cannot tell who asks there.
			stolen := attacker != "host"
			t.Run(attacker+" asks for "+victim, func(t *testing.T) {
				t.Parallel()
				w := w.in(t)
				requests := append(paths(guess), get("/v2/metadata/"+aws.ToString(v.Containers[0].RuntimeId)), get("/v2/stats/"+aws.ToString(v.Containers[0].RuntimeId)))
				guesses := len(paths(guess))
				if stolen {
					requests = append(requests, paths(v.endpoint)...)
				}
				requests = append(requests, get("/v4/$id/task"))
				lines := w.output(w.run(w.define(change, w.shell(sends(requests)))))
				if len(lines) != len(requests) {
					t.Fatalf("%d answers to %d requests: %q", len(lines), len(requests), lines)
				}
				last := len(lines) - 1
				if !strings.Contains(lines[last], "200 OK") || !strings.Contains(lines[last], w.cluster) {
					t.Errorf("its own metadata: %s", lines[last])
				}
				for i, line := range lines[:last] {
					if strings.Contains(line, "200 OK") || strings.Contains(line, id(v.Task)) || !strings.Contains(line, "HTTP/1.") {
						t.Errorf("%s is answered with %s", requests[i], line)
					}
					if j := i - guesses - 2; j >= 0 && strings.ReplaceAll(line, v.endpoint, guess) != lines[j] {
						t.Errorf("what is another's (%s) is told from what does not exist (%s)", line, lines[j])
					}
				}
			})
		}
	}
}

// TestMetadataPathTricks: however a request is spelt, it gets the asker's own metadata or an error.
func TestMetadataPathTricks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	other := w.neighbour(vpc)
	full := func(line string, headers ...string) string {
		return line + ` HTTP/1.1\r\nConnection: close\r\n` + strings.Join(append(headers, ""), `\r\n`) + `\r\n`
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	const host = "Host: 169.254.170.2"
	for _, part := range [][]struct{ request, want string }{
		{
			{full("GET /v4/$id", host), "200"},
			{full("GET //v4/$id", host), "301"},
			{full("GET /v4//$id", host), "301"},
			{full("GET /v4/x/../$id", host), "301"},
			{full("GET /v4/%2e%2e/v4/$id", host), "301"},
			{full("GET /v4/$id/task/../../"+other.endpoint, host), "301"},
			{full("GET /v4/$id/task/%2e%2e/%2e%2e/"+other.endpoint, host), "301"},
			{full("GET /v4/$id/..%2f"+other.endpoint, host), "301"},
			{full("GET /v4/$id/..%2f..%2f..%2f..%2fetc/passwd", host), "301"},
			{full("GET /v4/$id/%5c..%5c"+other.endpoint, host), "404"},
			{full("GET /v4/$id/..;/"+other.endpoint, host), "404"},
			{full("GET /v4/$id%00", host), "404"},
			{full("GET /v4/$id%252f..%252f"+other.endpoint, host), "404"},
			{full("GET /v4/"+other.endpoint+"?id=$id", host), "404"},
			{full("GET /V4/$id", host), "404"},
			{full("GET /../../../../etc/passwd", host), "301"},
			{full("GET /", host), "404"},
			{full("GET v4/$id", host), "400"},
			{full("GET /v4/$id/%zz", host), "400"},
		}, {
			{full("GET http://169.254.170.2/v4/$id", host), "404"},
			{full("GET http://evil.example/v4/$id", host), "404"},
			{full("GET http://127.0.0.1:4566/", host), "404"},
			{full("CONNECT 127.0.0.1:4566", host), "404"},
			{full("OPTIONS *", host), "404"},
			{full("GET /v4/$id", "Host: evil.example"), "404"},
			{full("GET /v4/$id", "Host: 169.254.170.2.evil.example"), "404"},
			{full("GET /v4/$id", host, "Host: evil.example"), "400"},
			{full("GET /v4/$id"), "400"}, // HTTP/1.1 without a Host
			{full("GET /v4/$id", host, "X-Forwarded-For: "+detail(other.Task, "privateIPv4Address")), "200"},
			{full("POST /v4/$id", host, "Content-Length: 0"), "405"},
			{full("DELETE /v4/$id/task", host), "405"},
			{full("TRACE /v4/$id", host), "405"},
			{full("PATCH /api/$id/task-protection/v1/state", host), "405"},
			{full("GET /v4/$id/"+long(2000), host), "414"},
			{full("GET /"+long(20000), host), "431"},
			{full("GET /v4/$id", host, "X-Big: "+long(20000)), "431"},
			{full("PUT /api/$id/task-protection/v1/state", host, "Content-Length: 99999999") + `{\x22`, "closed"},
			{full("GET /v4/$id", host, "Content-Length: 5", "Transfer-Encoding: chunked") + `0\r\n\r\n`, "200"},
			{full("GET /v4/$id", host, "Content-Length: 5", "Content-Length: 6"), "400"},
			{`GET /v4/$id HTTP/9.9\r\n\r\n`, "505"},
			{`GET /v4/$id\r\n\r\n`, "400"},
			{`\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n`, "400"},
			{`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, ""},
			{`GET /v4/$id HTTP/1.1\r\nHost: 169.254.170.2\r\nX-Slow: `, "closed"}, // and then nothing
			{full("GET /v4/$id", host), "200"},
		},
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			requests := make([]string, len(part))
			for i, p := range part {
				requests[i] = p.request
			}
			task := w.run(w.define(vpc, w.shell(sends(requests))))
			lines := w.output(task)
			if len(lines) != len(part) {
				t.Fatalf("%d answers to %d requests: %q", len(lines), len(part), lines)
			}
			for i, p := range part {
				status, _, _ := strings.Cut(lines[i], "|")
				if !strings.Contains(status, p.want) || strings.Contains(lines[i], id(other.Task)) || strings.Contains(status, " 50") && p.want != "505" {
					t.Errorf("%.120s is answered with %s, not %s", p.request, lines[i], p.want)
				}
				if strings.Contains(status, "200") && !strings.Contains(lines[i], id(task)) {
					t.Errorf("%.120s is answered without the asker's metadata: %s", p.request, lines[i])
				}
			}
		})
	}
}

// TestMetadataIsNotHogged: a container that opens connections without end keeps nobody else out.
func TestMetadataIsNotHogged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	hog := w.run(w.define(vpc, w.app("hog", "169.254.170.2:80", "1000")))
	w.logs(hog, contains("holding true"))
	lines := w.metadata("$ECS_CONTAINER_METADATA_URI_V4")
	if !contains("status 200")(lines) {
		t.Errorf("meanwhile another is answered with %q", lines)
	}
}

// TestHostLoopback: what listens on the host's 127.0.0.1 is reached neither from containers, whatever
// they write into a packet and whatever rights over their own network they have, nor from a neighbour of
// the host's; and no container speaks under another's address.
func TestHostLoopback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	host := hostAddress(w)
	inside, outside := listenUDP(t, "127.0.0.1"), listenUDP(t, host)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	var reached sync.Map
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			reached.Store(conn.RemoteAddr().String(), true)
			conn.Close()
		}
	}()
	_, tcpPort, _ := net.SplitHostPort(tcp.Addr().String())
	_, api, _ := net.SplitHostPort(w.b.Listen)
	other := w.neighbour(vpc)
	forged := []string{
		"$own>127.0.0.1:" + inside.port, "127.0.0.1>127.0.0.1:" + inside.port, "127.0.0.1>" + host + ":" + outside.port,
		detail(other.Task, "privateIPv4Address") + ">" + host + ":" + outside.port, host + ">" + host + ":" + outside.port,
		"192.0.2.9>" + host + ":" + outside.port, "127.0.0.1>" + host + ":" + inside.port, "$own>169.254.170.2:" + inside.port,
		"0.0.0.0>" + host + ":" + outside.port, "169.254.1.1>" + host + ":" + outside.port,
	}
	addresses := []string{"169.254.170.2:" + tcpPort, "169.254.1.1:" + tcpPort, host + ":" + tcpPort, "127.0.0.1:" + tcpPort,
		"169.254.170.2:" + api, "169.254.1.1:" + api, host + ":" + api, "127.0.0.1:" + api,
		"169.254.170.2:22", "169.254.170.2:443", "169.254.170.2:51678", "169.254.170.2:51679", "169.254.170.2:51680",
		"169.254.169.254:80", "169.254.169.254:443", "169.254.169.253:53", "169.254.170.23:80", "127.0.0.1:51679", host + ":51679"}
	script := `own=$(busybox ip -4 -o addr show eth0 | busybox awk '{print $4}'); own=${own%/*}
/testapp frames "` + strings.Join(append(slices.Clone(forged), "$own>"+host+":"+outside.port), `" "`) + `"
/testapp dial ` + strings.Join(addresses, " ") + " 169.254.170.2:80"
	// With rights over its own network a container leads 127.0.0.1 to the host, and takes others' addresses.
	admin := linux(types.LinuxParameters{Capabilities: &types.KernelCapabilities{Add: []string{"NET_ADMIN"}}})
	localnet := func(c *container) {
		c.SystemControls = []types.SystemControl{{Namespace: aws.String("net.ipv4.conf.all.route_localnet"), Value: aws.String("1")}}
	}
	address := detail(other.Task, "privateIPv4Address")
	reroute := `exec 2>&1; set -e; busybox ip addr del 127.0.0.1/8 dev lo; busybox ip route add 169.254.1.1 dev eth0; busybox ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0
/testapp dial 127.0.0.1:` + tcpPort + ` 127.0.0.1:` + api + ` 127.0.0.1:51679
busybox ip addr add ` + address + `/32 dev eth0
/testapp sendfrom ` + address + ` 169.254.170.2:80 "` + get("/v2/metadata") + `"`

	for mode, change := range map[string]func(*taskDefinition){"awsvpc": vpc, "bridge": bridged} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			plain := w.run(w.define(change, w.shell(script)))
			mighty := w.run(w.define(change, w.shell(reroute, admin, localnet)))
			lines := w.output(plain)
			if want := len(forged) + 1 + len(addresses) + 1; len(lines) != want || lines[want-1] != "open 169.254.170.2:80" {
				t.Fatalf("%d lines and not %d: %q", len(lines), want, lines)
			}
			for _, line := range lines[:max(0, len(lines)-1)] {
				if strings.HasPrefix(line, "open") {
					t.Errorf("a container reaches %s", line)
				}
			}
			own, _, _ := strings.Cut(strings.TrimPrefix(lines[0], "sent "), ">")
			outside.expect(t, own+">"+host+":"+outside.port) // the last that was sent
			want := []string{"closed 127.0.0.1:" + tcpPort, "closed 127.0.0.1:" + api, "closed 127.0.0.1:51679", "no connection"}
			if got := w.output(mighty); !slices.Equal(got, want) {
				t.Errorf("with NET_ADMIN: %q, not %q", got, want)
			}
		})
	}
	t.Run("neighbour", func(t *testing.T) {
		t.Parallel()
		lan := newLAN(t)
		honest := lan.own + ">" + host + ":" + outside.port
		lines := lan.run("frames", lan.own+">127.0.0.1:"+inside.port, "127.0.0.1>127.0.0.1:"+inside.port, "127.0.0.1>"+lan.host+":"+inside.port, lan.own+">169.254.170.2:"+inside.port, honest)
		if len(lines) != 5 {
			t.Errorf("the neighbour sent %q", lines)
		}
		outside.expect(t, honest)
		for _, line := range lan.run("dial", lan.host+":"+tcpPort, lan.host+":"+api, lan.host+":51679", "169.254.170.2:80", "127.0.0.1:"+api, address+":51679") {
			if strings.HasPrefix(line, "open") {
				t.Errorf("a neighbour of the host reaches %s", line)
			}
		}
	})
	t.Cleanup(func() { // after the three
		if got := inside.all(); len(got) > 0 {
			t.Errorf("the host's loopback was reached: %q", got)
		}
		for _, got := range outside.all() {
			from, _, _ := strings.Cut(got, ">")
			if from == address || from == host || strings.HasPrefix(from, "127.") || strings.HasPrefix(from, "192.0.2.") || strings.HasPrefix(from, "169.254.") || strings.HasPrefix(from, "0.") {
				t.Errorf("a packet came from a forged address: %s", got)
			}
		}
		reached.Range(func(from, _ any) bool {
			t.Errorf("%s reached the host's loopback", from)
			return true
		})
	})
}

// udp is a socket that notes what it is sent.
type udp struct {
	port string
	mu   sync.Mutex
	got  []string
}

func listenUDP(t *testing.T, address string) *udp {
	t.Helper()
	conn, err := net.ListenPacket("udp4", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	u := &udp{}
	_, u.port, _ = net.SplitHostPort(conn.LocalAddr().String())
	go func() {
		for b := make([]byte, 1500); ; {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			u.mu.Lock()
			u.got = append(u.got, string(b[:n]))
			u.mu.Unlock()
		}
	}()
	return u
}

func (u *udp) all() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.got)
}

func (u *udp) expect(t *testing.T, want string) {
	t.Helper()
	harness.Poll(t, 10*time.Second, "the packet "+want, func() bool { return slices.Contains(u.all(), want) })
}

// lans counts what newLAN made.
var lans atomic.Int32

// lan is a network namespace that stands for a neighbour of the host on its local network.
type lan struct {
	*testing.T
	name, own, host string
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	n := os.Getpid()<<2 + int(lans.Add(1))
	l := &lan{T: t, name: fmt.Sprintf("lan%d", n), host: fmt.Sprintf("10.253.%d.%d", n>>6&255, n&63<<2|1), own: fmt.Sprintf("10.253.%d.%d", n>>6&255, n&63<<2|2)}
	l.ip("netns", "add", l.name)
	t.Cleanup(func() { l.ip("netns", "del", l.name) }) // and the pair of interfaces with it
	l.ip("link", "add", l.name, "type", "veth", "peer", "name", "eth0", "netns", l.name)
	l.ip("addr", "add", l.host+"/30", "dev", l.name)
	l.ip("link", "set", l.name, "up")
	l.ip("-n", l.name, "addr", "add", l.own+"/30", "dev", "eth0")
	l.ip("-n", l.name, "link", "set", "eth0", "up")
	l.ip("-n", l.name, "route", "add", "default", "via", l.host)
	return l
}

func (l *lan) ip(args ...string) {
	l.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// run runs the test program there and answers its lines.
func (l *lan) run(args ...string) []string {
	l.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", l.name, harness.TestApp(l)}, args...)...).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v: %s", args[0], err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// TestBerthsOwnFiles: containers see nothing of what is Berth's own, by no path that leads there and
// through no directory above; and Berth has no socket that is reached without a path.
func TestBerthsOwnFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	run := "/run/berth/" + w.b.ID()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(w.b.DataDir, link); err != nil {
		t.Fatal(err)
	}
	sub, err := filepath.Rel("/", w.b.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	hostPath := func(path string) types.Volume {
		return types.Volume{Name: aws.String("stolen"), Host: &types.HostVolumeProperties{SourcePath: &path}}
	}
	refused := map[string]types.Volume{}
	for _, path := range []string{
		w.b.DataDir, w.b.DataDir + "/", w.b.DataDir + "/instance.json", w.b.DataDir + "/efs", w.b.DataDir + "/volumes/shared", w.b.DataDir + "/new",
		filepath.Dir(w.b.DataDir) + "/./data/../data", link, link + "/instance.json", "/proc/self/root/" + sub, "//" + sub,
		"/run/berth", run, run + "/c", "/var/run/berth", "/proc/1/root" + run,
	} {
		refused[path] = hostPath(path)
	}
	refused["a bind by the local driver"] = types.Volume{Name: aws.String("stolen"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{
		Scope: types.ScopeTask, Driver: aws.String("local"), DriverOpts: map[string]string{"type": "none", "o": "bind", "device": w.b.DataDir},
	}}
	refused["a bind by the local driver, shared"] = types.Volume{Name: aws.String("stolen-" + label(t)), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{
		Scope: types.ScopeShared, Autoprovision: aws.Bool(true), Driver: aws.String("local"), DriverOpts: map[string]string{"type": "none", "o": "bind", "device": run},
	}}
	tasks := map[string]types.Task{}
	for path, v := range refused {
		tasks[path] = w.run(w.define(volumes(v), w.shell("echo in; ls -la /stolen", mount(aws.ToString(v.Name), "/stolen"))))
	}
	above := map[string]types.Task{}
	for _, dir := range []string{"/", "/run", filepath.Dir(w.b.DataDir), "/tmp"} {
		script := `busybox ls -A /above >/dev/null && echo seen; for d in data ` + sub + ` ` + strings.TrimPrefix(sub, "tmp/") + ` berth run/berth ` + run[1:] + ` ` + run[5:] + `; do busybox ls -A /above/$d 2>/dev/null; (echo x >/above/$d/planted) 2>/dev/null && echo planted; done`
		above[dir] = w.run(w.define(volumes(hostPath(dir)), w.shell(script, mount("stolen", "/above"))))
	}
	device := w.run(w.define(nil, w.shell("ls /dev/mine", linux(types.LinuxParameters{Devices: []types.Device{{HostPath: aws.String(w.b.DataDir), ContainerPath: aws.String("/dev/mine")}}}))))
	for path, task := range tasks {
		if done := w.stopped(task); done.StopCode != types.TaskStopCodeTaskFailedToStart || len(w.b.Logs(id(task), "app")) > 0 {
			t.Errorf("a volume of %s: %s %q, output %q", path, done.StopCode, aws.ToString(done.StoppedReason), w.b.Logs(id(task), "app"))
		}
	}
	for dir, task := range above {
		if lines := w.output(task); !slices.Equal(lines, []string{"seen"}) {
			t.Errorf("with %s mounted a container sees %q", dir, lines)
		}
	}
	if done := w.stopped(device); done.StopCode != types.TaskStopCodeTaskFailedToStart {
		t.Errorf("the data directory as a device: %s, output %q", done.StopCode, w.b.Logs(id(device), "app"))
	}
	if _, err := os.Lstat(w.b.DataDir + "/new"); err == nil {
		t.Error("a refused volume was made")
	}

	// A name in the abstract namespace is reached from every container of network mode host.
	abstract := abstractSockets(t)
	for _, p := range harness.Processes(w.b.ID(), w.b.DataDir) {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && abstract[to] != "" {
				t.Errorf("%s has the abstract socket %s", p, abstract[to])
			}
		}
	}
}

// abstractSockets are the names of the host's abstract unix sockets by what a descriptor of one says.
func abstractSockets(t *testing.T) map[string]string {
	raw, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, line := range strings.Split(string(raw), "\n") {
		if f := strings.Fields(line); len(f) > 7 && strings.HasPrefix(f[7], "@") {
			out["socket:["+f[6]+"]"] = f[7]
		}
	}
	return out
}

// TestNotGranted tries, in a container without further rights, everything that takes some.
func TestNotGranted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		t.Fatal(err)
	}
	disk := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	tasks := map[string]types.Task{}
	for mode, change := range map[string]func(*taskDefinition){
		"bridge": bridged, "awsvpc": vpc, "host": hosted,
		"the host's processes": func(in *taskDefinition) { in.PidMode = types.PidModeHost },
		"the host's IPC":       func(in *taskDefinition) { in.IpcMode = types.IpcModeHost },
	} {
		tasks[mode] = w.run(w.define(change, w.app("forbid", disk, strconv.Itoa(w.b.Pid()))))
	}
	for mode, task := range tasks {
		lines := w.output(task)
		if len(lines) < 60 {
			t.Errorf("%s: it ended after %q", mode, lines)
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, "refused ") {
				t.Errorf("%s: %s", mode, line)
			}
		}
	}
}

// canary is a directory of the host that must neither change nor be read, with a file in it.
func canary(t *testing.T) (dir string, check func()) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range map[string]string{"secret": secret, "passwd": "mallory:x:1234:1234::/:/bin/sh\n", "group": "mallory:x:1234:\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := func() string {
		var b strings.Builder
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			content, _ := os.ReadFile(path)
			fmt.Fprintf(&b, "%s mode %o owner %d links %d: %s\n", path, st.Mode, st.Uid, st.Nlink, content)
			return nil
		})
		if err != nil {
			t.Errorf("look at the canary: %v", err)
		}
		return b.String()
	}
	before := state()
	return dir, func() {
		t.Helper()
		if after := state(); after != before {
			t.Errorf("the host's directory was changed: it was\n%sand is\n%s", before, after)
		}
	}
}

const secret = "this is the host's alone"

// TestLinksInVolumes: links that one container leaves in a volume lead the next, and Berth itself,
// nowhere on the host.
func TestLinksInVolumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	dir, check := canary(t)
	fs := fmt.Sprintf("fs-%016x", time.Now().UnixNano()) // what is in one stays there
	efs := func(root, point string) func(*taskDefinition) {
		c := &types.EFSVolumeConfiguration{FileSystemId: &fs}
		if root != "" {
			c.RootDirectory = &root
		}
		if point != "" {
			c.TransitEncryption, c.AuthorizationConfig = types.EFSTransitEncryptionEnabled, &types.EFSAuthorizationConfig{AccessPointId: &point}
		}
		return volumes(types.Volume{Name: aws.String("v"), EfsVolumeConfiguration: c})
	}
	shared := "links-" + label(t)
	sharing := volumes(types.Volume{Name: aws.String(shared), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared, Autoprovision: aws.Bool(true)}})
	// Links to the directory and to its file, absolute and by way of the root.
	plant := `cd /v && busybox ln -sfn ` + dir + ` dir && busybox ln -sfn /../../../../..` + dir + ` up && busybox ln -sfn ` + dir + `/secret file && busybox ln -sfn fsap-00000000 x; ` +
		`busybox rm -rf fsap-0123456789abcdef0; busybox ln -sfn ` + dir + ` fsap-0123456789abcdef0; echo planted`
	read := `busybox find -L /v -type f 2>/dev/null | while read f; do cat "$f"; done; for d in /v /v/dir /v/up; do (echo x >$d/planted) 2>/dev/null; done; ls -d /v >/dev/null && echo done`
	for _, change := range []func(*taskDefinition){efs("", ""), sharing, volumes(types.Volume{Name: aws.String("v")})} {
		var in taskDefinition
		change(&in)
		name := aws.ToString(in.Volumes[0].Name)
		w.says(change, []string{"done"},
			w.shell(plant, named("planter"), beside, mount(name, "/v")),
			w.shell(read, after("planter"), mount(name, "/v")))
	}
	for _, bad := range []func(*taskDefinition){
		efs("/dir", ""), efs("/up", ""), efs("/file", ""), efs("/../../../../.."+dir, ""), efs("", "fsap-0123456789abcdef0"),
	} {
		var in taskDefinition
		bad(&in)
		done := w.stopped(w.run(w.define(bad, w.shell(read+"; cat /v/secret", mount("v", "/v")))))
		for _, line := range w.b.Logs(id(done), "app") {
			if line == secret {
				t.Errorf("EFS %s: the host's file is read", show(in.Volumes[0].EfsVolumeConfiguration))
			}
		}
		if done.StopCode != types.TaskStopCodeTaskFailedToStart {
			t.Errorf("EFS %s: %s %s", show(in.Volumes[0].EfsVolumeConfiguration), done.StopCode, aws.ToString(done.StoppedReason))
		}
	}
	check()
}

// entry is a file of an image's layer, as its tar has it.
type entry struct {
	kind       byte
	name, link string
	body       string
}

// layered is busybox's image with layers of such entries.
func layered(t *testing.T, layers ...[]entry) v1.Image {
	t.Helper()
	img := harness.Busybox(t)
	for _, entries := range layers {
		var b bytes.Buffer
		out := tar.NewWriter(&b)
		for _, e := range entries {
			h := &tar.Header{Typeflag: e.kind, Name: e.name, Linkname: e.link, Mode: 0o755, Size: int64(len(e.body)), Format: tar.FormatPAX}
			if err := out.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(out, e.body); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// TestLinksInImages: whatever an image's layers hold, unpacking it and running a container of it, with
// everything that Berth puts into its file system, neither changes nor reads anything of the host's.
func TestLinksInImages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	dir, check := canary(t)
	registry := harness.NewRegistry(t)
	const file, symlink, hardlink, directory = tar.TypeReg, tar.TypeSymlink, tar.TypeLink, tar.TypeDir
	up := strings.Repeat("../", 30)
	link := func(name, to string) entry { return entry{kind: symlink, name: name, link: to} }
	data := volumes(types.Volume{Name: aws.String("data")})
	type attack struct {
		name   string
		layers [][]entry
		change func(*taskDefinition)
		of     func(*container)
	}
	attacks := []attack{
		{"a file outside", [][]entry{{{file, up + dir[1:] + "/planted", "", "x"}}}, nil, nil},
		{"an absolute name", [][]entry{{{file, dir + "/planted", "", "x"}}}, nil, nil},
		{"through a link", [][]entry{{link("out", dir), {file, "out/planted", "", "x"}}}, nil, nil},
		{"through a link upwards", [][]entry{{link("a/out", up+dir[1:]), {file, "a/out/planted", "", "x"}}}, nil, nil},
		{"through an earlier layer's link", [][]entry{{link("out", dir)}, {{file, "out/planted", "", "x"}, {file, "out/secret", "", "x"}}}, nil, nil},
		{"a file that becomes a link", [][]entry{{{file, "conf", "", "x"}}, {link("conf", dir+"/secret")}, {{file, "conf/planted", "", "x"}}}, nil, nil},
		{"a directory that becomes a link", [][]entry{{{directory, "d", "", ""}, {file, "d/x", "", "x"}}, {link("d", dir)}, {{directory, "d", "", ""}, {file, "d/planted", "", "x"}}}, nil, nil},
		{"a hard link to outside", [][]entry{{{hardlink, "stolen", up + dir[1:] + "/secret", ""}}}, nil, nil},
		{"a hard link to an absolute name", [][]entry{{{hardlink, "stolen", dir + "/secret", ""}}}, nil, nil},
		{"a hard link through a link", [][]entry{{link("out", dir), {hardlink, "stolen", "out/secret", ""}, {file, "stolen", "", "x"}}}, nil, nil},
		{"a hard link to a link", [][]entry{{link("s", dir+"/secret"), {hardlink, "stolen", "s", ""}, {file, "stolen", "", "x"}}}, nil, nil},
		{"whiteouts", [][]entry{{link("out", dir)}, {{file, "out/.wh.secret", "", ""}, {file, "out/.wh..wh..opq", "", ""}, {file, ".wh...", "", ""}, {file, up + dir[1:] + "/.wh.secret", "", ""}}}, nil, nil},
		{"a root that is a link", [][]entry{{link(".", dir)}, {{file, "planted", "", "x"}}}, nil, nil},
		{"the files that Berth writes", [][]entry{{link("etc/hosts", dir+"/secret"), link("etc/hostname", dir+"/secret"), link("etc/resolv.conf", dir+"/planted"), link("etc/mtab", dir+"/planted")}}, bridged, nil},
		{"a link for /etc", [][]entry{{{file, ".wh.etc", "", ""}}, {link("etc", dir)}}, bridged, func(c *container) { c.Hostname = aws.String("h") }},
		{"links for /proc, /dev and /sys", [][]entry{{{file, ".wh.proc", "", ""}, {file, ".wh.dev", "", ""}, {file, ".wh.sys", "", ""}}, {link("proc", dir), link("dev", dir), link("sys", dir)}}, nil, nil},
		{"the host's users", [][]entry{{link("etc/passwd", dir+"/passwd"), link("etc/group", dir+"/group")}}, nil, func(c *container) { c.User = aws.String("mallory:mallory") }},
		{"a working directory", [][]entry{{link("out", dir)}}, nil, func(c *container) { c.WorkingDirectory = aws.String("/out/planted/deep") }},
		{"a volume at a link", [][]entry{{link("out", dir)}}, data, mount("data", "/out")},
		{"a volume below a link", [][]entry{{link("out", dir)}}, data, mount("data", "/out/planted/deep")},
		{"a volume that is filled", [][]entry{{{directory, "data", "", ""}, link("data/out", dir), link("data/stolen", dir+"/secret"), {file, "data/out2", "", "x"}}}, data, mount("data", "/data")},
		{"a tmpfs and a device", [][]entry{{link("out", dir)}}, nil, linux(types.LinuxParameters{
			Tmpfs:   []types.Tmpfs{{ContainerPath: aws.String("/out/planted"), Size: 1}},
			Devices: []types.Device{{HostPath: aws.String("/dev/null"), ContainerPath: aws.String("/out/device")}},
		})},
	}
	script := `busybox find -L / -xdev -maxdepth 3 -name secret 2>/dev/null | while read f; do cat $f; done; for f in /stolen /conf /etc/hosts /etc/hostname /etc/passwd /data/stolen /out/secret /etc/secret /proc/secret /dev/secret; do cat $f; done 2>/dev/null; echo; echo ran`
	tasks := map[string]types.Task{}
	for i, a := range attacks {
		ref := registry.Push(t, fmt.Sprintf("attack/%d:1", i), layered(t, a.layers...))
		c := w.shell(script, func(c *container) { c.Image = &ref })
		if a.of != nil {
			a.of(&c)
		}
		tasks[a.name] = w.run(w.define(a.change, c))
	}
	ran := 0
	for name, task := range tasks {
		done := w.stopped(task)
		lines := w.b.Logs(id(task), "app")
		if strings.Contains(strings.Join(lines, "\n"), secret) {
			t.Errorf("%s: the host's file is read", name)
		}
		if slices.Contains(lines, "ran") {
			ran++
		} else if done.StopCode != types.TaskStopCodeTaskFailedToStart && exitCode(t, done, "app") == 0 {
			t.Errorf("%s: it neither ran nor failed: %s", name, show(done.Containers))
		}
	}
	if ran < len(attacks)/2 {
		t.Errorf("of %d attacks only %d came to run", len(attacks), ran)
	}
	if done := tasks["the host's users"]; w.stopped(done).StopCode != types.TaskStopCodeTaskFailedToStart {
		t.Error("a user of the host's was taken for one of the image's")
	}
	check()
}

// TestOthersDirectories: what one task leaves in its volumes, another does not find.
func TestOthersDirectories(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(volumes(types.Volume{Name: aws.String("data")}), w.shell(`ls /data; echo mine >/data/file; trap 'exit 0' TERM; echo up; sleep 1000 & wait`, mount("data", "/data")))
	first := w.run(definition)
	w.logs(first, contains("up"))
	second := w.run(definition)
	if lines := w.logs(second, contains("up")); !slices.Equal(lines, []string{"up"}) {
		t.Errorf("the second task finds %q in its volume", lines)
	}
	for _, name := range []string{"../" + id(first) + "/data", "data/../../" + id(first), "..", "a/b"} {
		w.refuses(volumes(types.Volume{Name: aws.String(name)}), "ClientException")
	}
}

// TestEnvironmentFilesOfOthers: a definition gets variables out of no object but those that its account
// may read, and out of no other than the one it names.
func TestEnvironmentFilesOfOthers(t *testing.T) {
	t.Parallel()
	b := dev(t) // where every access key of twelve digits is an account
	w := newWorld(t, b)
	client := func(account string) *s3.Client {
		return s3.NewFromConfig(b.Config(), func(o *s3.Options) {
			o.UsePathStyle, o.Credentials = true, credentials.NewStaticCredentialsProvider(account, "x", "")
		})
	}
	own, foreign := fmt.Sprintf("own-%d", os.Getpid()), fmt.Sprintf("foreign-%d", os.Getpid())
	put := func(account, bucket, key, body string) {
		t.Helper()
		c := client(account)
		if _, err := c.CreateBucket(ctx(t), &s3.CreateBucketInput{Bucket: &bucket}); err != nil && !strings.Contains(err.Error(), "BucketAlreadyOwnedByYou") {
			t.Fatalf("make bucket %s: %v", bucket, err)
		}
		if _, err := c.PutObject(ctx(t), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(body)}); err != nil {
			t.Fatalf("put %s/%s: %v", bucket, key, err)
		}
	}
	put("test", own, "a.env", "A=mine\n")
	put("test", own, "dir/a.env", "A=deeper\n")
	put("111122223333", foreign, "a.env", "A="+secret+"\n")
	with := func(arn string) types.Task {
		return w.run(w.define(nil, w.shell(`echo "A is $A"`, func(c *container) {
			c.EnvironmentFiles = []types.EnvironmentFile{{Type: types.EnvironmentFileTypeS3, Value: &arn}}
		})))
	}
	refused := map[string]types.Task{}
	for _, arn := range []string{
		"arn:aws:s3:::" + foreign + "/a.env", "arn:aws:s3:::" + own + "/../" + foreign + "/a.env", "arn:aws:s3:::" + own + "/%2e%2e/" + foreign + "/a.env",
		"arn:aws:s3:::" + own + "/..%2f" + foreign + "/a.env", "arn:aws:s3:::" + own + "/dir/../a.env", "arn:aws:s3:::" + own + "/../../../etc/environment.env",
		"arn:aws:s3:::" + own + "//a.env",
	} {
		refused[arn] = with(arn)
	}
	allowed := with("arn:aws:s3:::" + own + "/a.env")
	for arn, task := range refused {
		if done := w.stopped(task); done.StopCode != types.TaskStopCodeTaskFailedToStart || len(w.b.Logs(id(task), "app")) > 0 || !strings.Contains(aws.ToString(done.StoppedReason), "ResourceInitializationError") {
			t.Errorf("%s: %s %q, output %q", arn, done.StopCode, aws.ToString(done.StoppedReason), w.b.Logs(id(task), "app"))
		}
	}
	if lines := w.output(allowed); !slices.Equal(lines, []string{"A is mine"}) {
		t.Errorf("out of its own file it has %q", lines)
	}
}
