package sts

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/sts"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/keyring"
)

// Durations of sessions (API reference of each operation).
const (
	defaultRoleDuration = time.Hour
	maxChainedDuration  = time.Hour // of a role assumed by an assumed role
	defaultDuration     = 12 * time.Hour
	maxRootDuration     = time.Hour // of GetSessionToken and GetFederationToken called by root
)

// Issuer makes temporary credentials; *keyring.Keyring is one.
type Issuer interface {
	Issue(s keyring.Session) (keyring.Issued, error)
}

// Service implements the API.
type Service struct {
	sts.Unimplemented
	issuer     Issuer
	anyAccount bool
}

var _ sts.API = (*Service)(nil)

// New makes the service. With anyAccount, roles of every account can be assumed, not only of the
// caller's own: that is for dev mode, where being someone else takes no more than saying so.
func New(issuer Issuer, anyAccount bool) *Service {
	return &Service{issuer: issuer, anyAccount: anyAccount}
}

// GetCallerIdentity tells the caller who they are. It needs no permission.
func (s *Service) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	p, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	return &sts.GetCallerIdentityOutput{Account: &p.AccountID, Arn: &p.ARN, UserId: &p.UserID}, nil
}

// AssumeRole answers credentials of a role.
func (s *Service) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	p, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	role, err := parseRole(*in.RoleArn)
	if err != nil {
		return nil, err
	}
	if role.account != p.AccountID && !s.anyAccount {
		return nil, denied(fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", p.ARN, *in.RoleArn))
	}
	duration := seconds(in.DurationSeconds, defaultRoleDuration)
	if p.Kind == caller.AssumedRole && duration > maxChainedDuration {
		return nil, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	if err := noMFA(in.SerialNumber, in.TokenCode); err != nil {
		return nil, err
	}
	size, err := packedSize(in.Policy, in.PolicyArns, in.Tags)
	if err != nil {
		return nil, err
	}
	source, err := sourceIdentity(p, in.SourceIdentity)
	if err != nil {
		return nil, err
	}
	assumed := caller.Principal{
		Kind:           caller.AssumedRole,
		AccountID:      role.account,
		ARN:            fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", role.partition, role.account, role.name, *in.RoleSessionName),
		UserID:         keyring.RoleID(*in.RoleArn) + ":" + *in.RoleSessionName,
		RoleARN:        *in.RoleArn,
		SourceIdentity: api.Value(source),
	}
	credentials, err := s.issue(assumed, duration)
	if err != nil {
		return nil, err
	}
	return &sts.AssumeRoleOutput{
		AssumedRoleUser:  &sts.AssumedRoleUser{Arn: &assumed.ARN, AssumedRoleId: &assumed.UserID},
		Credentials:      credentials,
		PackedPolicySize: size,
		SourceIdentity:   source,
	}, nil
}

// GetSessionToken answers temporary credentials of the caller themselves.
func (s *Service) GetSessionToken(ctx context.Context, in *sts.GetSessionTokenInput) (*sts.GetSessionTokenOutput, error) {
	p, err := longTerm(ctx, "GetSessionToken")
	if err != nil {
		return nil, err
	}
	if err := noMFA(in.SerialNumber, in.TokenCode); err != nil {
		return nil, err
	}
	credentials, err := s.issue(p, capped(p, seconds(in.DurationSeconds, defaultDuration)))
	if err != nil {
		return nil, err
	}
	return &sts.GetSessionTokenOutput{Credentials: credentials}, nil
}

// GetFederationToken answers temporary credentials of a user whom only the caller knows.
func (s *Service) GetFederationToken(ctx context.Context, in *sts.GetFederationTokenInput) (*sts.GetFederationTokenOutput, error) {
	p, err := longTerm(ctx, "GetFederationToken")
	if err != nil {
		return nil, err
	}
	size, err := packedSize(in.Policy, in.PolicyArns, in.Tags)
	if err != nil {
		return nil, err
	}
	user := caller.Principal{
		Kind:      caller.Federated,
		AccountID: p.AccountID,
		ARN:       fmt.Sprintf("arn:aws:sts::%s:federated-user/%s", p.AccountID, *in.Name),
		UserID:    p.AccountID + ":" + *in.Name,
	}
	credentials, err := s.issue(user, capped(p, seconds(in.DurationSeconds, defaultDuration)))
	if err != nil {
		return nil, err
	}
	return &sts.GetFederationTokenOutput{
		Credentials:      credentials,
		FederatedUser:    &sts.FederatedUser{Arn: &user.ARN, FederatedUserId: &user.UserID},
		PackedPolicySize: size,
	}, nil
}

// GetAccessKeyInfo tells the account that an access key belongs to, which its ID says. Whether there
// is such a key is not looked at, nor does AWS.
func (s *Service) GetAccessKeyInfo(_ context.Context, in *sts.GetAccessKeyInfoInput) (*sts.GetAccessKeyInfoOutput, error) {
	account, ok := keyring.AccountOf(*in.AccessKeyId)
	if !ok {
		return nil, invalid("Access key ID is not valid")
	}
	return &sts.GetAccessKeyInfoOutput{Account: &account}, nil
}

// DecodeAuthorizationMessage decodes the details of a denial. Berth encodes none into its denials, so
// there is no message that is valid.
func (s *Service) DecodeAuthorizationMessage(context.Context, *sts.DecodeAuthorizationMessageInput) (*sts.DecodeAuthorizationMessageOutput, error) {
	return nil, &sts.InvalidAuthorizationMessageException{Message: "Message is not valid"}
}

func (s *Service) issue(p caller.Principal, duration time.Duration) (*sts.Credentials, error) {
	c, err := s.issuer.Issue(keyring.Session{Principal: p, Expires: time.Now().Add(duration)})
	if err != nil {
		return nil, err
	}
	return &sts.Credentials{
		AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.SecretAccessKey, SessionToken: &c.SessionToken, Expiration: &c.Expires,
	}, nil
}

// longTerm answers the caller unless they came with a session of their own.
func longTerm(ctx context.Context, operation string) (caller.Principal, error) {
	p, err := caller.From(ctx)
	if err == nil && (p.Session || p.Kind != caller.Root) {
		err = denied("Cannot call " + operation + " with session credentials")
	}
	return p, err
}

// capped shortens root's sessions to an hour, as AWS does without a word.
func capped(p caller.Principal, d time.Duration) time.Duration {
	if p.Kind == caller.Root {
		return min(d, maxRootDuration)
	}
	return d
}

func seconds(n *int32, without time.Duration) time.Duration {
	if n == nil {
		return without
	}
	return time.Duration(*n) * time.Second
}

func invalid(message string) error {
	return &api.CommonError{Code: "ValidationError", Message: message, Status: http.StatusBadRequest}
}

func denied(message string) error {
	return &api.CommonError{Code: "AccessDenied", Message: message, Status: http.StatusForbidden}
}
