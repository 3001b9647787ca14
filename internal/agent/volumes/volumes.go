package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// Config is what the room needs. All but Allowed and Logger are required.
type Config struct {
	Dir    string // the room's own
	EFSDir string // a directory for each EFS file system
	// Protected are Berth's own directories, which no container gets, nor anything in them.
	Protected []string
	// Allowed are the exceptions: what Berth offers to containers that mount it.
	Allowed []string
	Logger  *slog.Logger
}

// Volumes is the host's volumes. It implements agent.Volumes.
type Volumes struct {
	dir, efs string
	guard    guard
	log      *slog.Logger

	// mu orders what counts the users of shared volumes.
	mu sync.Mutex
	// tasks has a lock for each task with a call under way.
	tasks keyedMutex
}

var _ agent.Volumes = (*Volumes)(nil)

// Error is a volume that cannot be had. Its text is what follows "<Name>: " in the reason of a task's
// stop.
type Error struct {
	Name string // ECS's type of the error: "CannotCreateVolumeError", …
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ErrorName is the type of the error in ECS's words.
func (e *Error) ErrorName() string { return e.Name }

const (
	cannotCreateVolume    = "CannotCreateVolumeError"
	cannotCreateContainer = "CannotCreateContainerError" // where Docker finds out when it creates the container
	cannotInitialize      = "ResourceInitializationError"
)

// The kinds of dispatchpb.Volume.
const (
	typeHost   = "HOST"
	typeTask   = "TASK"
	typeShared = "SHARED"
	typeEFS    = "EFS"
)

// Names become parts of paths. They are held to ECS's alphabet whoever sent them.
var (
	taskIDPattern = regexp.MustCompile(`^[0-9a-zA-Z]{1,64}$`)
	namePattern   = regexp.MustCompile(`^[0-9a-zA-Z_-]{1,255}$`)
)

// Open makes the room's directories if need be.
func Open(cfg Config) (*Volumes, error) {
	if cfg.Dir == "" || cfg.EFSDir == "" || len(cfg.Protected) == 0 {
		return nil, errors.New("volumes: Dir, EFSDir and Protected are required")
	}
	v := &Volumes{log: cfg.Logger}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{filepath.Join(cfg.Dir, "tasks"), filepath.Join(cfg.Dir, "shared"), cfg.EFSDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the volumes' directory: %w", err)
		}
	}
	// The kernel names mounts by their real paths.
	var err error
	if v.dir, err = filepath.EvalSymlinks(cfg.Dir); err != nil {
		return nil, fmt.Errorf("find the volumes' directory: %w", err)
	}
	if v.efs, err = filepath.EvalSymlinks(cfg.EFSDir); err != nil {
		return nil, fmt.Errorf("find the EFS directory: %w", err)
	}
	if v.guard, err = newGuard(cfg.Protected, cfg.Allowed); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Volumes) taskDir(taskID string) string { return filepath.Join(v.dir, "tasks", taskID) }

// taskID is the last part of a task's ARN.
func taskID(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// Provide makes the task's volumes and answers the host directory, or file, of each by its name. What
// exists stays as it is. A volume that cannot be had is an *Error.
func (v *Volumes) Provide(ctx context.Context, t *dispatchpb.Task) (map[string]string, error) {
	id := taskID(t.GetArn())
	if !taskIDPattern.MatchString(id) {
		return nil, fmt.Errorf("provide volumes: unusable task ID %q", id)
	}
	defer v.tasks.lock(id)()
	out := make(map[string]string, len(t.Volumes))
	for _, vol := range t.Volumes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !namePattern.MatchString(vol.GetName()) {
			return nil, &Error{cannotCreateVolume, fmt.Errorf("unusable volume name %q", vol.GetName())}
		}
		path, err := v.provide(id, t.LaunchType, vol)
		if err != nil {
			return nil, err
		}
		out[vol.Name] = path
	}
	return out, nil
}

func (v *Volumes) provide(id, launchType string, vol *dispatchpb.Volume) (string, error) {
	named := func(name string, path string, err error) (string, error) {
		if err != nil {
			return "", &Error{name, err}
		}
		return path, nil
	}
	switch vol.Type {
	case typeHost:
		if vol.HostPath != "" {
			path, err := v.guard.hostPath(vol.HostPath)
			return named(cannotCreateContainer, path, err)
		}
		path, err := v.own(id, vol.Name)
		return named(cannotCreateVolume, path, err)
	case typeTask:
		path, err := v.taskScoped(id, vol)
		return named(cannotCreateVolume, path, err)
	case typeShared:
		path, err := v.shared(id, vol)
		return named(cannotCreateVolume, path, err)
	case typeEFS:
		path, err := v.efsVolume(id, vol)
		if err != nil && launchType == "FARGATE" {
			err = fmt.Errorf("failed to invoke EFS utils commands to set up EFS volumes: stderr: %w : unsuccessful EFS utils command execution; code: 32", err)
			return "", &Error{cannotInitialize, err}
		}
		if err != nil {
			err = fmt.Errorf("create %s: VolumeDriver.Create: mounting volume failed: %w", vol.Name, err)
		}
		return named(cannotCreateVolume, path, err)
	}
	return "", &Error{cannotCreateVolume, fmt.Errorf("volume %s is of type %q, which this agent does not know", vol.Name, vol.Type)}
}

// own makes a directory of the task's own.
func (v *Volumes) own(id, name string) (string, error) {
	path := filepath.Join(v.taskDir(id), name, "data")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make volume %s: %w", name, err)
	}
	return path, makeVolumeDir(path)
}

// makeVolumeDir makes a volume's directory as Docker does, whatever the umask. One that exists keeps
// what a container has made of it.
func makeVolumeDir(path string) error {
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(path, 0o755)
	}
	if err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	return nil
}

// taskScoped is a Docker volume of scope task.
func (v *Volumes) taskScoped(id string, vol *dispatchpb.Volume) (string, error) {
	opts, err := parseDriver(vol)
	if err != nil {
		return "", err
	}
	if opts.bind != "" {
		return v.guard.bindDevice(opts.bind)
	}
	path, err := v.own(id, vol.Name)
	if err == nil && opts.tmpfs != nil {
		err = opts.tmpfs.mount(path)
	}
	return path, err
}

// Release removes the volumes that live as long as the task, and unmounts the shared ones that have a
// mount when no other task uses them. An unknown task is not an error.
func (v *Volumes) Release(ctx context.Context, id string) error {
	if !taskIDPattern.MatchString(id) {
		return fmt.Errorf("release volumes: unusable task ID %q", id)
	}
	defer v.tasks.lock(id)()
	dir := v.taskDir(id)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return fmt.Errorf("release volumes of task %s: %w", id, err)
	}
	if err := v.releaseShared(id); err != nil {
		return fmt.Errorf("release volumes of task %s: %w", id, err)
	}
	if err := removeTree(ctx, dir); err != nil {
		return fmt.Errorf("release volumes of task %s: %w", id, err)
	}
	return nil
}

// List names the tasks that have something to be released.
func (v *Volumes) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(v.dir, "tasks"))
	if err != nil {
		return nil, fmt.Errorf("list the tasks with volumes: %w", err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		if taskIDPattern.MatchString(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Reset unmounts all that is mounted in the room's directories, an operator's own mounts of file systems
// too, so that they can be removed without what was mounted. No task may be left.
func (v *Volumes) Reset() error { return errors.Join(unmountBelow(v.dir), unmountBelow(v.efs)) }

// keyedMutex is a mutex for each key that is locked.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*counted
}

type counted struct {
	mu    sync.Mutex
	users int
}

func (k *keyedMutex) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*counted{}
	}
	c := k.held[key]
	if c == nil {
		c = &counted{}
		k.held[key] = c
	}
	c.users++
	k.mu.Unlock()
	c.mu.Lock()
	return func() {
		c.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if c.users--; c.users == 0 {
			delete(k.held, key)
		}
	}
}
