package dispatch

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// maxEnvironmentFile bounds a file of variables, in bytes: what a process can be given of them is little
// more.
const maxEnvironmentFile = 1 << 20

// EnvironmentFile implements the Dispatch service: an object for a host that runs a task whose definition,
// or whose overrides, name it. A host learns of no other object, not even whether it is there.
func (s *Server) EnvironmentFile(ctx context.Context, r *dispatchpb.EnvironmentFileRequest) (*dispatchpb.EnvironmentFileContent, error) {
	if host, ok := s.cfg.Assigner.HostOf(r.TaskArn); !ok || host != r.HostId || r.HostId == "" {
		return nil, status.Errorf(codes.PermissionDenied, "host %s does not run task %s", r.HostId, r.TaskArn)
	}
	ctx, cluster, err := atTask(ctx, "host-"+r.HostId, r.TaskArn)
	if err != nil {
		return nil, err
	}
	named, err := s.namesFile(ctx, cluster, r)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "look up task %s: %v", r.TaskArn, err)
	}
	if !named {
		return nil, status.Errorf(codes.PermissionDenied, "container %s of task %s names no environment file %s", r.Container, r.TaskArn, r.Arn)
	}
	bucket, key, ok := objectOf(r.Arn)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "%s is no ARN of an S3 object", r.Arn)
	}
	out, err := s.cfg.S3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, fileError(r.Arn, err)
	}
	defer out.Body.Close()
	content, err := io.ReadAll(io.LimitReader(out.Body, maxEnvironmentFile+1))
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "read %s: %v", r.Arn, err)
	}
	if len(content) > maxEnvironmentFile {
		return nil, status.Errorf(codes.ResourceExhausted, "%s is larger than %d bytes", r.Arn, maxEnvironmentFile)
	}
	return &dispatchpb.EnvironmentFileContent{Content: content}, nil
}

// atTask aims calls of the service of that name at a task's account and region, and answers the task's
// cluster.
func atTask(ctx context.Context, name, taskARN string) (_ context.Context, cluster string, err error) {
	// arn:aws:ecs:<region>:<account>:task/<cluster>/<id>
	part := strings.SplitN(taskARN, ":", 6)
	if len(part) != 6 {
		return nil, "", status.Errorf(codes.InvalidArgument, "%s is no task's ARN", taskARN)
	}
	path := strings.Split(part[5], "/")
	if len(path) != 3 {
		return nil, "", status.Errorf(codes.InvalidArgument, "%s is no task's ARN", taskARN)
	}
	return caller.With(ctx, caller.ForService(name, part[4], part[3])), path[1], nil
}

// namesFile tells whether the container has the file among its environmentFiles.
func (s *Server) namesFile(ctx context.Context, cluster string, r *dispatchpb.EnvironmentFileRequest) (bool, error) {
	is := func(f ecs.EnvironmentFile) bool { return api.Value(f.Value) == r.Arn }
	tasks, err := s.cfg.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: []string{r.TaskArn}})
	if err != nil || len(tasks.Tasks) == 0 {
		return false, err
	}
	task := &tasks.Tasks[0]
	if o := task.Overrides; o != nil {
		for _, c := range o.ContainerOverrides {
			if api.Value(c.Name) == r.Container && slices.ContainsFunc(c.EnvironmentFiles, is) {
				return true, nil
			}
		}
	}
	definition, err := s.cfg.ECS.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: task.TaskDefinitionArn})
	if err != nil {
		return false, err
	}
	for _, c := range definition.TaskDefinition.ContainerDefinitions {
		if api.Value(c.Name) == r.Container {
			return slices.ContainsFunc(c.EnvironmentFiles, is), nil
		}
	}
	return false, nil
}

// objectOf takes an object's ARN apart: arn:aws:s3:::<bucket>/<key>.
func objectOf(arn string) (bucket, key string, ok bool) {
	part := strings.SplitN(arn, ":", 6)
	if len(part) != 6 || part[0] != "arn" || part[2] != "s3" {
		return "", "", false
	}
	bucket, key, ok = strings.Cut(part[5], "/")
	return bucket, key, ok && bucket != "" && key != ""
}

// fileError tells what is final from what may pass.
func fileError(arn string, err error) error {
	code := codes.Unavailable
	if known := api.Error(nil); errors.As(err, &known) {
		switch known.ErrorCode() {
		case "NoSuchKey", "NoSuchBucket", "KeyTooLongError", "InvalidURI":
			code = codes.NotFound
		case "AccessDenied":
			code = codes.PermissionDenied
		}
	}
	return status.Errorf(code, "%s: %v", arn, err)
}
