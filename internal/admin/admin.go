// Package admin is how the command line speaks to a running Berth on the same host: HTTP on a unix
// socket that only root and the owner of the data directory can open.
//
// It owns the socket and the shape of what goes over it. What is answered comes from a Backend; no
// AWS API passes here, only what AWS has no API for: status, output, images, and the order to stop.
package admin

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/ecs/history"
)

// Backend does what the commands ask for.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	// StopTasks asks every task to stop and returns when all have. Each line tells how far it is.
	StopTasks(ctx context.Context, reason string, line func(string)) error
	// Exit has the process end, as SIGTERM does.
	Exit()
	Logs(ctx context.Context, q LogQuery, line func(LogLine) error) error
	Import(ctx context.Context, r io.Reader, progress func(agent.ImageProgress)) ([]string, error)
	PullImage(ctx context.Context, ref string, progress func(agent.ImageProgress)) (agent.Image, error)
	ListImages(ctx context.Context) ([]agent.ImageInfo, error)
	RemoveImage(ctx context.Context, ref string) error
	// Explain explains a task or a run, by its ID, the beginning of it, or its ARN. Of an empty name it
	// answers the newest failures, newest first.
	Explain(ctx context.Context, ref string) ([]history.Explanation, error)
	// Events delivers events, oldest first, each as the JSON that EventBridge would deliver. Missed is told
	// of those that were to come and are no longer kept.
	Events(ctx context.Context, q EventQuery, each func(json.RawMessage) error, missed func(string) error) error
}

// EventQuery selects events.
type EventQuery struct {
	Since  time.Time // zero: the newest ten, or all if not to be followed
	Follow bool
}

// Status is what `berth status` shows.
type Status struct {
	Version   string    `json:"version"`
	Instance  string    `json:"instance"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	Endpoint  string    `json:"endpoint"`
	Account   string    `json:"account"`
	Region    string    `json:"region"`
	Dev       bool      `json:"dev"`
	DataDir   string    `json:"dataDir"`
	Subnet    string    `json:"subnet,omitempty"` // addresses of awsvpc tasks on this host
	Hosts     []Host    `json:"hosts"`
	Tasks     []Task    `json:"tasks"`
	Notices   []string  `json:"notices,omitempty"` // what a user should know, a sentence each
}

// Host is a connected or known host.
type Host struct {
	ID             string `json:"id"`
	Hostname       string `json:"hostname"`
	Connected      bool   `json:"connected"`
	CPUUnits       int64  `json:"cpuUnits"`
	MemoryMiB      int64  `json:"memoryMiB"`
	CPUReserved    int64  `json:"cpuReserved"`
	MemoryReserved int64  `json:"memoryReservedMiB"`
}

// Task is a line of the status.
type Task struct {
	ARN           string    `json:"arn"`
	Cluster       string    `json:"cluster"`
	ID            string    `json:"id"`
	Definition    string    `json:"definition"` // family:revision
	LastStatus    string    `json:"lastStatus"`
	DesiredStatus string    `json:"desiredStatus"`
	LaunchType    string    `json:"launchType"`
	Address       string    `json:"address,omitempty"`
	CreatedAt     time.Time `json:"createdAt"`
	StoppedReason string    `json:"stoppedReason,omitempty"`
}

// LogQuery selects a task's output. Task is an ARN, an ID or a unique beginning of an ID.
type LogQuery struct {
	Task      string
	Container string
	Follow    bool
	Tail      int64 // last lines of each container; negative: all
	Since     time.Time
}

// LogLine is a line of output.
type LogLine struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container"`
	Stream    string    `json:"stream"`
	Text      []byte    `json:"text"`
	Partial   bool      `json:"partial,omitempty"` // the line goes on in the next one
	Several   bool      `json:"several,omitempty"` // lines of other containers may come too
}

// event is one JSON line of a streamed answer; exactly one member is set.
type event struct {
	Line     *LogLine             `json:"line,omitempty"`
	Progress *agent.ImageProgress `json:"progress,omitempty"`
	Text     string               `json:"text,omitempty"`
	Names    []string             `json:"names,omitempty"`
	Image    *agent.Image         `json:"image,omitempty"`
	Event    json.RawMessage      `json:"event,omitempty"`
	Error    string               `json:"error,omitempty"`
	Done     bool                 `json:"done,omitempty"` // the answer is whole
}
