package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/caller"
)

// Inside makes calls for a part of Berth, in process: authorized, validated and audited as any other,
// with no bytes in between. It is the api.Invoker that the generated Clients sit on:
//
//	elb := elbv2.Client{Invoker: gw.Inside("ecs.berth.internal")}            // where ctx's caller is
//	ecs := ecs.Client{Invoker: gw.Inside("dispatch.berth.internal").At(a, r)} // for a loop
//
// Input and output are shared with the service, not copied: make an input for each call, and change
// nothing of an output.
type Inside struct {
	g               *Gateway
	name            string
	account, region string
}

// Inside returns an invoker whose calls are made by the part of Berth of that name.
func (g *Gateway) Inside(name string) Inside { return Inside{g: g, name: name} }

// At returns an invoker whose calls are aimed at this account and region, whoever the caller in the
// context is. Without At, a call is aimed where the call being served was, and one with no caller in
// its context is an error.
func (i Inside) At(account, region string) Inside {
	i.account, i.region = account, region
	return i
}

// Invoke calls op. Its errors are api.Errors, as an outside client would see them; under one of
// Berth's own faults, errors.Is finds the cause.
func (i Inside) Invoke(ctx context.Context, op *api.Operation, in any) (any, error) {
	start := time.Now()
	account, region := i.account, i.region
	by, err := caller.From(ctx)
	if account == "" && region == "" && err == nil {
		account, region = by.AccountID, by.Region
	}
	if account == "" || region == "" {
		return nil, fmt.Errorf("%s calls %s:%s: it is aimed at no account or region", i.name, op.Service, op.Name)
	}
	s := i.g.service(op.Service)
	if s == nil {
		return nil, fmt.Errorf("%s calls %s:%s: the service is not served here", i.name, op.Service, op.Name)
	}
	p := caller.ForService(i.name, account, region)
	p.RequestID = uuid.NewString()
	out, err := i.g.perform(caller.With(ctx, p), p, s, op, in)
	line := entry{principal: p, id: p.RequestID, parent: by.RequestID, service: s.Descriptor, op: op, status: op.Status, remote: "inside"}
	if err != nil {
		known := i.g.expose(ctx, p.RequestID, s.Descriptor, s.Descriptor.Protocols[0], err)
		line.status, err = known.HTTPStatusCode(), known
	}
	line.err, line.took = err, time.Since(start)
	i.g.audit(ctx, line)
	if err != nil {
		return nil, err
	}
	return out, nil
}
