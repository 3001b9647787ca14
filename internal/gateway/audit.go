package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/caller"
)

// entry is one line of the audit log. It says who did what and how it ended; never what was said:
// inputs and outputs hold secrets.
type entry struct {
	principal caller.Principal
	claimed   string // the access key of a request that was not authenticated
	id        string
	parent    string // the request being served when this one was made from inside
	service   *api.Service
	op        *api.Operation
	room      string // in place of service and op: "POST /_berth/reset"
	status    int
	err       error
	took      time.Duration
	remote    string
}

func (g *Gateway) audit(ctx context.Context, e entry) {
	attrs := make([]slog.Attr, 0, 12)
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	add("requestId", e.id)
	add("parent", e.parent)
	add("principal", e.principal.ARN)
	add("accessKeyId", e.principal.AccessKeyID)
	add("claimedAccessKeyId", e.claimed)
	add("account", e.principal.AccountID)
	add("region", e.principal.Region)
	if e.service != nil {
		add("service", e.service.Package)
	}
	if e.op != nil {
		add("operation", e.op.Name)
	}
	add("room", e.room)
	attrs = append(attrs, slog.Int("status", e.status))
	if e.err != nil {
		code := "Canceled" // the client went away
		if known := api.Error(nil); errors.As(e.err, &known) && !(ctx.Err() != nil && known.HTTPStatusCode() >= 500) {
			code = known.ErrorCode()
		}
		add("code", code)
	}
	attrs = append(attrs, slog.Duration("took", e.took))
	add("from", e.remote)
	g.cfg.Audit.LogAttrs(ctx, slog.LevelInfo, "call", attrs...)
}
