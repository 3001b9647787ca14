package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Leaks lists everything on the host that carries an instance's ID or lies in its data directory:
// processes, mounts, network interfaces, nftables tables, network namespaces, cgroups, run files and
// FIFOs. The `berth up` process itself counts, so ask when it has ended.
func Leaks(id, dataDir string) []string {
	marks := []string{id, dataDir}
	var left []string
	left = append(left, LeakedTaskThings(id, dataDir)...)
	if _, err := os.Stat(filepath.Join("/run/berth", id)); err == nil {
		left = append(left, "directory /run/berth/"+id)
	}
	left = append(left, find("mount", mounts(), marks)...)
	left = append(left, cgroups(func(path string) bool { return strings.Contains(path, id) })...)
	if addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL); err == nil {
		for _, a := range addresses {
			if strings.Contains(a.Label, id) {
				left = append(left, "address "+a.IPNet.String()+" "+a.Label)
			}
		}
	}
	tables, err := nftTables()
	if err != nil {
		left = append(left, "nftables cannot be listed: "+err.Error())
	}
	left = append(left, find("nftables table", tables, marks)...)
	for _, p := range Processes(marks...) {
		left = append(left, p.String())
	}
	return unique(left)
}

// LeakedTaskThings lists what an instance's tasks leave behind when all of them have stopped and
// been cleaned up, while Berth itself goes on: shims and container processes, root file systems,
// interfaces and namespaces, the cgroups of tasks, FIFOs.
func LeakedTaskThings(id, dataDir string) []string {
	marks := []string{id, dataDir}
	var left []string
	for _, p := range Processes(marks...) {
		if p.IsShim() || p.InContainer(id) {
			left = append(left, p.String())
		}
	}
	for _, m := range mounts() {
		if containsAny(m, marks) && (strings.Contains(m, " overlay ") || strings.Contains(m, "/rootfs") || strings.Contains(m, " nsfs ") || strings.Contains(m, "/netns")) {
			left = append(left, "mount "+m)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		left = append(left, "interfaces cannot be listed: "+err.Error())
	}
	for _, l := range links {
		// An interface's name is too short for the whole ID; its alias is not, once it has one.
		name, alias := l.Attrs().Name, l.Attrs().Alias
		if containsAny(alias, marks) || alias == "" && len(id) >= 4 && strings.HasPrefix(name, "be"+id[:4]) {
			left = append(left, "interface "+name)
		}
	}
	left = append(left, find("network namespace", list("/run/netns"), marks)...)
	left = append(left, taskCgroups(id)...)
	for kind, dir := range map[string]string{
		"endpoint": filepath.Join("/run/berth", id, "bridge"), "shared namespaces": filepath.Join("/run/berth", id, "c", "shared"),
		"volumes of task": filepath.Join(dataDir, "volumes", "tasks"),
	} {
		for _, name := range list(dir) {
			left = append(left, kind+" "+filepath.Join(dir, name))
		}
	}
	filepath.WalkDir(dataDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeNamedPipe != 0 {
			left = append(left, "FIFO "+path)
		}
		return nil
	})
	filepath.WalkDir(filepath.Join("/run/berth", id), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeNamedPipe != 0 {
			left = append(left, "FIFO "+path)
		}
		return nil
	})
	return unique(left)
}

// taskCgroups are the cgroups below the instance's own, in every hierarchy.
func taskCgroups(id string) []string {
	return cgroups(func(path string) bool {
		_, below, found := strings.Cut(path, id+"/")
		return found && below != ""
	})
}

func cgroups(match func(path string) bool) []string {
	var found []string
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && match(path) {
			found = append(found, "cgroup "+path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

func find(kind string, all, marks []string) []string {
	var found []string
	for _, s := range all {
		if containsAny(s, marks) {
			found = append(found, kind+" "+s)
		}
	}
	return found
}

func containsAny(s string, marks []string) bool {
	for _, m := range marks {
		if m != "" && strings.Contains(s, m) {
			return true
		}
	}
	return false
}

func unique(in []string) []string {
	seen := map[string]bool{}
	out := in[:0]
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func mounts() []string {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []string
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		all = append(all, lines.Text())
	}
	return all
}

func nftTables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	return names, nil
}

// Process is a process of the host.
type Process struct {
	Pid, Parent int
	Args        []string
	cgroups     string
	zombie      bool
}

func (p Process) String() string {
	return fmt.Sprintf("process %d: %s", p.Pid, strings.Join(p.Args, " "))
}

// IsShim tells a shim.
func (p Process) IsShim() bool {
	return len(p.Args) > 0 && strings.Contains(filepath.Base(p.Args[0]), "shim")
}

// IsUp tells the `berth up` process.
func (p Process) IsUp() bool { return len(p.Args) > 1 && p.Args[1] == "up" }

// InContainer tells a process of one of the instance's containers.
func (p Process) InContainer(id string) bool {
	for _, line := range strings.Split(p.cgroups, "\n") {
		if i := strings.Index(line, id); i >= 0 && strings.Contains(line[i:], "/") {
			return true
		}
	}
	return false
}

// Processes lists live processes whose arguments, directory, binary or cgroup contain one of the
// marks, other than this process.
func Processes(marks ...string) []Process {
	var found []Process
	for _, name := range list("/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, ok := readProcess(pid)
		if !ok || p.zombie {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", name, "cwd"))
		exe, _ := os.Readlink(filepath.Join("/proc", name, "exe"))
		if containsAny(strings.Join(p.Args, " ")+"\n"+cwd+"\n"+exe+"\n"+p.cgroups, marks) {
			found = append(found, p)
		}
	}
	return found
}

// FindProcess finds the one live process with the token among its arguments.
func FindProcess(token string) (Process, bool) {
	for _, name := range list("/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, ok := readProcess(pid)
		if !ok || p.zombie {
			continue
		}
		for _, arg := range p.Args {
			if arg == token {
				return p, true
			}
		}
	}
	return Process{}, false
}

func readProcess(pid int) (Process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Process{}, false
	}
	p := Process{Pid: pid}
	if s := strings.TrimRight(string(cmdline), "\x00"); s != "" {
		p.Args = strings.Split(s, "\x00")
	}
	cgroups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	p.cgroups = string(cgroups)
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	for _, line := range strings.Split(string(status), "\n") {
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); key {
		case "State":
			p.zombie = strings.HasPrefix(value, "Z")
		case "PPid":
			p.Parent, _ = strconv.Atoi(value)
		}
	}
	return p, true
}

// CgroupFile reads a control file of the cgroup a process is in, whichever layout the host has. The
// name is version 1's; the second is version 2's.
func (p Process) CgroupFile(controller, v1, v2 string) (string, error) {
	var unified string
	for _, line := range strings.Split(p.cgroups, "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" {
			unified = parts[2]
			continue
		}
		for _, c := range strings.Split(parts[1], ",") {
			if c == controller {
				for _, dir := range []string{controller, parts[1]} {
					if b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", dir, parts[2], v1)); err == nil {
						return strings.TrimSpace(string(b)), nil
					}
				}
			}
		}
	}
	b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", unified, v2))
	return strings.TrimSpace(string(b)), err
}

// PSS is the proportional set size of a process, in bytes.
func (p Process) PSS() (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid), "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss of process %d", p.Pid)
}

// Files counts the process's open file descriptors.
func (p Process) Files() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid))
	return len(entries), err
}

// CPUTicks is the processor time a process has used, in clock ticks of 1/100 s.
func (p Process) CPUTicks() (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The command may contain spaces: count after its closing parenthesis.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("short stat of process %d", p.Pid)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("strange stat of process %d", p.Pid)
	}
	return user + system, nil
}
