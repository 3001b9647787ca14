// Package caller says on whose behalf a call is made. Every call into a service has a principal,
// whether it came through the gateway from outside or from another part of Berth in process; it
// travels in the context and is read-only.
package caller

import (
	"context"
	"fmt"
)

// Kind tells what sort of principal a caller is.
type Kind string

const (
	Root        Kind = "Account"     // the account's root user
	AssumedRole Kind = "AssumedRole" // a session from AssumeRole
	Federated   Kind = "FederatedUser"
	Service     Kind = "Service" // a part of Berth, acting in process
	// Anonymous calls the few operations that take no signature, AssumeRoleWithWebIdentity for one.
	Anonymous Kind = "Anonymous"
)

// Principal is an authenticated identity and where its call is aimed at.
type Principal struct {
	Kind      Kind
	AccountID string // 12 digits
	Region    string // from the credential scope of the signature, or the server's default
	ARN       string // what GetCallerIdentity answers
	UserID    string // likewise
	// AccessKeyID that signed the request; empty for Service.
	AccessKeyID string
	// Session tells that AccessKeyID is a temporary one.
	Session bool
	// RoleARN is the role assumed; empty unless Kind is AssumedRole.
	RoleARN string
	// SourceIdentity is what AssumeRole was given under that name; it stays through role chaining.
	SourceIdentity string
	// RequestID of the call in hand, a UUID; the same one the client sees.
	RequestID string
}

type key struct{}

// With returns a context whose calls are made by p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, key{}, p)
}

// From returns the principal of ctx. A call without one is a fault in Berth, not of the client, so
// it is an error and never a default identity.
func From(ctx context.Context) (Principal, error) {
	p, ok := ctx.Value(key{}).(Principal)
	if !ok {
		return Principal{}, fmt.Errorf("call without a principal")
	}
	return p, nil
}

// ForRoot returns the root user of an account.
func ForRoot(account string) Principal {
	return Principal{Kind: Root, AccountID: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account}
}

// ForService returns the principal of a part of Berth, such as "ecs-placer.berth.internal".
func ForService(name, account, region string) Principal {
	return Principal{
		Kind: Service, AccountID: account, Region: region,
		ARN:    fmt.Sprintf("arn:aws:sts::%s:assumed-role/berth/%s", account, name),
		UserID: "berth:" + name,
	}
}
