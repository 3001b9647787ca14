package s3_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// sendChunked puts an object in signed chunks, as "Signature calculations for the authorization header:
// transferring payload in multiple chunks" of the S3 API reference has it. change may spoil the body.
func sendChunked(t *testing.T, w *world, bucket, key string, content []byte, change func([]byte) []byte, status int, code string) {
	t.Helper()
	const kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	now := time.Now().UTC()
	r, err := http.NewRequest("PUT", w.url+"/"+bucket+"/"+key, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Content-Sha256", kind)
	r.Header.Set("X-Amz-Decoded-Content-Length", strconv.Itoa(len(content)))
	r.Header.Set("Content-Encoding", "aws-chunked")
	root := w.keys.Root()
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: root.AccessKeyID, SecretAccessKey: root.SecretAccessKey}, r, kind, "s3", "us-east-1", now); err != nil {
		t.Fatal(err)
	}
	_, previous, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		io.WriteString(h, text)
		return h.Sum(nil)
	}
	hash := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	signing := []byte("AWS4" + root.SecretAccessKey)
	for _, part := range []string{now.Format("20060102"), "us-east-1", "s3", "aws4_request"} {
		signing = mac(signing, part)
	}
	var body bytes.Buffer
	for rest := content; ; {
		chunk := rest[:min(len(rest), 64<<10)]
		rest = rest[len(chunk):]
		previous = hex.EncodeToString(mac(signing, "AWS4-HMAC-SHA256-PAYLOAD\n"+now.Format("20060102T150405Z")+"\n"+
			now.Format("20060102")+"/us-east-1/s3/aws4_request\n"+previous+"\n"+hash(nil)+"\n"+hash(chunk)))
		fmt.Fprintf(&body, "%x;chunk-signature=%s\r\n%s\r\n", len(chunk), previous, chunk)
		if len(chunk) == 0 {
			break
		}
	}
	b := body.Bytes()
	if change != nil {
		b = change(b)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	if got, text, _ := send(t, r); got != status || !strings.Contains(text, code) {
		t.Errorf("%s: %d %s, want %d %s", key, got, text, status, code)
	}
}
