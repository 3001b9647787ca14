package s3

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/checksum"
)

const (
	maxPut      = 5 << 30 // of one PutObject or part
	maxMetadata = 2 << 10
)

// What bulk storage keeps of an object beside its bytes, by the prefix of the name.
const (
	userPrefix   = "m:"   // x-amz-meta-*
	headerPrefix = "h:"   // members of put and get of the same name
	sumPrefix    = "sum:" // a checksum, by its algorithm
	sumType      = "sumtype"
	etagKey      = "etag"  // of an object that was uploaded in parts
	partsKey     = "parts" // how many
)

// headers are the members of PutObject that GetObject gives back.
var headers = []string{"CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage"}

const defaultContentType = "binary/octet-stream"

// options are what bulk storage is to keep for an input: of PutObject, CreateMultipartUpload or, with new
// metadata, CopyObject.
func options(in any) (blob.PutOptions, error) {
	v := reflect.ValueOf(in).Elem()
	o := blob.PutOptions{ContentType: defaultContentType, Metadata: map[string]string{}}
	if t := v.FieldByName("ContentType").Interface().(*string); api.Value(t) != "" {
		o.ContentType = *t
	}
	for _, name := range headers {
		if p := v.FieldByName(name).Interface().(*string); p != nil && *p != "" {
			o.Metadata[headerPrefix+name] = *p
		}
	}
	if t := v.FieldByName("Expires").Interface().(*time.Time); t != nil {
		o.Metadata[headerPrefix+"Expires"] = t.UTC().Format(time.RFC3339)
	}
	size := 0
	for name, value := range v.FieldByName("Metadata").Interface().(map[string]string) {
		o.Metadata[userPrefix+strings.ToLower(name)] = value
		size += len(name) + len(value)
	}
	if size > maxMetadata {
		return o, fail(400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size",
			api.Detail{Name: "Size", Value: strconv.Itoa(size)}, api.Detail{Name: "MaxSizeAllowed", Value: strconv.Itoa(maxMetadata)})
	}
	return o, nil
}

// described sets the members of an output that tell what bulk storage keeps.
func described(out any, info blob.Info) {
	v := reflect.ValueOf(out).Elem()
	set := func(name string, value any) { v.FieldByName(name).Set(reflect.ValueOf(value)) }
	set("ETag", api.Ptr(etag(info)))
	set("LastModified", api.Ptr(info.ModifiedAt))
	set("ContentType", api.Ptr(info.ContentType))
	set("AcceptRanges", api.Ptr("bytes"))
	user := map[string]string{}
	for name, value := range info.Metadata {
		if name, ok := strings.CutPrefix(name, userPrefix); ok {
			user[name] = value
		}
		if name, ok := strings.CutPrefix(name, headerPrefix); ok {
			if name == "Expires" {
				if t, err := time.Parse(time.RFC3339, value); err == nil {
					set(name, &t)
				}
				continue
			}
			set(name, &value)
		}
	}
	if len(user) > 0 {
		set("Metadata", user)
	}
}

// etag is an object's, in quotes.
func etag(info blob.Info) string {
	if own := info.Metadata[etagKey]; own != "" {
		return `"` + own + `"`
	}
	return `"` + hex.EncodeToString(info.MD5[:]) + `"`
}

// checksums sets the members of an output that have an object's checksums.
func checksums(out any, metadata map[string]string) {
	v := reflect.ValueOf(out).Elem()
	any := false
	for _, algorithm := range checksum.Algorithms {
		if value := metadata[sumPrefix+algorithm]; value != "" {
			v.FieldByName("Checksum" + algorithm).Set(reflect.ValueOf(&value))
			any = true
		}
	}
	if f := v.FieldByName("ChecksumType"); any && f.IsValid() {
		typ := s3.ChecksumTypeFullObject
		if metadata[sumType] != "" {
			typ = s3.ChecksumType(metadata[sumType])
		}
		f.Set(reflect.ValueOf(typ))
	}
}

// promises are the checksums of an input.
func promises(in any) map[string]string {
	v := reflect.ValueOf(in).Elem()
	p := map[string]string{}
	for _, algorithm := range checksum.Algorithms {
		if f := v.FieldByName("Checksum" + algorithm); f.IsValid() && !f.IsNil() {
			p[algorithm] = f.Elem().String()
		}
	}
	return p
}

// verified is an input's body, which is an error at its end unless it is what the input promises. What it
// turned out to be goes into metadata. want, if not "", is computed whatever was promised.
func verified(in any, body io.Reader, contentMD5 *string, want string, metadata map[string]string) (io.Reader, error) {
	if body == nil {
		body = strings.NewReader("")
	}
	kept := promises(in)
	// Trailers are body's to announce, so the outer reader must see body itself: MD5 is the inner one's.
	var algorithms []string
	if want != "" {
		algorithms = []string{want}
	}
	r, err := checksum.NewReader(body, kept, algorithms...)
	if err != nil {
		return nil, notImplemented(err.Error())
	}
	r.AtEnd = func(values map[string]string) {
		for algorithm, value := range values {
			metadata[sumPrefix+algorithm] = value
		}
	}
	if contentMD5 == nil {
		return r, nil
	}
	if !validMD5(*contentMD5) {
		return nil, fail(400, "InvalidDigest", "The Content-MD5 you specified was invalid.", api.Detail{Name: "Content-MD5", Value: *contentMD5})
	}
	return checksum.NewReader(r, map[string]string{"MD5": *contentMD5})
}

func validMD5(text string) bool {
	return len(text) == 24 && strings.HasSuffix(text, "==")
}

// PutObject stores an object as it streams in.
func (s *Service) PutObject(ctx context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	key, err := objectKey(b, in.Key)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if in.IfMatch != nil {
		return nil, notImplemented("If-Match on PutObject")
	}
	if in.IfNoneMatch != nil && *in.IfNoneMatch != "*" {
		return nil, notImplemented("If-None-Match other than * on PutObject")
	}
	if err := fits(in.ContentLength); err != nil {
		return nil, err
	}
	o, err := options(in)
	if err != nil {
		return nil, err
	}
	o.IfNoneMatch = in.IfNoneMatch != nil
	body, err := verified(in, in.Body, in.ContentMD5, string(in.ChecksumAlgorithm), o.Metadata)
	if err != nil {
		return nil, err
	}
	info, err := s.blobs.Put(ctx, key, body, o)
	if err != nil {
		return nil, putError(err, *in.Key)
	}
	if err := s.still(ctx, b, key); err != nil {
		return nil, err
	}
	out := &s3.PutObjectOutput{ETag: api.Ptr(etag(info))}
	checksums(out, info.Metadata)
	return out, nil
}

func fits(length *int64) error {
	if length != nil && *length > maxPut {
		return fail(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size",
			api.Detail{Name: "ProposedSize", Value: strconv.FormatInt(*length, 10)}, api.Detail{Name: "MaxSizeAllowed", Value: strconv.Itoa(maxPut)})
	}
	return nil
}

// open finds an object for GetObject and HeadObject, which have the same members.
func (s *Service) open(ctx context.Context, in *s3.GetObjectInput) (blob.Reader, span, *s3.GetObjectOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, span{}, nil, err
	}
	key, err := objectKey(b, in.Key)
	if err != nil {
		return nil, span{}, nil, err
	}
	if err := refuse(in); err != nil {
		return nil, span{}, nil, err
	}
	r, err := s.blobs.Get(ctx, key)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, span{}, nil, noSuchKey(*in.Key)
	}
	if err != nil {
		return nil, span{}, nil, err
	}
	part, out, err := view(in, r.Info())
	if err != nil {
		r.Close()
		return nil, span{}, nil, err
	}
	return r, part, out, nil
}

// view is the part of an object that is asked for, and what is said of it.
func view(in *s3.GetObjectInput, info blob.Info) (span, *s3.GetObjectOutput, error) {
	if err := (conditions{in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince}).check(etag(info), info.ModifiedAt); err != nil {
		return span{}, nil, err
	}
	out := &s3.GetObjectOutput{}
	described(out, info)
	part := span{0, info.Size}
	if in.PartNumber != nil {
		// Where an upload's parts begin is not kept.
		if *in.PartNumber != 1 || info.Metadata[partsKey] != "" {
			return span{}, nil, notImplemented("partNumber")
		}
	}
	if in.Range != nil {
		asked, ok, err := parseRange(*in.Range, info.Size)
		if err != nil {
			return span{}, nil, err
		}
		if ok {
			part = asked
			out.ContentRange = api.Ptr(part.header(info.Size))
		}
	}
	out.ContentLength = &part.length
	if in.ChecksumMode == s3.ChecksumModeEnabled && out.ContentRange == nil {
		checksums(out, info.Metadata)
	}
	for to, from := range map[**string]*string{
		&out.CacheControl: in.ResponseCacheControl, &out.ContentDisposition: in.ResponseContentDisposition,
		&out.ContentEncoding: in.ResponseContentEncoding, &out.ContentLanguage: in.ResponseContentLanguage, &out.ContentType: in.ResponseContentType,
	} {
		if from != nil {
			*to = from
		}
	}
	if in.ResponseExpires != nil {
		out.Expires = in.ResponseExpires
	}
	return part, out, nil
}

// GetObject streams an object, or a part of it. Its body is the receiver's to close.
func (s *Service) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	r, part, out, err := s.open(ctx, in)
	if err != nil {
		return nil, err
	}
	if part.from > 0 {
		if _, err := r.Seek(part.from, io.SeekStart); err != nil {
			r.Close()
			return nil, err
		}
	}
	out.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, part.length), r}
	return out, nil
}

// HeadObject is GetObject without the bytes.
func (s *Service) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	get := &s3.GetObjectInput{}
	copyMembers(get, in)
	r, _, got, err := s.open(ctx, get)
	if err != nil {
		return nil, err
	}
	r.Close()
	out := &s3.HeadObjectOutput{}
	copyMembers(out, got)
	return out, nil
}

// copyMembers sets the members of a structure that another has too, of the same name and type.
func copyMembers(to, from any) {
	t, f := reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem()
	for i := range f.NumField() {
		if target := t.FieldByName(f.Type().Field(i).Name); target.IsValid() && target.Type() == f.Field(i).Type() {
			target.Set(f.Field(i))
		}
	}
}

// DeleteObject removes an object. One that is not there is not an error.
func (s *Service) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	key, err := objectKey(b, in.Key)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if in.IfMatch != nil {
		return nil, notImplemented("conditional deletes")
	}
	if err := s.blobs.Delete(ctx, key); err != nil {
		return nil, err
	}
	return &s3.DeleteObjectOutput{}, nil
}

// DeleteObjects removes up to a thousand objects, and says of each how it went.
func (s *Service) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (*s3.DeleteObjectsOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if in.Delete == nil || len(in.Delete.Objects) == 0 || len(in.Delete.Objects) > 1000 {
		return nil, malformedXML()
	}
	out := &s3.DeleteObjectsOutput{}
	for _, o := range in.Delete.Objects {
		key, err := objectKey(b, o.Key)
		switch {
		case err != nil:
		case o.VersionId != nil && *o.VersionId != "null":
			err = fail(404, "NoSuchVersion", "The specified version does not exist.")
		case o.ETag != nil || o.LastModifiedTime != nil || o.Size != nil:
			err = notImplemented("conditional deletes")
		default:
			err = s.blobs.Delete(ctx, key)
		}
		if err != nil {
			known, mine := api.AsError(err)
			if !mine {
				s.log.ErrorContext(ctx, "An object could not be deleted.", "bucket", b.Name, "error", err)
				known = &api.CommonError{Code: "InternalError", Message: "We encountered an internal error. Please try again."}
			}
			out.Errors = append(out.Errors, s3.Error{Key: o.Key, VersionId: o.VersionId, Code: api.Ptr(known.ErrorCode()), Message: api.Ptr(known.ErrorMessage())})
		} else if !api.Value(in.Delete.Quiet) {
			out.Deleted = append(out.Deleted, s3.DeletedObject{Key: o.Key, VersionId: o.VersionId})
		}
	}
	return out, nil
}

// source opens the object that a copy names: bucket/key, escaped, perhaps with a slash before.
func (s *Service) source(ctx context.Context, name *string, owner *string, c conditions) (blob.Reader, error) {
	path, version, _ := strings.Cut(strings.TrimPrefix(api.Value(name), "/"), "?")
	plain, err := url.PathUnescape(path)
	bucket, key, ok := strings.Cut(strings.TrimPrefix(plain, "/"), "/")
	if err != nil || !ok || key == "" || strings.HasPrefix(path, "arn:") {
		return nil, invalidArgument("Copy Source must mention the source bucket and key: sourcebucket/sourcekey", "x-amz-copy-source", api.Value(name))
	}
	if id, found := strings.CutPrefix(version, "versionId="); found && id != "null" {
		return nil, fail(404, "NoSuchVersion", "The specified version does not exist.")
	}
	b, err := s.bucket(ctx, &bucket, owner)
	if err != nil {
		return nil, err
	}
	at, err := objectKey(b, &key)
	if err != nil {
		return nil, err
	}
	r, err := s.blobs.Get(ctx, at)
	if err != nil {
		return nil, putError(err, key)
	}
	if err := c.check(etag(r.Info()), r.Info().ModifiedAt); err != nil {
		r.Close()
		if known, _ := api.AsError(err); known.HTTPStatusCode() == 304 { // a copy has no other answer
			err = preconditionFailed("x-amz-copy-source-If-None-Match")
		}
		return nil, err
	}
	return r, nil
}

// CopyObject copies an object, with its metadata or with that of the request.
func (s *Service) CopyObject(ctx context.Context, in *s3.CopyObjectInput) (*s3.CopyObjectOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	key, err := objectKey(b, in.Key)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if in.TaggingDirective == s3.TaggingDirectiveReplace {
		return nil, notImplemented("tags")
	}
	if in.IfMatch != nil || in.IfNoneMatch != nil {
		return nil, notImplemented("conditional copies onto an object")
	}
	r, err := s.source(ctx, in.CopySource, in.ExpectedSourceBucketOwner,
		conditions{in.CopySourceIfMatch, in.CopySourceIfNoneMatch, in.CopySourceIfModifiedSince, in.CopySourceIfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	o := blob.PutOptions{ContentType: r.Info().ContentType, Metadata: maps.Clone(r.Info().Metadata)}
	switch in.MetadataDirective {
	case "", s3.MetadataDirectiveCopy:
		if r.Info().Key == key {
			return nil, fail(400, "InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
		}
	case s3.MetadataDirectiveReplace:
		if o, err = options(in); err != nil {
			return nil, err
		}
	default:
		return nil, invalidArgument("Unknown metadata directive.", "x-amz-metadata-directive", string(in.MetadataDirective))
	}
	if r.Info().Size > maxPut {
		return nil, fail(400, "InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: "+fmt.Sprint(maxPut))
	}
	// The copy is one piece, with a digest of its own. A checksum of the whole stays true.
	composite := o.Metadata[sumType] == string(s3.ChecksumTypeComposite)
	for name := range o.Metadata {
		if name == etagKey || name == partsKey || composite && (name == sumType || strings.HasPrefix(name, sumPrefix)) {
			delete(o.Metadata, name)
		}
	}
	body, err := verified(&s3.PutObjectInput{}, r, nil, string(in.ChecksumAlgorithm), o.Metadata)
	if err != nil {
		return nil, err
	}
	info, err := s.blobs.Put(ctx, key, body, o)
	if err != nil {
		return nil, putError(err, *in.Key)
	}
	if err := s.still(ctx, b, key); err != nil {
		return nil, err
	}
	result := &s3.CopyObjectResult{ETag: api.Ptr(etag(info)), LastModified: &info.ModifiedAt}
	checksums(result, info.Metadata)
	return &s3.CopyObjectOutput{CopyObjectResult: result}, nil
}

// GetObjectTagging answers no tags: none can be set. Clients ask before they copy.
func (s *Service) GetObjectTagging(ctx context.Context, in *s3.GetObjectTaggingInput) (*s3.GetObjectTaggingOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	key, err := objectKey(b, in.Key)
	if err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if _, err := s.blobs.Stat(ctx, key); err != nil {
		return nil, putError(err, *in.Key)
	}
	return &s3.GetObjectTaggingOutput{TagSet: []s3.Tag{}}, nil
}
