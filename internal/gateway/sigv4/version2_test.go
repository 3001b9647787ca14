package sigv4

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The example of S3's guide, "Query string request authentication alternative".
const (
	guideSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	guideURL    = "/johnsmith/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620"
)

func TestVersion2(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, url, service string
		header               http.Header
		now                  int64
		want                 string // of the error; empty: none
	}{
		"guide":        {"GET", guideURL, "s3", nil, 1175139619, ""},
		"expired":      {"GET", guideURL, "s3", nil, 1175139621, "Request has expired"},
		"other method": {"PUT", guideURL, "s3", nil, 1175139619, "does not match"},
		"other key":    {"GET", strings.Replace(guideURL, "puppy", "kitten", 1), "s3", nil, 1175139619, "does not match"},
		"other time":   {"GET", strings.Replace(guideURL, "1175139620", "1175139630", 1), "s3", nil, 1175139619, "does not match"},
		"more meant":   {"GET", guideURL + "&acl", "s3", nil, 1175139619, "does not match"},
		"more said":    {"GET", guideURL, "s3", http.Header{"X-Amz-Meta-A": {"b"}}, 1175139619, "does not match"},
		"not S3":       {"GET", guideURL, "ecs", nil, 1175139619, "correct service"},
		"no signature": {"GET", "/b/k?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1", "s3", nil, 1175139619, "requires"},
		"twice":        {"GET", guideURL + "&Expires=99999999999", "s3", nil, 1175139619, "requires"},
		"no time":      {"GET", strings.Replace(guideURL, "1175139620", "soon", 1), "s3", nil, 1175139619, "Invalid date"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := httptest.NewRequest(test.method, test.url, nil)
				for k, v := range test.header {
					r.Header[k] = v
				}
				s, err := Parse(r)
				if err == nil {
					if s.AccessKeyID != "AKIAIOSFODNN7EXAMPLE" || !s.Presigned || s.CoversBody() {
						t.Errorf("parsed %+v", s)
					}
					time.Sleep(time.Until(time.Unix(test.now, 0))) // the bubble's clock begins with the year 2000
					err = (&Verifier{}).Verify(r, s, guideSecret, test.service, "")
				}
				switch {
				case test.want == "" && err != nil:
					t.Errorf("refused: %v", err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%v, not %q", err, test.want)
				}
			})
		})
	}
}
