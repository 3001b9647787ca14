package sigv4

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// S3 still takes presigned URLs of signature version 2, and boto3 still makes them for us-east-1
// unless it is told otherwise. They name a key, a time to expire at, and a signature:
//
//	?AWSAccessKeyId=…&Expires=<seconds since 1970>&Signature=<base64 of HMAC-SHA1>
//
// The source is "Signing and authenticating REST requests (AWS signature version 2)" of S3's guide.
// Nothing but presigned requests to S3 is accepted in this way.

// isVersion2 tells whether the query has what only version 2 has.
func isVersion2(query params) bool {
	_, key := query.get("AWSAccessKeyId")
	return key
}

func parseVersion2(query params) (*Signature, error) {
	get := func(name string) string { v, _ := query.get(name); return v }
	for _, name := range []string{"AWSAccessKeyId", "Signature", "Expires"} {
		if query.count(name) != 1 || get(name) == "" {
			return nil, invalid("Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters").inS3("AccessDenied")
		}
	}
	expires, err := strconv.ParseInt(get("Expires"), 10, 64)
	if err != nil || expires < 0 {
		return nil, invalid("Invalid date (should be seconds since epoch): " + printable(get("Expires"))).inS3("AccessDenied")
	}
	token := get("x-amz-security-token")
	if !isWord(get("AWSAccessKeyId"), 1, 128) || len(token) > maxToken {
		return nil, ErrUnknownKey()
	}
	return &Signature{
		AccessKeyID: get("AWSAccessKeyId"), SessionToken: token, Scope: Scope{Service: "s3"},
		Time: time.Unix(expires, 0).UTC(), Presigned: true,
		version2: true, signature: get("Signature"), payload: UnsignedPayload,
	}, nil
}

// verify2 is Verify for version 2. Time is when the request expires.
func (s *Signature) verify2(r *http.Request, secret, service string, now time.Time) error {
	if service != "s3" {
		return invalid("Credential should be scoped to correct service: '" + service + "'. ")
	}
	if now.After(s.Time) {
		return invalid(fmt.Sprintf("Request has expired: %s is later than %s.", now.Format(timeFormat), s.Time.Format(timeFormat))).inS3("AccessDenied")
	}
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(stringToSign2(r, query)))
	want := base64.StdEncoding.EncodeToString(h.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(want), []byte(s.signature)) != 1 {
		return invalid("The request signature we calculated does not match the signature you provided. Check your key and signing method.").inS3("SignatureDoesNotMatch")
	}
	return nil
}

// subresources are the query's parameters that are part of what is signed.
var subresources = []string{
	"accelerate", "acl", "cors", "defaultObjectAcl", "delete", "lifecycle", "location", "logging", "notification",
	"partNumber", "policy", "replication", "requestPayment", "response-cache-control", "response-content-disposition",
	"response-content-encoding", "response-content-language", "response-content-type", "response-expires", "restore",
	"tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
}

// stringToSign2 is what version 2 signs: the path names the bucket, whichever way the request did.
func stringToSign2(r *http.Request, query params) string {
	header := func(name string) string {
		if v := r.Header.Get(name); v != "" {
			return v
		}
		v, _ := query.get(strings.ToLower(name)) // where a presigning client puts them
		return v
	}
	expires, _ := query.get("Expires")
	lines := []string{r.Method, header("Content-MD5"), header("Content-Type"), expires}
	amz := map[string][]string{}
	for name, values := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			amz[lower] = values
		}
	}
	for _, p := range query {
		if strings.HasPrefix(p.name, "x-amz-") && amz[p.name] == nil {
			amz[p.name] = []string{p.value}
		}
	}
	names := make([]string, 0, len(amz))
	for name := range amz {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		lines = append(lines, name+":"+strings.Join(amz[name], ","))
	}
	resource := r.URL.EscapedPath()
	separator := "?"
	for _, name := range subresources {
		if value, ok := query.get(name); ok {
			resource += separator + name
			if value != "" {
				resource += "=" + value
			}
			separator = "&"
		}
	}
	return strings.Join(append(lines, resource), "\n")
}
