package s3_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	s3api "github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/s3"
	"github.com/berthhq/berth/internal/store"
)

const account = "123456789012"

// world is the service behind a real gateway, on loopback, and the SDK as its client.
type world struct {
	*sdk.Client
	service *s3.Service
	blobs   *blob.Dir
	gateway *gateway.Gateway
	keys    *keyring.Keyring
	url     string
}

func newWorld(t testing.TB, dev bool) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: log}, s3.Tables()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w := &world{}
	if w.blobs, err = blob.OpenDir(t.TempDir(), log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.blobs.Close() })
	if w.keys, err = keyring.Open(t.TempDir(), account); err != nil {
		t.Fatal(err)
	}
	if w.gateway, err = gateway.New(gateway.Config{Account: account, Region: "us-east-1", Credentials: w.keys, Log: log, Dev: dev}); err != nil {
		t.Fatal(err)
	}
	w.service = s3.New(s3.Config{Store: st, Blobs: w.blobs, Logger: log})
	if err := w.gateway.Register(gateway.Service{
		Descriptor: s3api.Descriptor, Implementation: w.service, MaxBody: s3.MaxBody, Invalid: s3.Invalid, Prepare: s3.Prepare(),
	}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.gateway)
	t.Cleanup(server.Close)
	w.url = server.URL
	w.Client = w.client()
	return w
}

func (w *world) client(change ...func(*sdk.Options)) *sdk.Client {
	root := w.keys.Root()
	return sdk.NewFromConfig(aws.Config{
		Region: "us-east-1", BaseEndpoint: &w.url,
		Credentials: credentials.NewStaticCredentialsProvider(root.AccessKeyID, root.SecretAccessKey, ""),
		Retryer:     func() aws.Retryer { return aws.NopRetryer{} },
	}, append([]func(*sdk.Options){func(o *sdk.Options) { o.UsePathStyle = true }}, change...)...)
}

func (w *world) bucket(t testing.TB, name string) *string {
	t.Helper()
	if _, err := w.CreateBucket(t.Context(), &sdk.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return &name
}

// wantError checks what the SDK made of an error.
func wantError(t testing.TB, err error, code string, status int) {
	t.Helper()
	var e smithy.APIError
	var r interface{ HTTPStatusCode() int }
	if !errors.As(err, &e) || e.ErrorCode() != code || !errors.As(err, &r) || r.HTTPStatusCode() != status {
		t.Errorf("got %v, want %s with status %d", err, code, status)
	}
}

func send(t testing.TB, r *http.Request) (int, string, http.Header) {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b), response.Header
}
