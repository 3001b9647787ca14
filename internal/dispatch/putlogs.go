package dispatch

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// logTarget is where a container's awslogs configuration puts its output. None of it changes while the
// task lives.
type logTarget struct {
	group, region, prefix string
	createGroup           bool
}

// logTargets remembers those of the containers that put.
type logTargets struct {
	mu sync.Mutex
	of map[[2]string]*logTarget // by task and container
}

// maxLogTargets bounds what is remembered.
const maxLogTargets = 16 << 10

// PutLogs implements the Dispatch service: it makes the stream, and the group if the definition says so,
// when they are not there, and puts the events. A batch without events makes the stream alone. What the
// logs API refuses is in the reply; a status says that the call itself was wrong or could not be made.
func (s *Server) PutLogs(ctx context.Context, r *dispatchpb.PutLogsRequest) (*dispatchpb.PutLogsReply, error) {
	if s.cfg.Logs == nil || s.cfg.ECS == nil {
		return nil, status.Error(codes.Unimplemented, "this server has no logs API")
	}
	if host, ok := s.cfg.Assigner.HostOf(r.TaskArn); !ok || host != r.HostId || r.HostId == "" {
		return nil, status.Errorf(codes.PermissionDenied, "host %s does not run task %s", r.HostId, r.TaskArn)
	}
	ctx, cluster, err := atTask(ctx, "host-"+r.HostId, r.TaskArn)
	if err != nil {
		return nil, err
	}
	target, err := s.logTarget(ctx, cluster, r)
	if err != nil {
		return nil, err
	}
	if !target.owns(r) {
		return nil, status.Errorf(codes.PermissionDenied, "%s is no log stream of container %s of task %s", r.Stream, r.Container, r.TaskArn)
	}
	by, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	ctx = caller.With(ctx, caller.ForService("host-"+r.HostId, by.AccountID, target.region))
	reply, err := s.putLogs(ctx, target, r)
	if known := api.Error(nil); errors.As(err, &known) {
		retry := known.ErrorFault() == api.FaultServer || known.ErrorCode() == "ThrottlingException" || known.ErrorCode() == "OperationAbortedException"
		return &dispatchpb.PutLogsReply{ErrorCode: known.ErrorCode(), ErrorMessage: known.ErrorMessage(), Retry: retry}, nil
	}
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "put logs of task %s: %v", r.TaskArn, err)
	}
	return reply, nil
}

// logTarget reads a container's logConfiguration.
func (s *Server) logTarget(ctx context.Context, cluster string, r *dispatchpb.PutLogsRequest) (*logTarget, error) {
	key := [2]string{r.TaskArn, r.Container}
	s.logTargets.mu.Lock()
	target := s.logTargets.of[key]
	s.logTargets.mu.Unlock()
	if target != nil {
		return target, nil
	}
	unavailable := func(err error) error {
		return status.Errorf(codes.Unavailable, "look up task %s: %v", r.TaskArn, err)
	}
	tasks, err := s.cfg.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: []string{r.TaskArn}})
	if err != nil {
		return nil, unavailable(err)
	}
	if len(tasks.Tasks) == 0 {
		return nil, status.Errorf(codes.NotFound, "there is no task %s", r.TaskArn)
	}
	definition, err := s.cfg.ECS.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: tasks.Tasks[0].TaskDefinitionArn})
	if err != nil {
		return nil, unavailable(err)
	}
	for _, c := range definition.TaskDefinition.ContainerDefinitions {
		if l := c.LogConfiguration; api.Value(c.Name) == r.Container && l != nil && l.LogDriver == ecs.LogDriverAwslogs {
			create, _ := strconv.ParseBool(l.Options["awslogs-create-group"]) // what is none is refused on the host
			target = &logTarget{
				group: l.Options["awslogs-group"], region: l.Options["awslogs-region"],
				prefix: l.Options["awslogs-stream-prefix"], createGroup: create,
			}
		}
	}
	if target == nil {
		return nil, status.Errorf(codes.PermissionDenied, "container %s of task %s does not log to awslogs", r.Container, r.TaskArn)
	}
	s.logTargets.mu.Lock()
	defer s.logTargets.mu.Unlock()
	if s.logTargets.of == nil || len(s.logTargets.of) >= maxLogTargets {
		s.logTargets.of = map[[2]string]*logTarget{}
	}
	s.logTargets.of[key] = target
	return target, nil
}

// owns tells whether the stream is the container's: prefix/container/task, or an ID of the container's,
// which only the host knows and which is nobody else's prefix.
func (t *logTarget) owns(r *dispatchpb.PutLogsRequest) bool {
	if t.prefix != "" {
		return r.Stream == t.prefix+"/"+r.Container+"/"+r.TaskArn[strings.LastIndexByte(r.TaskArn, '/')+1:]
	}
	return r.Stream != "" && !strings.Contains(r.Stream, "/")
}

func (s *Server) putLogs(ctx context.Context, target *logTarget, r *dispatchpb.PutLogsRequest) (*dispatchpb.PutLogsReply, error) {
	in := &logs.PutLogEventsInput{LogGroupName: &target.group, LogStreamName: &r.Stream}
	for _, e := range r.Events {
		if len(e.Message) > 0 { // empty ones are not taken
			in.LogEvents = append(in.LogEvents, logs.InputLogEvent{Timestamp: &e.Timestamp, Message: api.Ptr(string(e.Message))})
		}
	}
	if len(r.Events) == 0 {
		return &dispatchpb.PutLogsReply{}, s.makeStream(ctx, target, r.Stream)
	}
	if len(in.LogEvents) == 0 {
		return &dispatchpb.PutLogsReply{}, nil
	}
	out, err := s.cfg.Logs.PutLogEvents(ctx, in)
	if isCode(err, "ResourceNotFoundException") {
		if err = s.makeStream(ctx, target, r.Stream); err == nil {
			out, err = s.cfg.Logs.PutLogEvents(ctx, in)
		}
	}
	if err != nil {
		return nil, err
	}
	reply := &dispatchpb.PutLogsReply{}
	if info := out.RejectedLogEventsInfo; info != nil {
		reply.TooOld = int64(max(api.Value(info.ExpiredLogEventEndIndex), api.Value(info.TooOldLogEventEndIndex)))
		if at := info.TooNewLogEventStartIndex; at != nil {
			reply.TooNew = int64(len(in.LogEvents)) - int64(*at)
		}
	}
	return reply, nil
}

// makeStream makes the stream, and the group if it may.
func (s *Server) makeStream(ctx context.Context, target *logTarget, stream string) error {
	in := &logs.CreateLogStreamInput{LogGroupName: &target.group, LogStreamName: &stream}
	_, err := s.cfg.Logs.CreateLogStream(ctx, in)
	if target.createGroup && isCode(err, "ResourceNotFoundException") {
		_, err = s.cfg.Logs.CreateLogGroup(ctx, &logs.CreateLogGroupInput{LogGroupName: &target.group})
		if err == nil || isCode(err, "ResourceAlreadyExistsException") {
			_, err = s.cfg.Logs.CreateLogStream(ctx, in)
		}
	}
	if isCode(err, "ResourceAlreadyExistsException") {
		return nil
	}
	return err
}

func isCode(err error, code string) bool {
	known := api.Error(nil)
	return errors.As(err, &known) && known.ErrorCode() == code
}
