package dispatch

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// protector is an ecs API that knows of protection alone.
type protector struct {
	ecs.Unimplemented
	by    caller.Principal
	asked *ecs.UpdateTaskProtectionInput
	out   ecs.UpdateTaskProtectionOutput
	err   error
}

func (p *protector) UpdateTaskProtection(ctx context.Context, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
	p.by, _ = caller.From(ctx)
	p.asked = in
	return &p.out, p.err
}

func (p *protector) GetTaskProtection(ctx context.Context, in *ecs.GetTaskProtectionInput) (*ecs.GetTaskProtectionOutput, error) {
	p.by, _ = caller.From(ctx)
	return &ecs.GetTaskProtectionOutput{ProtectedTasks: p.out.ProtectedTasks, Failures: p.out.Failures}, p.err
}

func TestProtectionIsAskedForOneOfTheHostsTasks(t *testing.T) {
	t.Parallel()
	_, s, client := start(t)
	until := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := &protector{out: ecs.UpdateTaskProtectionOutput{ProtectedTasks: []ecs.ProtectedTask{{ProtectionEnabled: api.Ptr(true), ExpirationDate: &until}}}}
	s.cfg.ECS = p
	reply, err := client.Protection(t.Context(), &dispatchpb.ProtectionRequest{HostId: "h1", TaskArn: taskARN, Update: true, Enabled: true, ExpiresInMinutes: 5})
	if err != nil || !reply.Enabled || !reply.ExpiresAt.AsTime().Equal(until) {
		t.Fatalf("reply %v, %v", reply, err)
	}
	if p.by.AccountID != "000000000000" || p.by.Region != "us-east-1" || !strings.HasSuffix(p.by.ARN, "/host-h1") {
		t.Errorf("asked by %+v", p.by)
	}
	if *p.asked.Cluster != "demo" || p.asked.Tasks[0] != taskARN || !*p.asked.ProtectionEnabled || *p.asked.ExpiresInMinutes != 5 {
		t.Errorf("asked for %+v", p.asked)
	}
	if _, err = client.Protection(t.Context(), &dispatchpb.ProtectionRequest{HostId: "h1", TaskArn: taskARN, Update: true, ExpiresInMinutes: 1 << 40}); err != nil || *p.asked.ExpiresInMinutes <= 2880 {
		t.Errorf("far too long became %d, %v", *p.asked.ExpiresInMinutes, err)
	}
	if reply, err = client.Protection(t.Context(), &dispatchpb.ProtectionRequest{HostId: "h1", TaskArn: taskARN}); err != nil || !reply.Enabled {
		t.Errorf("read: %v, %v", reply, err)
	}

	p.out = ecs.UpdateTaskProtectionOutput{Failures: []ecs.Failure{{Reason: api.Ptr("TASK_NOT_VALID")}}}
	if reply, err = client.Protection(t.Context(), &dispatchpb.ProtectionRequest{HostId: "h1", TaskArn: taskARN, Update: true}); err != nil || reply.FailureReason != "TASK_NOT_VALID" {
		t.Errorf("a failure: %v, %v", reply, err)
	}
	p.err = &ecs.InvalidParameterException{Message: "expiresInMinutes must be between 1 and 2880."}
	if reply, err = client.Protection(t.Context(), &dispatchpb.ProtectionRequest{HostId: "h1", TaskArn: taskARN, Update: true}); err != nil || reply.ErrorCode != "InvalidParameterException" || reply.ErrorMessage == "" {
		t.Errorf("an error: %v, %v", reply, err)
	}
}

func TestProtectionOfAnotherHostsTaskIsRefused(t *testing.T) {
	t.Parallel()
	_, s, client := start(t)
	p := &protector{}
	s.cfg.ECS = p
	for _, req := range []*dispatchpb.ProtectionRequest{
		{HostId: "h2", TaskArn: taskARN, Update: true, Enabled: true},
		{HostId: "h1", TaskArn: taskARN + "4", Update: true, Enabled: true},
		{HostId: "h1"},
	} {
		if _, err := client.Protection(t.Context(), req); status.Code(err) != codes.NotFound {
			t.Errorf("%v: %v; want NotFound", req, err)
		}
	}
	if p.asked != nil {
		t.Errorf("ECS was asked: %+v", p.asked)
	}
	s.cfg.ECS = nil
	if _, err := client.Protection(t.Context(), &dispatchpb.ProtectionRequest{HostId: "h1", TaskArn: taskARN}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without an API: %v", err)
	}
}
