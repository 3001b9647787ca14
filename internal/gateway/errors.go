package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/gateway/sigv4"
	"github.com/berthhq/berth/internal/wire"
)

// isXML tells which family of error codes a protocol uses: those that answer in XML are of the older.
func isXML(p api.Protocol) bool {
	return p == api.AWSQuery || p == api.EC2Query || p == api.RESTXML
}

// speaksXML tells whether a service does, be it beside others.
func speaksXML(svc *api.Service) bool { return slices.ContainsFunc(svc.Protocols, isXML) }

func models(svc *api.Service, code string) bool {
	return svc != nil && slices.ContainsFunc(svc.Errors, func(s *api.Shape) bool { return s.Error != nil && s.Error.Code == code })
}

// invalid is the common answer to an input that breaks the model's constraints.
func invalid(svc *api.Service, vs []wire.Violation) error {
	code := "ValidationException"
	switch {
	case models(svc, "InvalidParameterException"):
		code = "InvalidParameterException"
	case speaksXML(svc):
		code = "ValidationError"
	}
	return &api.CommonError{Code: code, Message: wire.ViolationsMessage(vs), Status: http.StatusBadRequest}
}

// Denied is the answer to a call that the policy does not allow.
func Denied(c Call) api.Error {
	e := &api.CommonError{
		Code: "AccessDeniedException", Status: http.StatusBadRequest,
		Message: fmt.Sprintf("User: %s is not authorized to perform: %s", c.Principal.ARN, c.Action()),
	}
	if speaksXML(c.Service) {
		e.Code, e.Status = "AccessDenied", http.StatusForbidden
	}
	return e
}

// tooLarge is the answer to a body over the limit.
func tooLarge(r *http.Request) api.Error {
	e := &api.CommonError{Code: "RequestEntityTooLargeException", Status: http.StatusRequestEntityTooLarge,
		Message: "The request processing fails because of a too large entity."}
	if isXML(fallback(r).Name()) {
		e.Code = "RequestEntityTooLarge"
	}
	return e
}

// fallback is the protocol in which to answer a request of which nothing is known yet.
func fallback(r *http.Request) wire.Protocol {
	none, _ := wire.NewRouter().Route(r, nil, "")
	return none.Protocol
}

// internal is a fault of ours as others see it: AWS's code for it and no more. Inside the process
// errors.Is still finds the cause.
type internal struct {
	api.CommonError
	cause error
}

func (e *internal) Unwrap() error { return e.cause }

// s3Texts are S3's own words for refusals.
var s3Texts = map[string]string{
	"AccessDenied":         "Access Denied",
	"InvalidAccessKeyId":   "The AWS Access Key Id you provided does not exist in our records.",
	"ExpiredToken":         "The provided token has expired.",
	"RequestTimeTooSkewed": "The difference between the request time and the current time is too large.",
}

// expose turns an error into what may be shown to a caller who speaks p. Every error that is not meant
// for the caller is logged here, with its stack if it was a panic. svc may be nil.
func (g *Gateway) expose(ctx context.Context, id string, svc *api.Service, p api.Protocol, err error) api.Error {
	if refused := (*sigv4.Error)(nil); errors.As(err, &refused) {
		style := sigv4.JSON
		switch {
		case p == api.RESTXML: // S3 is the only one served; Route 53 and CloudFront take Query's
			style = sigv4.S3
		case isXML(p):
			style = sigv4.Query
		}
		code, status := refused.Code(style)
		message := refused.Message
		if text := s3Texts[code]; style == sigv4.S3 && text != "" {
			message = text
		}
		return &api.CommonError{Code: code, Message: message, Status: status}
	}
	if known := api.Error(nil); errors.As(err, &known) {
		return known
	}
	masked := &internal{
		CommonError: api.CommonError{
			Code: "InternalFailure", Status: http.StatusInternalServerError,
			Message: "The request processing has failed because of an unknown error, exception or failure.",
		},
		cause: err,
	}
	switch {
	case models(svc, "ServerException"):
		masked.Code = "ServerException"
	case p == api.RESTXML:
		masked.Code, masked.Message = "InternalError", "We encountered an internal error. Please try again."
	}
	attrs := []slog.Attr{slog.String("requestId", id)}
	if svc != nil {
		attrs = append(attrs, slog.String("service", svc.Package))
	}
	level := slog.LevelError
	switch fell := (*panicked)(nil); {
	case errors.As(err, &fell):
		attrs = append(attrs, slog.Any("panic", fell.value), slog.String("stack", string(fell.stack)))
	case ctx.Err() != nil:
		level = slog.LevelDebug // the caller went away; that its call failed is no news
		fallthrough
	default:
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	g.cfg.Log.LogAttrs(ctx, level, "call failed inside", attrs...)
	return masked
}
