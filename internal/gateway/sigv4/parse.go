package sigv4

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"
	dateFormat = "20060102"

	// UnsignedPayload in place of a hash says that the signature does not cover the body.
	UnsignedPayload = "UNSIGNED-PAYLOAD"

	// Presigned requests live for 15 minutes unless they say otherwise, and a week at most.
	defaultExpiry = 15 * time.Minute
	maxExpiry     = 7 * 24 * time.Hour

	// Bounds that no client comes near, so that a hostile header costs little.
	maxAuthorization = 8 << 10
	maxSignedHeaders = 128
	maxToken         = 8 << 10
)

// Scope is what a signing key is good for: one day, one region, one service.
type Scope struct {
	Date    string // YYYYMMDD, UTC
	Region  string
	Service string // the service's signing name, such as "ecs"
}

func (s Scope) String() string {
	return s.Date + "/" + s.Region + "/" + s.Service + "/" + terminator
}

// Signature is a request's claim to have been signed, well formed but not yet verified.
type Signature struct {
	AccessKeyID  string
	SessionToken string // empty for long-term keys
	Scope        Scope
	Time         time.Time
	Presigned    bool
	// Expires is how long a presigned request is good for after Time; zero unless Presigned.
	Expires time.Duration

	version2      bool // see version2.go
	signedHeaders []string
	headerList    string // signedHeaders as the client wrote it
	signature     string // 64 hexadecimal digits
	payload       string // the declared hash or UnsignedPayload; empty: not declared
}

// CoversBody tells whether verifying needs the hash of the body.
func (s *Signature) CoversBody() bool {
	return s.payload != UnsignedPayload && framing(s.payload) == plain
}

// Payload is the hash of the body that the request declares, or what stands in its place: UnsignedPayload
// or one of the STREAMING- kinds; "" when it declares none.
func (s *Signature) Payload() string { return s.payload }

// Parse finds the signature of r. It reads neither the body nor the clock. Errors are [*Error].
func Parse(r *http.Request) (*Signature, error) {
	header := r.Header.Values("Authorization")
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	_, presigned := query.get("X-Amz-Algorithm")
	if !presigned {
		_, presigned = query.get("X-Amz-Signature")
	}
	version2 := !presigned && isVersion2(query)
	presigned = presigned || version2
	switch {
	case len(header) == 0 && !presigned:
		return nil, &Error{Fault: MissingToken, Message: "Missing Authentication Token"}
	case len(header) > 1 || len(header) == 1 && presigned:
		return nil, incomplete("Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, " +
			"Signature query string parameter or the Authorization header should be specified")
	case version2:
		return parseVersion2(query)
	case presigned:
		return parsePresigned(r, query)
	}
	return parseHeader(r, header[0])
}

func parseHeader(r *http.Request, header string) (*Signature, error) {
	if len(header) > maxAuthorization {
		return nil, incomplete("Authorization header is too long.")
	}
	alg, rest, _ := strings.Cut(header, " ")
	if alg != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm' in the Authorization header; expected '" + algorithm + "'.")
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := fields[name]; !ok || twice {
			return nil, incomplete("Authorization header has a part that is not a single key=value pair. " + digestOf(header))
		}
		fields[name] = value
	}
	date, dateErr := headerTime(r.Header)
	var missing []string
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			missing = append(missing, "Authorization header requires '"+name+"' parameter.")
		}
	}
	if dateErr != nil {
		missing = append(missing, dateErr.Message)
	}
	if len(missing) > 0 {
		return nil, incomplete(strings.Join(append(missing, digestOf(header)), " "))
	}
	s := &Signature{
		Time:         date,
		SessionToken: r.Header.Get("X-Amz-Security-Token"),
		payload:      r.Header.Get("X-Amz-Content-Sha256"),
		headerList:   fields["SignedHeaders"],
		signature:    fields["Signature"],
	}
	return s.complete(r, fields["Credential"])
}

func parsePresigned(r *http.Request, query params) (*Signature, error) {
	get := func(name string) string { v, _ := query.get(name); return v }
	if alg := get("X-Amz-Algorithm"); alg != algorithm {
		return nil, incomplete("X-Amz-Algorithm only supports \"" + algorithm + "\"")
	}
	for _, name := range []string{"X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if n := query.count(name); n != 1 {
			return nil, incomplete("AWS query-string parameters must include '" + name + "' exactly once.")
		}
	}
	date, err := time.Parse(timeFormat, get("X-Amz-Date"))
	if err != nil {
		return nil, incomplete("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
	}
	expires := defaultExpiry
	if text, ok := query.get("X-Amz-Expires"); ok {
		seconds, err := strconv.ParseUint(text, 10, 32)
		switch {
		case err != nil:
			return nil, incomplete("X-Amz-Expires should be a number")
		case time.Duration(seconds)*time.Second > maxExpiry:
			return nil, incomplete("X-Amz-Expires must be less than a week (in seconds); " +
				"that is, the given X-Amz-Expires must be less than 604800 seconds")
		}
		expires = time.Duration(seconds) * time.Second
	}
	s := &Signature{
		Time:         date,
		Presigned:    true,
		Expires:      expires,
		SessionToken: get("X-Amz-Security-Token"),
		payload:      get("X-Amz-Content-Sha256"),
		headerList:   get("X-Amz-SignedHeaders"),
		signature:    get("X-Amz-Signature"),
	}
	if s.payload == "" {
		s.payload = r.Header.Get("X-Amz-Content-Sha256")
	}
	return s.complete(r, get("X-Amz-Credential"))
}

// complete fills in and checks what both kinds of signature share.
func (s *Signature) complete(r *http.Request, credential string) (*Signature, error) {
	part := strings.Split(credential, "/")
	if len(part) != 5 {
		return nil, incomplete(fmt.Sprintf("Credential must have exactly 5 slash-delimited elements, "+
			"e.g. keyid/date/region/service/term, got %d", len(part)))
	}
	s.AccessKeyID, s.Scope = part[0], Scope{part[1], part[2], part[3]}
	switch {
	case !isWord(s.AccessKeyID, 1, 128):
		return nil, incomplete("Credential has a malformed access key ID.")
	case !isName(s.Scope.Region):
		return nil, invalid("Credential should be scoped to a valid region. ")
	case !isName(s.Scope.Service):
		return nil, invalid("Credential should be scoped to a valid service. ")
	case part[4] != terminator:
		return nil, invalid("Credential should be scoped with a valid terminator: 'aws4_request'. ")
	case len(s.SessionToken) > maxToken:
		return nil, ErrUnknownKey()
	case len(r.Header.Values("X-Amz-Security-Token")) > 1, len(r.Header.Values("X-Amz-Content-Sha256")) > 1:
		return nil, incomplete("X-Amz-Security-Token and X-Amz-Content-Sha256 may be given once.")
	}
	if want := s.Time.Format(dateFormat); s.Scope.Date != want {
		return nil, invalid(fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version "+
			"of date from HTTP: '%.8s' != '%s', from '%s'.", printable(s.Scope.Date), want, s.Time.Format(timeFormat)))
	}
	switch {
	case s.payload == "", s.payload == UnsignedPayload, isHex64(s.payload):
	case s.Scope.Service == "s3" && framing(s.payload) != plain: // see Body
	case strings.HasPrefix(s.payload, "STREAMING-"):
		return nil, &Error{Fault: UnsupportedPayload, Message: "A payload signed in this way (x-amz-content-sha256: STREAMING-…) is not supported by this service."}
	default:
		return nil, incomplete("x-amz-content-sha256 must be UNSIGNED-PAYLOAD, or a valid sha256 value.")
	}
	s.signedHeaders = strings.Split(s.headerList, ";")
	if len(s.signedHeaders) > maxSignedHeaders {
		return nil, incomplete("SignedHeaders has too many elements.")
	}
	// What changes the meaning of a request must be covered by its signature.
	if !slices.Contains(s.signedHeaders, "host") {
		return nil, invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for _, name := range []string{"X-Amz-Target", "X-Amz-Date", "X-Amz-Security-Token"} {
		if lower := strings.ToLower(name); r.Header.Get(name) != "" && !slices.Contains(s.signedHeaders, lower) {
			return nil, invalid("'" + lower + "' must be a 'SignedHeader' in the AWS Authorization.")
		}
	}
	return s, nil
}

// headerTime is when a request with an Authorization header was signed.
func headerTime(h http.Header) (time.Time, *Error) {
	if v := h.Get("X-Amz-Date"); v != "" {
		t, err := time.Parse(timeFormat, v)
		if err != nil {
			return time.Time{}, incomplete("Date must be in ISO-8601 'basic format'.")
		}
		return t, nil
	}
	v := h.Get("Date")
	if v == "" {
		return time.Time{}, incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if t, err := time.Parse(timeFormat, v); err == nil {
		return t, nil
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return time.Time{}, incomplete("Date must be in ISO-8601 'basic format'.")
	}
	return t.UTC(), nil
}

// Claim reads the access key, session token and scope that a request names, without demanding that
// the rest of its signature be there or be sound. It is what is left of authentication where any
// credentials are accepted. Parts that are absent or malformed are empty.
func Claim(r *http.Request) (accessKeyID, sessionToken string, scope Scope) {
	credential := ""
	if _, after, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential, _, _ = strings.Cut(after, ",")
		sessionToken = r.Header.Get("X-Amz-Security-Token")
	} else if q, err := url.ParseQuery(r.URL.RawQuery); err == nil {
		if id := q.Get("AWSAccessKeyId"); id != "" && isWord(id, 1, 128) {
			return id, q.Get("x-amz-security-token"), Scope{Service: "s3"}
		}
		credential, sessionToken = q.Get("X-Amz-Credential"), q.Get("X-Amz-Security-Token")
	}
	part := strings.Split(strings.TrimSpace(credential), "/")
	at := func(i int, ok func(string) bool) string {
		if i < len(part) && ok(part[i]) {
			return part[i]
		}
		return ""
	}
	word := func(s string) bool { return isWord(s, 1, 128) }
	if len(sessionToken) > maxToken {
		sessionToken = ""
	}
	return at(0, word), sessionToken, Scope{at(1, word), at(2, isName), at(3, isName)}
}

// digestOf identifies a header in a message without repeating it, as AWS does.
func digestOf(header string) string {
	sum := sha256.Sum256([]byte(header))
	return "(Hashed with SHA-256 and encoded with Base64) Authorization=" + base64.StdEncoding.EncodeToString(sum[:])
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '\'' {
			return '?'
		}
		return r
	}, s)
}

// isName tells whether s can be a region or service name. Both end up in ARNs and storage keys.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 63
}

func isWord(s string, least, most int) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return len(s) >= least && len(s) <= most
}

// isHex64 tells whether s is a SHA-256 as signers write it: 64 hexadecimal digits in lower case.
func isHex64(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64
}
