package sigv4

import "net/http"

// Fault is why a request's authentication was refused.
type Fault string

const (
	// MissingToken: the request carries no signature at all.
	MissingToken Fault = "missing"
	// Incomplete: there is a signature, but it is malformed or lacks a part.
	Incomplete Fault = "incomplete"
	// Invalid: well formed, but wrong: expired, not yet current, of another scope, or a mismatch.
	Invalid Fault = "invalid"
	// UnknownKey: the access key or the session token is none of ours.
	UnknownKey Fault = "unknown-key"
	// ExpiredToken: the session token was ours and is over.
	ExpiredToken Fault = "expired-token"
	// UnsupportedPayload: a payload signed in chunks, for a service that takes none, or in a way not known.
	UnsupportedPayload Fault = "unsupported-payload"
	// Payload: the body is not what was signed or announced, or not in the form announced.
	Payload Fault = "payload"
)

// Style is the family of error codes a protocol speaks.
type Style int

const (
	// JSON: awsJson, restJson and rpcv2Cbor services. ("UnrecognizedClientException", 400)
	JSON Style = iota
	// Query: awsQuery and ec2Query services. ("InvalidClientTokenId", 403)
	Query
	// S3: s3 alone. ("InvalidAccessKeyId", 403)
	S3
)

// Error is a refusal. Message is AWS's own text and safe to show to the client.
type Error struct {
	Fault   Fault
	Message string

	s3 string // S3's code, where it tells apart what others do not
}

func (e *Error) Error() string {
	return "authentication refused (" + string(e.Fault) + "): " + e.Message
}

// Code returns AWS's error code and HTTP status for e.
func (e *Error) Code(s Style) (code string, status int) {
	if s == S3 {
		return e.s3Code()
	}
	type answer struct {
		json, query string
		queryStatus int
	}
	a, ok := map[Fault]answer{
		MissingToken:       {"MissingAuthenticationTokenException", "MissingAuthenticationToken", http.StatusForbidden},
		Incomplete:         {"IncompleteSignatureException", "IncompleteSignature", http.StatusBadRequest},
		Invalid:            {"InvalidSignatureException", "SignatureDoesNotMatch", http.StatusForbidden},
		UnknownKey:         {"UnrecognizedClientException", "InvalidClientTokenId", http.StatusForbidden},
		ExpiredToken:       {"ExpiredTokenException", "ExpiredToken", http.StatusForbidden},
		Payload:            {"InvalidSignatureException", "SignatureDoesNotMatch", http.StatusForbidden},
		UnsupportedPayload: {"NotImplementedException", "NotImplemented", http.StatusNotImplemented},
	}[e.Fault]
	switch {
	case !ok:
		return "InternalFailure", http.StatusInternalServerError
	case s == Query:
		return a.query, a.queryStatus
	case e.Fault == UnsupportedPayload:
		return a.json, http.StatusNotImplemented
	}
	return a.json, http.StatusBadRequest
}

// s3Code is S3's: "Error responses", S3 API reference.
func (e *Error) s3Code() (code string, status int) {
	switch e.s3 {
	case "":
	case "AccessDenied", "RequestTimeTooSkewed", "SignatureDoesNotMatch":
		return e.s3, http.StatusForbidden
	case "MissingContentLength":
		return e.s3, http.StatusLengthRequired
	default:
		return e.s3, http.StatusBadRequest
	}
	switch e.Fault {
	case MissingToken:
		return "AccessDenied", http.StatusForbidden
	case Incomplete:
		return "AuthorizationHeaderMalformed", http.StatusBadRequest
	case Invalid:
		return "SignatureDoesNotMatch", http.StatusForbidden
	case UnknownKey:
		return "InvalidAccessKeyId", http.StatusForbidden
	case ExpiredToken:
		return "ExpiredToken", http.StatusBadRequest
	case Payload:
		return "IncompleteBody", http.StatusBadRequest
	case UnsupportedPayload:
		return "NotImplemented", http.StatusNotImplemented
	}
	return "InternalError", http.StatusInternalServerError
}

// ErrUnknownKey is the answer to an access key or session token that is not ours. Which of the two it
// was is not said.
func ErrUnknownKey() *Error {
	return &Error{Fault: UnknownKey, Message: "The security token included in the request is invalid."}
}

// ErrExpiredToken is the answer to a session that is over.
func ErrExpiredToken() *Error {
	return &Error{Fault: ExpiredToken, Message: "The security token included in the request is expired"}
}

func incomplete(message string) *Error { return &Error{Fault: Incomplete, Message: message} }

func invalid(message string) *Error { return &Error{Fault: Invalid, Message: message} }

func (e *Error) inS3(code string) *Error {
	e.s3 = code
	return e
}
