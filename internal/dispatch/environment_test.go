package dispatch

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// fileAPIs is ECS as EnvironmentFile uses them: one task, whose container app names two files and its
// overrides a third.
type fileAPIs struct {
	ecs.Unimplemented
}

func files(arns ...string) (out []ecs.EnvironmentFile) {
	for _, arn := range arns {
		out = append(out, ecs.EnvironmentFile{Type: ecs.EnvironmentFileTypeS3, Value: &arn})
	}
	return out
}

func (*fileAPIs) DescribeTasks(_ context.Context, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	if *in.Cluster != "demo" {
		return nil, errors.New("asked for another cluster")
	}
	return &ecs.DescribeTasksOutput{Tasks: []ecs.Task{{TaskDefinitionArn: api.Ptr("td"), Overrides: &ecs.TaskOverride{
		ContainerOverrides: []ecs.ContainerOverride{{Name: api.Ptr("app"), EnvironmentFiles: files("arn:aws:s3:::conf/override.env")}}}}}}, nil
}

func (*fileAPIs) DescribeTaskDefinition(context.Context, *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
	return &ecs.DescribeTaskDefinitionOutput{TaskDefinition: &ecs.TaskDefinition{ContainerDefinitions: []ecs.ContainerDefinition{
		{Name: api.Ptr("app"), EnvironmentFiles: files("arn:aws:s3:::conf/dir/app.env", "arn:aws:s3:::conf/gone.env", "arn:aws:s3:::conf/secret.env",
			"arn:aws:s3:::conf/big.env", "arn:aws:s3:::conf/down.env", "arn:aws:s3:::bucketonly")},
		{Name: api.Ptr("other"), EnvironmentFiles: files("arn:aws:s3:::conf/other.env")},
	}}}, nil
}

type objects struct{ s3.Unimplemented }

func (objects) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	if p, err := caller.From(ctx); err != nil || p.AccountID != "000000000000" || p.Region != "us-east-1" {
		return nil, errors.New("called as somebody else")
	}
	body := "A=" + *in.Bucket + "/" + *in.Key
	switch *in.Key {
	case "gone.env":
		return nil, &api.CommonError{Code: "NoSuchKey", Status: 404}
	case "secret.env":
		return nil, &api.CommonError{Code: "AccessDenied", Status: 403}
	case "down.env":
		return nil, errors.New("no")
	case "big.env":
		body = strings.Repeat("x", maxEnvironmentFile+1)
	}
	return &s3.GetObjectOutput{Body: io.NopCloser(strings.NewReader(body))}, nil
}

// A host gets what its tasks name, and nothing else.
func TestEnvironmentFile(t *testing.T) {
	t.Parallel()
	s := New(Config{Assigner: &rooms{}, ECS: &fileAPIs{}, S3: objects{}})
	for _, c := range []struct {
		host, task, container, file string
		code                        codes.Code
	}{
		{"h1", taskARN, "app", "conf/dir/app.env", codes.OK},
		{"h1", taskARN, "app", "conf/override.env", codes.OK},
		{"h2", taskARN, "app", "conf/dir/app.env", codes.PermissionDenied},
		{"", taskARN, "app", "conf/dir/app.env", codes.PermissionDenied},
		{"h1", taskARN + "4", "app", "conf/dir/app.env", codes.PermissionDenied},
		{"h1", taskARN, "app", "conf/other.env", codes.PermissionDenied},
		{"h1", taskARN, "other", "conf/other.env", codes.OK},
		{"h1", taskARN, "none", "conf/other.env", codes.PermissionDenied},
		{"h1", taskARN, "app", "conf/gone.env", codes.NotFound},
		{"h1", taskARN, "app", "bucketonly", codes.NotFound},
		{"h1", taskARN, "app", "conf/secret.env", codes.PermissionDenied},
		{"h1", taskARN, "app", "conf/big.env", codes.ResourceExhausted},
		{"h1", taskARN, "app", "conf/down.env", codes.Unavailable},
	} {
		out, err := s.EnvironmentFile(t.Context(), &dispatchpb.EnvironmentFileRequest{
			HostId: c.host, TaskArn: c.task, Container: c.container, Arn: "arn:aws:s3:::" + c.file})
		if status.Code(err) != c.code || err == nil && string(out.Content) != "A="+c.file {
			t.Errorf("%+v: %v, %v", c, out, err)
		}
	}
}
