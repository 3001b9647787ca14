package agent

import (
	"context"
	"io"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// The rooms below the agent, seen from the agent. Each is implemented by one package and by a fake
// in this package's tests. All methods are idempotent: after a crash the agent calls them again.

// Runtime runs containers (package runtime, over containerd).
type Runtime interface {
	// Pull makes the image's content and its unpacked snapshot present, and answers what it is.
	// An image that is missing, corrupt or refused is an error whose text says which.
	Pull(ctx context.Context, ref string, policy PullPolicy) (Image, error)
	// Create makes the container without starting it: bundle, cgroup, shim. An existing container of
	// that ID, of whatever state, is not an error.
	Create(ctx context.Context, c ContainerSpec) error
	// Start runs a created container's process.
	Start(ctx context.Context, id string) (startedAt time.Time, err error)
	// Signal sends a signal to the container's first process. A container that has stopped or is gone
	// is not an error.
	Signal(ctx context.Context, id string, signal string) error
	// Delete removes a stopped container and all that belongs to it; killing it first if need be.
	Delete(ctx context.Context, id string) error
	// Inspect tells a container's state now; ok is false when the runtime does not know it.
	Inspect(ctx context.Context, id string) (state ContainerState, ok bool, err error)
	// List names all containers of this instance, whatever their state.
	List(ctx context.Context) ([]ContainerState, error)
	// Events delivers exits and OOM kills until ctx ends. It may miss some and may repeat some:
	// Inspect is the truth.
	Events(ctx context.Context) (<-chan ContainerEvent, error)
	// PrepareTask makes the task's own cgroup with its hard limits; RemoveTask removes it.
	PrepareTask(ctx context.Context, taskID string, cpuUnits, memoryMiB int64) error
	RemoveTask(ctx context.Context, taskID string) error
}

// PullPolicy is one of ECS_IMAGE_PULL_BEHAVIOR's values.
type PullPolicy string

const (
	PullDefault      PullPolicy = "default"       // pull, fall back to the local copy
	PullAlways       PullPolicy = "always"        // pull, fail without a registry
	PullOnce         PullPolicy = "once"          // pull only what was never pulled on this host
	PullPreferCached PullPolicy = "prefer-cached" // use the local copy if there is one
)

// Image is what an image reference resolved to.
type Image struct {
	Ref        string // normalized
	Digest     string // of the manifest for this platform or of the index: "sha256:…"
	StopSignal string // the image's STOPSIGNAL; empty: SIGTERM
}

// ContainerSpec is everything the runtime needs to create a container.
type ContainerSpec struct {
	ID     string // unique on the host, also the containerd ID
	TaskID string // groups containers under one shim and one parent cgroup
	Image  Image
	// Container carries the members of the task definition that shape the process.
	Container *dispatchpb.Container
	// NetNS is the path of the network namespace to join; empty with HostNetwork for the host's, empty
	// without for a new one with loopback alone.
	NetNS       string
	HostNetwork bool
	Hostname    string
	Environment []string // "NAME=value", complete, in order, already merged; the image's own come first
	Mounts      []Mount  // /etc/hosts, /etc/resolv.conf, …
	Labels      map[string]string
	// Stdout and Stderr are FIFOs made by the Output.
	Stdout, Stderr string
}

// Mount is a bind mount from the host.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// ContainerPhase is a container's state as the runtime sees it.
type ContainerPhase string

const (
	PhaseCreated ContainerPhase = "created"
	PhaseRunning ContainerPhase = "running"
	PhaseStopped ContainerPhase = "stopped"
)

// ContainerState is a container at one moment.
type ContainerState struct {
	ID, TaskID string
	Phase      ContainerPhase
	// ExitCode and FinishedAt hold once Phase is stopped. ExitCode is -1 when the runtime lost it, as
	// after a reboot.
	ExitCode   int
	FinishedAt time.Time
	StartedAt  time.Time
	OOMKilled  bool
}

// ContainerEvent hints that a container changed.
type ContainerEvent struct {
	ID  string
	OOM bool // an OOM kill inside the container, not necessarily of its first process
}

// Network gives tasks their network namespaces (package network).
type Network interface {
	// Setup makes the namespace with the interface and its address, route and rules, and answers the
	// namespace's path.
	Setup(ctx context.Context, taskID string, nic *dispatchpb.NetworkInterface) (netNS string, err error)
	// Teardown removes all of it. An unknown task is not an error.
	Teardown(ctx context.Context, taskID string) error
	// List names the tasks that have a namespace.
	List(ctx context.Context) ([]string, error)
}

// Output takes what containers write (package logger).
type Output interface {
	// Attach makes the container's FIFOs and has the logger process read them into the spool.
	Attach(ctx context.Context, taskID, container, containerID string) (stdout, stderr string, err error)
	// Detach returns when everything a stopped container wrote is in the spool, and removes the FIFOs.
	Detach(ctx context.Context, containerID string) error
	// Attached names the containers that have FIFOs.
	Attached(ctx context.Context) ([]string, error)
	// Read delivers a task's output, oldest first.
	Read(ctx context.Context, q OutputQuery, line func(*dispatchpb.LogLine) error) error
	// Remove deletes a task's spool.
	Remove(ctx context.Context, taskID string) error
}

// OutputQuery selects output.
type OutputQuery struct {
	TaskID    string
	Container string // empty: all
	Follow    bool   // until ctx ends or the task's containers are all detached
	Tail      int64  // last lines of each container; negative: all
	Since     time.Time
}

// Images manages the host's images for the operator (package runtime).
type Images interface {
	// Import reads a docker-archive or OCI layout, as a tar stream, and answers the names it stored.
	Import(ctx context.Context, r io.Reader, progress func(ImageProgress)) ([]string, error)
	// PullImage fetches with progress.
	PullImage(ctx context.Context, ref string, progress func(ImageProgress)) (Image, error)
	ListImages(ctx context.Context) ([]ImageInfo, error)
	RemoveImage(ctx context.Context, ref string) error
}

// ImageProgress is one step of one blob.
type ImageProgress struct {
	Item    string `json:"item"` // a short digest or a name
	Status  string `json:"status"`
	Current int64  `json:"current"`
	Total   int64  `json:"total"` // 0: unknown
}

// ImageInfo describes a stored image.
type ImageInfo struct {
	Ref       string    `json:"ref"`
	Digest    string    `json:"digest"`
	SizeBytes int64     `json:"sizeBytes"` // of the compressed content
	CreatedAt time.Time `json:"createdAt"`
}
