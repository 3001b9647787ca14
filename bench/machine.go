package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/test/harness"
)

// Machine is where a run was made.
type Machine struct {
	Date      string   `json:"date"`
	Version   string   `json:"version"` // the commit that was measured
	CPU       string   `json:"cpu"`
	Cores     int      `json:"cores"`
	MemoryGiB int64    `json:"memoryGiB"`
	Kernel    string   `json:"kernel"`
	OS        string   `json:"os"`
	Cgroup    string   `json:"cgroup"`
	Go        string   `json:"go"`
	Peers     []string `json:"peers"`
}

func thisMachine() Machine {
	m := Machine{
		Date:    time.Now().UTC().Format(time.DateOnly),
		Version: commit(),
		CPU:     field("/proc/cpuinfo", "model name"),
		Cores:   runtime.NumCPU(), Go: runtime.Version(),
		OS:     strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`),
		Cgroup: "v1",
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.MemoryGiB = (kib + 1<<19) >> 20
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		m.Cgroup = "v2"
	}
	debs, _ := filepath.Glob(filepath.Join(peersDir(), "*.deb"))
	for _, deb := range debs {
		if name, rest, ok := strings.Cut(filepath.Base(deb), "_"); ok {
			version, _, _ := strings.Cut(rest, "_")
			m.Peers = append(m.Peers, name+" "+strings.ReplaceAll(version, "%3a", ":"))
		}
	}
	return m
}

// commit names the tree that is measured.
func commit() string {
	cmd := exec.Command("git", "describe", "--always", "--dirty")
	cmd.Dir = harness.Root()
	out, err := cmd.Output()
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(out))
}

// field is the value of the first line "name : value" or "name=value" of a file.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return "?"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			return strings.TrimSpace(strings.TrimLeft(rest, " \t:="))
		}
	}
	return "?"
}

func peersDir() string { return filepath.Join(harness.Root(), "bench", "out", "peers") }
