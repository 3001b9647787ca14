package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdkecs "github.com/aws/aws-sdk-go-v2/service/ecs"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	apists "github.com/berthhq/berth/api/sts"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/sts"
)

const (
	account = "123456789012"
	region  = "eu-central-1"
)

// fakeECS answers a few operations and remembers who called.
type fakeECS struct {
	ecs.Unimplemented
	calls atomic.Int64
	mu    sync.Mutex
	last  caller.Principal
}

func (f *fakeECS) saw(ctx context.Context) (caller.Principal, error) {
	p, err := caller.From(ctx)
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = p
	return p, err
}

func (f *fakeECS) lastCaller() caller.Principal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *fakeECS) ListClusters(ctx context.Context, in *ecs.ListClustersInput) (*ecs.ListClustersOutput, error) {
	p, err := f.saw(ctx)
	if err != nil {
		return nil, err
	}
	return &ecs.ListClustersOutput{ClusterArns: []string{"arn:aws:ecs:" + p.Region + ":" + p.AccountID + ":cluster/default"}}, nil
}

func (f *fakeECS) DescribeTasks(ctx context.Context, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	if _, err := f.saw(ctx); err != nil {
		return nil, err
	}
	switch api.Value(in.Cluster) {
	case "missing":
		return nil, &ecs.ClusterNotFoundException{Message: "Cluster not found."}
	case "broken":
		return nil, errors.New("disk /var/secret is full")
	case "panic":
		panic("secret state")
	}
	return &ecs.DescribeTasksOutput{}, nil
}

// front is a gateway being tested, on loopback.
type front struct {
	*gateway.Gateway
	url  string
	ecs  *fakeECS
	keys *keyring.Keyring
	log  *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// lines are the log's entries with that message.
func (b *logBuffer) lines(t testing.TB, message string) (found []map[string]any) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	d := json.NewDecoder(bytes.NewReader(b.Bytes()))
	for d.More() {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatalf("log: %v", err)
		}
		if line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

func newFront(t testing.TB, change func(*gateway.Config)) *front {
	t.Helper()
	keys, err := keyring.Open(t.TempDir(), account)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{ecs: &fakeECS{}, keys: keys, log: &logBuffer{}}
	cfg := gateway.Config{Account: account, Region: region, Credentials: keys,
		Log: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&cfg)
	}
	if f.Gateway, err = gateway.New(cfg); err != nil {
		t.Fatal(err)
	}
	for _, s := range []gateway.Service{
		{Descriptor: ecs.Descriptor, Implementation: f.ecs},
		{Descriptor: apists.Descriptor, Implementation: sts.New(keys, cfg.Dev)},
	} {
		if err := f.Register(s); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(f.Gateway)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// as is an SDK configuration for the credentials; the root key's when nil.
func (f *front) as(c aws.CredentialsProvider) aws.Config {
	if c == nil {
		root := f.keys.Root()
		c = credentials.NewStaticCredentialsProvider(root.AccessKeyID, root.SecretAccessKey, "")
	}
	return aws.Config{Region: region, BaseEndpoint: &f.url, Credentials: c,
		Retryer: func() aws.Retryer { return aws.NopRetryer{} }}
}

func (f *front) ecsAs(c aws.CredentialsProvider) *sdkecs.Client { return sdkecs.NewFromConfig(f.as(c)) }
func (f *front) stsAs(c aws.CredentialsProvider) *sdksts.Client { return sdksts.NewFromConfig(f.as(c)) }

func static(id, secret, token string) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(id, secret, token)
}

// wantAPIError checks what the SDK made of an error.
func wantAPIError(t testing.TB, err error, code, message string, status int) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) {
		t.Fatalf("not an API error: %v", err)
	}
	if e.ErrorCode() != code || message != "" && e.ErrorMessage() != message {
		t.Errorf("got %s: %q, want %s: %q", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
	var r interface{ HTTPStatusCode() int }
	if errors.As(err, &r) && r.HTTPStatusCode() != status {
		t.Errorf("%s with HTTP status %d, want %d", code, r.HTTPStatusCode(), status)
	}
	var id interface{ ServiceRequestID() string }
	if errors.As(err, &id) && id.ServiceRequestID() == "" {
		t.Error("no request ID")
	}
}

// raw sends a request that no SDK would and returns the answer.
func (f *front) raw(t testing.TB, method, path string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, f.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v
		}
		r.Header.Set(k, v)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	return response, b.String()
}

// roundTrip is an HTTP client that only looks at requests.
type roundTrip func(*http.Request)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) {
	f(r)
	return nil, errors.New("not sent")
}
