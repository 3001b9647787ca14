package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent/runtime/shim"
)

// RuncEnv names the runc to use in builds that carry none.
const RuncEnv = "BERTH_RUNC"

// programs are the executables that containers depend on, in a directory named after their content
// which stays as long as a container refers to it.
type programs struct {
	dir        string // RuntimeDir/<digest>
	shim, runc string // absolute paths in dir
}

// installPrograms puts the shim, which is this executable or the one it carries, and runc under base, unless they are there.
// shimPath and runc are those to use, if not those of this build.
func installPrograms(base, shimPath, runc string) (programs, error) {
	if err := os.MkdirAll(base, 0o711); err != nil {
		return programs{}, fmt.Errorf("make the directory of runtimes: %w", err)
	}
	sums := loadSums(filepath.Join(base, "sums.json"))
	// /proc/self/exe still opens when the file was replaced or removed since this process started.
	self, err := sums.of("/proc/self/exe")
	if err != nil {
		return programs{}, fmt.Errorf("digest this executable: %w", err)
	}
	key := "berth " + self
	if runc == "" && embeddedRunc == "" {
		if runc, err = findRunc(); err != nil {
			return programs{}, err
		}
	}
	for _, path := range []string{shimPath, runc} {
		if path == "" {
			continue
		}
		sum, err := sums.of(path)
		if err != nil {
			return programs{}, fmt.Errorf("digest %s: %w", path, err)
		}
		key += " and " + sum
	}
	digest := sha256.Sum256([]byte(key))
	dir := filepath.Join(base, hex.EncodeToString(digest[:8]))
	p := programs{dir: dir, shim: filepath.Join(dir, shim.Name), runc: filepath.Join(dir, "runc")}
	if err := sums.save(); err != nil {
		return programs{}, err
	}
	// Present means complete: the directory is renamed to its name last.
	if _, err := os.Stat(dir); err == nil {
		return p, nil
	}
	tmp, err := os.MkdirTemp(base, ".new-")
	if err != nil {
		return programs{}, fmt.Errorf("install the container runtime: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o711); err != nil {
		return programs{}, fmt.Errorf("install the container runtime: %w", err)
	}
	switch {
	case shimPath != "":
		err = place(shimPath, filepath.Join(tmp, shim.Name))
	case embeddedShim != "":
		err = os.WriteFile(filepath.Join(tmp, shim.Name), []byte(embeddedShim), 0o755)
	default:
		err = place("/proc/self/exe", filepath.Join(tmp, shim.Name))
	}
	if err != nil {
		return programs{}, fmt.Errorf("install the shim: %w", err)
	}
	if runc == "" {
		err = os.WriteFile(filepath.Join(tmp, "runc"), []byte(embeddedRunc), 0o755)
	} else {
		err = place(runc, filepath.Join(tmp, "runc"))
	}
	if err != nil {
		return programs{}, fmt.Errorf("install runc: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return programs{}, fmt.Errorf("install the container runtime: %w", err)
	}
	return p, nil
}

// removeOldPrograms deletes the directories under base other than those named in keep.
func removeOldPrograms(base string, keep map[string]bool) error {
	entries, err := os.ReadDir(base)
	if err != nil {
		return fmt.Errorf("list the installed runtimes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && !keep[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(base, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// findRunc looks for runc in a build that carries none: $BERTH_RUNC, beside this executable, in PATH.
func findRunc() (string, error) {
	if path := os.Getenv(RuncEnv); path != "" {
		if err := unix.Access(path, unix.X_OK); err != nil {
			return "", fmt.Errorf("%s names %s: %w", RuncEnv, path, err)
		}
		return filepath.Abs(path)
	}
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), "runc")
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		return "", fmt.Errorf("runc was not built into this binary (build tag embed_runc) and is neither named by %s, "+
			"nor beside the binary, nor in PATH", RuncEnv)
	}
	return filepath.Abs(path)
}

// place makes the executable from available as to: by a hard link, which shares its memory with
// every process that runs it, or else by a copy.
func place(from, to string) error {
	// A hard link to a file of another owner or one that others may write would let them change it.
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// sums remembers the digests of executables by inode, size and time of change, so that starting does
// not read them each time.
type sums struct {
	path  string
	known map[string]string // fileKey → SHA-256 in hexadecimal
	used  map[string]string
}

// loadSums reads what is remembered; a file that cannot be read is as good as none.
func loadSums(path string) *sums {
	s := &sums{path: path, known: map[string]string{}, used: map[string]string{}}
	if data, err := os.ReadFile(path); err == nil {
		if json.Unmarshal(data, &s.known) != nil {
			s.known = map[string]string{}
		}
	}
	return s
}

func (s *sums) of(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	// Not the time of the inode's change: hard-linking moves it.
	key := fmt.Sprintf("%d:%d:%d:%d", st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano())
	sum, ok := s.known[key]
	if !ok {
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
		sum = hex.EncodeToString(h.Sum(nil))
	}
	s.used[key] = sum
	return sum, nil
}

// save writes down the digests that were asked for, if any was new.
func (s *sums) save() error {
	fresh := false
	for key := range s.used {
		if _, ok := s.known[key]; !ok {
			fresh = true
		}
	}
	if !fresh {
		return nil
	}
	data, err := json.Marshal(s.used)
	if err != nil {
		return fmt.Errorf("encode the executables' digests: %w", err)
	}
	tmp := fmt.Sprintf("%s.%d", s.path, os.Getpid())
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("remember the executables' digests: %w", err)
	}
	if err := os.Rename(tmp, s.path); err != nil {
		return fmt.Errorf("remember the executables' digests: %w", err)
	}
	return nil
}
