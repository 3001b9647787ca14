package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdkecs "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/berthhq/berth/api/ecs"
	apists "github.com/berthhq/berth/api/sts"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/gateway/keyring"
	"github.com/berthhq/berth/internal/sts"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
	}), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// bare is a gateway with no listener and nothing built behind it.
func bare(t testing.TB, dev bool) *gateway.Gateway {
	keys, err := keyring.Open(t.TempDir(), account)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Account: account, Region: region, Credentials: keys, Log: slog.New(slog.DiscardHandler), Dev: dev})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []gateway.Service{
		{Descriptor: ecs.Descriptor, Implementation: &fakeECS{}},
		{Descriptor: apists.Descriptor, Implementation: sts.New(keys, dev)},
	} {
		if err := g.Register(s); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// FuzzGateway: whatever comes in, the answer is one of AWS's, with a request ID; it is never a fault of
// ours; and without a signature nothing succeeds outside dev mode.
func FuzzGateway(f *testing.F) {
	for _, s := range [][6]string{
		{"POST", "/", target + "ListClusters", "application/x-amz-json-1.1", "AWS4-HMAC-SHA256 Credential=a/20200101/r/ecs/aws4_request", `{"maxResults":1}`},
		{"POST", "/", target + "RegisterTaskDefinition", "application/x-amz-json-1.1", "", `{"family":"f","containerDefinitions":[{"name":"a","environment":[{}]}]}`},
		{"POST", "/", "", "application/x-www-form-urlencoded", "", "Action=AssumeRole&Version=2011-06-15&Tags.member.1.Key=a&RoleArn=arn:aws:iam::123456789012:role/x&RoleSessionName=me"},
		{"GET", "/?Action=GetCallerIdentity&Version=2011-06-15", "", "", "", ""},
		{"GET", "/_berth/health", "", "", "", ""},
		{"OPTIONS", "*", "", "", "", ""},
	} {
		f.Add(s[0], s[1], s[2], s[3], s[4], s[5])
	}
	open, shut := bare(f, true), bare(f, false)
	f.Fuzz(func(t *testing.T, method, path, target, content, authorization, body string) {
		send := func(g *gateway.Gateway) *httptest.ResponseRecorder {
			r, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
			if err != nil || r.URL.Hostname() != "localhost" {
				t.Skip("not a request")
			}
			r.RequestURI = r.URL.RequestURI()
			for k, v := range map[string]string{"X-Amz-Target": target, "Content-Type": content, "Authorization": authorization} {
				if v != "" {
					r.Header.Set(k, v)
				}
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			return w
		}
		for _, g := range []*gateway.Gateway{open, shut} {
			w := send(g)
			id := w.Header()["X-Amzn-Requestid"]
			if len(id) != 1 || uuid.Validate(id[0]) != nil {
				t.Fatalf("request ID %q", id)
			}
			answer, _ := io.ReadAll(w.Body)
			if w.Code >= 500 {
				t.Fatalf("%d %s", w.Code, answer)
			}
			if g == shut && w.Code < 300 && !strings.HasPrefix(path, "/_berth") && !strings.Contains(path, "_berth/health") {
				t.Fatalf("unsigned, and yet: %s", answer)
			}
		}
	})
}

// BenchmarkCall is a signed call's way through the gateway, without network or service.
func BenchmarkCall(b *testing.B) {
	f := newFront(b, func(c *gateway.Config) { c.Log = slog.New(slog.DiscardHandler) })
	var seen *http.Request
	var body []byte
	client := f.as(nil)
	client.HTTPClient = roundTrip(func(r *http.Request) {
		seen = r.Clone(b.Context())
		body, _ = io.ReadAll(r.Body)
	})
	sdkecs.NewFromConfig(client).ListClusters(b.Context(), nil) // not sent, only signed
	b.ReportAllocs()
	for b.Loop() {
		r := seen.Clone(b.Context())
		r.Host, r.Body = seen.URL.Host, io.NopCloser(strings.NewReader(string(body)))
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
