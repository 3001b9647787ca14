package s3

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
)

// conditions are those of a request on an object (RFC 9110, section 13).
type conditions struct {
	ifMatch, ifNoneMatch             *string
	ifModifiedSince, ifUnmodifiedSnc *time.Time
}

func preconditionFailed(condition string) error {
	return fail(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold", api.Detail{Name: "Condition", Value: condition})
}

// check answers an error unless they hold for an object of that ETag and time. Of a pair the ETag's
// counts alone.
func (c conditions) check(etag string, modified time.Time) error {
	modified = modified.Truncate(time.Second) // as fine as HTTP's dates are
	switch {
	case c.ifMatch != nil:
		if !matches(*c.ifMatch, etag) {
			return preconditionFailed("If-Match")
		}
	case c.ifUnmodifiedSnc != nil && modified.After(*c.ifUnmodifiedSnc):
		return preconditionFailed("If-Unmodified-Since")
	}
	switch {
	case c.ifNoneMatch != nil:
		if matches(*c.ifNoneMatch, etag) {
			return notModified(etag, modified)
		}
	case c.ifModifiedSince != nil && !modified.After(*c.ifModifiedSince):
		return notModified(etag, modified)
	}
	return nil
}

func notModified(etag string, modified time.Time) error {
	return &api.CommonError{Code: "NotModified", Message: "Not Modified", Status: 304, Header: map[string]string{
		"ETag": etag, "Last-Modified": modified.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"),
	}}
}

// matches tells whether a list of ETags, quoted or not, has one, or is a star.
func matches(list, etag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == "*" || strings.Trim(one, `"`) == strings.Trim(etag, `"`) {
			return true
		}
	}
	return false
}

// span is a part of an object, in bytes.
type span struct{ from, length int64 }

// header is the Content-Range of a part of an object of that size.
func (s span) header(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", s.from, s.from+s.length-1, size)
}

// parseRange reads a Range header. ok is false for one that is not understood or asks for several parts:
// the answer is the whole object then (RFC 9110, section 14.2). One that begins behind the object's end
// is InvalidRange.
func parseRange(header string, size int64) (s span, ok bool, err error) {
	spec, found := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !dash || first == "" && last == "" {
		return span{}, false, nil
	}
	from, fromOK := offset(first)
	to, toOK := offset(last)
	if !fromOK || !toOK {
		return span{}, false, nil
	}
	switch {
	case first == "": // the last bytes
		from, to = max(0, size-to), size-1
		if last != "" && strings.Trim(last, "0") == "" {
			from = size
		}
	case last == "" || to >= size:
		if last != "" && to < from {
			return span{}, false, nil
		}
		to = size - 1
	case to < from:
		return span{}, false, nil
	}
	if from >= size {
		return span{}, false, &api.CommonError{Code: "InvalidRange", Status: 416, Message: "The requested range is not satisfiable",
			Details: []api.Detail{{Name: "RangeRequested", Value: header}, {Name: "ActualObjectSize", Value: strconv.FormatInt(size, 10)}},
			Header:  map[string]string{"Content-Range": fmt.Sprintf("bytes */%d", size)}}
	}
	return span{from, to - from + 1}, true, nil
}

// offset reads a number of a range; "" is 0, and what no object can be is as large as it gets.
func offset(text string) (int64, bool) {
	if text == "" {
		return 0, true
	}
	if strings.Trim(text, "0123456789") != "" || len(text) > 32 {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 1<<62 - 1, true
	}
	return n, true
}
