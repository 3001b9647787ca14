package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdkecs "github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/api/sts"
)

// server is the least gateway there can be: route, decode, invoke, encode. calls counts the requests.
func server(t *testing.T, implementations map[string]any) (url string, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	router := NewRouter(ecs.Descriptor, sts.Descriptor)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		const id = "0f2a6d2c-5f0b-4d7e-9d3a-1c1f1e6f0001"
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading the request: %v", err)
			return
		}
		route, err := router.Route(r, body, "")
		var resp *Response
		if err == nil {
			var in, out any
			if in, err = route.Protocol.DecodeRequest(route.Operation, r, body); err == nil {
				out, err = route.Operation.Invoke(r.Context(), implementations[route.Service.Package], in)
			}
			if err == nil {
				resp, err = route.Protocol.EncodeResponse(route.Service, route.Operation, out, id)
			}
		}
		if err != nil {
			e, _ := api.AsError(err)
			resp = route.Protocol.EncodeError(route.Service, e, id)
		}
		if err := resp.Write(w); err != nil {
			t.Errorf("%v", err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, calls
}

// ecsFake answers what it holds.
type ecsFake struct {
	ecs.Unimplemented
	run      func(*ecs.RunTaskInput) (*ecs.RunTaskOutput, error)
	describe func(*ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error)
}

func (f ecsFake) RunTask(_ context.Context, in *ecs.RunTaskInput) (*ecs.RunTaskOutput, error) {
	return f.run(in)
}

func (f ecsFake) DescribeTasks(_ context.Context, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	return f.describe(in)
}

type stsFake struct {
	sts.Unimplemented
	assume func(*sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error)
}

func (f stsFake) AssumeRole(_ context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	return f.assume(in)
}

func (stsFake) GetCallerIdentity(context.Context, *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	return &sts.GetCallerIdentityOutput{
		Account: api.Ptr("000000000000"), Arn: api.Ptr("arn:aws:iam::000000000000:root"), UserId: api.Ptr("<&>\"'\r\n\t é"),
	}, nil
}

var config = aws.Config{
	Region:      "us-east-1",
	Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
}

func TestSDKSpeaksJSON(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)
	var ran *ecs.RunTaskInput
	url, _ := server(t, map[string]any{"ecs": ecsFake{
		run: func(in *ecs.RunTaskInput) (*ecs.RunTaskOutput, error) {
			ran = in
			return &ecs.RunTaskOutput{
				Failures: []ecs.Failure{{Reason: api.Ptr("RESOURCE:MEMORY")}},
				Tasks:    []ecs.Task{},
			}, nil
		},
		describe: func(in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
			return &ecs.DescribeTasksOutput{Tasks: []ecs.Task{{
				TaskArn:    &in.Tasks[0],
				CreatedAt:  &created,
				LaunchType: ecs.LaunchTypeEc2,
				Version:    api.Ptr(int64(3)),
				Containers: []ecs.Container{{
					ExitCode: api.Ptr(int32(137)), Reason: api.Ptr("OutOfMemoryError: \u00e9\u2028\"\\\x01"),
					NetworkBindings: []ecs.NetworkBinding{},
				}},
			}}}, nil
		},
	}})
	client := sdkecs.NewFromConfig(config, func(o *sdkecs.Options) { o.BaseEndpoint = &url })

	out, err := client.RunTask(t.Context(), &sdkecs.RunTaskInput{
		TaskDefinition: aws.String("web:1"),
		Count:          aws.Int32(2),
		LaunchType:     ecstypes.LaunchTypeEc2,
		Overrides: &ecstypes.TaskOverride{ContainerOverrides: []ecstypes.ContainerOverride{{
			Name: aws.String("c"), Command: []string{}, Environment: []ecstypes.KeyValuePair{{Name: aws.String("A"), Value: aws.String("")}},
		}}},
		NetworkConfiguration: &ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{
			Subnets: []string{"subnet-1"}, AssignPublicIp: ecstypes.AssignPublicIpDisabled,
		}},
		EnableExecuteCommand: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != "RESOURCE:MEMORY" || out.Tasks == nil {
		t.Errorf("RunTask answered %+v", out)
	}
	if id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata); !strings.HasPrefix(id, "0f2a6d2c") {
		t.Errorf("request id %q", id)
	}
	if api.Value(ran.ClientToken) == "" {
		t.Error("the SDK's idempotency token did not arrive")
	}
	ran.ClientToken = nil
	want := &ecs.RunTaskInput{
		TaskDefinition: api.Ptr("web:1"), Count: api.Ptr(int32(2)), LaunchType: ecs.LaunchTypeEc2, EnableExecuteCommand: api.Ptr(true),
		Overrides: &ecs.TaskOverride{ContainerOverrides: []ecs.ContainerOverride{{
			Name: api.Ptr("c"), Command: []string{}, Environment: []ecs.KeyValuePair{{Name: api.Ptr("A"), Value: api.Ptr("")}},
		}}},
		NetworkConfiguration: &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{
			Subnets: []string{"subnet-1"}, AssignPublicIp: ecs.AssignPublicIpDisabled,
		}},
	}
	if !reflect.DeepEqual(ran, want) {
		t.Errorf("RunTask received %+v", ran)
	}

	tasks, err := client.DescribeTasks(t.Context(), &sdkecs.DescribeTasksInput{Tasks: []string{"arn:t"}})
	if err != nil {
		t.Fatal(err)
	}
	task := tasks.Tasks[0]
	if aws.ToString(task.TaskArn) != "arn:t" || !task.CreatedAt.Equal(created) || task.LaunchType != "EC2" || task.Version != 3 ||
		aws.ToInt32(task.Containers[0].ExitCode) != 137 || aws.ToString(task.Containers[0].Reason) != "OutOfMemoryError: \u00e9\u2028\"\\\x01" {
		t.Errorf("DescribeTasks answered %+v", task)
	}
}

func TestSDKSeesJSONErrors(t *testing.T) {
	t.Parallel()
	var answer error
	url, calls := server(t, map[string]any{"ecs": ecsFake{
		run: func(*ecs.RunTaskInput) (*ecs.RunTaskOutput, error) { return nil, answer },
	}})
	client := sdkecs.NewFromConfig(config, func(o *sdkecs.Options) {
		o.BaseEndpoint = &url
		o.RetryMaxAttempts = 2
	})
	run := func(e error) error {
		answer = e
		calls.Store(0)
		_, err := client.RunTask(t.Context(), &sdkecs.RunTaskInput{TaskDefinition: aws.String("x")})
		if err == nil {
			t.Fatalf("%v reached the client as a success", e)
		}
		var response interface{ ServiceRequestID() string }
		if !errors.As(err, &response) || response.ServiceRequestID() == "" {
			t.Errorf("%v has no request id", err)
		}
		return err
	}

	var notFound *ecstypes.ClusterNotFoundException
	if err := run(&ecs.ClusterNotFoundException{Message: "Cluster not found."}); !errors.As(err, &notFound) || notFound.ErrorMessage() != "Cluster not found." {
		t.Errorf("got %v", err)
	}
	var conflict *ecstypes.ConflictException
	if err := run(&ecs.ConflictException{Message: "m", ResourceIds: []string{"a", "b"}}); !errors.As(err, &conflict) || !reflect.DeepEqual(conflict.ResourceIds, []string{"a", "b"}) {
		t.Errorf("got %v", err)
	}
	if calls.Load() != 1 {
		t.Errorf("a client error was tried %d times", calls.Load())
	}
	var serverErr *ecstypes.ServerException
	if err := run(&ecs.ServerException{Message: "m"}); !errors.As(err, &serverErr) {
		t.Errorf("got %v", err)
	}
	if calls.Load() != 2 {
		t.Errorf("a server error was tried %d times", calls.Load())
	}

	var general smithy.APIError
	if err := run(errors.New("secret detail")); !errors.As(err, &general) || general.ErrorCode() != "InternalFailure" || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}

	calls.Store(0)
	_, err := client.CreateService(t.Context(), &sdkecs.CreateServiceInput{ServiceName: aws.String("s")})
	if !errors.As(err, &general) || general.ErrorCode() != api.CodeUnimplemented || !strings.Contains(general.ErrorMessage(), "ecs:CreateService") {
		t.Errorf("an operation that is not built answered %v", err)
	}
	if calls.Load() != 1 {
		t.Errorf("an operation that is not built was tried %d times", calls.Load())
	}
	// One of the operations that are newer than the model.
	if _, err := client.ListGateways(t.Context(), &sdkecs.ListGatewaysInput{}); !errors.As(err, &general) || general.ErrorCode() != "UnknownOperationException" {
		t.Errorf("an unknown operation answered %v", err)
	}
}

func TestSDKSpeaksQuery(t *testing.T) {
	t.Parallel()
	expires := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	var assumed *sts.AssumeRoleInput
	var answer error
	url, calls := server(t, map[string]any{"sts": stsFake{
		assume: func(in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
			assumed = in
			return &sts.AssumeRoleOutput{
				Credentials: &sts.Credentials{
					AccessKeyId: api.Ptr("ASIA"), SecretAccessKey: api.Ptr("s"), SessionToken: api.Ptr("t"), Expiration: &expires,
				},
				SourceIdentity: api.Ptr("<me>"),
			}, answer
		},
	}})
	client := sdksts.NewFromConfig(config, func(o *sdksts.Options) {
		o.BaseEndpoint = &url
		o.RetryMaxAttempts = 2
	})

	who, err := client.GetCallerIdentity(t.Context(), &sdksts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(who.Arn) != "arn:aws:iam::000000000000:root" || aws.ToString(who.UserId) != "<&>\"'\r\n\t é" {
		t.Errorf("GetCallerIdentity answered %q %q", aws.ToString(who.Arn), aws.ToString(who.UserId))
	}
	if id, _ := awsmiddleware.GetRequestIDMetadata(who.ResultMetadata); !strings.HasPrefix(id, "0f2a6d2c") {
		t.Errorf("request id %q", id)
	}

	in := &sdksts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::000000000000:role/r"), RoleSessionName: aws.String("s & é=+ "), DurationSeconds: aws.Int32(900),
		TransitiveTagKeys: []string{"k"},
	}
	for range 11 { // .10 sorts before .2 as text
		n := string(rune('a' + len(in.Tags)))
		in.Tags = append(in.Tags, ststypes.Tag{Key: &n, Value: aws.String("")})
	}
	out, err := client.AssumeRole(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !out.Credentials.Expiration.Equal(expires) || aws.ToString(out.Credentials.SessionToken) != "t" || aws.ToString(out.SourceIdentity) != "<me>" {
		t.Errorf("AssumeRole answered %+v", out)
	}
	if api.Value(assumed.RoleSessionName) != "s & é=+ " || api.Value(assumed.DurationSeconds) != 900 || len(assumed.Tags) != 11 {
		t.Fatalf("AssumeRole received %+v", assumed)
	}
	for i, tag := range assumed.Tags {
		if *tag.Key != string(rune('a'+i)) || *tag.Value != "" {
			t.Errorf("tag %d is %s=%s", i, *tag.Key, *tag.Value)
		}
	}

	answer = &sts.PackedPolicyTooLargeException{Message: "<big>"}
	calls.Store(0)
	var tooLarge *ststypes.PackedPolicyTooLargeException
	if _, err := client.AssumeRole(t.Context(), in); !errors.As(err, &tooLarge) || tooLarge.ErrorMessage() != "<big>" || calls.Load() != 1 {
		t.Errorf("got %v in %d calls", err, calls.Load())
	}
	calls.Store(0)
	var general smithy.APIError
	_, err = client.GetSessionToken(t.Context(), &sdksts.GetSessionTokenInput{})
	if !errors.As(err, &general) || general.ErrorCode() != api.CodeUnimplemented || calls.Load() != 1 {
		t.Errorf("an operation that is not built answered %v in %d calls", err, calls.Load())
	}
}

// TestInProcess calls through the generated Client, as one service calls another.
func TestInProcess(t *testing.T) {
	t.Parallel()
	client := sts.Client{Invoker: invoker{stsFake{}}}
	out, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil || api.Value(out.Account) != "000000000000" {
		t.Errorf("got %+v, %v", out, err)
	}
	var e api.Error
	if out, err := client.GetSessionToken(t.Context(), nil); out != nil || !errors.As(err, &e) || e.ErrorCode() != api.CodeUnimplemented {
		t.Errorf("got %+v, %v", out, err)
	}
}

type invoker struct{ impl any }

func (i invoker) Invoke(ctx context.Context, op *api.Operation, in any) (any, error) {
	return op.Invoke(ctx, i.impl, in)
}
