package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/admin"
	"github.com/berthhq/berth/internal/awsprofile"
	"github.com/berthhq/berth/internal/instance"
)

// endPatience is how long a Berth that was told to end may take.
const endPatience = 30 * time.Second

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop all tasks and end Berth; what it knows stays",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, in, err := o.connect()
			if err != nil {
				return err
			}
			tell := func(t string) { fmt.Fprintln(c.ErrOrStderr(), t) }
			err = client.Down(c.Context(), tell)
			if errors.Is(err, admin.ErrNotRunning) {
				err = o.downAlone(c, tell)
			}
			if err != nil {
				return fmt.Errorf("stop tasks: %w", err)
			}
			held, err := awaitEnd(c.Context(), in.DataDir)
			if err != nil {
				return err
			}
			held.Release()
			return nil
		},
	}
}

// downAlone stops the tasks of a Berth that is not running: it is started without its API for as long
// as that takes.
func (o *options) downAlone(c *cobra.Command, tell func(string)) error {
	ctx := c.Context()
	log, err := o.quietLogger(c)
	if err != nil {
		return err
	}
	in, err := instance.Hold(o.dataDir)
	if err != nil {
		return err
	}
	defer in.Release()
	set := settings{account: account(in), region: in.Settings().Region}
	if set.region == "" {
		set.region = defaultRegion
	}
	return run(ctx, in, set, log, func(s *stack) error {
		defer s.exit()
		return s.StopTasks(ctx, "Berth was shut down", tell)
	})
}

// awaitEnd returns with the instance held, when the Berth that held it has ended.
func awaitEnd(ctx context.Context, dataDir string) (*instance.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		in, err := instance.Hold(dataDir)
		if !errors.Is(err, instance.ErrHeld) {
			return in, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("berth did not end within %v: %w", endPatience, err)
		}
	}
}

func resetCommand(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset --yes",
		Short: "Kill all tasks and remove everything this Berth ever made on this host",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return fmt.Errorf("this kills all tasks and deletes %s: say --yes", o.dataDir)
			}
			client, _, err := o.connect()
			if errors.Is(err, instance.ErrNone) {
				return o.removeEmpty()
			}
			if err != nil {
				return err
			}
			if err := client.Exit(c.Context()); err != nil && !errors.Is(err, admin.ErrNotRunning) {
				return fmt.Errorf("end the running berth: %w", err)
			}
			in, err := awaitEnd(c.Context(), o.dataDir)
			if err != nil {
				return err
			}
			defer in.Release()
			return o.reset(c, in)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	return cmd
}

// removeEmpty removes a data directory in which no Berth has ever been, if there is nothing in it.
func (o *options) removeEmpty() error {
	err := os.Remove(o.dataDir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%w, and it is not empty: %s", instance.ErrNone, o.dataDir)
}

// reset removes everything, from the containers inwards; each room takes away what it made.
func (o *options) reset(c *cobra.Command, in *instance.Instance) error {
	ctx := c.Context()
	log, err := o.quietLogger(c)
	if err != nil {
		return err
	}
	set := settings{account: account(in), region: in.Settings().Region, listen: in.Settings().Listen}
	h, err := openHost(ctx, in, set, log)
	if err != nil {
		return err
	}
	err = errors.Join(
		h.agent.RemoveAll(ctx),
		h.runtime.Reset(ctx),
		h.volumes.Reset(),
		h.network.Reset(ctx),
		h.output.Shutdown(ctx),
	)
	h.close()
	if err != nil {
		return fmt.Errorf("remove what runs: %w", err)
	}
	if err := removeProfile(in); err != nil {
		log.Warn("the AWS profile stays", "error", err)
	}
	return in.Remove()
}

func removeProfile(in *instance.Instance) error {
	profiles := in.Profiles()
	if len(profiles) == 0 {
		return nil
	}
	id, secret, err := rootKey(in)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range profiles {
		// The files' owner stays the one they have.
		errs = append(errs, awsprofile.Remove(awsprofile.Home{Dir: p.Home, UID: os.Geteuid(), GID: os.Getegid()},
			awsprofile.Profile{Endpoint: p.Endpoint, Region: p.Region, AccessKeyID: id, SecretAccessKey: secret}))
	}
	return errors.Join(errs...)
}
