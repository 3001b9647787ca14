package s3

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/blob"
)

const maxKeys = 1000

// beyond sorts behind every key with a prefix: it is in no UTF-8.
const beyond = "\xff"

// peek is how many objects below a common prefix a listing passes by one by one before it begins anew
// behind it: a new beginning reads a directory again.
const peek = 64

// page is one page of a listing.
type page struct {
	objects  []blob.Info // Key without the bucket's prefix
	prefixes []string
	last     string // the greatest key or common prefix of the page
	more     bool
}

// list makes a page of the keys with the prefix that are greater than after, those that have the
// delimiter behind the prefix as the part up to it.
func (s *Service) list(ctx context.Context, b *Bucket, prefix, delimiter, after string, limit int) (page, error) {
	var p page
	root := b.objects()
	// A page that ended with a common prefix goes on behind all that is below it.
	if delimiter != "" && strings.HasPrefix(after, prefix) {
		if i := strings.Index(after[len(prefix):], delimiter); i >= 0 && len(prefix)+i+len(delimiter) == len(after) {
			after += beyond
		}
	}
	for {
		skipped, again := 0, false
		for info, err := range s.blobs.List(ctx, root+prefix, root+after) {
			if err != nil {
				return p, err
			}
			key := strings.TrimPrefix(info.Key, root)
			if n := len(p.prefixes); n > 0 && strings.HasPrefix(key, p.prefixes[n-1]) {
				if skipped++; skipped > peek {
					after, again = p.prefixes[n-1]+beyond, true
					break
				}
				continue
			}
			if len(p.objects)+len(p.prefixes) == limit {
				p.more = true
				return p, nil
			}
			skipped = 0
			if i := strings.Index(key[len(prefix):], delimiter); delimiter != "" && i >= 0 {
				p.last = key[:len(prefix)+i+len(delimiter)]
				p.prefixes = append(p.prefixes, p.last)
				continue
			}
			info.Key = key
			p.objects = append(p.objects, info)
			p.last = key
		}
		if !again {
			return p, nil
		}
	}
}

// pageLimit judges max-keys.
func pageLimit(asked *int32) (int, error) {
	if asked == nil {
		return maxKeys, nil
	}
	if *asked < 0 {
		return 0, invalidArgument("Argument max-keys must be an integer between 0 and 2147483647", "max-keys", fmt.Sprint(*asked))
	}
	return min(int(*asked), maxKeys), nil
}

// encoding is how keys are written in a listing: as they are or, since XML cannot hold every character,
// percent-encoded.
func encoding(t s3.EncodingType) (func(string) string, error) {
	switch t {
	case "":
		return func(s string) string { return s }, nil
	case s3.EncodingTypeUrl:
		// Clients differ in what they make of a plus sign, so there is none.
		return func(s string) string {
			return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(s))
		}, nil
	}
	return nil, invalidArgument("Invalid Encoding Method specified in Request", "encoding-type", string(t))
}

// contents are a page's objects as listings have them.
func contents(p page, encode func(string) string, by *s3.Owner) []s3.Object {
	var out []s3.Object
	for _, info := range p.objects {
		o := s3.Object{
			Key: api.Ptr(encode(info.Key)), LastModified: api.Ptr(info.ModifiedAt), ETag: api.Ptr(etag(info)), Size: api.Ptr(info.Size),
			StorageClass: s3.ObjectStorageClassStandard, Owner: by,
		}
		for name := range info.Metadata {
			if algorithm, ok := strings.CutPrefix(name, sumPrefix); ok {
				o.ChecksumAlgorithm = append(o.ChecksumAlgorithm, s3.ChecksumAlgorithm(algorithm))
				o.ChecksumType = s3.ChecksumTypeFullObject
				if t := info.Metadata[sumType]; t != "" {
					o.ChecksumType = s3.ChecksumType(t)
				}
			}
		}
		out = append(out, o)
	}
	return out
}

func commonPrefixes(p page, encode func(string) string) []s3.CommonPrefix {
	var out []s3.CommonPrefix
	for _, prefix := range p.prefixes {
		out = append(out, s3.CommonPrefix{Prefix: api.Ptr(encode(prefix))})
	}
	return out
}

// encoded is an optional parameter as the listing repeats it.
func encoded(p *string, encode func(string) string) *string {
	if p == nil {
		return nil
	}
	return api.Ptr(encode(*p))
}

// A continuation token is the key after which the next page begins.
func keyToken(key string) *string {
	return api.Ptr(base64.URLEncoding.EncodeToString([]byte("1" + key)))
}

func tokenKey(token *string) (string, error) {
	if token == nil {
		return "", nil
	}
	b, err := base64.URLEncoding.DecodeString(*token)
	if err != nil || len(b) == 0 || b[0] != '1' {
		return "", invalidArgument("The continuation token provided is incorrect", "continuation-token", *token)
	}
	return string(b[1:]), nil
}

// ListObjectsV2 lists a bucket's objects in the order of their keys' bytes.
func (s *Service) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	encode, err := encoding(in.EncodingType)
	if err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.MaxKeys)
	if err != nil {
		return nil, err
	}
	after := api.Value(in.StartAfter)
	if in.ContinuationToken != nil {
		if after, err = tokenKey(in.ContinuationToken); err != nil {
			return nil, err
		}
	}
	var p page
	if limit > 0 {
		if p, err = s.list(ctx, b, api.Value(in.Prefix), api.Value(in.Delimiter), after, limit); err != nil {
			return nil, err
		}
	}
	var by *s3.Owner
	if api.Value(in.FetchOwner) {
		by = owner(b.Account)
	}
	out := &s3.ListObjectsV2Output{
		Name: &b.Name, Prefix: api.Ptr(encode(api.Value(in.Prefix))), Delimiter: encoded(in.Delimiter, encode), StartAfter: encoded(in.StartAfter, encode),
		ContinuationToken: in.ContinuationToken, EncodingType: in.EncodingType, MaxKeys: api.Ptr(int32(limit)),
		KeyCount: api.Ptr(int32(len(p.objects) + len(p.prefixes))), IsTruncated: &p.more,
		Contents: contents(p, encode, by), CommonPrefixes: commonPrefixes(p, encode),
	}
	if p.more {
		out.NextContinuationToken = keyToken(p.last)
	}
	return out, nil
}

// ListObjects is ListObjectsV2's predecessor: it goes on after a marker, and names owners.
func (s *Service) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (*s3.ListObjectsOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	encode, err := encoding(in.EncodingType)
	if err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.MaxKeys)
	if err != nil {
		return nil, err
	}
	var p page
	if limit > 0 {
		if p, err = s.list(ctx, b, api.Value(in.Prefix), api.Value(in.Delimiter), api.Value(in.Marker), limit); err != nil {
			return nil, err
		}
	}
	out := &s3.ListObjectsOutput{
		Name: &b.Name, Prefix: api.Ptr(encode(api.Value(in.Prefix))), Delimiter: encoded(in.Delimiter, encode), Marker: api.Ptr(encode(api.Value(in.Marker))),
		EncodingType: in.EncodingType, MaxKeys: api.Ptr(int32(limit)), IsTruncated: &p.more,
		Contents: contents(p, encode, owner(b.Account)), CommonPrefixes: commonPrefixes(p, encode),
	}
	if p.more && in.Delimiter != nil {
		out.NextMarker = api.Ptr(encode(p.last))
	}
	return out, nil
}
