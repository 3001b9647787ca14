package shim

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
)

// uninterrupted is the task service whose changes go on to their end when berth dies in the middle of
// one. ttrpc cancels a call when its connection is gone, and with the call the runc that does it would
// be killed: one that had let the container's process through its gate, but not yet removed the gate,
// leaves a container that runs and counts as created; starting it once more waits for ever.
//
// It also decides when the shim may end: not while a container is being made, which the service below
// does not count yet; and its socket is gone before the answer, so that whoever starts the next shim of
// the task finds no trace of this one. Two who find a dead shim's socket at the same time would each
// take it for the other's and leave a shim without containers behind.
type uninterrupted struct {
	taskapi.TTRPCTaskService
	socket string // path of the shim's own; empty: unknown

	mu         sync.Mutex
	creating   int
	containers map[string]bool
}

func newUninterrupted(service taskapi.TTRPCTaskService, socket string) *uninterrupted {
	return &uninterrupted{TTRPCTaskService: service, socket: socket, containers: map[string]bool{}}
}

// RegisterTTRPC is how the shim's server takes a service in.
func (u *uninterrupted) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, u)
	return nil
}

func (u *uninterrupted) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	u.mu.Lock()
	u.creating++
	u.mu.Unlock()
	response, err := u.TTRPCTaskService.Create(context.WithoutCancel(ctx), r)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.creating--
	if err == nil {
		u.containers[r.ID] = true
	}
	return response, err
}

func (u *uninterrupted) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	return u.TTRPCTaskService.Start(context.WithoutCancel(ctx), r)
}

func (u *uninterrupted) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	response, err := u.TTRPCTaskService.Delete(context.WithoutCancel(ctx), r)
	if err == nil && r.ExecID == "" {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.containers, r.ID)
	}
	return response, err
}

// Shutdown ends the shim if it has nothing to do. It is asked to with every container that goes.
func (u *uninterrupted) Shutdown(ctx context.Context, r *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.creating > 0 || len(u.containers) > 0 {
		return &emptypb.Empty{}, nil
	}
	if u.socket != "" {
		os.Remove(u.socket) // at worst it stays, as that of a shim that was killed
		u.socket = ""
	}
	return u.TTRPCTaskService.Shutdown(ctx, r)
}

// ownSocket answers the path of the socket that the shim was given as descriptor 3.
func ownSocket() string {
	name, err := unix.Getsockname(3)
	if err != nil {
		return ""
	}
	if address, ok := name.(*unix.SockaddrUnix); ok && filepath.IsAbs(address.Name) {
		return address.Name
	}
	return ""
}

func (u *uninterrupted) Kill(ctx context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	return u.TTRPCTaskService.Kill(context.WithoutCancel(ctx), r)
}
