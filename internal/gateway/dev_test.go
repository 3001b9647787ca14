package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway"
)

func dev(c *gateway.Config) { c.Dev = true }

func TestDevAcceptsAnyCredentials(t *testing.T) {
	t.Parallel()
	f := newFront(t, dev)
	for name, c := range map[string]struct {
		key     aws.CredentialsProvider
		account string
	}{
		"any key":           {static("test", "test", ""), account},
		"a wrong secret":    {static(f.keys.Root().AccessKeyID, "wrong", ""), account},
		"any token":         {static("ASIAIOSFODNN7EXAMPLE", "x", "token"), account},
		"an account as key": {static("000000000042", "x", ""), "000000000042"},
		"thirteen digits":   {static("0000000000421", "x", ""), account},
		"no signature":      {aws.AnonymousCredentials{}, account},
		"the real root key": {nil, account},
	} {
		who, err := f.stsAs(c.key).GetCallerIdentity(t.Context(), nil)
		if err != nil || *who.Account != c.account || *who.Arn != "arn:aws:iam::"+c.account+":root" {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
		if _, err := f.ecsAs(c.key).ListClusters(t.Context(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without a signature the region is the server's.
	response, body := f.raw(t, "POST", "/", map[string]string{"X-Amz-Target": target + "ListClusters"}, "{}")
	if response.StatusCode != 200 || !strings.Contains(body, "arn:aws:ecs:"+region+":"+account) {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	// Nor is a broken one looked at.
	header := map[string]string{"X-Amz-Target": target + "ListClusters",
		"Authorization": "AWS4-HMAC-SHA256 Credential=000000000007/20200101/us-gov-west-1/ecs/aws4_request, SignedHeaders=, Signature=zz"}
	if response, body = f.raw(t, "POST", "/", header, "{}"); !strings.Contains(body, "arn:aws:ecs:us-gov-west-1:000000000007") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	// A session that was issued is honoured, of any account.
	role, err := f.stsAs(nil).AssumeRole(t.Context(), &sdksts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::999999999999:role/other"), RoleSessionName: aws.String("dev")})
	if err != nil {
		t.Fatal(err)
	}
	who, err := f.stsAs(static(*role.Credentials.AccessKeyId, "wrong", *role.Credentials.SessionToken)).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != "arn:aws:sts::999999999999:assumed-role/other/dev" {
		t.Errorf("%+v, %v", who, err)
	}
}

// What a web page could have a browser send is refused before anything is done.
func TestDevKeepsBrowsersOut(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(c *gateway.Config) { c.Dev, c.AllowedHosts = true, []string{"berth.internal"} })
	f.Mount("POST /_berth/reset", f.Authenticated(f.Reset(func(context.Context, string) error {
		t.Error("state was reset")
		return nil
	})))
	host := strings.TrimPrefix(f.url, "http://")
	_, port, _ := strings.Cut(host, ":")
	for name, c := range map[string]struct {
		header  map[string]string
		refused bool
	}{
		"plain":                       {nil, false},
		"localhost":                   {map[string]string{"Host": "localhost:" + port}, false},
		"a name below localhost":      {map[string]string{"Host": "s3.LOCALHOST.:" + port}, false},
		"IPv6 loopback":               {map[string]string{"Host": "[::1]:" + port}, false},
		"a host that is allowed":      {map[string]string{"Host": "berth.internal"}, false},
		"same origin":                 {map[string]string{"Origin": f.url, "Sec-Fetch-Site": "same-origin"}, false},
		"typed into a browser":        {map[string]string{"Sec-Fetch-Site": "none"}, false},
		"rebound name":                {map[string]string{"Host": "evil.example:" + port}, true},
		"name like localhost":         {map[string]string{"Host": "localhost.evil.example"}, true},
		"notlocalhost":                {map[string]string{"Host": "notlocalhost"}, true},
		"address of another":          {map[string]string{"Host": "192.0.2.1"}, true},
		"cross-site":                  {map[string]string{"Sec-Fetch-Site": "cross-site"}, true},
		"same site":                   {map[string]string{"Sec-Fetch-Site": "same-site"}, true},
		"another origin":              {map[string]string{"Origin": "https://evil.example"}, true},
		"opaque origin":               {map[string]string{"Origin": "null"}, true},
		"another port's origin":       {map[string]string{"Origin": "http://127.0.0.1:1"}, true},
		"origin that is not a URL":    {map[string]string{"Origin": "http://%zz"}, true},
		"another origin to localhost": {map[string]string{"Origin": "http://127.0.0.1:1", "Host": "localhost:" + port}, true},
	} {
		for _, path := range []string{"/?Action=GetCallerIdentity&Version=2011-06-15", "/_berth/health"} {
			response, body := f.raw(t, "GET", path, c.header, "")
			if refused := response.StatusCode == http.StatusForbidden; refused != c.refused || !refused && response.StatusCode != 200 {
				t.Errorf("%s, %s: %d %s", name, path, response.StatusCode, body)
			}
			if response.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: CORS was allowed", name)
			}
		}
		if c.refused {
			if response, _ := f.raw(t, "POST", "/_berth/reset", c.header, ""); response.StatusCode != 403 {
				t.Errorf("%s: reset answered %d", name, response.StatusCode)
			}
		}
	}
	if response, _ := f.raw(t, "OPTIONS", "/", map[string]string{"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, ""); response.StatusCode < 400 {
		t.Errorf("preflight answered %d", response.StatusCode)
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1:4566": true, "[::1]:4566": true, "localhost:4566": true,
		"0.0.0.0:4566": false, "[::]:4566": false, ":4566": false, "192.0.2.1:4566": false, "nonsense": false,
	} {
		if got := gateway.IsLoopback(addr); got != want {
			t.Errorf("IsLoopback(%q) = %v", addr, got)
		}
	}
}

func TestCheckListen(t *testing.T) {
	t.Parallel()
	for addr, ok := range map[string]bool{
		"127.0.0.1:4566": true, "127.8.8.8:1": true, "[::1]:4566": true, "localhost:4566": true, "[::ffff:127.0.0.1]:1": true,
		"0.0.0.0:4566": false, ":4566": false, "[::]:4566": false, "192.168.1.1:4566": false, "example.com:4566": false, "4566": false,
	} {
		if err := gateway.CheckListen(addr, true); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := gateway.CheckListen("0.0.0.0:4566", false); err != nil {
		t.Error(err)
	}
}

// Should dev mode be made to listen elsewhere all the same, it serves nobody there.
func TestDevServesLoopbackOnly(t *testing.T) {
	t.Parallel()
	g := bare(t, true)
	for ip, status := range map[string]int{"127.0.0.1": 200, "::1": 200, "192.0.2.1": 403, "0.0.0.0": 403} {
		r := httptest.NewRequest("GET", "http://localhost/_berth/health", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(ip), Port: 4566}))
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s: %d", ip, w.Code)
		}
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	f := newFront(t, dev)
	var cleared atomic.Value
	fail := errors.New("disk at /secret")
	f.Mount("POST /_berth/reset", f.Authenticated(f.Reset(func(ctx context.Context, account string) error {
		cleared.Store(account)
		if account == "000000000500" {
			return fail
		}
		return ctx.Err()
	})))
	response, body := f.raw(t, "POST", "/_berth/reset", nil, "")
	if response.StatusCode != 200 || cleared.Load() != account || !strings.Contains(body, account) {
		t.Errorf("%d %s, cleared %v", response.StatusCode, body, cleared.Load())
	}
	response, _ = f.signed(t, "POST", "/_berth/reset", "berth", nil, "", time.Now())
	if response.StatusCode != 200 {
		t.Errorf("signed: %d", response.StatusCode)
	}
	auth := func(key string) map[string]string {
		return map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=" + key + "/20200101/us-east-1/berth/aws4_request"}
	}
	if f.raw(t, "POST", "/_berth/reset", auth("000000000042"), ""); cleared.Load() != "000000000042" {
		t.Errorf("cleared %v", cleared.Load())
	}
	response, body = f.raw(t, "POST", "/_berth/reset", auth("000000000500"), "")
	if response.StatusCode != 500 || strings.Contains(body, "/secret") || !strings.Contains(body, "InternalFailure") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if response, _ = f.raw(t, "GET", "/_berth/reset", nil, ""); response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", response.StatusCode)
	}
}

func TestRoomsNeedASignature(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.Mount("/_berth/who", f.Authenticated(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := caller.From(r.Context())
		if err != nil {
			panic(err)
		}
		json.NewEncoder(w).Encode(p)
	})))
	f.Mount("/_berth/panic", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret") }))
	reset := f.Authenticated(f.Reset(func(context.Context, string) error { t.Error("state was reset"); return nil }))
	f.Mount("/_berth/reset", reset)

	if response, body := f.raw(t, "GET", "/_berth/who", nil, ""); response.StatusCode != 400 || !strings.Contains(body, "MissingAuthenticationTokenException") {
		t.Errorf("unsigned: %d %s", response.StatusCode, body)
	}
	if response, body := f.signed(t, "POST", "/_berth/who", "ecs", nil, "body", time.Now()); response.StatusCode != 400 || !strings.Contains(body, "scoped to correct service: 'berth'") {
		t.Errorf("signed for ecs: %d %s", response.StatusCode, body)
	}
	response, body := f.signed(t, "POST", "/_berth/who", "berth", nil, "body", time.Now())
	var p caller.Principal
	if err := json.Unmarshal([]byte(body), &p); err != nil || response.StatusCode != 200 || p.Kind != caller.Root || p.Region != region ||
		p.RequestID != response.Header.Get("X-Amzn-Requestid") || p.RequestID == "" {
		t.Errorf("%d %s %v", response.StatusCode, body, err)
	}
	if response, body := f.signed(t, "POST", "/_berth/reset", "berth", nil, "", time.Now()); response.StatusCode != 403 {
		t.Errorf("reset outside dev mode: %d %s", response.StatusCode, body)
	}
	if response, body := f.raw(t, "GET", "/_berth/panic", nil, ""); response.StatusCode != 500 || strings.Contains(body, "secret") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if response, _ := f.raw(t, "GET", "/_berth/nothing", nil, ""); response.StatusCode != 404 {
		t.Errorf("%d", response.StatusCode)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var sick atomic.Bool
	f := newFront(t, func(c *gateway.Config) {
		c.Health = func(context.Context) error {
			if sick.Load() {
				return errors.New("no space left on /secret")
			}
			return nil
		}
	})
	response, body := f.raw(t, "GET", "/_berth/health", nil, "")
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "application/json" || strings.TrimSpace(body) != `{"dev":false,"services":["ecs","sts"],"status":"ok"}` {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	sick.Store(true)
	if response, body := f.raw(t, "GET", "/_berth/health", nil, ""); response.StatusCode != 503 || strings.Contains(body, "secret") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}
