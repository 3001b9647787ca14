package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// send opens a connection for each request, writes it, and prints a line with the answer's status and
// its body. Requests are Go strings without their quotes: "GET / HTTP/1.0\r\n\r\n".
func send(from, addr string, requests []string) error {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	for _, quoted := range requests {
		request, err := strconv.Unquote(`"` + quoted + `"`)
		if err != nil {
			return fmt.Errorf("request %s: %w", quoted, err)
		}
		fmt.Println(exchange(dialer, addr, request))
	}
	return nil
}

func exchange(dialer net.Dialer, addr, request string) string {
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		return "no connection"
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return "closed"
	}
	all, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer"
	}
	head, body, _ := strings.Cut(string(all), "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	if status == "" {
		return "closed"
	}
	return strings.TrimSpace(status + " | " + strings.Join(strings.Fields(body), " "))
}

// dial prints of each address whether a connection is taken there. An address with a slash or an @ is
// a unix socket's, an @ meaning the abstract namespace.
func dial(addrs []string) {
	for _, addr := range addrs {
		network := "tcp"
		if strings.ContainsAny(addr, "/@") {
			network = "unix"
		}
		conn, err := net.DialTimeout(network, addr, 2*time.Second)
		if err != nil {
			fmt.Println("closed", addr)
			continue
		}
		conn.Close()
		fmt.Println("open", addr)
	}
}

// hog opens connections, as many as it can, and keeps them.
func hog(addr string, n int) {
	var kept []net.Conn
	for range n {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			io.WriteString(conn, "GET / HTTP/1.1\r\n")
			kept = append(kept, conn)
		}
	}
	fmt.Println("holding", len(kept) > 0)
	time.Sleep(time.Hour)
}

// frames sends a UDP packet for each pair SOURCE>DESTINATION:PORT to the interface's router, past the
// routing, the firewall and the addresses of this namespace. What it carries is the pair. A packet that
// is not sent is an error.
func frames(pairs []string) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	// A packet of the kernel's own makes the router a known neighbour.
	if conn, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		conn.Write([]byte("hello"))
		conn.Close()
	}
	router, err := neighbour()
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(socket)
	to := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: link.Index, Halen: 6} // ETH_P_IP, as it is sent
	copy(to.Addr[:], router)
	for _, pair := range pairs {
		from, dst, _ := strings.Cut(pair, ">")
		source, err1 := netip.ParseAddr(from)
		target, err2 := netip.ParseAddrPort(dst)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if err := unix.Sendto(socket, datagram(source, target, pair), 0, to); err != nil {
			return fmt.Errorf("send %s: %w", pair, err)
		}
		fmt.Println("sent", pair)
	}
	return nil
}

// neighbour is the link address of the one neighbour there is.
func neighbour() (net.HardwareAddr, error) {
	f, err := os.Open("/proc/net/arp")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 6 && fields[5] == "eth0" {
			return net.ParseMAC(fields[3])
		}
	}
	return nil, errors.New("eth0 has no neighbour")
}

// datagram is an IPv4 packet with a UDP datagram without a checksum.
func datagram(from netip.Addr, to netip.AddrPort, body string) []byte {
	p := make([]byte, 28, 28+len(body))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(body)))
	source, target := from.As4(), to.Addr().As4()
	copy(p[12:], source[:])
	copy(p[16:], target[:])
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(p[20:], 40000)
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(body)))
	return append(p, body...)
}

// forbid tries what a container without further rights must not be able to do, and prints of each
// attempt whether it was refused. None of them would harm the host where it is not. The argument is
// the major and minor number of a disk, "8:0", and a process that is not of this container.
func forbid(disk string, victim int) {
	try := func(what string, err error) {
		if err != nil {
			fmt.Println("refused", what)
		} else {
			fmt.Println("ALLOWED", what)
		}
	}
	major, minor, _ := strings.Cut(disk, ":")
	ma, _ := strconv.ParseUint(major, 10, 32)
	mi, _ := strconv.ParseUint(minor, 10, 32)
	for _, d := range []struct {
		what         string
		kind         uint32
		major, minor uint32
	}{
		{"the host's disk", unix.S_IFBLK, uint32(ma), uint32(mi)}, {"/dev/mem", unix.S_IFCHR, 1, 1}, {"/dev/kmem", unix.S_IFCHR, 1, 2},
		{"/dev/port", unix.S_IFCHR, 1, 4}, {"/dev/kmsg", unix.S_IFCHR, 1, 11},
		{"/dev/fuse", unix.S_IFCHR, 10, 229}, {"/dev/loop-control", unix.S_IFCHR, 10, 237}, {"a loop device", unix.S_IFBLK, 7, 0},
	} {
		path := fmt.Sprintf("/tmp/device-%d-%d", d.major, d.minor)
		err := unix.Mknod(path, d.kind|0o666, int(unix.Mkdev(d.major, d.minor)))
		if err == nil {
			err = open(path, unix.O_RDONLY)
			if err == nil || open(path, unix.O_WRONLY) == nil {
				err = nil
			}
		}
		try("opening "+d.what, err)
	}

	os.Mkdir("/tmp/mount", 0o700)
	try("mounting a tmpfs", unix.Mount("tmpfs", "/tmp/mount", "tmpfs", 0, ""))
	try("mounting proc", unix.Mount("proc", "/tmp/mount", "proc", 0, ""))
	try("mounting cgroups", unix.Mount("cgroup", "/tmp/mount", "cgroup", 0, "memory"))
	try("mounting cgroups of version 2", unix.Mount("cgroup2", "/tmp/mount", "cgroup2", 0, ""))
	try("binding a directory", unix.Mount("/etc", "/tmp/mount", "", unix.MS_BIND, ""))
	try("making the root file system shared", unix.Mount("", "/", "", unix.MS_SHARED, ""))
	try("unmounting /proc/sys", unix.Unmount("/proc/sys", unix.MNT_DETACH))
	_, err := unix.Fsopen("tmpfs", 0)
	try("a new mount's context", err)
	_, err = unix.OpenTree(unix.AT_FDCWD, "/", 1) // OPEN_TREE_CLONE
	try("a clone of the mount tree", err)
	for _, ns := range []struct {
		name string
		flag int
	}{
		{"user", unix.CLONE_NEWUSER}, {"mount", unix.CLONE_NEWNS}, {"network", unix.CLONE_NEWNET}, {"PID", unix.CLONE_NEWPID},
		{"IPC", unix.CLONE_NEWIPC}, {"UTS", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP}, {"time", unix.CLONE_NEWTIME},
	} {
		try("a new "+ns.name+" namespace", unix.Unshare(ns.flag))
	}
	try("setting the host name", unix.Sethostname([]byte("taken")))
	try("setting the clock", unix.Settimeofday(&unix.Timeval{Sec: time.Now().Unix()}))
	try("loading a module", unix.InitModule([]byte("no module"), ""))
	try("turning process accounting on", unix.Acct("/tmp/acct"))
	try("a handle that leads out", byHandle())
	_, err = unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Size: unix.PERF_ATTR_SIZE_VER0}, -1, 0, -1, 0)
	try("watching all of a CPU", denied(err))
	_, _, errno := unix.Syscall(unix.SYS_BPF, 5, 0, 0) // BPF_PROG_LOAD
	try("loading a BPF program", denied(errno))
	_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
	try("the keys of the host's root", err)
	_, err = unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 64))
	try("reading the kernel's log", err)
	_, _, errno = unix.Syscall(unix.SYS_REBOOT, 0, 0, 0) // not even the magic numbers are right
	try("asking for a reboot", denied(errno))
	// To seize a process does not stop it, and ends with this one.
	const seize = 0x4206
	_, _, errno = unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(victim), 0, 0, 0, 0)
	try("tracing another's process", orNil(errno))
	_, err = os.ReadDir(fmt.Sprintf("/proc/%d/root/etc", victim))
	try("another process's root directory", err)
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/fd/0", victim))
	try("another process's files", err)
	_, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", victim))
	try("another process's environment", err)

	try("adding an interface", denied(netlink(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, addLink())))
	try("removing the interface", denied(netlink(unix.NETLINK_ROUTE, unix.RTM_DELLINK, make([]byte, unix.SizeofIfInfomsg))))
	try("an interface of its own", tun())
	try("a table of the firewall", denied(netlink(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, []byte{unix.AF_INET, 0, 0, 0})))
	try("forwarding", write("/proc/sys/net/ipv4/ip_forward", "1"))

	for _, path := range []string{
		"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname",
		"/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity",
		"/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled",
	} {
		try("writing "+path, open(path, unix.O_WRONLY))
	}
	for _, path := range []string{"/proc/kcore", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware/acpi"} {
		try("reading "+path, read(path))
	}
	agents, _ := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	for _, path := range append(agents, "/sys/fs/cgroup/release_agent") {
		try("writing "+path, write(path, "/tmp/agent"))
	}
	hierarchies, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	for _, path := range append(hierarchies, "/sys/fs/cgroup/cgroup.procs") {
		dir := filepath.Join(filepath.Dir(path), "mine")
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			_, err = os.Stat(filepath.Join(dir, "cgroup.procs"))
		}
		try("making "+dir, err)
	}
	limits, _ := filepath.Glob("/sys/fs/cgroup/memory/memory.limit_in_bytes")
	for _, path := range append(limits, "/sys/fs/cgroup/memory.max") {
		try("lifting its own limit of memory", write(path, "9223372036854771712"))
	}
}

// denied tells a refusal from an attempt that only failed because it was not meant.
func denied(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return err
	}
	return nil
}

// read reads the beginning of a file, or of a directory. An empty one is a refusal.
func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err == nil {
		return nil
	}
	_, err = f.Read(make([]byte, 1))
	return err
}

func orNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// byHandle opens a file by its number rather than by its path, which reaches all of its file system.
func byHandle() error {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/etc/hostname", 0)
	if err != nil {
		return err
	}
	root, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := unix.OpenByHandleAt(root, handle, unix.O_RDONLY)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// tun makes an interface by the device for it, which runc lets every container open.
func tun() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		const path = "/tmp/tun"
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
			return err
		}
		if fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("tun0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

// addLink is the request for a dummy interface.
func addLink() []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	kind := []byte{10, 0, 1, 0, 'd', 'u', 'm', 'm', 'y', 0, 0, 0} // IFLA_INFO_KIND
	info := append([]byte{byte(4 + len(kind)), 0, 18, 0}, kind...)
	return append(b, info...)
}

// netlink sends a request and answers the kernel's error.
func netlink(family int, kind uint16, body []byte) error {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	message := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(message, uint32(cap(message)))
	binary.NativeEndian.PutUint16(message[4:], kind)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE)
	if err := unix.Sendto(socket, append(message, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(socket, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("short answer")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}
