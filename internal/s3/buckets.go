package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/store"
)

// validBucketName judges by S3's user guide, "General purpose bucket naming rules".
func validBucketName(name string) bool {
	if len(name) < 3 || len(name) > 63 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alphanumeric := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		inner := i > 0 && i < len(name)-1
		if !alphanumeric && !(inner && (c == '-' || c == '.' && name[i-1] != '.')) {
			return false
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for _, prefix := range []string{"xn--", "sthree-", "amzn-s3-demo-"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	for _, suffix := range []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"} {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	return true
}

// usEast1 is the region that says nothing of itself, and in which creating a bucket again is no error.
const usEast1 = "us-east-1"

// CreateBucket makes a bucket in the region the request is signed for.
func (s *Service) CreateBucket(ctx context.Context, in *s3.CreateBucketInput) (*s3.CreateBucketOutput, error) {
	by, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	if by.Kind == caller.Anonymous {
		return nil, accessDenied()
	}
	name := api.Value(in.Bucket)
	if !validBucketName(name) {
		return nil, fail(400, "InvalidBucketName", "The specified bucket is not valid.", api.Detail{Name: "BucketName", Value: name})
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	constraint := ""
	if c := in.CreateBucketConfiguration; c != nil {
		if c.Bucket != nil || c.Location != nil {
			return nil, notImplemented("directory buckets")
		}
		if len(c.Tags) > 0 {
			return nil, notImplemented("tags")
		}
		constraint = string(c.LocationConstraint)
	}
	switch {
	case constraint == "" && by.Region != usEast1:
		return nil, fail(400, "IllegalLocationConstraintException", "The unspecified location constraint is incompatible for the region specific endpoint this request was sent to.")
	case constraint == usEast1, constraint == "EU" && by.Region != "eu-west-1":
		return nil, fail(400, "InvalidLocationConstraint", "The specified location-constraint is not valid", api.Detail{Name: "LocationConstraint", Value: constraint})
	case constraint != "" && constraint != "EU" && constraint != by.Region:
		return nil, fail(400, "IllegalLocationConstraintException", fmt.Sprintf("The %s location constraint is incompatible for the region specific endpoint this request was sent to.", constraint))
	}
	b := &Bucket{Name: name, ID: strings.ToLower(rand.Text()[:20]), Account: by.AccountID, Region: by.Region, CreatedAt: time.Now().UTC().Truncate(time.Millisecond)}
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		old, ok := Buckets.Get(tx, store.K(everywhere, name))
		switch {
		case !ok:
			Buckets.Put(tx, store.K(everywhere, name), b)
			return nil
		case old.Value.Account != by.AccountID:
			return fail(409, "BucketAlreadyExists", "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.",
				api.Detail{Name: "BucketName", Value: name})
		case by.Region == usEast1 && old.Value.Region == usEast1:
			return nil
		}
		return fail(409, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.",
			api.Detail{Name: "BucketName", Value: name})
	})
	if err != nil {
		return nil, err
	}
	return &s3.CreateBucketOutput{Location: api.Ptr("/" + name)}, nil
}

// HeadBucket tells whether there is a bucket, and where.
func (s *Service) HeadBucket(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	return &s3.HeadBucketOutput{BucketRegion: &b.Region, AccessPointAlias: api.Ptr(false)}, nil
}

// GetBucketLocation answers a bucket's region, which for us-east-1 is nothing.
func (s *Service) GetBucketLocation(ctx context.Context, in *s3.GetBucketLocationInput) (*s3.GetBucketLocationOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	out := &s3.GetBucketLocationOutput{}
	if b.Region != usEast1 {
		out.LocationConstraint = s3.BucketLocationConstraint(b.Region)
	}
	return out, nil
}

// GetBucketVersioning answers nothing, which is how S3 says that versions were never kept.
func (s *Service) GetBucketVersioning(ctx context.Context, in *s3.GetBucketVersioningInput) (*s3.GetBucketVersioningOutput, error) {
	if _, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner); err != nil {
		return nil, err
	}
	return &s3.GetBucketVersioningOutput{}, nil
}

// DeleteBucket removes a bucket that has no objects. Uploads not completed go with it.
func (s *Service) DeleteBucket(ctx context.Context, in *s3.DeleteBucketInput) (*s3.DeleteBucketOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	for _, err := range s.blobs.List(ctx, b.objects(), "") {
		if err != nil {
			return nil, err
		}
		return nil, fail(409, "BucketNotEmpty", "The bucket you tried to delete is not empty", api.Detail{Name: "BucketName", Value: b.Name})
	}
	if err := s.remove(ctx, b); err != nil {
		return nil, err
	}
	return &s3.DeleteBucketOutput{}, nil
}

// remove deletes a bucket's row, unless another has its name by now, and then what it held. A put that
// came in between finds the row gone and takes its object back.
func (s *Service) remove(ctx context.Context, b *Bucket) error {
	key := store.K(everywhere, b.Name)
	if _, err := s.store.Update(ctx, func(tx *store.Tx) error {
		if row, ok := Buckets.Get(tx, key); ok && row.Value.ID == b.ID {
			Buckets.Delete(tx, key)
		}
		return nil
	}); err != nil {
		return err
	}
	var errs []error
	for info, err := range s.blobs.List(ctx, "s3/"+b.ID+"/", "") {
		if err == nil {
			err = s.blobs.Delete(ctx, info.Key)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// still answers an error when a bucket was deleted while something was put into it, and takes that back.
func (s *Service) still(ctx context.Context, b *Bucket, put string) error {
	row, ok := Buckets.Get(s.store.Snapshot(), store.K(everywhere, b.Name))
	if ok && row.Value.ID == b.ID {
		return nil
	}
	return errors.Join(noSuchBucket(b.Name), s.blobs.Delete(context.WithoutCancel(ctx), put))
}

// ListBuckets lists the caller's buckets, of all regions unless one is asked for.
func (s *Service) ListBuckets(ctx context.Context, in *s3.ListBucketsInput) (*s3.ListBucketsOutput, error) {
	by, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	if by.Kind == caller.Anonymous {
		return nil, accessDenied()
	}
	limit := 10_000
	if in.MaxBuckets != nil {
		if limit = int(*in.MaxBuckets); limit < 1 || limit > 10_000 {
			return nil, invalidArgument("Argument MaxBuckets must be an integer between 1 and 10000", "max-buckets", fmt.Sprint(limit))
		}
	}
	after, err := tokenKey(in.ContinuationToken)
	if err != nil {
		return nil, err
	}
	out := &s3.ListBucketsOutput{Owner: owner(by.AccountID), Buckets: []s3.Bucket{}, Prefix: in.Prefix}
	for row := range Buckets.List(s.store.Snapshot(), everywhere, api.Value(in.Prefix)) {
		b := row.Value
		if b.Account != by.AccountID || b.Name <= after || in.BucketRegion != nil && *in.BucketRegion != b.Region {
			continue
		}
		if len(out.Buckets) == limit {
			out.ContinuationToken = keyToken(*out.Buckets[limit-1].Name)
			break
		}
		entry := s3.Bucket{Name: &b.Name, CreationDate: &b.CreatedAt}
		if in.BucketRegion != nil || in.MaxBuckets != nil || in.Prefix != nil { // as AWS: only in the paged form
			entry.BucketRegion = &b.Region
		}
		out.Buckets = append(out.Buckets, entry)
	}
	return out, nil
}
