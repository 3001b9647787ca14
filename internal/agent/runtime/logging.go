package runtime

import (
	"context"
	"io"
	"log/slog"
	"slices"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// containerdLogger is a logger by which containerd writes to ours. Some of containerd's code knows only
// the logger of the whole process, so that one leads there too; of several runtimes in a process the
// last has it.
func containerdLogger(to *slog.Logger) *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.InfoLevel)
	l.AddHook(slogHook{to})
	shared := logrus.StandardLogger()
	shared.SetOutput(io.Discard)
	// The level goes to the shims as well, who write what they have to say to our standard error.
	shared.SetLevel(logrus.WarnLevel)
	shared.ReplaceHooks(l.Hooks)
	return logrus.NewEntry(l)
}

// harmless are messages that containerd takes more seriously than they are: a file system without
// fs-verity, and the end of a shim's log because the shim has ended.
var harmless = []string{"failed check for fsverity support", "copy shim log"}

type slogHook struct{ to *slog.Logger }

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes an entry on. What containerd says of its ordinary work is detail to us.
func (h slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelDebug
	switch {
	case slices.Contains(harmless, e.Message):
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	args := make([]any, 0, 2*len(e.Data))
	for name, value := range e.Data {
		args = append(args, name, value)
	}
	h.to.Log(ctx, level, "containerd: "+e.Message, args...)
	return nil
}
