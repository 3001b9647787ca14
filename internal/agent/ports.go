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
	// PrepareTask makes what the task's containers share: its cgroup with its hard limits, and with pid
	// or ipc mode task the namespaces. RemoveTask removes it, once the containers are deleted.
	PrepareTask(ctx context.Context, t TaskSpec) error
	RemoveTask(ctx context.Context, taskID string) error
}

// TaskSpec is what the runtime needs to know of a task before it has containers.
type TaskSpec struct {
	ID        string
	CPUUnits  int64 // hard limit of all of its containers, 1024 a CPU; 0: none
	MemoryMiB int64 // likewise
	// PIDMode is "", host or task; IPCMode "", host, task or none.
	PIDMode, IPCMode string
	// SharedMemoryMiB is the size of the /dev/shm that containers share with IPCMode task; 0: 64.
	SharedMemoryMiB int64
}

// Processes is what the runtime does with containers that have been started once (package runtime).
type Processes interface {
	// Exec runs a further process in a running container, as the container's user and in its working
	// directory, and waits for its end. When ctx ends, the process and its children in the container
	// are killed and the error is ctx's. Output beyond 4 KiB is cut off at its front.
	Exec(ctx context.Context, containerID string, args []string) (exitCode int, output []byte, err error)
	// Restart runs a stopped container's process again, on the root filesystem that it left, with the
	// same FIFOs, namespaces and cgroup. A container that runs is not an error.
	Restart(ctx context.Context, containerID string) (startedAt time.Time, err error)
	// Usage reads what a running container has used so far, and how much it may.
	Usage(ctx context.Context, containerID string) (Usage, error)
}

// Usage is a reading of a container's cgroup. All counters grow from the container's start.
type Usage struct {
	At               time.Time
	CPUTotal         time.Duration // of all CPUs
	CPUUser          time.Duration
	CPUSystem        time.Duration
	CPUPerCore       []time.Duration // empty where the kernel does not count it
	HostCPU          time.Duration   // of all processes of the host, as in /proc/stat
	OnlineCPUs       int
	Throttled        time.Duration
	Periods          uint64
	ThrottledPeriods uint64
	MemoryBytes      uint64
	MemoryLimit      uint64 // bytes; the host's memory where there is none
	MemoryMax        uint64 // highest so far; 0 where the kernel does not say
	MemoryFailures   uint64
	Memory           map[string]uint64 // memory.stat, by the kernel's names
	PIDs             uint64
	PIDsLimit        uint64
	BlockIO          []BlockIO
	// Network counts by interface in the container's network namespace; nil in the host's.
	Network map[string]InterfaceCounters
	// StorageBytes is what the container has written to its root filesystem.
	StorageBytes uint64
}

// BlockIO is what went between a container and one block device.
type BlockIO struct {
	Major, Minor            uint64
	ReadBytes, WrittenBytes uint64
	ReadOps, WriteOps       uint64
}

// InterfaceCounters are a network interface's.
type InterfaceCounters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Volumes gives tasks their directories (package volumes).
type Volumes interface {
	// Provide makes the task's volumes and answers the host directory of each by its name. What exists
	// stays as it is.
	Provide(ctx context.Context, t *dispatchpb.Task) (map[string]string, error)
	// Release removes the volumes that live as long as the task. An unknown task is not an error.
	Release(ctx context.Context, taskID string) error
	// List names the tasks that have volumes of their own.
	List(ctx context.Context) ([]string, error)
}

// Objects fetches what an assignment refers to (the dispatch stream's server).
type Objects interface {
	EnvironmentFile(ctx context.Context, r *dispatchpb.EnvironmentFileRequest) ([]byte, error)
}

// Metadata tells a container where to ask about itself (package metadata).
type Metadata interface {
	// Environment answers the variables that name the endpoints, "NAME=value"; none for a task that
	// cannot reach them.
	Environment(t *dispatchpb.Task, container int) []string
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
	ID         string // digest of the image's configuration: "sha256:…"
	// Volumes are the paths for which the image wants a volume of the container's own.
	Volumes []string
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
	// PIDMode and IPCMode are the task's; with task the runtime joins what PrepareTask made.
	PIDMode, IPCMode string
	Hostname         string
	Environment      []string // "NAME=value", complete, in order, already merged; the image's own come first
	Mounts           []Mount  // /etc/hosts, /etc/resolv.conf, …, and the volumes
	Labels           map[string]string
	// Stdout and Stderr are FIFOs made by the Output.
	Stdout, Stderr string
}

// Mount is a bind mount from the host.
type Mount struct {
	Source, Target string
	ReadOnly       bool
	// Fill says that an empty source first gets what the image has at the target, with its owner and
	// mode, as Docker does for volumes.
	Fill bool
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

// Bridge gives the containers of tasks in network mode bridge a namespace each (package network).
type Bridge interface {
	// Connect makes the container's namespace, with an address from the host's bridge pool, and maps
	// its ports. A static host port that another process holds is an error that says so. Dynamic ports,
	// and those of ranges, are chosen here and stay the same for the endpoint's life. Each mapped port
	// is held by a socket while the agent runs.
	Connect(ctx context.Context, e Endpoint) (Connection, error)
	// Disconnect undoes Connect. What is not there is not an error.
	Disconnect(ctx context.Context, taskID, container string) error
	// Connected lists the endpoints there are.
	Connected(ctx context.Context) ([]Endpoint, error)
}

// Endpoint is a container of a task in network mode bridge.
type Endpoint struct {
	TaskID, Container string
	Ports             []*dispatchpb.PortMapping
	// Isolated leaves it with loopback alone (disableNetworking).
	Isolated bool
}

// Connection is what an endpoint got.
type Connection struct {
	NetNS    string // path
	IPv4     string // empty when isolated
	Gateway  string
	MAC      string
	Bindings []*dispatchpb.PortMapping // each with bind_ip, container_port, host_port and protocol, or the ranges
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

// LogDrivers bring what containers write from the spool to where their log configurations say (package
// logdriver). No container ever waits for it.
type LogDrivers interface {
	// Start has what container i of the task writes delivered, from now until Finish. An error is the
	// driver's refusal, in Docker's words; that the server is away is none. A container without a
	// driver needs nothing, and one that is started stays as it is.
	Start(ctx context.Context, t *dispatchpb.Task, i int) error
	// Finish says that everything a container wrote is in the spool. It returns when all of that is
	// delivered, or will take longer. An unknown container is not an error.
	Finish(ctx context.Context, containerID string) error
	// Pending tells whether output of the task has yet to be delivered.
	Pending(taskID string) bool
	// Forget ends the delivery of a task's output, whatever is left of it.
	Forget(ctx context.Context, taskID string) error
	Stats() LogStats
}

// LogStats tell how the delivery of output goes. The counters begin at the start of the agent.
type LogStats struct {
	Containers int    // whose output has yet to be delivered, or may grow
	Failing    int    // of these, those whose last delivery failed
	Delivered  uint64 // events
	Dropped    uint64 // events that their destination refused for good
	LostBytes  uint64 // gone from the spool before they could be delivered
	Retries    uint64
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
