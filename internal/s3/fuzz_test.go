package s3

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzRange: whatever a Range header says, what it is taken for is a part of the object.
func FuzzRange(f *testing.F) {
	for _, h := range []string{"bytes=0-", "bytes=-1", "bytes=1-2", "bytes=2-1", "bytes=-0", "bytes=0-99999999999999999999", "bytes=1-2,3-4", "bytes=--1", "x", "bytes= 1-2"} {
		f.Add(h, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 || size > 1<<50 {
			return
		}
		s, ok, err := parseRange(header, size)
		if ok && (err != nil || s.from < 0 || s.length < 1 || s.from+s.length > size) {
			t.Fatalf("%q of %d is %+v, %v", header, size, s, err)
		}
	})
}

// FuzzHost: a host's name moves nothing but a valid bucket to the path, and keeps the rest of it.
func FuzzHost(f *testing.F) {
	for _, h := range []string{"b.localhost", "bucket.s3.localhost:80", "a.b.c.localhost", "localhost", "127.0.0.1:1", "[::1]:80", "..localhost", "x/y.localhost"} {
		f.Add(h, "/k%2F/x")
	}
	f.Fuzz(func(t *testing.T, host, path string) {
		u, err := url.ParseRequestURI("/" + strings.TrimPrefix(path, "/"))
		if err != nil || u.Host != "" {
			return
		}
		before := u.EscapedPath()
		r := &http.Request{Host: host, URL: u}
		Prepare("example.com")(r)
		after := r.URL.EscapedPath()
		if after == before {
			return
		}
		bucket := strings.TrimSuffix(strings.TrimPrefix(after, "/"), before)
		if "/"+bucket+before != after || !validBucketName(bucket) {
			t.Fatalf("%q %q becomes %q", host, before, after)
		}
	})
}
