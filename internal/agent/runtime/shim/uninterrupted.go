package shim

import (
	"context"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// uninterrupted is the task service whose changes go on to their end when berth dies in the middle of
// one. ttrpc cancels a call when its connection is gone, and with the call the runc that does it would
// be killed: one that had let the container's process through its gate, but not yet removed the gate,
// leaves a container that runs and counts as created; starting it once more waits for ever.
type uninterrupted struct{ taskapi.TTRPCTaskService }

// RegisterTTRPC is how the shim's server takes a service in.
func (u uninterrupted) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, u)
	return nil
}

func (u uninterrupted) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	return u.TTRPCTaskService.Create(context.WithoutCancel(ctx), r)
}

func (u uninterrupted) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	return u.TTRPCTaskService.Start(context.WithoutCancel(ctx), r)
}

func (u uninterrupted) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	return u.TTRPCTaskService.Delete(context.WithoutCancel(ctx), r)
}

func (u uninterrupted) Kill(ctx context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	return u.TTRPCTaskService.Kill(context.WithoutCancel(ctx), r)
}
