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
	// UnsupportedPayload: a payload signed in chunks, which no service served here takes yet.
	UnsupportedPayload Fault = "unsupported-payload"
)

// Style is the family of error codes a protocol speaks.
type Style int

const (
	// JSON: awsJson, restJson and rpcv2Cbor services. ("UnrecognizedClientException", 400)
	JSON Style = iota
	// Query: awsQuery and ec2Query services. ("InvalidClientTokenId", 403)
	Query
)

// Error is a refusal. Message is AWS's own text and safe to show to the client.
type Error struct {
	Fault   Fault
	Message string
}

func (e *Error) Error() string {
	return "authentication refused (" + string(e.Fault) + "): " + e.Message
}

// Code returns AWS's error code and HTTP status for e.
func (e *Error) Code(s Style) (code string, status int) {
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

// ErrUnknownKey is the answer to an access key or session token that is not ours. Which of the two it
// was is not said.
func ErrUnknownKey() *Error {
	return &Error{UnknownKey, "The security token included in the request is invalid."}
}

// ErrExpiredToken is the answer to a session that is over.
func ErrExpiredToken() *Error {
	return &Error{ExpiredToken, "The security token included in the request is expired"}
}

func incomplete(message string) *Error { return &Error{Incomplete, message} }

func invalid(message string) *Error { return &Error{Invalid, message} }
