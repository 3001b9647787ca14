package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/s3"
	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/checksum"
	"github.com/berthhq/berth/internal/store"
	"github.com/berthhq/berth/internal/wire"
)

// MaxBody bounds the bodies that are not streamed: the list of an upload's 10,000 parts, each with its
// checksum.
const MaxBody = 4 << 20

// Buckets by name, in one scope: S3 has one space of names for all accounts.
var Buckets = store.DefineTable[Bucket]("s3-buckets", 1)

// Tables are those of the service, for opening the store.
func Tables() []store.TableDef { return []store.TableDef{Buckets} }

// everywhere is the scope of bucket names.
var everywhere = store.Scope{Account: "-", Region: "-"}

// Bucket is a bucket's row.
type Bucket struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"` // in bulk storage
	Account   string    `json:"account"`
	Region    string    `json:"region"`
	CreatedAt time.Time `json:"createdAt"`
}

func (b *Bucket) objects() string { return "s3/" + b.ID + "/o/" }
func (b *Bucket) uploads() string { return "s3/" + b.ID + "/u/" }

// Service implements the s3 API.
type Service struct {
	s3.Unimplemented
	store *store.Store
	blobs blob.Store
	log   *slog.Logger
}

// Config is what a Service needs.
type Config struct {
	Store  *store.Store
	Blobs  blob.Store
	Logger *slog.Logger
}

// New makes the service.
func New(cfg Config) *Service { return &Service{store: cfg.Store, blobs: cfg.Blobs, log: cfg.Logger} }

// Clear removes all buckets of an account, with what is in them.
func (s *Service) Clear(ctx context.Context, account string) error {
	var errs []error
	for row := range Buckets.List(s.store.Snapshot(), everywhere, "") {
		if row.Value.Account == account {
			errs = append(errs, s.remove(ctx, row.Value))
		}
	}
	return errors.Join(errs...)
}

// Prepare puts the bucket that a request has in its host's name at the head of its path:
// http://logs.localhost:4566/a is http://localhost:4566/logs/a, as is http://logs.s3.localhost:4566/a.
// Hosts are recognized below localhost and the names given.
func Prepare(hosts ...string) func(*http.Request) {
	hosts = append([]string{"localhost"}, hosts...)
	return func(r *http.Request) {
		bucket := hostBucket(r.Host, hosts)
		if bucket == "" {
			return
		}
		u := *r.URL
		path := u.EscapedPath()
		u.Path, u.RawPath = "/"+bucket+u.Path, "/"+bucket+path
		r.URL = &u
	}
}

func hostBucket(host string, bases []string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, base := range bases {
		name, below := strings.CutSuffix(host, "."+strings.ToLower(base))
		if !below {
			continue
		}
		// What stands between a bucket and the host: s3, or s3.<region>.
		labels := strings.Split(name, ".")
		for i, label := range labels {
			if label == "s3" && i >= len(labels)-2 {
				labels = labels[:i]
				break
			}
		}
		if name = strings.Join(labels, "."); validBucketName(name) {
			return name
		}
	}
	return ""
}

// bucket finds a bucket that the caller may use.
func (s *Service) bucket(ctx context.Context, name, expectedOwner *string) (*Bucket, error) {
	by, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	row, ok := Buckets.Get(s.store.Snapshot(), store.K(everywhere, bucketID(name)))
	if !ok {
		return nil, noSuchBucket(api.Value(name))
	}
	if by.Kind == caller.Anonymous || row.Value.Account != by.AccountID || expectedOwner != nil && *expectedOwner != row.Value.Account {
		return nil, accessDenied()
	}
	return row.Value, nil
}

// bucketID is a row's ID of a bucket's name, which a client may have made up.
func bucketID(name *string) string {
	if n := api.Value(name); validBucketName(n) {
		return n
	}
	return "-" // no bucket's name
}

// objectKey is where an object of a bucket is.
func objectKey(b *Bucket, key *string) (string, error) {
	k := api.Value(key)
	switch {
	case len(k) > 1024:
		return "", fail(400, "KeyTooLongError", "Your key is too long", api.Detail{Name: "Size", Value: fmt.Sprint(len(k))},
			api.Detail{Name: "MaxSizeAllowed", Value: "1024"})
	case k == "" || !utf8.ValidString(k):
		return "", fail(400, "InvalidURI", "Couldn't parse the specified URI.")
	}
	return b.objects() + k, nil
}

// owner is an account as S3 shows it.
func owner(account string) *s3.Owner {
	sum := sha256.Sum256([]byte("canonical user of account " + account))
	return &s3.Owner{ID: api.Ptr(hex.EncodeToString(sum[:])), DisplayName: &account}
}

func fail(status int, code, message string, details ...api.Detail) error {
	return &api.CommonError{Code: code, Message: message, Status: status, Details: details}
}

func noSuchBucket(name string) error {
	return fail(404, "NoSuchBucket", "The specified bucket does not exist", api.Detail{Name: "BucketName", Value: name})
}

func noSuchKey(key string) error {
	return fail(404, "NoSuchKey", "The specified key does not exist.", api.Detail{Name: "Key", Value: key})
}

func accessDenied() error { return fail(403, "AccessDenied", "Access Denied") }

func invalidArgument(message, name, value string) error {
	return fail(400, "InvalidArgument", message, api.Detail{Name: "ArgumentName", Value: name}, api.Detail{Name: "ArgumentValue", Value: value})
}

func notImplemented(what string) error {
	return fail(501, "NotImplemented", "A header or parameter you provided implies functionality that is not implemented: "+what)
}

// putError is what a client is told of bytes that could not be stored.
func putError(err error, key string) error {
	wrong := (*checksum.Mismatch)(nil)
	switch {
	case errors.As(err, &wrong) && wrong.Algorithm == "MD5":
		return fail(400, "BadDigest", "The Content-MD5 you specified did not match what we received.",
			api.Detail{Name: "ExpectedDigest", Value: wrong.Want}, api.Detail{Name: "CalculatedDigest", Value: wrong.Got})
	case errors.As(err, &wrong):
		return fail(400, "BadDigest", "The "+wrong.Algorithm+" you specified did not match the calculated checksum.")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail(400, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	case errors.Is(err, blob.ErrExists):
		return preconditionFailed("If-None-Match")
	case errors.Is(err, blob.ErrNoSpace):
		return &api.CommonError{Code: "InsufficientStorage", Status: 507, Message: "There is no space left for objects. Free space on the volume of Berth's data directory."}
	case errors.Is(err, blob.ErrNotFound):
		return noSuchKey(key)
	}
	return err
}

// unsupported are members of inputs that ask for what is not here.
var unsupported = map[string]string{
	"ServerSideEncryption": "server-side encryption", "SSECustomerAlgorithm": "server-side encryption", "SSECustomerKey": "server-side encryption",
	"SSEKMSKeyId": "server-side encryption", "CopySourceSSECustomerKey": "server-side encryption",
	"Tagging": "tags", "ObjectLockMode": "object lock", "ObjectLockRetainUntilDate": "object lock", "ObjectLockLegalHoldStatus": "object lock",
	"ObjectLockEnabledForBucket": "object lock", "WebsiteRedirectLocation": "website redirects", "WriteOffsetBytes": "appending",
	"MFA": "MFA delete", "ChecksumXXHASH64": "XXHASH checksums", "ChecksumXXHASH3": "XXHASH checksums", "ChecksumXXHASH128": "XXHASH checksums",
	"IfMatchLastModifiedTime": "conditional deletes", "IfMatchSize": "conditional deletes",
}

// grants are members that set an access list.
var grants = []string{"GrantFullControl", "GrantRead", "GrantReadACP", "GrantWrite", "GrantWriteACP"}

// refuse answers an error for an input that asks for what is not here: better than to keep less than was
// asked for.
func refuse(in any) error {
	v := reflect.ValueOf(in).Elem()
	text := func(name string) string {
		f := v.FieldByName(name)
		if !f.IsValid() || f.IsZero() {
			return ""
		}
		return fmt.Sprint(reflect.Indirect(f).Interface())
	}
	for name, what := range unsupported {
		if value := text(name); value != "" && value != "false" {
			return notImplemented(what)
		}
	}
	for _, name := range grants {
		if text(name) != "" {
			return noACLs()
		}
	}
	switch text("ACL") {
	case "", "private", "bucket-owner-full-control":
	default:
		return noACLs()
	}
	switch class := text("StorageClass"); class {
	case "", "STANDARD":
	default:
		return fail(400, "InvalidStorageClass", "The storage class you specified is not valid", api.Detail{Name: "StorageClassRequested", Value: class})
	}
	if id := text("VersionId"); id != "" && id != "null" {
		return fail(404, "NoSuchVersion", "The specified version does not exist.", api.Detail{Name: "VersionId", Value: id})
	}
	return nil
}

func noACLs() error {
	return fail(400, "AccessControlListNotSupported", "The bucket does not allow ACLs")
}

// Invalid is the gateway's hook for inputs that break the model's constraints. What S3 judges in words of
// its own is left to the operations.
func Invalid(_ *api.Operation, vs []wire.Violation) error {
	for _, v := range vs {
		switch {
		case strings.HasSuffix(v.Path, "objects") || strings.HasPrefix(v.Path, "delete.") || strings.HasPrefix(v.Path, "multipartUpload."):
			return malformedXML()
		case v.Path == "storageClass", v.Path == "aCL", v.Path == "bucket", v.Path == "key":
		default:
			return invalidArgument(v.String(), v.Path, v.Value)
		}
	}
	return nil
}

func malformedXML() error {
	return fail(400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}
