package s3_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/berthhq/berth/api"
	s3api "github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/caller"
)

func TestBuckets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	ctx := t.Context()
	w.bucket(t, "one")
	if _, err := w.CreateBucket(ctx, &sdk.CreateBucketInput{Bucket: aws.String("one")}); err != nil {
		t.Errorf("again in us-east-1: %v", err)
	}
	eu := w.client(func(o *sdk.Options) { o.Region = "eu-west-1" })
	in := &sdk.CreateBucketInput{Bucket: aws.String("two.eu"), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-west-1"}}
	if _, err := eu.CreateBucket(ctx, in); err != nil {
		t.Fatal(err)
	}
	_, err := eu.CreateBucket(ctx, in)
	wantError(t, err, "BucketAlreadyOwnedByYou", 409)
	_, err = eu.CreateBucket(ctx, &sdk.CreateBucketInput{Bucket: aws.String("three")})
	wantError(t, err, "IllegalLocationConstraintException", 400)
	for _, name := range []string{"Aa-a", "a_b", "192.168.1.1", "-ab", "ab-", "a..b", "xn--ab", "ab-s3alias", strings.Repeat("a", 64)} {
		_, err = w.CreateBucket(ctx, &sdk.CreateBucketInput{Bucket: &name})
		wantError(t, err, "InvalidBucketName", 400)
	}
	other := caller.With(ctx, caller.ForService("x", "999999999999", "us-east-1"))
	if _, err := w.service.CreateBucket(other, &s3api.CreateBucketInput{Bucket: aws.String("one")}); err == nil || !strings.HasPrefix(err.Error(), "BucketAlreadyExists") {
		t.Error(err)
	}
	if _, err := w.service.ListObjectsV2(other, &s3api.ListObjectsV2Input{Bucket: aws.String("one")}); err == nil || !strings.HasPrefix(err.Error(), "AccessDenied") {
		t.Error(err)
	}
	out, err := w.ListBuckets(ctx, &sdk.ListBucketsInput{})
	if err != nil || len(out.Buckets) != 2 || *out.Buckets[0].Name != "one" || time.Since(*out.Buckets[0].CreationDate) > time.Minute {
		t.Errorf("%+v, %v", out, err)
	}
	for name, want := range map[string]types.BucketLocationConstraint{"one": "", "two.eu": "eu-west-1"} {
		if out, err := w.GetBucketLocation(ctx, &sdk.GetBucketLocationInput{Bucket: &name}); err != nil || out.LocationConstraint != want {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
		if out, err := w.HeadBucket(ctx, &sdk.HeadBucketInput{Bucket: &name}); err != nil || want != "" && *out.BucketRegion != string(want) {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	put(t, w, "one", "k", "x")
	_, err = w.DeleteBucket(ctx, &sdk.DeleteBucketInput{Bucket: aws.String("one")})
	wantError(t, err, "BucketNotEmpty", 409)
	if err := w.service.Clear(ctx, account); err != nil {
		t.Fatal(err)
	}
	_, err = w.ListObjectsV2(ctx, &sdk.ListObjectsV2Input{Bucket: aws.String("one")})
	wantError(t, err, "NoSuchBucket", 404)
	for info, err := range w.blobs.List(ctx, "", "") {
		t.Errorf("left in bulk storage: %+v, %v", info, err)
	}
}

func put(t testing.TB, w *world, bucket, key, content string) {
	t.Helper()
	if _, err := w.PutObject(t.Context(), &sdk.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
}

// What an object is put with, it is got with; the SDK verifies the checksum on the way back.
func TestObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	ctx := t.Context()
	b := w.bucket(t, "objects")
	key := aws.String("dir//ä +&?%/../é")
	content := strings.Repeat("0123456789", 100_000)
	for _, algorithm := range []types.ChecksumAlgorithm{"CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"} {
		out, err := w.PutObject(ctx, &sdk.PutObjectInput{
			Bucket: b, Key: key, Body: strings.NewReader(content), ContentType: aws.String("text/x"), CacheControl: aws.String("no-cache"),
			Metadata: map[string]string{"Color": "dark blue"}, ChecksumAlgorithm: algorithm,
		})
		sum := md5.Sum([]byte(content))
		if err != nil || *out.ETag != `"`+hex.EncodeToString(sum[:])+`"` {
			t.Fatalf("%s: %+v, %v", algorithm, out, err)
		}
		got, err := w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil || string(body) != content || *got.ContentType != "text/x" || *got.CacheControl != "no-cache" || got.Metadata["color"] != "dark blue" || *got.ContentLength != int64(len(content)) {
			t.Errorf("%s: %+v, %v", algorithm, got, err)
		}
	}
	head, err := w.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: b, Key: key})
	if err != nil || *head.ContentLength != int64(len(content)) || head.Metadata["color"] != "dark blue" || time.Since(*head.LastModified) > time.Minute {
		t.Errorf("%+v, %v", head, err)
	}
	for header, want := range map[string]string{"bytes=0-4": "01234", "bytes=999995-": "56789", "bytes=-3": "789", "bytes=999999-2000000": "9", "nonsense": content} {
		got, err := w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, Range: &header})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: %.20s…, %v", header, body, err)
		}
	}
	_, err = w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, Range: aws.String("bytes=1000000-")})
	wantError(t, err, "InvalidRange", 416)
	_, err = w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, IfMatch: aws.String(`"x"`)})
	wantError(t, err, "PreconditionFailed", 412)
	_, err = w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, IfNoneMatch: head.ETag})
	wantError(t, err, "NotModified", 304)
	_, err = w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, IfModifiedSince: head.LastModified})
	wantError(t, err, "NotModified", 304)
	_, err = w.PutObject(ctx, &sdk.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("y"), IfNoneMatch: aws.String("*")})
	wantError(t, err, "PreconditionFailed", 412)
	_, err = w.PutObject(ctx, &sdk.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("y"), ContentMD5: aws.String("1B2M2Y8AsgTpgAmY7PhCfg==")})
	wantError(t, err, "BadDigest", 400)
	_, err = w.PutObject(ctx, &sdk.PutObjectInput{Bucket: b, Key: aws.String(strings.Repeat("k", 1025)), Body: strings.NewReader("y")})
	wantError(t, err, "KeyTooLongError", 400)
	_, err = w.PutObject(ctx, &sdk.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("y"), ServerSideEncryption: types.ServerSideEncryptionAwsKms})
	wantError(t, err, "NotImplemented", 501)
	_, err = w.PutObject(ctx, &sdk.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("y"), ACL: types.ObjectCannedACLPublicRead})
	wantError(t, err, "AccessControlListNotSupported", 400)
	_, err = w.GetObjectAcl(ctx, &sdk.GetObjectAclInput{Bucket: b, Key: key})
	wantError(t, err, "UnsupportedOperationException", 400)
	longest := strings.Repeat("ä/", 341) + "b"
	put(t, w, *b, longest, "deep")

	copied, err := w.CopyObject(ctx, &sdk.CopyObjectInput{Bucket: b, Key: aws.String("copy"), CopySource: aws.String(*b + "/" + url.PathEscape(*key))})
	if err != nil || *copied.CopyObjectResult.ETag != *head.ETag {
		t.Fatalf("%+v, %v", copied, err)
	}
	if got, err := w.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: b, Key: aws.String("copy")}); err != nil || got.Metadata["color"] != "dark blue" || *got.ContentType != "text/x" {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = w.CopyObject(ctx, &sdk.CopyObjectInput{Bucket: b, Key: aws.String("copy"), CopySource: aws.String(*b + "/copy")})
	wantError(t, err, "InvalidRequest", 400)

	if _, err := w.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: b, Key: key}); err != nil {
		t.Error(err)
	}
	_, err = w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key})
	wantError(t, err, "NoSuchKey", 404)
	_, err = w.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: b, Key: key})
	wantError(t, err, "NotFound", 404)
	_, err = w.GetObject(ctx, &sdk.GetObjectInput{Bucket: aws.String("no-such"), Key: key})
	wantError(t, err, "NoSuchBucket", 404)
	deleted, err := w.DeleteObjects(ctx, &sdk.DeleteObjectsInput{Bucket: b, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("copy")}, {Key: aws.String("never & <there>")}, {Key: &longest}}}})
	if err != nil || len(deleted.Deleted) != 3 || *deleted.Deleted[1].Key != "never & <there>" || len(deleted.Errors) > 0 {
		t.Errorf("%+v, %v", deleted, err)
	}
	if _, err := w.DeleteBucket(ctx, &sdk.DeleteBucketInput{Bucket: b}); err != nil {
		t.Error(err)
	}
}

// A stream of unknown length comes in signed chunks or with its checksum behind it.
func TestStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	b := w.bucket(t, "streams")
	content := bytes.Repeat([]byte("chunks"), 50_000)
	for name, swap := range map[string]func(*sdk.Options){
		"trailer":  func(*sdk.Options) {},
		"unsigned": sdk.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware),
	} {
		// A reader that cannot seek makes the SDK send aws-chunked, which it does over TLS only, or unsigned.
		_, err := w.client(swap).PutObject(t.Context(), &sdk.PutObjectInput{Bucket: b, Key: &name, Body: bytes.NewReader(content)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	sendChunked(t, w, *b, "signed", content, nil, 200, "")
	sendChunked(t, w, *b, "tampered", content, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, 403, "SignatureDoesNotMatch")
	sendChunked(t, w, *b, "cut", content, func(b []byte) []byte { return b[:len(b)-100] }, 400, "IncompleteBody")
	out, err := w.ListObjectsV2(t.Context(), &sdk.ListObjectsV2Input{Bucket: b})
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
		if *o.Size != int64(len(content)) {
			t.Errorf("%s has %d bytes", *o.Key, *o.Size)
		}
	}
	if !slices.Equal(keys, []string{"signed", "trailer", "unsigned"}) {
		t.Errorf("%q", keys)
	}
}

// Presigned URLs work for who has them, and are bound to what was signed.
func TestPresigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	b := w.bucket(t, "presigned")
	p := sdk.NewPresignClient(w.Client)
	key := aws.String("a b/ü+c")
	u, err := p.PresignPutObject(t.Context(), &sdk.PutObjectInput{Bucket: b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest(u.Method, u.URL, strings.NewReader("by URL"))
	r.Header = u.SignedHeader.Clone()
	if status, body, _ := send(t, r); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	g, err := p.PresignGetObject(t.Context(), &sdk.GetObjectInput{Bucket: b, Key: key, ResponseContentDisposition: aws.String("attachment")})
	if err != nil {
		t.Fatal(err)
	}
	r, _ = http.NewRequest("GET", g.URL, nil)
	status, body, header := send(t, r)
	if status != 200 || body != "by URL" || header.Get("Content-Disposition") != "attachment" || header.Get("X-Amz-Request-Id") == "" {
		t.Errorf("%d %s %v", status, body, header)
	}
	r, _ = http.NewRequest("GET", strings.Replace(g.URL, "attachment", "inline", 1), nil)
	if status, body, _ := send(t, r); status != 403 || !strings.Contains(body, "<Code>SignatureDoesNotMatch</Code>") {
		t.Errorf("%d %s", status, body)
	}
	r, _ = http.NewRequest("GET", w.url+"/presigned/x", nil)
	if status, body, _ := send(t, r); status != 403 || !strings.Contains(body, "<Code>AccessDenied</Code>") {
		t.Errorf("anonymous: %d %s", status, body)
	}
}

// In dev mode a bucket can be the host's first name, and nothing needs a signature.
func TestVirtualHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	w.bucket(t, "virtual.host")
	for host, path := range map[string]string{
		"virtual.host.localhost": "/k%2Fx", "virtual.host.s3.localhost:4566": "/k/x", "virtual.host.s3.us-east-1.localhost": "/k/x", "localhost": "/virtual.host/k/x",
	} {
		r, _ := http.NewRequest("PUT", w.url+path, strings.NewReader(host))
		r.Host = host
		if status, body, _ := send(t, r); status != 200 {
			t.Errorf("%s: %d %s", host, status, body)
		}
		r, _ = http.NewRequest("GET", w.url+path, nil)
		r.Host = host
		if status, body, _ := send(t, r); status != 200 || body != host {
			t.Errorf("%s: %d %s", host, status, body)
		}
	}
	out, err := w.ListObjectsV2(t.Context(), &sdk.ListObjectsV2Input{Bucket: aws.String("virtual.host")})
	if err != nil || len(out.Contents) != 1 || *out.Contents[0].Key != "k/x" {
		t.Errorf("%+v, %v", out, err)
	}
}

// The pages of a listing together are what a plain filter of the keys gives.
func TestListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	b := w.bucket(t, "listing")
	keys := []string{"a", "a/", "a/1", "a/2", "a/b/c", "a0", "b&<>", "c/\x01", "c/+ %", "ü/1", "ü/2"}
	for i := range 80 { // more below one prefix than a listing passes by one by one
		keys = append(keys, fmt.Sprintf("many/%03d", i))
	}
	keys = append(keys, "many0", "z")
	slices.Sort(keys)
	by := caller.With(t.Context(), caller.ForRoot(account))
	for _, k := range keys {
		if _, err := w.service.PutObject(by, &s3api.PutObjectInput{Bucket: b, Key: &k, Body: strings.NewReader(k)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"", "a", "a/", "many", "ü", "c/", "none"} {
		for _, delimiter := range []string{"", "/", "b", "/0"} {
			var want []string
			for _, k := range keys {
				rest, ok := strings.CutPrefix(k, prefix)
				if !ok {
					continue
				}
				if i := strings.Index(rest, delimiter); delimiter != "" && i >= 0 {
					k = "P:" + prefix + rest[:i+len(delimiter)]
				}
				if !slices.Contains(want, k) {
					want = append(want, k)
				}
			}
			slices.Sort(want)
			for _, size := range []int32{1, 3, 1000} {
				var v1, v2 []string
				in := &sdk.ListObjectsV2Input{Bucket: b, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &size, EncodingType: types.EncodingTypeUrl}
				decode := func(s *string) string { plain, _ := url.QueryUnescape(*s); return plain }
				for {
					out, err := w.ListObjectsV2(t.Context(), in)
					if err != nil {
						t.Fatal(err)
					}
					for _, o := range out.Contents {
						v2 = append(v2, decode(o.Key))
					}
					for _, p := range out.CommonPrefixes {
						v2 = append(v2, "P:"+decode(p.Prefix))
					}
					if n := len(out.Contents) + len(out.CommonPrefixes); n > int(size) || int32(n) != *out.KeyCount {
						t.Fatalf("a page of %d for %d, counted %d", n, size, *out.KeyCount)
					}
					if !*out.IsTruncated {
						break
					}
					in.ContinuationToken = out.NextContinuationToken
				}
				marker := ""
				for {
					out, err := w.service.ListObjects(by, &s3api.ListObjectsInput{Bucket: b, Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &size, Marker: &marker})
					if err != nil {
						t.Fatal(err)
					}
					for _, o := range out.Contents {
						v1 = append(v1, *o.Key)
						marker = *o.Key
					}
					for _, p := range out.CommonPrefixes {
						v1 = append(v1, "P:"+*p.Prefix)
					}
					if !*out.IsTruncated {
						break
					}
					marker = *out.NextMarker
				}
				slices.Sort(v1)
				slices.Sort(v2)
				if !slices.Equal(v1, want) || !slices.Equal(v2, want) {
					t.Fatalf("prefix %q, delimiter %q, pages of %d:\nV1 %q\nV2 %q\nwant %q", prefix, delimiter, size, v1, v2, want)
				}
			}
		}
	}
	_, err := w.ListObjectsV2(t.Context(), &sdk.ListObjectsV2Input{Bucket: b, ContinuationToken: aws.String("!")})
	wantError(t, err, "InvalidArgument", 400)
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	ctx := t.Context()
	b, key := w.bucket(t, "multipart"), aws.String("big")
	part := bytes.Repeat([]byte("p"), 5<<20)
	for _, c := range []struct {
		algorithm types.ChecksumAlgorithm
		typ       types.ChecksumType
	}{{"", ""}, {"CRC32", ""}, {"SHA256", "COMPOSITE"}, {"CRC64NVME", "FULL_OBJECT"}} {
		up, err := w.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{Bucket: b, Key: key, ChecksumAlgorithm: c.algorithm, ChecksumType: c.typ, ContentType: aws.String("x/y")})
		if err != nil {
			t.Fatal(err)
		}
		var parts []types.CompletedPart
		for i, content := range [][]byte{part, []byte("end")} {
			n := int32(i*2 + 1)
			out, err := w.UploadPart(ctx, &sdk.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: &n, Body: bytes.NewReader(content), ChecksumAlgorithm: c.algorithm})
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, types.CompletedPart{PartNumber: &n, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32, ChecksumSHA256: out.ChecksumSHA256, ChecksumCRC64NVME: out.ChecksumCRC64NVME})
		}
		complete := func(parts ...types.CompletedPart) (*sdk.CompleteMultipartUploadOutput, error) {
			return w.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
		}
		_, err = complete(parts[1], parts[0])
		wantError(t, err, "InvalidPartOrder", 400)
		_, err = complete(parts[0], types.CompletedPart{PartNumber: parts[1].PartNumber, ETag: aws.String("x")})
		wantError(t, err, "InvalidPart", 400)
		listed, err := w.ListParts(ctx, &sdk.ListPartsInput{Bucket: b, Key: key, UploadId: up.UploadId})
		if err != nil || len(listed.Parts) != 2 || *listed.Parts[1].PartNumber != 3 || *listed.Parts[1].Size != 3 {
			t.Errorf("%+v, %v", listed, err)
		}
		done, err := complete(parts...)
		if err != nil || !strings.HasSuffix(*done.ETag, `-2"`) {
			t.Fatalf("%+v: %+v, %v", c, done, err)
		}
		if composite := done.ChecksumType == types.ChecksumTypeComposite; c.algorithm != "" && composite != (c.algorithm != "CRC64NVME") {
			t.Errorf("%+v: %+v", c, done)
		}
		got, err := w.GetObject(ctx, &sdk.GetObjectInput{Bucket: b, Key: key, ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil || len(body) != 5<<20+3 || string(body[5<<20:]) != "end" || *got.ContentType != "x/y" || *got.ETag != *done.ETag {
			t.Errorf("%+v: %d bytes, %+v, %v", c, len(body), got, err)
		}
		_, err = complete(parts...)
		wantError(t, err, "NoSuchUpload", 404)
	}
	up, err := w.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{Bucket: b, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	small, err := w.UploadPartCopy(ctx, &sdk.UploadPartCopyInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String("multipart/big"), CopySourceRange: aws.String("bytes=0-9")})
	if err != nil {
		t.Fatal(err)
	}
	last, err := w.UploadPart(ctx, &sdk.UploadPartInput{Bucket: b, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(2), Body: strings.NewReader("x")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{
		{PartNumber: aws.Int32(1), ETag: small.CopyPartResult.ETag}, {PartNumber: aws.Int32(2), ETag: last.ETag}}}})
	wantError(t, err, "EntityTooSmall", 400)
	if _, err := w.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId}); err != nil {
		t.Error(err)
	}
	_, err = w.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: b, Key: key, UploadId: up.UploadId})
	wantError(t, err, "NoSuchUpload", 404)
	n := 0
	for range w.blobs.List(ctx, "", "") {
		n++
	}
	if n != 1 {
		t.Errorf("%d blobs for one object", n)
	}
}

// A call inside streams too, as whoever the part of Berth is.
func TestInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	b := w.bucket(t, "inside")
	client := s3api.Client{Invoker: w.gateway.Inside("test.berth.internal").At(account, "us-east-1")}
	if _, err := client.PutObject(t.Context(), &s3api.PutObjectInput{Bucket: b, Key: api.Ptr("k"), Body: strings.NewReader("v")}); err != nil {
		t.Fatal(err)
	}
	out, err := client.GetObject(t.Context(), &s3api.GetObjectInput{Bucket: b, Key: api.Ptr("k")})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if body, err := io.ReadAll(out.Body); err != nil || string(body) != "v" {
		t.Errorf("%q, %v", body, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.PutObject(ctx, &s3api.PutObjectInput{Bucket: b, Key: api.Ptr("k"), Body: strings.NewReader("w")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
