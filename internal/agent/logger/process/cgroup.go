package process

import (
	"bufio"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// joinCgroup moves the process to a cgroup of its own, at the root of the hierarchies by which
// service managers find a service's processes: what ends Berth's service then spares the logger. It
// is done where possible: without it, only such a service manager is not outlived.
func joinCgroup(name string, log *slog.Logger) {
	if !ValidName(name) {
		return
	}
	for _, root := range processHierarchies() {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			log.Info("no cgroup of its own", "error", err)
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			log.Info("no cgroup of its own", "error", err)
		}
	}
}

// RemoveCgroup removes what joinCgroup made, after the process has ended.
func RemoveCgroup(name string) error {
	var errs []error
	if ValidName(name) {
		for _, root := range processHierarchies() {
			if err := os.Remove(filepath.Join(root, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// processHierarchies are the mount points of cgroup v2 and of systemd's hierarchy without
// controllers; a machine has one of them or both.
func processHierarchies() []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var roots []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// id parent dev root mountpoint options … - type source superoptions
		left, right, ok := strings.Cut(sc.Text(), " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !ok || len(a) < 5 || len(b) < 3 {
			continue
		}
		if b[0] == "cgroup2" || b[0] == "cgroup" && strings.Contains(b[2], "name=systemd") {
			roots = append(roots, a[4])
		}
	}
	return roots
}
