package dispatch

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/logs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// logAPIs is ECS as PutLogs uses it, and CloudWatch Logs with the groups and streams it holds.
type logAPIs struct {
	ecs.Unimplemented
	lookups int
}

type groups struct {
	logs.Unimplemented
	calls  []string
	groups map[string]map[string][]string // group → stream → messages
	fail   error
	info   *logs.RejectedLogEventsInfo
}

func (a *logAPIs) DescribeTasks(context.Context, *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	a.lookups++
	return &ecs.DescribeTasksOutput{Tasks: []ecs.Task{{TaskDefinitionArn: api.Ptr("td")}}}, nil
}

func (*logAPIs) DescribeTaskDefinition(context.Context, *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
	container := func(name string, driver ecs.LogDriver, options map[string]string) ecs.ContainerDefinition {
		return ecs.ContainerDefinition{Name: &name, LogConfiguration: &ecs.LogConfiguration{LogDriver: driver, Options: options}}
	}
	return &ecs.DescribeTaskDefinitionOutput{TaskDefinition: &ecs.TaskDefinition{ContainerDefinitions: []ecs.ContainerDefinition{
		container("app", "awslogs", map[string]string{"awslogs-group": "made", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "p", "awslogs-create-group": "true"}),
		container("plain", "awslogs", map[string]string{"awslogs-group": "there", "awslogs-region": "eu-west-1"}),
		container("lost", "awslogs", map[string]string{"awslogs-group": "missing", "awslogs-region": "eu-west-1"}),
		container("file", "json-file", nil),
	}}}, nil
}

func (g *groups) check(ctx context.Context, call string) error {
	g.calls = append(g.calls, call)
	if p, err := caller.From(ctx); err != nil || p.AccountID != "000000000000" || p.Region != "eu-west-1" {
		return errors.New("called as somebody else")
	}
	return g.fail
}

func (g *groups) CreateLogGroup(ctx context.Context, in *logs.CreateLogGroupInput) (*logs.CreateLogGroupOutput, error) {
	g.groups[*in.LogGroupName] = map[string][]string{}
	return &logs.CreateLogGroupOutput{}, g.check(ctx, "group")
}

func (g *groups) CreateLogStream(ctx context.Context, in *logs.CreateLogStreamInput) (*logs.CreateLogStreamOutput, error) {
	if err := g.check(ctx, "stream"); err != nil {
		return nil, err
	}
	group, ok := g.groups[*in.LogGroupName]
	if !ok {
		return nil, &logs.ResourceNotFoundException{Message: "The specified log group does not exist."}
	}
	if _, ok := group[*in.LogStreamName]; ok {
		return nil, &logs.ResourceAlreadyExistsException{Message: "The specified log stream already exists"}
	}
	group[*in.LogStreamName] = []string{}
	return &logs.CreateLogStreamOutput{}, nil
}

func (g *groups) PutLogEvents(ctx context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
	if err := g.check(ctx, "put"); err != nil {
		return nil, err
	}
	if _, ok := g.groups[*in.LogGroupName][*in.LogStreamName]; !ok {
		return nil, &logs.ResourceNotFoundException{Message: "The specified log stream does not exist."}
	}
	for _, e := range in.LogEvents {
		g.groups[*in.LogGroupName][*in.LogStreamName] = append(g.groups[*in.LogGroupName][*in.LogStreamName], *e.Message)
	}
	return &logs.PutLogEventsOutput{RejectedLogEventsInfo: g.info}, nil
}

// A host puts what its tasks' definitions send to awslogs where they say, and nothing else.
func TestPutLogs(t *testing.T) {
	t.Parallel()
	g := &groups{groups: map[string]map[string][]string{"there": {}}}
	a := &logAPIs{}
	s := New(Config{Assigner: &rooms{}, ECS: a, Logs: g})
	put := func(host, task, container, stream string, messages ...string) (*dispatchpb.PutLogsReply, error) {
		r := &dispatchpb.PutLogsRequest{HostId: host, TaskArn: task, Container: container, Stream: stream}
		for i, m := range messages {
			r.Events = append(r.Events, &dispatchpb.LogEvent{Timestamp: int64(i + 1), Message: []byte(m)})
		}
		return s.PutLogs(t.Context(), r)
	}
	for _, c := range []struct {
		host, task, container, stream string
		messages                      []string
		code                          codes.Code
		refused                       string
		calls                         string
	}{
		{"h2", taskARN, "app", "p/app/0123", nil, codes.PermissionDenied, "", "[]"},
		{"", taskARN, "app", "p/app/0123", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN + "4", "app", "p/app/0123", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN, "file", "x", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN, "none", "x", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN, "app", "p/app/other", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN, "plain", "p/app/0123", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN, "plain", "", nil, codes.PermissionDenied, "", "[]"},
		{"h1", taskARN, "lost", "id", nil, codes.OK, "ResourceNotFoundException", "[stream]"},
		{"h1", taskARN, "lost", "id", []string{"m"}, codes.OK, "ResourceNotFoundException", "[put stream]"},
		{"h1", taskARN, "app", "p/app/0123", nil, codes.OK, "", "[stream group stream]"},
		{"h1", taskARN, "app", "p/app/0123", nil, codes.OK, "", "[stream]"},
		{"h1", taskARN, "app", "p/app/0123", []string{"a", "", "b"}, codes.OK, "", "[put]"},
		{"h1", taskARN, "app", "p/app/0123", []string{""}, codes.OK, "", "[]"},
		{"h1", taskARN, "plain", "id", []string{"c"}, codes.OK, "", "[put stream put]"},
	} {
		g.calls = nil
		reply, err := put(c.host, c.task, c.container, c.stream, c.messages...)
		if status.Code(err) != c.code || reply.GetErrorCode() != c.refused || reply.GetRetry() || fmt.Sprint(g.calls) != c.calls {
			t.Errorf("%+v: %v, %v, calls %v", c, reply, err, g.calls)
		}
	}
	if got := fmt.Sprint(g.groups); got != "map[made:map[p/app/0123:[a b]] there:map[id:[c]]]" {
		t.Error(got)
	}
	a.lookups = 0
	g.info = &logs.RejectedLogEventsInfo{ExpiredLogEventEndIndex: api.Ptr(int32(1)), TooOldLogEventEndIndex: api.Ptr(int32(2)), TooNewLogEventStartIndex: api.Ptr(int32(3))}
	if reply, err := put("h1", taskARN, "plain", "id", "1", "2", "3", "4", "5"); err != nil || reply.TooOld != 2 || reply.TooNew != 2 || a.lookups != 0 {
		t.Errorf("%v, %v, %d lookups of what is known", reply, err, a.lookups)
	}
	g.fail = &logs.ServiceUnavailableException{Message: "full"}
	if reply, err := put("h1", taskARN, "plain", "id", "1"); err != nil || !reply.Retry || reply.ErrorCode != "ServiceUnavailableException" {
		t.Errorf("%v, %v", reply, err)
	}
	g.fail = errors.New("no")
	if _, err := put("h1", taskARN, "plain", "id", "1"); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}
