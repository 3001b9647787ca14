package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/events/exchange"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/internal/agent"
)

// Config says where a Runtime keeps what, and how it reaches registries.
type Config struct {
	// Root holds images, snapshots and container records, <data-dir>/containerd. It outlives reboots.
	Root string
	// RunDir holds bundles and sockets, and must not outlive a reboot: /run/berth/<instance>/…. At
	// most 40 bytes, because socket paths are limited to 108.
	RunDir string
	// RuntimeDir holds the executables that containers run under, <data-dir>/runtime.
	RuntimeDir string
	// Shim is the shim to use; empty: the one built in, or this executable, whose main then calls
	// ShimMain. It must be a static binary to be the init process of containers as well.
	Shim string
	// Runc is the runc to use; empty: the one built in, or else $BERTH_RUNC, one beside the
	// executable, or one in PATH.
	Runc string
	// Instance tells the instances of Berth on a host apart, 8 hexadecimal digits: it names cgroups.
	Instance string
	// RegistryMap redirects image names: a registry host, with or without the beginning of a
	// repository and with "*" for any part of a name, to another host and repository beginning. The
	// longest match wins. The image keeps its own name.
	RegistryMap map[string]string
	// DockerConfig is the configuration file with the registries' credentials; empty: config.json in
	// $DOCKER_CONFIG or ~/.docker.
	DockerConfig string
	// NoSocket keeps containerd's API, at SocketName in RunDir, from being served.
	NoSocket bool
	// CDIDir is a further directory of CDI specifications, besides /etc/cdi and /var/run/cdi, whose
	// entries it overrides; empty: none.
	CDIDir string
	// Hidden are directories that containers do not see, also where they mount one above them.
	Hidden []string
	Logger *slog.Logger // nil: discarded
}

// maxRunDir leaves room for "/s/" and the 64 digits that containerd names a shim's socket with.
const maxRunDir = 40

var instanceSyntax = regexp.MustCompile(`^[0-9a-f]{8}$`)

// Runtime is agent.Runtime and agent.Images over an embedded containerd. It is safe for concurrent
// use.
type Runtime struct {
	config     Config
	log        *slog.Logger
	logger     *log.Entry // the same, for containerd
	engine     *engine
	programs   programs
	cgroups    cgroups
	host       hostFacts
	rootfs     rootfsCache
	generation string // changes when RunDir was emptied, as by a reboot
	images     imageState
	keys       keyedLock // container IDs
	shims      keyedLock // task IDs: taken alone by what may end a task's shim
	tasks      keyedLock // task IDs: what a task's containers share
	volumes    keyedLock // directories being filled
	killWait   time.Duration

	mu      sync.Mutex
	started map[string]time.Time  // when this process started a container
	kills   map[string]int64      // the cgroup's OOM kills when we sent SIGKILL
	created map[string]bool       // seen with a shim by this process
	usage   map[string]usageFacts // of containers whose use was asked for
	watcher watchers

	opened     chan struct{}   // closed when Open is done
	life       context.Context // ends with Close
	end        context.CancelFunc
	background sync.WaitGroup // what goes on after a call, until Close at the latest
}

var (
	_ agent.Runtime   = (*Runtime)(nil)
	_ agent.Processes = (*Runtime)(nil)
	_ agent.Images    = (*Runtime)(nil)
)

// Open starts the embedded containerd, finds what an earlier one left, and removes what no container
// refers to. Two runtimes must not share a directory; the caller's lock sees to that.
func Open(ctx context.Context, config Config) (_ *Runtime, err error) {
	if !instanceSyntax.MatchString(config.Instance) {
		return nil, fmt.Errorf("the instance %q is not 8 hexadecimal digits", config.Instance)
	}
	if len(config.RunDir) > maxRunDir || !filepath.IsAbs(config.RunDir) {
		return nil, fmt.Errorf("the run directory %q is not an absolute path of at most %d bytes", config.RunDir, maxRunDir)
	}
	r := &Runtime{
		config:  config,
		log:     config.Logger,
		started: map[string]time.Time{},
		kills:   map[string]int64{},
		created: map[string]bool{},
		usage:   map[string]usageFacts{},
		opened:  make(chan struct{}),

		killWait: killWait,
	}
	r.life, r.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			r.end()
		}
	}()
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.logger = containerdLogger(r.log)
	if r.cgroups, err = detectCgroups(); err != nil {
		return nil, err
	}
	if r.host, err = readHostFacts(); err != nil {
		return nil, err
	}
	r.host.unified = r.cgroups.unified != ""
	r.host.hidden = realDirs(config.Hidden)
	if err := os.MkdirAll(config.RunDir, 0o711); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	if r.generation, err = readGeneration(filepath.Join(config.RunDir, "generation")); err != nil {
		return nil, err
	}
	if r.programs, err = installPrograms(config.RuntimeDir, config.Shim, config.Runc); err != nil {
		return nil, err
	}
	left, err := readBundles(config.RunDir)
	if err != nil {
		return nil, err
	}
	r.engine, err = openEngine(r.call(ctx), config.Root, config.RunDir, !config.NoSocket, createdOf(left), r.watch)
	if err != nil {
		return nil, fmt.Errorf("start the embedded containerd: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.recover(r.call(ctx), left); err != nil {
		return nil, err
	}
	close(r.opened)
	return r, nil
}

// call makes ctx one for calls of containerd.
func (r *Runtime) call(ctx context.Context) context.Context {
	return log.WithLogger(inNamespace(ctx), r.logger)
}

// Close ends the embedded containerd. Containers and their shims run on.
func (r *Runtime) Close() error {
	r.end()
	r.watcher.close() // it starts work in the background
	r.background.Wait()
	return r.engine.close()
}

// readGeneration answers the random name written into the run directory when it was made.
func readGeneration(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		return string(data), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the run directory's name: %w", err)
	}
	name := rand.Text()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(name), 0o600); err != nil {
		return "", fmt.Errorf("name the run directory: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("name the run directory: %w", err)
	}
	return name, nil
}

func readHostFacts() (hostFacts, error) {
	caps, err := cap.Current()
	if err != nil {
		return hostFacts{}, fmt.Errorf("read this process's capabilities: %w", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return hostFacts{}, fmt.Errorf("read the limit of open files: %w", err)
	}
	var system unix.Sysinfo_t
	if err := unix.Sysinfo(&system); err != nil {
		return hostFacts{}, fmt.Errorf("read the host's memory: %w", err)
	}
	// containerd's masks: they include the CPUs' thermal counters, a side channel.
	s, err := oci.GenerateSpec(inNamespace(context.Background()), nil, &containerRecord{ID: "masks"})
	if err != nil {
		return hostFacts{}, fmt.Errorf("read containerd's defaults: %w", err)
	}
	return hostFacts{
		capabilities: caps,
		maxNoFile:    files.Max,
		memory:       uint64(system.Totalram) * uint64(system.Unit),
		maskedPaths:  s.Linux.MaskedPaths,
		seccomp:      seccompProfile(),
		apparmor:     apparmor.HostSupports(),
	}, nil
}

// seccompProfile answers Docker's default filter of system calls, or nil if the kernel has none.
func seccompProfile() func(*specs.Spec) *specs.LinuxSeccomp {
	if !checkSeccomp().OK {
		return nil
	}
	return seccomp.DefaultProfile
}

// cgroupPath is the cgroup of the instance, of a task, or of a container of it.
func (r *Runtime) cgroupPath(parts ...string) string {
	return "/" + filepath.Join(append([]string{"berth-" + r.config.Instance}, parts...)...)
}

// PrepareTask makes the task's cgroup with its hard limits, and the namespaces that its containers
// share.
func (r *Runtime) PrepareTask(ctx context.Context, t agent.TaskSpec) error {
	if err := checkName(t.ID); err != nil {
		return err
	}
	if err := r.cgroups.prepare(r.cgroupPath(t.ID), t.CPUUnits, t.MemoryMiB); err != nil {
		return err
	}
	return r.share(ctx, t)
}

// RemoveTask removes what the task's containers shared and its cgroup, which must have no processes of
// containers any more, and ends a shim that should have ended with the last of them.
func (r *Runtime) RemoveTask(ctx context.Context, taskID string) error {
	if err := checkName(taskID); err != nil {
		return err
	}
	if err := r.endShim(ctx, taskID); err != nil {
		return err
	}
	if err := r.unshare(ctx, taskID); err != nil {
		return err
	}
	return r.cgroups.remove(ctx, r.cgroupPath(taskID))
}

var nameSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,200}$`)

// checkName keeps names that become paths from leaving their directory.
func checkName(name string) error {
	if !nameSyntax.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("%q cannot name a task or container", name)
	}
	return nil
}

// watch keeps the events of interest flowing to watchers; it is called before shims are loaded.
func (r *Runtime) watch(bus *exchange.Exchange) {
	r.watcher.start(bus, func(e *events.Envelope) (agent.ContainerEvent, bool) {
		event, err := decodeEvent(e)
		if err != nil {
			return agent.ContainerEvent{}, false
		}
		switch e := event.(type) {
		case *eventstypes.TaskExit:
			// The exit of an exec has another ID.
			if e.ID != e.ContainerID {
				return agent.ContainerEvent{}, false
			}
			r.noteExit(e)
			r.background.Go(func() { r.sweep(e.ContainerID) })
			return agent.ContainerEvent{ID: e.ContainerID}, true
		case *eventstypes.TaskOOM:
			return agent.ContainerEvent{ID: e.ContainerID, OOM: true}, true
		}
		return agent.ContainerEvent{}, false
	})
}
