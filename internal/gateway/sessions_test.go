package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/keyring"
)

const roleARN = "arn:aws:iam::" + account + ":role/team/deploy"

func session(c *ststypes.Credentials) aws.CredentialsProvider {
	return static(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

func TestAssumedRoleEndToEnd(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	out, err := f.stsAs(nil).AssumeRole(t.Context(), &sdksts.AssumeRoleInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("me@example.com"), DurationSeconds: aws.Int32(900),
		SourceIdentity: aws.String("alice")})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*out.Credentials.Expiration); left > 15*time.Minute || left < 14*time.Minute {
		t.Errorf("expires in %s", left)
	}
	want := "arn:aws:sts::" + account + ":assumed-role/deploy/me@example.com"
	if *out.AssumedRoleUser.Arn != want || !strings.HasPrefix(*out.AssumedRoleUser.AssumedRoleId, "AROA") || *out.SourceIdentity != "alice" {
		t.Errorf("%+v", out.AssumedRoleUser)
	}
	as := session(out.Credentials)
	who, err := f.stsAs(as).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != want || *who.UserId != *out.AssumedRoleUser.AssumedRoleId || *who.Account != account {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := f.ecsAs(as).ListClusters(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if p := f.ecs.lastCaller(); p.Kind != caller.AssumedRole || p.RoleARN != roleARN || !p.Session || p.SourceIdentity != "alice" || p.Region != region {
		t.Errorf("%+v", p)
	}
	presigned, err := sdksts.NewPresignClient(f.stsAs(as)).PresignGetCallerIdentity(t.Context(), &sdksts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get(presigned.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 {
		t.Errorf("presigned: %s", response.Status)
	}

	// The provider that SDKs make of a profile with role_arn, and a role from a role.
	provider := stscreds.NewAssumeRoleProvider(f.stsAs(as), roleARN)
	if _, err := f.ecsAs(provider).ListClusters(t.Context(), nil); err != nil {
		t.Error(err)
	}
	_, err = f.stsAs(as).AssumeRole(t.Context(), &sdksts.AssumeRoleInput{RoleArn: aws.String(roleARN), RoleSessionName: aws.String("again"), DurationSeconds: aws.Int32(3601)})
	wantAPIError(t, err, "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining", 400)
	_, err = f.stsAs(as).GetSessionToken(t.Context(), nil)
	wantAPIError(t, err, "AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
	_, err = f.stsAs(as).GetFederationToken(t.Context(), &sdksts.GetFederationTokenInput{Name: aws.String("bob")})
	wantAPIError(t, err, "AccessDenied", "Cannot call GetFederationToken with session credentials", 403)

	// Without its token, or with another's, a session's key is nothing.
	_, err = f.stsAs(static(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, "")).GetCallerIdentity(t.Context(), nil)
	wantAPIError(t, err, "InvalidClientTokenId", "", 403)
	_, err = f.stsAs(static(*out.Credentials.AccessKeyId, "wrong", *out.Credentials.SessionToken)).GetCallerIdentity(t.Context(), nil)
	wantAPIError(t, err, "SignatureDoesNotMatch", mismatch, 403)
}

func TestSessionTokenEndToEnd(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	out, err := f.stsAs(nil).GetSessionToken(t.Context(), &sdksts.GetSessionTokenInput{DurationSeconds: aws.Int32(129600)})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*out.Credentials.Expiration); left > time.Hour || left < 59*time.Minute {
		t.Errorf("root's session expires in %s", left)
	}
	as := session(out.Credentials)
	who, err := f.stsAs(as).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != "arn:aws:iam::"+account+":root" {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := f.ecsAs(as).ListClusters(t.Context(), nil); err != nil || !f.ecs.lastCaller().Session {
		t.Errorf("%+v, %v", f.ecs.lastCaller(), err)
	}
	federated, err := f.stsAs(nil).GetFederationToken(t.Context(), &sdksts.GetFederationTokenInput{Name: aws.String("bob")})
	if err != nil {
		t.Fatal(err)
	}
	who, err = f.stsAs(session(federated.Credentials)).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != "arn:aws:sts::"+account+":federated-user/bob" || *who.UserId != account+":bob" {
		t.Errorf("%+v, %v", who, err)
	}
	info, err := f.stsAs(nil).GetAccessKeyInfo(t.Context(), &sdksts.GetAccessKeyInfoInput{AccessKeyId: out.Credentials.AccessKeyId})
	if err != nil || *info.Account != account {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestExpiredSession(t *testing.T) {
	t.Parallel()
	const message = "The security token included in the request is expired"
	for _, mode := range []string{"signed", "dev"} {
		f := newFront(t, nil)
		if mode == "dev" {
			f = newFront(t, dev)
		}
		c, err := f.keys.Issue(keyring.Session{Principal: caller.ForRoot(account), Expires: time.Now().Add(-time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		as := static(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
		_, err = f.ecsAs(as).ListClusters(t.Context(), nil)
		wantAPIError(t, err, "ExpiredTokenException", message, 400)
		_, err = f.stsAs(as).GetCallerIdentity(t.Context(), nil)
		wantAPIError(t, err, "ExpiredToken", message, 403)
	}
}

// The operations that take no signature reach the service without one, and only they.
func TestUnsignedOperations(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	_, err := f.stsAs(aws.AnonymousCredentials{}).AssumeRoleWithWebIdentity(t.Context(), &sdksts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("me"), WebIdentityToken: aws.String("token")})
	wantAPIError(t, err, "UnsupportedOperationException", "", 400)
	_, err = f.stsAs(aws.AnonymousCredentials{}).AssumeRole(t.Context(), &sdksts.AssumeRoleInput{
		RoleArn: aws.String(roleARN), RoleSessionName: aws.String("me")})
	wantAPIError(t, err, "MissingAuthenticationToken", "", 403)
}
