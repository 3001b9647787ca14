package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

const (
	protectTimeout = 4 * time.Second // less than writeTimeout
	maxProtectBody = 4 << 10
)

// protectionResponse is of $ECS_AGENT_URI/task-protection/v1/state. One member is set.
type protectionResponse struct {
	Protection *protectedTask     `json:"protection,omitempty"`
	Failure    *protectionFailure `json:"failure,omitempty"`
	Error      *protectionError   `json:"error,omitempty"`
}

type protectedTask struct {
	ExpirationDate    *time.Time
	ProtectionEnabled bool
	TaskArn           string
}

type protectionFailure struct {
	Arn    string
	Detail *string
	Reason string
}

type protectionError struct {
	Arn     string `json:"Arn,omitempty"`
	Code    string
	Message string
}

// protection reads the protection of the asker's task, or changes it.
func (s *Server) protection(w http.ResponseWriter, r *http.Request, source netip.Addr, id string) {
	fail := func(status int, arn, code, message string) {
		writeJSON(w, status, protectionResponse{Error: &protectionError{arn, code, message}})
	}
	var in struct {
		ProtectionEnabled *bool
		ExpiresInMinutes  *int64
	}
	switch r.Method {
	case http.MethodGet:
	case http.MethodPut:
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxProtectBody))
		body.DisallowUnknownFields()
		if err := body.Decode(&in); err != nil {
			fail(http.StatusBadRequest, "", "InvalidParameterException", "UpdateTaskProtection: failed to decode request")
			return
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	c, ok := s.find(source, id)
	if !ok {
		fail(http.StatusNotFound, "", "ResourceNotFoundException", "Failed to find a task for the request")
		return
	}
	arn := c.Task.Arn
	req := &dispatchpb.ProtectionRequest{TaskArn: arn}
	if r.Method == http.MethodPut {
		if in.ProtectionEnabled == nil {
			fail(http.StatusBadRequest, arn, "InvalidParameterException", "Invalid request: does not contain 'ProtectionEnabled' field")
			return
		}
		req.Update, req.Enabled = true, *in.ProtectionEnabled
		if in.ExpiresInMinutes != nil {
			// On the way to the server 0 stands for the default; ECS takes no number below 1.
			if *in.ExpiresInMinutes < 1 {
				fail(http.StatusBadRequest, arn, "InvalidParameterException", "expiresInMinutes should be between 1 and 2880 minutes")
				return
			}
			req.ExpiresInMinutes = *in.ExpiresInMinutes
		}
	}
	if s.cfg.Protect == nil {
		fail(http.StatusInternalServerError, arn, "ServerException", "this host has no server to ask")
		return
	}
	// Not the request's context: it ends with the sending side of the connection too, which simple
	// clients close once they have asked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), protectTimeout)
	defer cancel()
	reply, err := s.cfg.Protect.Protect(ctx, req)
	switch {
	case err != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || status.Code(err) == codes.DeadlineExceeded):
		fail(http.StatusGatewayTimeout, arn, "RequestCanceled", "Timed out calling ECS Task Protection API")
	case err != nil:
		s.log.Warn("the server did not answer for a task's protection", "task", arn, "error", err)
		fail(http.StatusInternalServerError, arn, "ServerException", "the server cannot be reached")
	case reply.ErrorCode == "ServerException":
		fail(http.StatusInternalServerError, arn, reply.ErrorCode, reply.ErrorMessage)
	case reply.ErrorCode != "":
		fail(http.StatusBadRequest, arn, reply.ErrorCode, reply.ErrorMessage)
	case reply.FailureReason != "":
		f := &protectionFailure{Arn: arn, Reason: reply.FailureReason}
		if reply.FailureDetail != "" {
			f.Detail = &reply.FailureDetail
		}
		writeJSON(w, http.StatusOK, protectionResponse{Failure: f})
	default:
		writeJSON(w, http.StatusOK, protectionResponse{Protection: &protectedTask{at(reply.ExpiresAt), reply.Enabled, arn}})
	}
}
