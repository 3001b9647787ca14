// Command berth is Amazon ECS on your own machines, in one binary.
//
// It answers to other names too: containerd starts it as the shim of a task's containers, and the
// agent starts it as the logger process. Both are on the path of a container's launch, so they are
// told apart before anything else is done.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/agent/logger"
	"github.com/berthhq/berth/internal/agent/runtime"
)

// version is set by the build.
var version = "dev"

func main() {
	switch {
	case runtime.IsShim(os.Args):
		runtime.ShimMain()
		return
	case len(os.Args) > 1 && os.Args[1] == "logger":
		os.Exit(logger.Main(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintln(os.Stderr, "berth:", err)
		}
		os.Exit(1)
	}
}

// errReported ends a command with a failure that it has already told.
var errReported = errors.New("reported")

// options are the flags that every command takes.
type options struct {
	dataDir  string
	listen   string
	logLevel string
}

func (o *options) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil
}

// quietLogger is for the commands that work and end: they tell what went wrong alone, unless more is
// asked for.
func (o *options) quietLogger(c *cobra.Command) (*slog.Logger, error) {
	quiet := *o
	if !c.Flags().Changed("log-level") {
		quiet.logLevel = "warn"
	}
	return quiet.logger()
}

const (
	defaultDataDir = "/var/lib/berth"
	defaultListen  = "127.0.0.1:4566"
	defaultAccount = "000000000000"
	defaultRegion  = "us-east-1"
)

func command() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:           "berth",
		Short:         "Amazon ECS on your own machines",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&o.dataDir, "data-dir", defaultDataDir, "where this Berth keeps what it knows")
	flags.StringVar(&o.listen, "listen", defaultListen, "address of the API")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	root.AddCommand(
		upCommand(o), downCommand(o), resetCommand(o), doctorCommand(o),
		envCommand(o), statusCommand(o), explainCommand(o), eventsCommand(o), logsCommand(o), imageCommand(o), composeCommand(), versionCommand(),
	)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "berth", version) },
	}
}
