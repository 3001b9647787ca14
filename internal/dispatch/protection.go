package dispatch

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// Protection implements the Dispatch service: a host asks on behalf of the containers of one of its
// tasks. What the ecs API answers, a refusal too, is in the reply; a status says that the call itself
// was wrong or could not be made.
func (s *Server) Protection(ctx context.Context, req *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
	if s.cfg.ECS == nil {
		return nil, status.Error(codes.Unimplemented, "this server has no ecs API")
	}
	if owner, ok := s.cfg.Assigner.HostOf(req.TaskArn); !ok || owner != req.HostId {
		// Whether there is such a task elsewhere is not this host's to know.
		return nil, status.Errorf(codes.NotFound, "host %s has no task %s", req.HostId, req.TaskArn)
	}
	parts := strings.SplitN(req.TaskArn, ":", 6) // arn:aws:ecs:<region>:<account>:task/<cluster>/<id>
	path := strings.Split(parts[len(parts)-1], "/")
	if len(parts) != 6 || len(path) != 3 {
		return nil, status.Errorf(codes.InvalidArgument, "%q is not a task's ARN", req.TaskArn)
	}
	ctx = caller.With(ctx, caller.ForService("host-"+req.HostId, parts[4], parts[3]))
	tasks, failures, err := s.protection(ctx, path[1], req)
	var known api.Error
	switch {
	case errors.As(err, &known):
		return &dispatchpb.ProtectionReply{ErrorCode: known.ErrorCode(), ErrorMessage: known.ErrorMessage()}, nil
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "protection of task %s: %v", req.TaskArn, err)
	case len(failures) > 0:
		return &dispatchpb.ProtectionReply{
			FailureReason: api.Value(failures[0].Reason), FailureDetail: api.Value(failures[0].Detail),
		}, nil
	case len(tasks) == 0:
		return nil, status.Errorf(codes.Internal, "protection of task %s: ECS answered nothing", req.TaskArn)
	}
	reply := &dispatchpb.ProtectionReply{Enabled: api.Value(tasks[0].ProtectionEnabled)}
	if until := tasks[0].ExpirationDate; until != nil {
		reply.ExpiresAt = timestamppb.New(*until)
	}
	return reply, nil
}

func (s *Server) protection(ctx context.Context, cluster string, req *dispatchpb.ProtectionRequest) ([]ecs.ProtectedTask, []ecs.Failure, error) {
	if !req.Update {
		out, err := s.cfg.ECS.GetTaskProtection(ctx, &ecs.GetTaskProtectionInput{Cluster: &cluster, Tasks: []string{req.TaskArn}})
		if err != nil {
			return nil, nil, err
		}
		return out.ProtectedTasks, out.Failures, nil
	}
	in := &ecs.UpdateTaskProtectionInput{Cluster: &cluster, Tasks: []string{req.TaskArn}, ProtectionEnabled: &req.Enabled}
	if n := req.ExpiresInMinutes; n != 0 {
		// What does not fit is out of range as well; ECS says so.
		in.ExpiresInMinutes = api.Ptr(int32(min(max(n, -1), 1<<20)))
	}
	out, err := s.cfg.ECS.UpdateTaskProtection(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	return out.ProtectedTasks, out.Failures, nil
}
