package sigv4

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

func chunkedRequest(payload, decoded, trailer, body string) (*http.Request, string) {
	r, _ := http.NewRequest("PUT", "http://h/b/k", io.NopCloser(strings.NewReader(body)))
	if decoded != "" {
		r.Header.Set("X-Amz-Decoded-Content-Length", decoded)
	}
	if trailer != "" {
		r.Header.Set("X-Amz-Trailer", trailer)
	}
	return r, payload
}

const unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

func TestUnsignedChunks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		decoded, trailer, body string
		want, code             string
	}{
		"one":              {"5", "", "5\r\nhello\r\n0\r\n\r\n", "hello", ""},
		"two":              {"6", "", "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", "abcdef", ""},
		"empty":            {"0", "", "0\r\n\r\n", "", ""},
		"trailer":          {"1", "x-amz-checksum-crc32", "1\r\na\r\n0\r\nx-amz-checksum-crc32:6Le+Qw==\r\n\r\n", "a", ""},
		"trailer missing":  {"1", "x-amz-checksum-crc32", "1\r\na\r\n0\r\n\r\n", "", "MalformedTrailerError"},
		"trailer unknown":  {"1", "", "1\r\na\r\n0\r\nx-other:1\r\n\r\n", "", "MalformedTrailerError"},
		"no length":        {"", "", "0\r\n\r\n", "", "MissingContentLength"},
		"longer than said": {"1", "", "2\r\nab\r\n0\r\n\r\n", "", "IncompleteBody"},
		"shorter":          {"3", "", "2\r\nab\r\n0\r\n\r\n", "", "IncompleteBody"},
		"no size":          {"3", "", "\r\nab\r\n0\r\n\r\n", "", "InvalidRequest"},
		"negative":         {"3", "", "-1\r\nab\r\n0\r\n\r\n", "", "InvalidRequest"},
		"huge":             {"3", "", "ffffffffffffffff\r\nab\r\n", "", "InvalidRequest"},
		"bytes left over":  {"2", "", "2\r\nabc\r\n0\r\n\r\n", "", "InvalidRequest"},
		"endless line":     {"2", "", strings.Repeat("0", 9000), "", "InvalidRequest"},
	} {
		r, payload := chunkedRequest(unsignedTrailer, c.decoded, c.trailer, c.body)
		b, err := NewBody(r, payload, nil)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(iotest.OneByteReader(b))
		}
		code := ""
		if wrong := (*Error)(nil); errors.As(err, &wrong) {
			code, _ = wrong.Code(S3)
		}
		if code != c.code || code == "" && (err != nil || string(got) != c.want) {
			t.Errorf("%s: %q, %v; want %q, %s", name, got, err, c.want, c.code)
		}
		if c.trailer != "" && err == nil && b.Trailer("X-Amz-Checksum-Crc32") != "6Le+Qw==" {
			t.Errorf("%s: trailers %v", name, b.trailers)
		}
	}
	r, payload := chunkedRequest(unsignedTrailer, "9", "", "5\r\nhel")
	b, _ := NewBody(r, payload, nil)
	if _, err := io.ReadAll(b); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
}

// The example of the S3 API reference, "Signature calculations for the authorization header: transferring
// payload in multiple chunks": 65,536 and 1,024 letters a.
func TestSignedChunks(t *testing.T) {
	t.Parallel()
	const seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
	chunk := func(n int, signature string) string {
		return strconv.FormatInt(int64(n), 16) + ";chunk-signature=" + signature + "\r\n" + strings.Repeat("a", n) + "\r\n"
	}
	body := chunk(65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648") +
		chunk(1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497") +
		chunk(0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9")
	read := func(body string) ([]byte, error) {
		r, payload := chunkedRequest("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "66560", "", body)
		scope := Scope{"20130524", "us-east-1", "s3"}
		b, err := NewBody(r, payload, &Chain{key: signingKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", scope),
			time: "20130524T000000Z", scope: scope.String(), previous: seed})
		if err != nil {
			t.Fatal(err)
		}
		return io.ReadAll(b)
	}
	if got, err := read(body); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("a"), 66560)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, at := range []int{30, 100, 65536, 66000, len(body) - 10} {
		spoilt := []byte(body)
		spoilt[at] ^= 1
		if _, err := read(string(spoilt)); err == nil {
			t.Errorf("byte %d changed, and nobody noticed", at)
		}
	}
}

// FuzzChunks: a decoder gives no more than was announced, and io.EOF for nothing but a whole body.
func FuzzChunks(f *testing.F) {
	f.Add("5\r\nhello\r\n0\r\n\r\n", "5", "")
	f.Add("1\r\na\r\n0\r\nx-amz-checksum-crc32:6Le+Qw==\r\n\r\n", "1", "x-amz-checksum-crc32")
	f.Add("5;chunk-signature=00\r\nhello\r\n0;chunk-signature=00\r\n\r\n", "5", "")
	f.Fuzz(func(t *testing.T, body, decoded, trailer string) {
		for _, kind := range []string{unsignedTrailer, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"} {
			for _, chain := range []*Chain{nil, {key: []byte("k")}} {
				r, payload := chunkedRequest(kind, decoded, trailer, body)
				b, err := NewBody(r, payload, chain)
				if err != nil {
					continue
				}
				got, err := io.ReadAll(b)
				if int64(len(got)) > b.decoded || err == nil && int64(len(got)) != b.decoded {
					t.Fatalf("%q announced as %s gives %d bytes, %v", body, decoded, len(got), err)
				}
				if err == nil && chain != nil && b.frame.signed {
					t.Fatalf("%q is taken for signed", body)
				}
			}
		}
	})
}
