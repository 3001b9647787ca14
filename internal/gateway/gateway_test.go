package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdkecs "github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/uuid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway"
)

const target = "AmazonEC2ContainerServiceV20141113."

const mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."

func TestSignedCallsByTheSDK(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	out, err := f.ecsAs(nil).ListClusters(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := "arn:aws:ecs:" + region + ":" + account + ":cluster/default"; out.ClusterArns[0] != want {
		t.Errorf("got %v", out.ClusterArns)
	}
	p := f.ecs.lastCaller()
	if p.Kind != caller.Root || p.AccountID != account || p.Region != region || p.AccessKeyID != f.keys.Root().AccessKeyID || uuid.Validate(p.RequestID) != nil {
		t.Errorf("called by %+v", p)
	}
	elsewhere := f.as(nil)
	elsewhere.Region = "ap-south-2"
	if _, err := sdkecs.NewFromConfig(elsewhere).ListClusters(t.Context(), nil); err != nil || f.ecs.lastCaller().Region != "ap-south-2" {
		t.Errorf("region %q, %v", f.ecs.lastCaller().Region, err)
	}
	who, err := f.stsAs(nil).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != "arn:aws:iam::"+account+":root" || *who.UserId != account || *who.Account != account {
		t.Errorf("%+v, %v", who, err)
	}
}

func TestErrorsAsTheSDKSeesThem(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	root := f.keys.Root()
	unknown := static("AKIAIOSFODNN7EXAMPLE", "secret", "")
	wrong := static(root.AccessKeyID, "wrong", "")
	badToken := static(root.AccessKeyID, root.SecretAccessKey, "bm9uc2Vuc2U=")
	list := func(c aws.CredentialsProvider) error {
		_, err := f.ecsAs(c).ListClusters(t.Context(), nil)
		return err
	}
	who := func(c aws.CredentialsProvider) error {
		_, err := f.stsAs(c).GetCallerIdentity(t.Context(), nil)
		return err
	}
	const invalidToken = "The security token included in the request is invalid."
	wantAPIError(t, list(unknown), "UnrecognizedClientException", invalidToken, 400)
	wantAPIError(t, who(unknown), "InvalidClientTokenId", invalidToken, 403)
	wantAPIError(t, list(wrong), "InvalidSignatureException", mismatch, 400)
	wantAPIError(t, who(wrong), "SignatureDoesNotMatch", mismatch, 403)
	wantAPIError(t, list(badToken), "UnrecognizedClientException", invalidToken, 400)
	wantAPIError(t, who(badToken), "InvalidClientTokenId", invalidToken, 403)
	wantAPIError(t, list(aws.AnonymousCredentials{}), "MissingAuthenticationTokenException", "Missing Authentication Token", 400)
	wantAPIError(t, who(aws.AnonymousCredentials{}), "MissingAuthenticationToken", "Missing Authentication Token", 403)
	if n := f.ecs.calls.Load(); n != 0 {
		t.Errorf("the service was called %d times", n)
	}

	describe := func(cluster string) error {
		_, err := f.ecsAs(nil).DescribeTasks(t.Context(), &sdkecs.DescribeTasksInput{Cluster: &cluster, Tasks: []string{"x"}})
		return err
	}
	err := describe("missing")
	wantAPIError(t, err, "ClusterNotFoundException", "Cluster not found.", 400)
	if typed := (*ecstypes.ClusterNotFoundException)(nil); !errors.As(err, &typed) {
		t.Errorf("the SDK did not recognize it: %T", err)
	}
	const failure = "The request processing has failed because of an unknown error, exception or failure."
	wantAPIError(t, describe("broken"), "ServerException", failure, 500)
	wantAPIError(t, describe("panic"), "ServerException", failure, 500)
	log := f.log.String()
	for _, want := range []string{"disk /var/secret is full", "secret state", "fakeECS).DescribeTasks"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	_, err = f.ecsAs(nil).UpdateService(t.Context(), &sdkecs.UpdateServiceInput{Service: aws.String("s")})
	wantAPIError(t, err, api.CodeUnimplemented, "", 400)
	_, err = f.ecsAs(nil).CreateCluster(t.Context(), &sdkecs.CreateClusterInput{
		Tags: []ecstypes.Tag{{Key: aws.String("bad!"), Value: aws.String("v")}}})
	wantAPIError(t, err, "InvalidParameterException",
		`1 validation error detected: Value 'bad!' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: ([\p{L}\p{Z}\p{N}_.:/=+\-@]*)`, 400)
	if got := f.log.String(); strings.Contains(got, root.SecretAccessKey) || strings.Contains(got, "bad!") {
		t.Error("the log holds secrets or inputs")
	}
}

// signed signs a request that no SDK would send, with the root key.
func (f *front) signed(t testing.TB, method, path, service string, header map[string]string, body string, at time.Time) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	sum := sha256.Sum256([]byte(body))
	root := f.keys.Root()
	err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: root.AccessKeyID, SecretAccessKey: root.SecretAccessKey},
		r, hex.EncodeToString(sum[:]), service, region, at)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(got)
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	const form = "application/x-www-form-urlencoded"
	now := time.Now()
	for _, c := range []struct {
		name, service   string
		target, content string
		body            string
		at              time.Time
		code, message   string
		status          int
	}{
		{"malformed JSON", "ecs", target + "ListClusters", "", `{"maxResults":`, now, "SerializationException", "", 400},
		{"not an object", "ecs", target + "ListClusters", "", `[1]`, now, "SerializationException", "", 400},
		{"wrong type", "ecs", target + "ListClusters", "", `{"maxResults":"ten"}`, now, "SerializationException", "", 400},
		{"garbage", "ecs", target + "ListClusters", "", "\x00\xff", now, "SerializationException", "", 400},
		{"wrong target", "ecs", "AmazonEC2ContainerServiceV19990101.ListClusters", "", `{}`, now, "UnknownOperationException", "", 400},
		{"no operation", "ecs", target, "", `{}`, now, "UnknownOperationException", "", 400},
		{"no target", "ecs", "", "", `{}`, now, "UnknownOperationException", "", 400},
		{"unknown operation", "ecs", target + "MakeCoffee", "", `{}`, now, "UnknownOperationException", "", 400},
		{"signed for another service", "sts", target + "ListClusters", "", `{}`, now, "InvalidSignatureException", "Credential should be scoped to correct service: 'ecs'. ", 400},
		{"expired", "ecs", target + "ListClusters", "", `{}`, now.Add(-16 * time.Minute), "InvalidSignatureException", "Signature expired: ", 400},
		{"from the future", "ecs", target + "ListClusters", "", `{}`, now.Add(16 * time.Minute), "InvalidSignatureException", "Signature not yet current: ", 400},
		{"oversized", "ecs", target + "ListClusters", "", `{"x":"` + strings.Repeat("a", gateway.DefaultMaxBody) + `"}`, now, "RequestEntityTooLargeException", "", 413},
		{"query: unknown action", "sts", "", form, "Action=MakeCoffee&Version=2011-06-15", now, "InvalidAction", "Could not find operation MakeCoffee for version 2011-06-15", 400},
		{"query: unknown version", "sts", "", form, "Action=GetCallerIdentity&Version=1999-01-01", now, "InvalidAction", "", 400},
		{"query: no action", "sts", "", form, "Version=2011-06-15", now, "", "", 0},
		{"query: malformed", "sts", "", form, "Action=GetCallerIdentity&Version=2011-06-15&X=%zz", now, "MalformedInput", "", 400},
		{"query: expired", "sts", "", form, "Action=GetCallerIdentity&Version=2011-06-15", now.Add(-16 * time.Minute), "SignatureDoesNotMatch", "Signature expired: ", 403},
		{"query: oversized", "sts", "", form, "Action=GetCallerIdentity&Version=2011-06-15&X=" + strings.Repeat("a", gateway.DefaultMaxBody), now, "RequestEntityTooLarge", "", 413},
		{"query: constraint", "sts", "", form, "Action=GetAccessKeyInfo&Version=2011-06-15&AccessKeyId=short", now, "ValidationError",
			"1 validation error detected: Value &#39;short&#39; at &#39;accessKeyId&#39; failed to satisfy constraint: Member must have length greater than or equal to 16", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			header := map[string]string{"Content-Type": "application/x-amz-json-1.1"}
			if c.content != "" {
				header["Content-Type"] = c.content
			}
			if c.target != "" {
				header["X-Amz-Target"] = c.target
			}
			response, body := f.signed(t, "POST", "/", c.service, header, c.body, c.at)
			if c.status == 0 {
				if response.StatusCode < 400 || response.StatusCode >= 500 {
					t.Fatalf("%d %s", response.StatusCode, body)
				}
				return
			}
			if response.StatusCode != c.status || response.Header.Get("X-Amzn-Requestid") == "" {
				t.Errorf("status %d, request ID %q", response.StatusCode, response.Header.Get("X-Amzn-Requestid"))
			}
			if c.content == form {
				if !strings.Contains(body, "<Code>"+c.code+"</Code>") || !strings.Contains(unescape(body), unescape(c.message)) {
					t.Errorf("%s", body)
				}
				return
			}
			var e struct {
				Type    string `json:"__type"`
				Message string
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Type != c.code || !strings.HasPrefix(e.Message, c.message) {
				t.Errorf("%v %s", err, body)
			}
		})
	}
}

func unescape(xml string) string {
	return strings.NewReplacer("&#39;", "'", "&apos;", "'").Replace(xml)
}

// A body over the limit is refused without being read, whether it announces its length or not.
func TestOversizedBodyIsNotRead(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	dial := func(header string) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: "+target+"ListClusters\r\n"+header+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return c, bufio.NewReader(c)
	}
	refused := func(r *bufio.Reader) {
		t.Helper()
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusRequestEntityTooLarge || !response.Close {
			t.Errorf("%s, closing: %v", response.Status, response.Close)
		}
	}
	// Not a byte of the body is sent, and the answer comes all the same.
	_, r := dial("Content-Length: 10737418240")
	refused(r)
	// One byte more than the limit is sent, and no end.
	c, r := dial("Transfer-Encoding: chunked")
	go fmt.Fprintf(c, "%x\r\n%s\r\n", gateway.DefaultMaxBody+1, make([]byte, gateway.DefaultMaxBody+1))
	refused(r)
}

func TestPresignedIdentity(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	// As EKS does it: a GET with a header of its own among those signed.
	u, err := sdksts.NewPresignClient(f.stsAs(nil)).PresignGetCallerIdentity(t.Context(), &sdksts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(u.Method, u.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range u.SignedHeader {
		r.Header[k] = v
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 || !strings.Contains(string(body), "arn:aws:iam::"+account+":root") {
		t.Errorf("%d %s %v", response.StatusCode, body, err)
	}
	// As Vault does it: a POST signed by one and sent by another.
	got, text := f.signed(t, "POST", "/", "sts", map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
		"Action=GetCallerIdentity&Version=2011-06-15", time.Now())
	if got.StatusCode != 200 || !strings.Contains(text, "<GetCallerIdentityResult>") {
		t.Errorf("%d %s", got.StatusCode, text)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	if _, err := f.ecsAs(nil).ListClusters(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ecsAs(static("AKIAIOSFODNN7EXAMPLE", "x", "")).ListClusters(t.Context(), nil); err == nil {
		t.Fatal("accepted")
	}
	lines := waitLines(t, f, 2)
	ok, refused := lines[0], lines[1]
	if ok["principal"] != "arn:aws:iam::"+account+":root" || ok["service"] != "ecs" || ok["operation"] != "ListClusters" || ok["status"] != 200.0 ||
		ok["region"] != region || ok["account"] != account || ok["requestId"] != f.ecs.lastCaller().RequestID || ok["code"] != nil {
		t.Errorf("%v", ok)
	}
	if refused["principal"] != nil || refused["code"] != "UnrecognizedClientException" || refused["claimedAccessKeyId"] != "AKIAIOSFODNN7EXAMPLE" || refused["status"] != 400.0 || refused["operation"] != "ListClusters" {
		t.Errorf("%v", refused)
	}
}

// waitLines waits for the audit, which follows the answer.
func waitLines(t *testing.T, f *front, n int) []map[string]any {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if lines := f.log.lines(t, "call"); len(lines) >= n {
			return lines
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %d lines of audit: %s", n, f.log)
		}
		time.Sleep(time.Millisecond)
	}
}

type denyWrites struct{}

func (denyWrites) Authorize(_ context.Context, c gateway.Call) error {
	if strings.HasPrefix(c.Operation.Name, "List") {
		return nil
	}
	return gateway.Denied(c)
}

func TestAuthorizerSeesEveryCall(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(c *gateway.Config) { c.Authorizer = denyWrites{} })
	if _, err := f.ecsAs(nil).ListClusters(t.Context(), nil); err != nil {
		t.Error(err)
	}
	_, err := f.ecsAs(nil).CreateCluster(t.Context(), nil)
	wantAPIError(t, err, "AccessDeniedException", "User: arn:aws:iam::"+account+":root is not authorized to perform: ecs:CreateCluster", 400)
	_, err = f.stsAs(nil).GetCallerIdentity(t.Context(), nil)
	wantAPIError(t, err, "AccessDenied", "User: arn:aws:iam::"+account+":root is not authorized to perform: sts:GetCallerIdentity", 403)
	inside := ecs.Client{Invoker: f.Inside("placer.berth.internal").At(account, region)}
	_, err = inside.CreateCluster(t.Context(), &ecs.CreateClusterInput{})
	if e := api.Error(nil); !errors.As(err, &e) || e.ErrorCode() != "AccessDeniedException" {
		t.Errorf("inside: %v", err)
	}
}

func TestInside(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	inside := f.Inside("dispatch.berth.internal")
	client := ecs.Client{Invoker: inside.At(account, "us-west-2")}
	out, err := client.ListClusters(t.Context(), &ecs.ListClustersInput{})
	if err != nil || out.ClusterArns[0] != "arn:aws:ecs:us-west-2:"+account+":cluster/default" {
		t.Fatalf("%v %v", out, err)
	}
	p := f.ecs.lastCaller()
	if p.Kind != caller.Service || p.ARN != "arn:aws:sts::"+account+":assumed-role/berth/dispatch.berth.internal" || uuid.Validate(p.RequestID) != nil {
		t.Errorf("%+v", p)
	}

	// Where the caller is, and tied to it in the audit.
	outer := caller.ForRoot("999999999999")
	outer.Region, outer.RequestID = "sa-east-1", "outer-request"
	out, err = ecs.Client{Invoker: inside}.ListClusters(caller.With(t.Context(), outer), &ecs.ListClustersInput{})
	if err != nil || out.ClusterArns[0] != "arn:aws:ecs:sa-east-1:999999999999:cluster/default" {
		t.Errorf("%v %v", out, err)
	}
	lines := f.log.lines(t, "call")
	if last := lines[len(lines)-1]; last["parent"] != "outer-request" || last["from"] != "inside" {
		t.Errorf("%v", last)
	}

	if _, err := (ecs.Client{Invoker: inside}).ListClusters(t.Context(), nil); err == nil {
		t.Error("a call aimed at no account was made")
	}
	for name, c := range map[string]struct{ code string }{"missing": {"ClusterNotFoundException"}, "broken": {"ServerException"}, "panic": {"ServerException"}} {
		_, err := client.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: &name, Tasks: []string{"x"}})
		if e := api.Error(nil); !errors.As(err, &e) || e.ErrorCode() != c.code || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = client.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{})
	if e := api.Error(nil); !errors.As(err, &e) || e.ErrorCode() != "InvalidParameterException" || !strings.Contains(e.ErrorMessage(), "Member must not be null") {
		t.Errorf("not validated: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = stopper{f}.call(canceled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cause is hidden inside the process: %v", err)
	}
}

// stopper calls an operation that fails with its context's error.
type stopper struct{ *front }

func (s stopper) call(ctx context.Context) (any, error) {
	op := *ecs.Descriptor.Operation("ListClusters")
	op.Invoke = func(ctx context.Context, _, _ any) (any, error) { return nil, ctx.Err() }
	return s.Inside("x").At(account, region).Invoke(ctx, &op, &ecs.ListClustersInput{})
}

func TestRegister(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	for name, s := range map[string]gateway.Service{
		"twice":      {Descriptor: ecs.Descriptor, Implementation: &fakeECS{}},
		"not of API": {Descriptor: &api.Service{Package: "x", Operations: ecs.Descriptor.Operations}, Implementation: struct{}{}},
		"nothing":    {Descriptor: &api.Service{Package: "y", Operations: ecs.Descriptor.Operations}},
	} {
		if err := f.Register(s); err == nil {
			t.Errorf("%s: registered", name)
		}
	}
	for _, c := range []gateway.Config{
		{}, {Account: "1", Region: region, Credentials: f.keys, Log: slog.Default()},
		{Account: account, Region: "EU WEST", Credentials: f.keys, Log: slog.Default()}, {Account: account, Region: region},
	} {
		if _, err := gateway.New(c); err == nil {
			t.Errorf("%+v: made", c)
		}
	}
}

// A service may take more than others; what it takes is not taken for them.
func TestBodyLimitOfAService(t *testing.T) {
	t.Parallel()
	keys := newFront(t, nil).keys
	g, err := gateway.New(gateway.Config{Account: account, Region: region, Credentials: keys, Log: slog.New(slog.DiscardHandler), Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	wide := *ecs.Descriptor
	wide.Package, wide.TargetPrefix, wide.SigningName = "wide", "Wide", "wide"
	for _, s := range []gateway.Service{
		{Descriptor: ecs.Descriptor, Implementation: &fakeECS{}},
		{Descriptor: &wide, Implementation: &fakeECS{}, MaxBody: 2 * gateway.DefaultMaxBody},
	} {
		if err := g.Register(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		prefix string
		size   int
		status int
	}{
		{target, gateway.DefaultMaxBody, 200}, {target, gateway.DefaultMaxBody + 1, 413},
		{"Wide.", gateway.DefaultMaxBody + 1, 200}, {"Wide.", 2 * gateway.DefaultMaxBody, 200}, {"Wide.", 2*gateway.DefaultMaxBody + 1, 413},
	} {
		body := "{}" + strings.Repeat(" ", c.size-2)
		r := httptest.NewRequest("POST", "http://localhost/", strings.NewReader(body))
		r.Header.Set("X-Amz-Target", c.prefix+"ListClusters")
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s with %d bytes: %d", c.prefix, c.size, w.Code)
		}
	}
}

func TestServeBoundsHeaders(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gateway.Serve(ctx, l, http.NotFoundHandler(), slog.New(slog.DiscardHandler)) }()
	r, err := http.NewRequest("GET", "http://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("a", 128<<10))
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(response.Status)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeEndsGracefully(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	began, done := make(chan struct{}), make(chan error, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-ctx.Done() // the order to stop comes while this call is in progress
		io.WriteString(w, "finished")
	})
	go func() { done <- gateway.Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	answer := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + l.Addr().String())
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		var b bytes.Buffer
		b.ReadFrom(response.Body)
		answer <- b.String()
	}()
	<-began
	stop()
	if got := <-answer; got != "finished" {
		t.Errorf("the call in progress got %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("still listening")
	}
}
