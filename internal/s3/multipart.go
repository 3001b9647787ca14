package s3

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/checksum"
)

const (
	maxParts = 10_000
	minPart  = 5 << 20 // of any part but the last

	// What an upload's record keeps beside what its object will be.
	uploadKey       = "upload:key"
	uploadType      = "upload:type"
	uploadAlgorithm = "upload:algorithm"
)

// upload is one that was begun and neither completed nor aborted.
type upload struct {
	bucket *Bucket
	id     string
	object string // where the object will be
	key    string
	record blob.Info
}

func (b *Bucket) upload(id string) string    { return b.uploads() + id + "/upload" }
func (u *upload) part(n int) string          { return u.bucket.uploads() + u.id + fmt.Sprintf("/%05d", n) }
func (u *upload) algorithm() string          { return u.record.Metadata[uploadAlgorithm] }
func (u *upload) checksumType() string       { return u.record.Metadata[uploadType] }
func partNumber(blobKey string) (int, error) { return strconv.Atoi(blobKey[len(blobKey)-5:]) }

// upload finds an upload of a key.
func (s *Service) upload(ctx context.Context, b *Bucket, key, id *string) (*upload, error) {
	object, err := objectKey(b, key)
	if err != nil {
		return nil, err
	}
	unknown := fail(404, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
		api.Detail{Name: "UploadId", Value: api.Value(id)})
	if len(api.Value(id)) != 26 || strings.Trim(*id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return nil, unknown
	}
	record, err := s.blobs.Stat(ctx, b.upload(*id))
	if errors.Is(err, blob.ErrNotFound) || err == nil && record.Metadata[uploadKey] != *key {
		return nil, unknown
	}
	if err != nil {
		return nil, err
	}
	return &upload{bucket: b, id: *id, object: object, key: *key, record: record}, nil
}

// CreateMultipartUpload begins an upload.
func (s *Service) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput) (*s3.CreateMultipartUploadOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	if _, err := objectKey(b, in.Key); err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	o, err := options(in)
	if err != nil {
		return nil, err
	}
	typ := in.ChecksumType
	if a := in.ChecksumAlgorithm; a != "" {
		whole := strings.HasPrefix(string(a), "CRC")
		switch {
		case checksum.New(string(a)) == nil:
			return nil, notImplemented("checksum algorithm " + string(a))
		case typ == "" && a == s3.ChecksumAlgorithmCrc64nvme:
			typ = s3.ChecksumTypeFullObject
		case typ == "":
			typ = s3.ChecksumTypeComposite
		case typ == s3.ChecksumTypeFullObject && !whole, typ == s3.ChecksumTypeComposite && a == s3.ChecksumAlgorithmCrc64nvme:
			return nil, fail(400, "InvalidRequest", fmt.Sprintf("The %s checksum type cannot be used with the %s checksum algorithm.", typ, strings.ToLower(string(a))))
		}
	} else if typ != "" {
		return nil, fail(400, "InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	}
	o.Metadata[uploadKey], o.Metadata[uploadType], o.Metadata[uploadAlgorithm] = *in.Key, string(typ), string(in.ChecksumAlgorithm)
	id := rand.Text()
	if _, err := s.blobs.Put(ctx, b.upload(id), strings.NewReader(""), o); err != nil {
		return nil, putError(err, *in.Key)
	}
	if err := s.still(ctx, b, b.upload(id)); err != nil {
		return nil, err
	}
	return &s3.CreateMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, UploadId: &id, ChecksumAlgorithm: in.ChecksumAlgorithm, ChecksumType: typ}, nil
}

// putPart stores a part, in place of an earlier one of its number.
func (s *Service) putPart(ctx context.Context, u *upload, number *int32, in any, body io.Reader, contentMD5 *string, algorithm string) (blob.Info, error) {
	n := int(api.Value(number))
	if n < 1 || n > maxParts {
		return blob.Info{}, invalidArgument("Part number must be an integer between 1 and 10000, inclusive", "partNumber", strconv.Itoa(n))
	}
	if algorithm == "" {
		algorithm = u.algorithm()
	}
	o := blob.PutOptions{Metadata: map[string]string{}}
	body, err := verified(in, body, contentMD5, algorithm, o.Metadata)
	if err != nil {
		return blob.Info{}, err
	}
	info, err := s.blobs.Put(ctx, u.part(n), body, o)
	if err != nil {
		return blob.Info{}, putError(err, u.key)
	}
	// Completed or aborted meanwhile, the upload has no more use for it.
	if _, err := s.upload(ctx, u.bucket, &u.key, &u.id); err != nil {
		return blob.Info{}, errors.Join(err, s.blobs.Delete(context.WithoutCancel(ctx), u.part(n)))
	}
	return info, nil
}

// UploadPart stores a part as it streams in.
func (s *Service) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if err := fits(in.ContentLength); err != nil {
		return nil, err
	}
	u, err := s.upload(ctx, b, in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	info, err := s.putPart(ctx, u, in.PartNumber, in, in.Body, in.ContentMD5, string(in.ChecksumAlgorithm))
	if err != nil {
		return nil, err
	}
	out := &s3.UploadPartOutput{ETag: api.Ptr(etag(info))}
	checksums(out, info.Metadata)
	return out, nil
}

// UploadPartCopy makes a part of an object, or of a range of it.
func (s *Service) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (*s3.UploadPartCopyOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	u, err := s.upload(ctx, b, in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	r, err := s.source(ctx, in.CopySource, in.ExpectedSourceBucketOwner,
		conditions{in.CopySourceIfMatch, in.CopySourceIfNoneMatch, in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	part := span{0, r.Info().Size}
	if in.CopySourceRange != nil {
		var ok bool
		if part, ok, err = parseRange(*in.CopySourceRange, r.Info().Size); err != nil || !ok {
			return nil, invalidArgument("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy",
				"x-amz-copy-source-range", *in.CopySourceRange)
		}
		if _, err := r.Seek(part.from, io.SeekStart); err != nil {
			return nil, err
		}
	}
	if err := fits(&part.length); err != nil {
		return nil, err
	}
	info, err := s.putPart(ctx, u, in.PartNumber, in, io.LimitReader(r, part.length), nil, "")
	if err != nil {
		return nil, err
	}
	result := &s3.CopyPartResult{ETag: api.Ptr(etag(info)), LastModified: &info.ModifiedAt}
	checksums(result, info.Metadata)
	return &s3.UploadPartCopyOutput{CopyPartResult: result}, nil
}

// CompleteMultipartUpload makes an object of an upload's parts. The parts are copied into one: the object
// is there whole or not at all, and the parts stay until it is.
func (s *Service) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (*s3.CompleteMultipartUploadOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	u, err := s.upload(ctx, b, in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	if in.SSECustomerAlgorithm != nil || in.IfMatch != nil || in.IfNoneMatch != nil && *in.IfNoneMatch != "*" {
		return nil, notImplemented("encryption, If-Match")
	}
	if in.MultipartUpload == nil || len(in.MultipartUpload.Parts) == 0 || len(in.MultipartUpload.Parts) > maxParts {
		return nil, malformedXML()
	}
	o := blob.PutOptions{ContentType: u.record.ContentType, Metadata: maps.Clone(u.record.Metadata), IfNoneMatch: in.IfNoneMatch != nil}
	maps.DeleteFunc(o.Metadata, func(name, _ string) bool { return strings.HasPrefix(name, "upload:") })
	parts, err := s.judge(ctx, u, in.MultipartUpload.Parts, o.Metadata)
	if err != nil {
		return nil, err
	}
	if in.MpuObjectSize != nil && *in.MpuObjectSize != parts.size {
		return nil, fail(400, "InvalidRequest", "The provided 'x-amz-mp-object-size' header value does not match what was computed.")
	}
	promised := promises(in)
	var want []string
	if u.checksumType() == string(s3.ChecksumTypeFullObject) {
		want = []string{u.algorithm()}
	} else if value, ok := promised[u.algorithm()]; ok && value != o.Metadata[sumPrefix+u.algorithm()] {
		return nil, fail(400, "BadDigest", "The "+u.algorithm()+" you specified did not match the calculated checksum.")
	} else {
		promised = nil
	}
	whole := &sequence{ctx: ctx, blobs: s.blobs, keys: parts.keys}
	defer whole.close()
	body, err := checksum.NewReader(whole, promised, want...)
	if err != nil {
		return nil, notImplemented(err.Error())
	}
	body.AtEnd = func(values map[string]string) {
		for algorithm, value := range values {
			o.Metadata[sumPrefix+algorithm] = value
		}
	}
	info, err := s.blobs.Put(ctx, u.object, body, o)
	if err != nil {
		if errors.Is(err, blob.ErrNotFound) { // replaced or aborted meanwhile
			return nil, invalidPart()
		}
		return nil, putError(err, u.key)
	}
	if err := s.still(ctx, b, u.object); err != nil {
		return nil, err
	}
	if err := s.drop(context.WithoutCancel(ctx), u); err != nil {
		s.log.ErrorContext(ctx, "Parts of a completed upload could not be deleted.", "bucket", b.Name, "upload", u.id, "error", err)
	}
	out := &s3.CompleteMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, ETag: api.Ptr(etag(info)), Location: api.Ptr("/" + b.Name + "/" + u.key)}
	checksums(out, info.Metadata)
	return out, nil
}

func invalidPart() error {
	return fail(400, "InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
}

// assembly is the parts of an object, in order.
type assembly struct {
	keys []string
	size int64
}

// judge compares the parts a client lists with those that are there, and puts into metadata what becomes
// of the object: its ETag and, of a composite checksum, the checksum of the parts' checksums.
func (s *Service) judge(ctx context.Context, u *upload, listed []s3.CompletedPart, metadata map[string]string) (assembly, error) {
	var a assembly
	digests := md5.New()
	var composite []byte
	last := 0
	for i := range listed {
		n := int(api.Value(listed[i].PartNumber))
		if n < 1 || n > maxParts {
			return a, malformedXML()
		}
		if n <= last {
			return a, fail(400, "InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.", api.Detail{Name: "UploadId", Value: u.id})
		}
		last = n
	}
	for i := range listed {
		p := &listed[i]
		n := int(*p.PartNumber)
		info, err := s.blobs.Stat(ctx, u.part(n))
		if errors.Is(err, blob.ErrNotFound) {
			return a, invalidPart()
		}
		if err != nil {
			return a, err
		}
		if !matches(api.Value(p.ETag), etag(info)) || api.Value(p.ETag) == "*" {
			return a, invalidPart()
		}
		for algorithm, value := range promises(p) {
			if have := info.Metadata[sumPrefix+algorithm]; have != "" && have != value {
				return a, invalidPart()
			}
		}
		if i < len(listed)-1 && info.Size < minPart {
			return a, fail(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size",
				api.Detail{Name: "ProposedSize", Value: strconv.FormatInt(info.Size, 10)}, api.Detail{Name: "MinSizeAllowed", Value: strconv.Itoa(minPart)}, api.Detail{Name: "PartNumber", Value: strconv.Itoa(n)})
		}
		digests.Write(info.MD5[:])
		if u.checksumType() == string(s3.ChecksumTypeComposite) {
			sum, err := base64.StdEncoding.DecodeString(info.Metadata[sumPrefix+u.algorithm()])
			if err != nil || len(sum) == 0 {
				return a, invalidPart()
			}
			composite = append(composite, sum...)
		}
		a.keys = append(a.keys, u.part(n))
		a.size += info.Size
	}
	metadata[etagKey] = hex.EncodeToString(digests.Sum(nil)) + "-" + strconv.Itoa(len(listed))
	metadata[partsKey] = strconv.Itoa(len(listed))
	if composite != nil {
		h := checksum.New(u.algorithm())
		h.Write(composite)
		metadata[sumPrefix+u.algorithm()] = checksum.Text(h) + "-" + strconv.Itoa(len(listed))
		metadata[sumType] = string(s3.ChecksumTypeComposite)
	}
	return a, nil
}

// sequence reads objects one after the other.
type sequence struct {
	ctx   context.Context
	blobs blob.Store
	keys  []string
	open  blob.Reader
}

func (q *sequence) Read(p []byte) (int, error) {
	for {
		if q.open == nil {
			if len(q.keys) == 0 {
				return 0, io.EOF
			}
			r, err := q.blobs.Get(q.ctx, q.keys[0])
			if err != nil {
				return 0, err
			}
			q.open, q.keys = r, q.keys[1:]
		}
		n, err := q.open.Read(p)
		if err != nil {
			q.open.Close()
			q.open = nil
			if err != io.EOF {
				q.keys = nil
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (q *sequence) close() {
	if q.open != nil {
		q.open.Close()
	}
}

// drop removes an upload's record, so that it is no more, and then its parts.
func (s *Service) drop(ctx context.Context, u *upload) error {
	errs := []error{s.blobs.Delete(ctx, u.bucket.upload(u.id))}
	for info, err := range s.blobs.List(ctx, u.bucket.uploads()+u.id+"/", "") {
		if err == nil {
			err = s.blobs.Delete(ctx, info.Key)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// AbortMultipartUpload removes an upload and its parts.
func (s *Service) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) (*s3.AbortMultipartUploadOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	u, err := s.upload(ctx, b, in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	if in.IfMatchInitiatedTime != nil {
		return nil, notImplemented("conditional aborts")
	}
	if err := s.drop(ctx, u); err != nil {
		return nil, err
	}
	return &s3.AbortMultipartUploadOutput{}, nil
}

// ListParts lists the parts that an upload has so far.
func (s *Service) ListParts(ctx context.Context, in *s3.ListPartsInput) (*s3.ListPartsOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	u, err := s.upload(ctx, b, in.Key, in.UploadId)
	if err != nil {
		return nil, err
	}
	limit := 1000
	if in.MaxParts != nil {
		if *in.MaxParts < 0 {
			return nil, invalidArgument("Argument max-parts must be an integer between 0 and 2147483647", "max-parts", fmt.Sprint(*in.MaxParts))
		}
		limit = min(limit, int(*in.MaxParts))
	}
	marker := 0
	if in.PartNumberMarker != nil {
		if marker, err = strconv.Atoi(fmt.Sprint(*in.PartNumberMarker)); err != nil || marker < 0 || marker > maxParts {
			return nil, invalidArgument("Argument part-number-marker must be an integer between 0 and 2147483647", "part-number-marker", fmt.Sprint(*in.PartNumberMarker))
		}
	}
	out := &s3.ListPartsOutput{
		Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, Owner: owner(b.Account), StorageClass: s3.StorageClassStandard,
		MaxParts: api.Ptr(int32(limit)), PartNumberMarker: api.Ptr(int32(marker)), IsTruncated: api.Ptr(false),
		ChecksumAlgorithm: s3.ChecksumAlgorithm(u.algorithm()), ChecksumType: s3.ChecksumType(u.checksumType()),
	}
	for info, err := range s.blobs.List(ctx, b.uploads()+u.id+"/", u.part(marker)) {
		if err != nil {
			return nil, err
		}
		n, err := partNumber(info.Key)
		if err != nil { // the record
			continue
		}
		if len(out.Parts) == limit {
			out.IsTruncated = api.Ptr(true)
			break
		}
		p := s3.Part{PartNumber: api.Ptr(int32(n)), ETag: api.Ptr(etag(info)), Size: &info.Size, LastModified: &info.ModifiedAt}
		checksums(&p, info.Metadata)
		out.Parts = append(out.Parts, p)
		out.NextPartNumberMarker = p.PartNumber
	}
	return out, nil
}
