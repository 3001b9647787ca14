package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/test/harness"
)

// execInNamespace is the argument that makes this program the wrapper of a peer's daemon.
const execInNamespace = "exec-in-new-namespace"

// execInNewNamespace becomes the given command, in the network and mount namespaces that the parent
// made for it: the loopback interface comes up, and mounts stay inside.
func execInNewNamespace(argv []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "bench: prepare the peer's namespace:", err)
		return 1
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fail(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fail(err)
	}
	return fail(syscall.Exec(argv[0], argv, os.Environ()))
}

// debs are Debian's packages of the peers.
var debs = []string{"docker.io", "containerd", "runc", "libdevmapper1.02.1"}

// unpackPeers downloads and unpacks the peers' packages once, and answers the directory of their
// root file system.
func unpackPeers(b *bench) string {
	dir := peersDir()
	root := filepath.Join(dir, "root")
	if _, err := os.Stat(filepath.Join(root, "complete")); err == nil {
		return root
	}
	run := func(dir, command string, args ...string) {
		cmd := exec.CommandContext(b.ctx, command, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("get the peers: %s %s: %v\n%s", command, strings.Join(args, " "), err, out)
		}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		b.Fatalf("get the peers: %v", err)
	}
	cmd := exec.CommandContext(b.ctx, "apt-get", append([]string{"download"}, debs...)...)
	cmd.Dir = dir
	if err := cmd.Run(); err != nil {
		run(dir, "apt-get", "update")
		run(dir, "apt-get", append([]string{"download"}, debs...)...)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	for _, f := range files {
		run(dir, "dpkg-deb", "-x", f, root)
	}
	if err := os.WriteFile(filepath.Join(root, "complete"), nil, 0o644); err != nil {
		b.Fatalf("get the peers: %v", err)
	}
	return root
}

// archive is the test program's image as `docker save` writes it.
func archive(b *bench) string {
	file := filepath.Join(harness.CacheDir(), "bench-image.tar")
	tag, err := name.NewTag(imageName)
	if err == nil {
		err = tarball.WriteToFile(file, tag, harness.TestImage(b))
	}
	if err != nil {
		b.Fatalf("write the image: %v", err)
	}
	return file
}

// daemon is a peer's daemon with everything it owns in one directory.
type daemon struct {
	dir    string
	socket string
	root   string // of the unpacked packages
	cmd    *exec.Cmd
	out    bytes.Buffer
	exited chan struct{}
}

// startDaemon starts a peer's daemon in namespaces of its own, and stops it by its process ID when
// the measurement ends.
func startDaemon(b *bench, kind string, args func(d *daemon) []string) *daemon {
	d := &daemon{root: unpackPeers(b), exited: make(chan struct{})}
	var err error
	if d.dir, err = os.MkdirTemp("", "bench-"+kind+"-"); err != nil {
		b.Fatalf("make a directory: %v", err)
	}
	d.socket = filepath.Join(d.dir, "sock")
	self, err := os.Executable()
	if err != nil {
		b.Fatalf("find this program: %v", err)
	}
	d.cmd = exec.Command(self, append([]string{execInNamespace}, args(d)...)...)
	d.cmd.Env = append(os.Environ(), "PATH="+d.path(), "LD_LIBRARY_PATH="+filepath.Join(d.root, "lib/x86_64-linux-gnu")+":"+filepath.Join(d.root, "usr/lib/x86_64-linux-gnu"))
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Setsid: true}
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	d.cmd.WaitDelay = time.Second
	if err := d.cmd.Start(); err != nil {
		b.Fatalf("start %s: %v", kind, err)
	}
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	b.Cleanup(func() {
		d.cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(20 * time.Second):
			d.cmd.Process.Kill()
			<-d.exited
		}
		// Shims, and the containerd that dockerd starts, may outlive it: they are known by the directory.
		for _, p := range harness.Processes(d.dir) {
			unix.Kill(p.Pid, unix.SIGKILL)
		}
		harness.Poll(b, 10*time.Second, kind+"'s directory to be free", func() bool { return os.RemoveAll(d.dir) == nil })
	})
	harness.Poll(b, 30*time.Second, kind+" to listen", func() bool {
		select {
		case <-d.exited:
			b.Fatalf("%s ended: %s", kind, d.out.String())
		default:
		}
		c, err := net.Dial("unix", d.socket)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return d
}

func (d *daemon) bin(program string) string { return filepath.Join(d.root, "usr/bin", program) }

func (d *daemon) path() string {
	return strings.Join([]string{filepath.Join(d.root, "usr/bin"), filepath.Join(d.root, "usr/sbin"), "/usr/sbin:/usr/bin:/sbin:/bin"}, ":")
}

// docker is Debian's Docker.
type docker struct {
	*bench
	*daemon
}

// startDocker starts Docker without its bridge, unless that is asked for.
func startDocker(b *bench, withBridge bool) *docker {
	network := []string{"--bridge", "none"}
	if withBridge {
		network = []string{"--bip", "172.30.0.1/16"}
	}
	d := startDaemon(b, "docker", func(d *daemon) []string {
		return append([]string{filepath.Join(d.root, "usr/sbin/dockerd"), "--host", "unix://" + d.socket,
			"--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"),
			"--add-runtime", "same=" + runcBinary(b), "--default-runtime", "same",
			"--iptables=false", "--ip-forward=false", "--ip-masq=false", "--log-level", "error"}, network...)
	})
	k := &docker{b, d}
	harness.Poll(b, 30*time.Second, "docker to answer", func() bool { _, err := k.try("version"); return err == nil })
	k.docker("load", "--input", archive(b))
	return k
}

func (d *docker) try(args ...string) (string, error) {
	cmd := exec.CommandContext(d.ctx, d.bin("docker"), append([]string{"--host", "unix://" + d.socket}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+d.dir)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func (d *docker) docker(args ...string) string {
	out, err := d.try(args...)
	if err != nil {
		d.Fatalf("docker %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// launch is `docker run -d` until the container's first instruction.
func (d *docker) launch(network string, options ...string) time.Duration {
	sent := time.Now()
	id := d.docker(append(append([]string{"run", "--detach", "--network", network, "--memory", "16m"}, options...), imageName, "stamp")...)
	d.docker("wait", id)
	at, ok := parseStamp(d.docker("logs", id))
	if !ok {
		d.Fatalf("docker: container %s printed no time", id)
	}
	d.docker("rm", "--force", id)
	return at.Sub(sent)
}

// runcBinary is the runtime that Berth carries; every side runs it.
func runcBinary(b *bench) string {
	file := filepath.Join(harness.Root(), "internal/agent/runtime/embedded/runc")
	if _, err := os.Stat(file); err != nil {
		b.Fatalf("runc is not built: make runc")
	}
	return file
}
