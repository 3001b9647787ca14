package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// guard keeps Berth's own directories out of what containers mount.
type guard struct {
	protected, allowed []string // real paths
}

func newGuard(protected, allowed []string) (guard, error) {
	var g guard
	var err error
	if g.protected, err = realPaths(protected); err == nil {
		g.allowed, err = realPaths(allowed)
	}
	return g, err
}

func realPaths(paths []string) ([]string, error) {
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		r, err := resolve(p)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", p, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// hostPath answers what a host path leads to. One that is missing is made, a directory for root with
// mode 0755, as Docker does for a bind.
func (g guard) hostPath(path string) (string, error) {
	real, err := g.check(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(real); err == nil {
		return real, nil
	}
	if err := os.MkdirAll(real, 0o755); err != nil {
		return "", fmt.Errorf("error while creating mount source path '%s': %w", path, err)
	}
	// Once more, now that all of it is there.
	return g.check(path)
}

// bindDevice answers what the device of a volume with the option bind leads to. It must exist, as with
// Docker.
func (g guard) bindDevice(path string) (string, error) {
	real, err := g.check(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(real); err != nil {
		return "", fmt.Errorf("failed to mount local volume: mount %s: no such file or directory", path)
	}
	return real, nil
}

// check resolves a path, of which the end may be missing, and refuses what is Berth's own.
func (g guard) check(path string) (string, error) {
	switch {
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("invalid volume specification: '%s': a host directory is named by an absolute path", path)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("invalid volume specification: %q has a NUL", path)
	}
	real, err := resolve(path)
	if err != nil {
		return "", fmt.Errorf("invalid mount source path '%s': %w", path, err)
	}
	for _, a := range g.allowed {
		if real == a {
			return real, nil
		}
	}
	for _, p := range g.protected {
		if within(real, p) || sameAbove(real, p) {
			return "", fmt.Errorf("invalid mount source path '%s': it is in a directory of Berth's own, which containers do not get", path)
		}
	}
	return real, nil
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// sameAbove says whether path, or a directory above it, is dir by another name, as a bind mount makes
// one.
func sameAbove(path, dir string) bool {
	want, err := os.Stat(dir)
	if err != nil {
		return false
	}
	for ; ; path = filepath.Dir(path) {
		if got, err := os.Stat(path); err == nil && os.SameFile(want, got) {
			return true
		}
		if path == "/" || path == "." {
			return false
		}
	}
}

// resolve follows the links in the part of a path that exists.
func resolve(path string) (string, error) {
	path = filepath.Clean(path)
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		switch {
		case err == nil:
			return filepath.Join(real, rest), nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		// A link that leads nowhere is there, though nothing behind it is.
		if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			return "", &fs.PathError{Op: "resolve", Path: path, Err: syscall.ENOENT}
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
}
