package sigv4

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzSDK has the SDK sign a random request, which must verify, and then changes one bit of it, after
// which it must not.
func FuzzSDK(f *testing.F) {
	f.Add(byte(1), "/", "", "X-Amz-Target", "S.Op", []byte("{}"), byte(0), "", false, uint32(0))
	f.Add(byte(0), "/a b/%2F/../é", "b=2&a=1&a=%20", "X-Odd", "  a   b ", []byte(nil), byte(1), "token", true, uint32(77))
	f.Add(byte(2), "/k//", "x;y=1&%zz", "Content-Type", "text/plain", []byte("body"), byte(2), "t/+=", false, uint32(4242))
	f.Add(byte(3), "/bucket/k+v", "X-Amz-Expires=3000", "X-Amz-Meta-A", "v", []byte("body"), byte(3), "", true, uint32(99))
	methods := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"}
	services := []string{"ecs", "sts", "s3", "execute-api"}
	regions := []string{"us-east-1", "eu-central-1", "local"}
	f.Fuzz(func(t *testing.T, method byte, path, query, name, value string, body []byte, scope byte, token string, presign bool, bit uint32) {
		u := url.URL{Scheme: "http", Host: "127.0.0.1:4566", Path: "/" + strings.TrimPrefix(path, "/"), RawQuery: query}
		if p, err := url.PathUnescape(u.Path); err == nil {
			u.RawPath, u.Path = u.Path, p
		}
		j := job{
			method: methods[int(method)%len(methods)], url: u.String(), body: body, token: token, presign: presign,
			region: regions[int(scope)%len(regions)], service: services[int(scope)%len(services)], header: http.Header{},
		}
		if j.service == "s3" && scope&64 != 0 {
			j.payload = UnsignedPayload
		}
		if reserved := []string{"authorization", "host", "content-length", "connection", "transfer-encoding", "trailer", "user-agent",
			"x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "x-amzn-trace-id", "expect", "x-amz-algorithm",
			"x-amz-signature", "x-amz-credential", "x-amz-signedheaders", "x-amz-expires", "date", "pragma", "cache-control", "cookie"}; !slices.Contains(reserved, strings.ToLower(name)) && name != "" {
			j.header.Set(name, value)
		}
		for k := range j.header {
			if !isWord(k, 1, 100) {
				t.Skip("not a header name")
			}
		}
		if strings.Contains(strings.ToLower(query+name), "x-amz-") && !strings.HasPrefix(query, "X-Amz-Expires=3000") {
			t.Skip("collides with the signature's own parameters")
		}
		if len(token) > 1000 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Skip("not a token")
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			t.Skip("net/http would rewrite the header's value after it was signed")
		}
		r, ok := j.sign(t)
		if !ok {
			t.Skip("not a request")
		}
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			t.Skip("not a query")
		}
		var v Verifier
		if err := verify(t, &v, r, j.service); err != nil {
			t.Fatalf("signed by the SDK, refused: %v\n%s %s\n%v", err, r.Method, r.RequestURI, r.Header)
		}

		var wire bytes.Buffer
		if err := r.Clone(t.Context()).Write(&wire); err != nil {
			t.Skip("cannot be written again")
		}
		r.Body = io.NopCloser(bytes.NewReader(body)) // Clone shares it, Write drained it
		raw := slices.Clone(wire.Bytes())
		raw[int(bit/8)%len(raw)] ^= 1 << (bit % 8)
		changed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		got, err := io.ReadAll(changed.Body)
		if err != nil {
			return
		}
		changed.Body = io.NopCloser(bytes.NewReader(got))
		if same(t, r, changed, j) {
			return // in what its signature is to cover
		}
		if err := verify(t, &v, changed, j.service); err == nil {
			t.Fatalf("bit %d changed and still accepted:\n%q\n%q", bit, wire.Bytes(), raw)
		} else if refusal := (*Error)(nil); !errors.As(err, &refusal) {
			t.Fatalf("not a refusal: %v", err)
		}
	})
}

// same tells whether two requests mean the same: a space more or less around a header's value, a
// header that is never signed, an escape written in another case, a body that is not signed.
func same(t *testing.T, a, b *http.Request, j job) bool {
	t.Helper()
	meaning := func(r *http.Request) string {
		var parts []string
		for k, vs := range r.Header {
			switch k {
			case "User-Agent", "Connection", "Content-Length":
				continue
			case "Authorization":
				vs = []string{strings.Join(strings.FieldsFunc(vs[0], func(c rune) bool { return c == ' ' || c == ',' }), " ")}
				if !strings.Contains(r.Header.Get(k), ",") {
					return "broken"
				}
			}
			if !slices.Contains(signed(a), strings.ToLower(k)) && k != "Authorization" && !strings.HasPrefix(k, "X-Amz-") {
				continue
			}
			for i := range vs {
				parts = append(parts, k+":"+trimSpaces(vs[i]))
			}
		}
		slices.Sort(parts)
		path := requestPath(r)
		if j.service == "s3" {
			path, _ = url.PathUnescape(path)
		}
		sig, _ := parseQuery(r.URL.RawQuery)
		s, _ := sig.get("X-Amz-Signature")
		parts = append(parts, r.Method, path, r.Host, canonicalQuery(r.URL.RawQuery), s)
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if j.payload == "" && !(j.presign && j.service == "s3") {
			parts = append(parts, string(body))
		}
		return strings.Join(parts, "\n")
	}
	return meaning(a) == meaning(b)
}

func signed(r *http.Request) []string {
	s, err := Parse(r)
	if err != nil {
		return nil
	}
	return s.signedHeaders
}

// FuzzParse: nothing a client sends makes the parser do anything but answer or refuse, and what it
// accepts is fit to be part of an ARN.
func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/ecs/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "", "20260101T000000Z")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK/20260101/us-east-1/ecs/aws4_request&X-Amz-Date=20260101T000000Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0", "")
	f.Fuzz(func(t *testing.T, authorization, query, date string) {
		r := &http.Request{Method: "POST", Host: "h", URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{}, Body: http.NoBody}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		r.Header.Set("X-Amz-Date", date)
		_, _, scope := Claim(r)
		for _, s := range []string{scope.Region, scope.Service} {
			if s != "" && !isName(s) {
				t.Fatalf("claimed %q", s)
			}
		}
		s, err := Parse(r)
		var refusal *Error
		if err != nil {
			if !errors.As(err, &refusal) || refusal.Message == "" {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		if !isName(s.Scope.Region) || !isName(s.Scope.Service) || s.AccessKeyID == "" {
			t.Fatalf("accepted %+v", s)
		}
		if err := new(Verifier).Verify(r, s, testSecret, s.Scope.Service, hashOf(nil)); err == nil {
			t.Fatal("forged")
		}
	})
}
