package sts_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthhq/berth/api"
	apists "github.com/berthhq/berth/api/sts"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/sts"
	"github.com/berthhq/berth/internal/wire"
)

const (
	account = "123456789012"
	roleARN = "arn:aws:iam::" + account + ":role/deploy"
)

// issuer remembers what it was asked to issue.
type issuer struct {
	last keyring.Session
	fail error
}

func (i *issuer) Issue(s keyring.Session) (keyring.Issued, error) {
	i.last = s
	return keyring.Issued{Key: keyring.Key{AccessKeyID: "ASIA", SecretAccessKey: "s"}, SessionToken: "t", Expires: s.Expires}, i.fail
}

func root() caller.Principal { return caller.ForRoot(account) }

func role() caller.Principal {
	return caller.Principal{Kind: caller.AssumedRole, AccountID: account, Session: true, SourceIdentity: "alice",
		ARN: "arn:aws:sts::" + account + ":assumed-role/deploy/me"}
}

func codeOf(err error) string {
	if e := api.Error(nil); errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

func TestAssumeRoleRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 65)
	tag := func(k string) apists.Tag { return apists.Tag{Key: &k, Value: api.Ptr("v")} }
	for name, c := range map[string]struct {
		by     caller.Principal
		change func(*apists.AssumeRoleInput)
		code   string
	}{
		"a user's ARN":          {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::" + account + ":user/x" }, "ValidationError"},
		"no ARN":                {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "deploy-deploy-deploy-deploy" }, "ValidationError"},
		"another service's":     {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:sts::" + account + ":role/x" }, "ValidationError"},
		"an ARN with a region":  {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam:us-east-1:" + account + ":role/x" }, "ValidationError"},
		"a short account":       {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::12345678901:role/x" }, "ValidationError"},
		"a partition of no use": {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:gcp:iam::" + account + ":role/x" }, "ValidationError"},
		"no name":               {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::" + account + ":role/" }, "ValidationError"},
		"an empty path segment": {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::" + account + ":role//x" }, "ValidationError"},
		"a line break":          {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::" + account + ":role/x\ny" }, "ValidationError"},
		"a long name":           {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::" + account + ":role/" + long }, "ValidationError"},
		"another account":       {root(), func(in *apists.AssumeRoleInput) { *in.RoleArn = "arn:aws:iam::999999999999:role/x" }, "AccessDenied"},
		"too long for a chain":  {role(), func(in *apists.AssumeRoleInput) { in.DurationSeconds = api.Ptr(int32(3601)) }, "ValidationError"},
		"a second factor": {root(), func(in *apists.AssumeRoleInput) {
			in.SerialNumber, in.TokenCode = api.Ptr("GAHT12345678"), api.Ptr("123456")
		}, "AccessDenied"},
		"a code without device":  {root(), func(in *apists.AssumeRoleInput) { in.TokenCode = api.Ptr("123456") }, "ValidationError"},
		"a policy of no JSON":    {root(), func(in *apists.AssumeRoleInput) { in.Policy = api.Ptr("{") }, "MalformedPolicyDocument"},
		"a policy of no meaning": {root(), func(in *apists.AssumeRoleInput) { in.Policy = api.Ptr("{}") }, "MalformedPolicyDocument"},
		"eleven policies":        {root(), func(in *apists.AssumeRoleInput) { in.PolicyArns = make([]apists.PolicyDescriptorType, 11) }, "PackedPolicyTooLarge"},
		"a policy of no ARN":     {root(), func(in *apists.AssumeRoleInput) { in.PolicyArns = make([]apists.PolicyDescriptorType, 1) }, "ValidationError"},
		"the same tag twice":     {root(), func(in *apists.AssumeRoleInput) { in.Tags = []apists.Tag{tag("Team"), tag("team")} }, "ValidationError"},
		"another identity":       {role(), func(in *apists.AssumeRoleInput) { in.SourceIdentity = api.Ptr("bob") }, "AccessDenied"},
	} {
		in := &apists.AssumeRoleInput{RoleArn: api.Ptr(roleARN), RoleSessionName: api.Ptr("me")}
		c.change(in)
		i := &issuer{}
		_, err := sts.New(i, false).AssumeRole(caller.With(t.Context(), c.by), in)
		if codeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		if i.last.Principal.ARN != "" {
			t.Errorf("%s: a session was issued", name)
		}
	}
}

func TestAssumeRole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			by         caller.Principal
			in         apists.AssumeRoleInput
			anyAccount bool
			arn        string
			lasts      time.Duration
			size       *int32
			source     string
		}{
			"plain":           {by: root(), arn: "arn:aws:sts::" + account + ":assumed-role/deploy/me", lasts: time.Hour},
			"path is dropped": {by: root(), in: apists.AssumeRoleInput{RoleArn: api.Ptr("arn:aws:iam::" + account + ":role/a/b/deploy")}, arn: "arn:aws:sts::" + account + ":assumed-role/deploy/me", lasts: time.Hour},
			"twelve hours":    {by: root(), in: apists.AssumeRoleInput{DurationSeconds: api.Ptr(int32(43200))}, arn: "arn:aws:sts::" + account + ":assumed-role/deploy/me", lasts: 12 * time.Hour},
			"chained":         {by: role(), arn: "arn:aws:sts::" + account + ":assumed-role/deploy/me", lasts: time.Hour, source: "alice"},
			"China":           {by: root(), in: apists.AssumeRoleInput{RoleArn: api.Ptr("arn:aws-cn:iam::" + account + ":role/deploy")}, arn: "arn:aws-cn:sts::" + account + ":assumed-role/deploy/me", lasts: time.Hour},
			"any account":     {by: root(), in: apists.AssumeRoleInput{RoleArn: api.Ptr("arn:aws:iam::999999999999:role/x")}, anyAccount: true, arn: "arn:aws:sts::999999999999:assumed-role/x/me", lasts: time.Hour},
			"with a policy":   {by: root(), in: apists.AssumeRoleInput{Policy: api.Ptr(`{"Statement":[]}`)}, arn: "arn:aws:sts::" + account + ":assumed-role/deploy/me", lasts: time.Hour, size: api.Ptr(int32(1))},
		} {
			in := c.in
			in.RoleSessionName = api.Ptr("me")
			if in.RoleArn == nil {
				in.RoleArn = api.Ptr(roleARN)
			}
			i := &issuer{}
			out, err := sts.New(i, c.anyAccount).AssumeRole(caller.With(t.Context(), c.by), &in)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			p := i.last.Principal
			if *out.AssumedRoleUser.Arn != c.arn || p.ARN != c.arn || p.Kind != caller.AssumedRole || p.RoleARN != *in.RoleArn || p.SourceIdentity != c.source ||
				*out.AssumedRoleUser.AssumedRoleId != p.UserID || p.UserID != keyring.RoleID(*in.RoleArn)+":me" || api.Value(out.SourceIdentity) != c.source {
				t.Errorf("%s: %+v", name, p)
			}
			if got := time.Until(i.last.Expires); got != c.lasts || !out.Credentials.Expiration.Equal(i.last.Expires) {
				t.Errorf("%s: lasts %s", name, got)
			}
			if (out.PackedPolicySize == nil) != (c.size == nil) || api.Value(out.PackedPolicySize) != api.Value(c.size) {
				t.Errorf("%s: packed size %v", name, out.PackedPolicySize)
			}
		}
	})
}

// The model's own constraints, which the gateway checks before the service is called.
func TestConstraints(t *testing.T) {
	t.Parallel()
	op := apists.Descriptor.Operation("AssumeRole")
	for _, c := range []struct {
		session string
		seconds int32
		want    string
	}{
		{"me", 900, ""}, {"me", 43200, ""}, {"a+=,.@-_Z9", 900, ""},
		{"me", 899, "Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
		{"me", 43201, "Value '43201' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 43200"},
		{"m", 900, "Value 'm' at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2"},
		{"me you", 900, `Value 'me you' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]*`},
	} {
		vs := wire.Validate(op.Input, &apists.AssumeRoleInput{RoleArn: api.Ptr(roleARN), RoleSessionName: &c.session, DurationSeconds: &c.seconds})
		if c.want == "" && len(vs) > 0 || c.want != "" && (len(vs) != 1 || vs[0].String() != c.want) {
			t.Errorf("%q, %d: %v", c.session, c.seconds, vs)
		}
	}
}

func TestOthers(t *testing.T) {
	t.Parallel()
	s := sts.New(&issuer{}, false)
	ctx := caller.With(t.Context(), root())
	if _, err := s.DecodeAuthorizationMessage(ctx, &apists.DecodeAuthorizationMessageInput{EncodedMessage: api.Ptr("x")}); codeOf(err) != "InvalidAuthorizationMessageException" {
		t.Error(err)
	}
	if _, err := s.GetAccessKeyInfo(ctx, &apists.GetAccessKeyInfoInput{AccessKeyId: api.Ptr("AKIA!!!!!!!!!!!!!!!!")}); codeOf(err) != "ValidationError" {
		t.Error(err)
	}
	for name, call := range map[string]func() error{
		"SAML":         func() error { _, err := s.AssumeRoleWithSAML(ctx, nil); return err },
		"web identity": func() error { _, err := s.AssumeRoleWithWebIdentity(ctx, nil); return err },
		"root":         func() error { _, err := s.AssumeRoot(ctx, nil); return err },
	} {
		if err := call(); codeOf(err) != api.CodeUnimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.GetCallerIdentity(context.Background(), nil); err == nil || codeOf(err) != "" {
		t.Errorf("without a principal: %v", err)
	}
	broken := sts.New(&issuer{fail: errors.New("no key")}, false)
	if _, err := broken.GetSessionToken(ctx, &apists.GetSessionTokenInput{}); err == nil || codeOf(err) != "" {
		t.Errorf("a fault of ours became the client's: %v", err)
	}
}

func FuzzRoleARN(f *testing.F) {
	f.Add(roleARN)
	f.Add("arn:aws:iam::" + account + ":role/a/b")
	f.Fuzz(func(t *testing.T, arn string) {
		i := &issuer{}
		_, err := sts.New(i, true).AssumeRole(caller.With(t.Context(), root()), &apists.AssumeRoleInput{RoleArn: &arn, RoleSessionName: api.Ptr("me")})
		if err != nil {
			if codeOf(err) != "ValidationError" {
				t.Fatal(err)
			}
			return
		}
		p := i.last.Principal
		if strings.Count(p.ARN, ":") != 5 || strings.Count(p.ARN, "/") != 2 || len(p.AccountID) != 12 || strings.ContainsAny(p.ARN, " \n\x00*") {
			t.Fatalf("%q became %q", arn, p.ARN)
		}
	})
}
