package sigv4

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	testKey    = "AKIAIOSFODNN7EXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// job is one request to be signed by the SDK.
type job struct {
	method, url     string
	header          http.Header
	body            []byte
	region, service string
	token           string
	presign         bool
	payload         string // in place of the body's hash
	at              time.Time
}

// sign has the SDK sign j and returns the request as a server reads it off the wire.
func (j job) sign(t testing.TB) (*http.Request, bool) {
	t.Helper()
	req, err := http.NewRequest(j.method, j.url, bytes.NewReader(j.body))
	if err != nil {
		return nil, false
	}
	for k, v := range j.header {
		req.Header[k] = v
	}
	if j.at.IsZero() {
		j.at = time.Now()
	}
	hash := j.payload
	switch {
	case hash == "" && j.presign && j.service == "s3":
		hash = UnsignedPayload
	case hash == "":
		hash = hashOf(j.body)
	default:
		req.Header.Set("X-Amz-Content-Sha256", hash)
	}
	creds := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret, SessionToken: j.token}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = j.service == "s3" })
	if j.presign {
		u, headers, err := signer.PresignHTTP(context.Background(), creds, req, hash, j.service, j.region, j.at)
		if err != nil {
			t.Fatalf("presign: %v", err)
		}
		if req.URL, err = url.Parse(u); err != nil {
			t.Fatalf("the SDK's own URL %q: %v", u, err)
		}
		req.Header = headers
	} else if err := signer.SignHTTP(context.Background(), creds, req, hash, j.service, j.region, j.at); err != nil {
		t.Fatalf("sign: %v", err)
	}
	return overTheWire(t, req)
}

// overTheWire sends req through its own serialization.
func overTheWire(t testing.TB, req *http.Request) (*http.Request, bool) {
	var wire bytes.Buffer
	if err := req.Write(&wire); err != nil {
		return nil, false
	}
	got, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		return nil, false
	}
	return got, true
}

// verify does what the gateway does.
func verify(t testing.TB, v *Verifier, r *http.Request, service string) error {
	t.Helper()
	s, err := Parse(r)
	if err != nil {
		return err
	}
	if s.AccessKeyID != testKey {
		return ErrUnknownKey()
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return v.Verify(r, s, testSecret, service, hashOf(body))
}

func TestSignedBySDK(t *testing.T) {
	t.Parallel()
	target := http.Header{"X-Amz-Target": {"Svc_1.Op"}, "Content-Type": {"application/x-amz-json-1.1"}}
	for name, j := range map[string]job{
		"json":             {method: "POST", url: "http://h:4566/", header: target, body: []byte(`{"a":1}`), region: "us-east-1", service: "ecs"},
		"empty body":       {method: "POST", url: "http://h/", region: "us-east-1", service: "ecs"},
		"default port":     {method: "GET", url: "http://h:80/x", region: "us-east-1", service: "ecs"},
		"IPv6 host":        {method: "GET", url: "http://[::1]:4566/x", region: "us-east-1", service: "ecs"},
		"session":          {method: "POST", url: "http://h/", token: "to/ken+==", region: "eu-west-1", service: "sts"},
		"query":            {method: "GET", url: "http://h/?b=2&a=%20x&a=%2B&empty=&flag", region: "us-east-1", service: "sts"},
		"escaped path":     {method: "GET", url: "http://h/a%20b/c%2Fd/é", region: "us-east-1", service: "ecs"},
		"dotted path":      {method: "GET", url: "http://h/a/../b//c/./", region: "us-east-1", service: "ecs"},
		"s3 path":          {method: "GET", url: "http://h/bucket/a%20b//c/../d", region: "us-east-1", service: "s3", payload: UnsignedPayload},
		"s3 unsigned":      {method: "PUT", url: "http://h/bucket/k", body: []byte("x"), region: "us-east-1", service: "s3", payload: UnsignedPayload},
		"s3 signed":        {method: "PUT", url: "http://h/bucket/k", body: []byte("x"), region: "us-east-1", service: "s3", payload: hashOf([]byte("x"))},
		"spaces in header": {method: "GET", url: "http://h/", header: http.Header{"X-Custom": {"  a   b  "}, "X-Two": {"1", "2"}}, region: "us-east-1", service: "ecs"},
		"14 minutes old":   {method: "GET", url: "http://h/", region: "us-east-1", service: "ecs", at: time.Now().Add(-14 * time.Minute)},
		"14 minutes ahead": {method: "GET", url: "http://h/", region: "us-east-1", service: "ecs", at: time.Now().Add(14 * time.Minute)},
	} {
		for _, presign := range []bool{false, true} {
			j := j
			j.presign = presign
			t.Run(name+map[bool]string{true: ", presigned"}[presign], func(t *testing.T) {
				t.Parallel()
				r, ok := j.sign(t)
				if !ok {
					t.Fatal("not a request")
				}
				var v Verifier
				for range 2 { // the second time with the cached key
					if err := verify(t, &v, r, j.service); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	base := job{method: "POST", url: "http://h/?X=1", body: []byte("{}"), region: "us-east-1", service: "ecs",
		header: http.Header{"X-Amz-Target": {"S.Op"}}}
	presigned := base
	presigned.presign = true
	long := presigned
	long.url = "http://h/?X-Amz-Expires=604800"
	authorization := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		}
	}
	query := func(old, new string) func(*http.Request) {
		return func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, old, new, 1) }
	}
	at := func(j job, d time.Duration) job { j.at = time.Now().Add(d); return j }
	for _, c := range []struct {
		name   string
		job    job
		change func(*http.Request)
		fault  Fault
		text   string
	}{
		{"no signature", base, func(r *http.Request) { r.Header.Del("Authorization") }, MissingToken, "Missing Authentication Token"},
		{"other scheme", base, func(r *http.Request) { r.Header.Set("Authorization", "Bearer abc") }, Incomplete, "Unsupported AWS 'algorithm'"},
		{"both kinds", presigned, func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x=y") }, Incomplete, "Only one auth mechanism"},
		{"two headers", base, func(r *http.Request) { r.Header.Add("Authorization", "AWS4-HMAC-SHA256 x=y") }, Incomplete, "Only one auth mechanism"},
		{"no credential", base, authorization("Credential=", "Nothing="), Incomplete, "Authorization header requires 'Credential' parameter."},
		{"no signed headers", base, authorization("SignedHeaders=", "Nothing="), Incomplete, "Authorization header requires 'SignedHeaders' parameter."},
		{"no signature part", base, authorization("Signature=", "Nothing="), Incomplete, "Authorization header requires 'Signature' parameter."},
		{"no date", base, func(r *http.Request) { r.Header.Del("X-Amz-Date") }, Incomplete, "'X-Amz-Date' or a 'Date' header"},
		{"bad date", base, func(r *http.Request) { r.Header.Set("X-Amz-Date", "yesterday") }, Incomplete, "ISO-8601"},
		{"short scope", base, authorization("/aws4_request", ""), Incomplete, "exactly 5 slash-delimited"},
		{"other terminator", base, authorization("/aws4_request", "/aws5_request"), Invalid, "terminator"},
		{"scope of another day", base, authorization("/"+time.Now().UTC().Format(dateFormat)+"/", "/20200101/"), Invalid, "Date in Credential scope does not match"},
		{"bad region", base, authorization("us-east-1", "US_EAST"), Invalid, "scoped to a valid region"},
		{"another region", base, authorization("us-east-1", "us-east-2"), Invalid, "does not match the signature you provided"},
		{"another service", base, authorization("/ecs/", "/sts/"), Invalid, "Credential should be scoped to correct service: 'ecs'"},
		{"host not signed", base, authorization(";host;", ";"), Invalid, "'Host' or ':authority' must be a 'SignedHeader'"},
		{"target not signed", base, authorization(";x-amz-target", ""), Invalid, "'x-amz-target' must be a 'SignedHeader'"},
		{"token added", base, func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t") }, Invalid, "'x-amz-security-token' must be"},
		{"upper-case signature", base, func(r *http.Request) {
			a, b, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", a+"Signature="+strings.ToUpper(b))
		}, Invalid, "does not match"},
		{"body changed", base, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("[]")) }, Invalid, "does not match"},
		{"body changed under a declared hash", job{method: "PUT", url: "http://h/b/k", body: []byte("x"), region: "us-east-1", service: "s3", payload: hashOf([]byte("x"))},
			func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("y")) }, Invalid, "'x-amz-content-sha256' header does not match"},
		{"chunked", job{method: "PUT", url: "http://h/b/k", region: "us-east-1", service: "s3", payload: "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}, nil, UnsupportedPayload, "signed in this way"},
		{"nonsense hash", job{method: "PUT", url: "http://h/b/k", region: "us-east-1", service: "s3", payload: "abc"}, nil, Incomplete, "must be UNSIGNED-PAYLOAD"},
		{"broken query", base, func(r *http.Request) { r.URL.RawQuery = "a=%zz" }, Incomplete, "percent-encoded"},
		{"too old", at(base, -16*time.Minute), nil, Invalid, "Signature expired: "},
		{"too new", at(base, 16*time.Minute), nil, Invalid, "Signature not yet current: "},
		{"presigned, too old", at(presigned, -16*time.Minute), nil, Invalid, "Signature expired: "},
		{"presigned for a week, too old", at(long, -7*24*time.Hour-time.Minute), nil, Invalid, "Signature expired: "},
		{"presigned, too new", at(presigned, 16*time.Minute), nil, Invalid, "Signature not yet current: "},
		{"presigned for longer than a week", presigned, query("X=1", "X=1&X-Amz-Expires=604801"), Incomplete, "less than a week"},
		{"presigned for nonsense", presigned, query("X=1", "X=1&X-Amz-Expires=-1"), Incomplete, "should be a number"},
		{"presigned, lifetime changed", presigned, query("X=1", "X=1&X-Amz-Expires=9"), Invalid, "does not match"},
		{"presigned, two signatures", presigned, query("X=1", "X=1&X-Amz-Signature=00"), Incomplete, "exactly once"},
		{"presigned, algorithm", presigned, query("SHA256", "SHA512"), Incomplete, "only supports"},
		{"presigned, date", presigned, query("X-Amz-Date=2", "X-Amz-Date=x"), Incomplete, "ISO8601"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, ok := c.job.sign(t)
			if !ok {
				t.Fatal("not a request")
			}
			if c.change != nil {
				c.change(r)
			}
			var v Verifier
			err := verify(t, &v, r, c.job.service)
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Fault != c.fault || !strings.Contains(refusal.Message, c.text) {
				t.Fatalf("got %v, want %s: …%s…", err, c.fault, c.text)
			}
			if len(v.keys.young) > 0 {
				t.Error("a refused request put its key into the cache")
			}
		})
	}
}

// A presigned GetCallerIdentity serves as a token (EKS, Vault); its X-Amz-Expires of 60 s is not
// enforced by STS, that of other services is.
func TestPresignedLifetime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		service, expires string
		age              time.Duration
		ok               bool
	}{
		{"sts", "60", 14 * time.Minute, true},
		{"sts", "604800", 16 * time.Minute, false},
		{"s3", "60", 30 * time.Second, true},
		{"s3", "60", 2 * time.Minute, false},
		{"s3", "604800", 6 * 24 * time.Hour, true},
	} {
		j := job{method: "GET", url: "http://h/?X-Amz-Expires=" + c.expires, region: "us-east-1", service: c.service,
			presign: true, at: time.Now().Add(-c.age)}
		r, _ := j.sign(t)
		if err := verify(t, new(Verifier), r, c.service); (err == nil) != c.ok {
			t.Errorf("%s, expires %s, age %s: %v", c.service, c.expires, c.age, err)
		}
	}
}

// What botocore signs differs from what the Go SDK signs where the path has empty or relative
// segments.
func TestNormalizedPath(t *testing.T) {
	t.Parallel()
	j := job{method: "GET", url: "http://h/b/c/", region: "us-east-1", service: "ecs"}
	r, _ := j.sign(t)
	r.URL.Path, r.RequestURI = "/a/..//b/./c/", "/a/..//b/./c/"
	if err := verify(t, new(Verifier), r, "ecs"); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"/": "/", "//": "/", "/..": "/", "/a/..": "/", "/a/b/../c": "/a/c", "/a//": "/a/"} {
		if got := normalize(in); got != want {
			t.Errorf("normalize(%q) = %q, want %q", in, got, want)
		}
	}
}

// Old signers give the time in Date, and with it the day of the scope.
func TestDateHeader(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for value, ok := range map[string]bool{
		"20260304T050607Z": true, "Wed, 04 Mar 2026 05:06:07 GMT": true, "2026-03-04T05:06:07Z": false, "": false,
	} {
		got, err := headerTime(http.Header{"Date": {value}})
		if (err == nil) != ok || ok && !got.Equal(want) {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	if got, err := headerTime(http.Header{"Date": {"Wed, 04 Mar 2020 05:06:07 GMT"}, "X-Amz-Date": {"20260304T050607Z"}}); err != nil || !got.Equal(want) {
		t.Errorf("X-Amz-Date does not prevail: %v, %v", got, err)
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault       Fault
		json        string
		jsonStatus  int
		query       string
		queryStatus int
	}{
		{MissingToken, "MissingAuthenticationTokenException", 400, "MissingAuthenticationToken", 403},
		{Incomplete, "IncompleteSignatureException", 400, "IncompleteSignature", 400},
		{Invalid, "InvalidSignatureException", 400, "SignatureDoesNotMatch", 403},
		{UnknownKey, "UnrecognizedClientException", 400, "InvalidClientTokenId", 403},
		{ExpiredToken, "ExpiredTokenException", 400, "ExpiredToken", 403},
		{UnsupportedPayload, "NotImplementedException", 501, "NotImplemented", 501},
	} {
		e := &Error{Fault: c.fault}
		if code, status := e.Code(JSON); code != c.json || status != c.jsonStatus {
			t.Errorf("%s: JSON %s %d", c.fault, code, status)
		}
		if code, status := e.Code(Query); code != c.query || status != c.queryStatus {
			t.Errorf("%s: Query %s %d", c.fault, code, status)
		}
	}
}

func TestKeyCacheIsBounded(t *testing.T) {
	t.Parallel()
	var c keyCache
	hot := keyID{secret: "hot"}
	c.put(hot, []byte("k"))
	for i := range 3 * maxKeys {
		c.put(keyID{secret: string(rune(i))}, nil)
		if _, ok := c.get(hot); !ok {
			t.Fatalf("a key in use fell out after %d others", i)
		}
		if n := len(c.young) + len(c.old); n > maxKeys {
			t.Fatalf("%d keys kept", n)
		}
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header, query string
		key           string
		scope         Scope
	}{
		"nothing":   {},
		"full":      {header: "AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-1/ecs/aws4_request, SignedHeaders=host, Signature=x", key: "AK", scope: Scope{"20260101", "eu-west-1", "ecs"}},
		"cut short": {header: "AWS4-HMAC-SHA256 Credential=AK/2026", key: "AK", scope: Scope{Date: "2026"}},
		"hostile":   {header: "AWS4-HMAC-SHA256 Credential=A\"K/x/../ecs", scope: Scope{Date: "x", Service: "ecs"}},
		"other":     {header: "Bearer x"},
		"presigned": {query: "X-Amz-Credential=AK%2F20260101%2Feu-west-1%2Fsts%2Faws4_request", key: "AK", scope: Scope{"20260101", "eu-west-1", "sts"}},
	} {
		r, _ := http.NewRequest("GET", "http://h/?"+c.query, nil)
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		if key, _, scope := Claim(r); key != c.key || scope != c.scope {
			t.Errorf("%s: got %q %v", name, key, scope)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	r, _ := job{method: "POST", url: "http://h:4566/", body: make([]byte, 1024), region: "us-east-1", service: "ecs",
		header: http.Header{"X-Amz-Target": {"S.Op"}, "Content-Type": {"application/x-amz-json-1.1"}}}.sign(b)
	var v Verifier
	hash := hashOf(make([]byte, 1024))
	b.ReportAllocs()
	for b.Loop() {
		s, err := Parse(r)
		if err == nil {
			err = v.Verify(r, s, testSecret, "ecs", hash)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
