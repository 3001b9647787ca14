package store

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZapLogger makes etcd log to slog, warnings and above. fatal, when given, is told the message with which
// etcd would end the process, on the goroutine that would have done so; see member.
func newZapLogger(log *slog.Logger, fatal func(message string)) *zap.Logger {
	var opts []zap.Option
	if fatal != nil {
		opts = append(opts, zap.WithFatalHook(fatalHook(fatal)))
	}
	return zap.New(&slogCore{log: log.With("component", "etcd")}, opts...)
}

// slogCore is a zapcore.Core over slog.
type slogCore struct{ log *slog.Logger }

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: slog.New(c.log.Handler().WithAttrs(attrs(fields)))}
}

// harmless are parts of warnings that are not passed on.
var harmless = []string{
	// A member that starts for the first time; tried again seconds later.
	"Failed to detect schema version",
	"Failed to detect storage schema version",
	"failed to update storage version",
	// A member that starts again and has not yet applied its log; it tries again a few ticks later.
	"cannot campaign at term",
	// The client's every failed try; what comes of it the store says itself.
	"retrying of unary invoker failed",
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return ce
	}
	for _, h := range harmless {
		if strings.Contains(e.Message, h) {
			return ce
		}
	}
	return ce.AddCore(e, c)
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	ctx := context.Background()
	if !c.log.Enabled(ctx, level) {
		return nil
	}
	r := slog.NewRecord(e.Time, level, e.Message, 0)
	r.AddAttrs(attrs(fields)...)
	return c.log.Handler().Handle(ctx, r)
}

func (c *slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for k, v := range enc.Fields {
			if d, ok := v.(time.Duration); ok {
				v = d.String()
			}
			out = append(out, slog.Any(k, v))
		}
	}
	return out
}

// fatalHook runs after a fatal message was logged.
type fatalHook func(message string)

func (h fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	message := e.Message
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			message += ": " + err.Error()
		}
	}
	h(message)
}
