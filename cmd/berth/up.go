package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/berthhq/berth/internal/admin"
	"github.com/berthhq/berth/internal/awsprofile"
	"github.com/berthhq/berth/internal/gateway"
	"github.com/berthhq/berth/internal/instance"
)

func upCommand(o *options) *cobra.Command {
	set := settings{}
	var noProfile bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run Berth in the foreground. SIGTERM ends it and leaves its tasks running",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := o.logger()
			if err != nil {
				return err
			}
			set.listen, set.profile = o.listen, !noProfile
			if err := set.check(); err != nil {
				return err
			}
			if err := preflight(c.Context(), o, set.profile, c.ErrOrStderr()); err != nil {
				return err
			}
			in, err := instance.Hold(o.dataDir)
			if err != nil {
				return err
			}
			defer in.Release()
			if !c.Flags().Changed("account") {
				set.account = account(in)
			}
			return up(c.Context(), in, set, log, c.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&set.account, "account", defaultAccount, "account ID, 12 digits")
	f.StringVar(&set.region, "region", defaultRegion, "region of the AWS profile, and of requests that name none")
	f.BoolVar(&set.dev, "dev", false, "for laptops and test suites: accept any credentials as root, on loopback only")
	f.StringToStringVar(&set.registryMap, "registry-map", nil, "fetch images from elsewhere, as in '*.dkr.ecr.*.amazonaws.com=registry.local:5000'")
	f.BoolVar(&noProfile, "no-aws-profile", false, "add no AWS profile to the home directory")
	return cmd
}

// check refuses settings that cannot be, before anything is made or changed.
func (s settings) check() error {
	if !regexp.MustCompile(`^[0-9]{12}$`).MatchString(s.account) {
		return fmt.Errorf("--account: %q is not 12 digits", s.account)
	}
	if !regexp.MustCompile(`^[a-z0-9-]{1,63}$`).MatchString(s.region) {
		return fmt.Errorf("--region: %q is not a region's name", s.region)
	}
	if err := gateway.CheckListen(s.listen, s.dev); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return nil
}

// up runs Berth until ctx ends.
func up(ctx context.Context, in *instance.Instance, set settings, log *slog.Logger, out io.Writer) (err error) {
	// First of all: a port that is taken is the likeliest mistake, and nothing needs undoing yet.
	if set.api, err = net.Listen("tcp", set.listen); err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	defer set.api.Close()
	if host, port, _ := net.SplitHostPort(set.listen); port == "0" {
		_, port, _ = net.SplitHostPort(set.api.Addr().String())
		set.listen = net.JoinHostPort(host, port)
	}
	if !gateway.IsLoopback(set.listen) {
		log.Warn("the API is reachable from other machines, and what it says is not encrypted: there is no TLS yet", "listen", set.listen)
	}
	if err := in.Remember(instance.Settings{Listen: set.listen, Dev: set.dev, Account: set.account, Region: set.region}); err != nil {
		return err
	}
	return run(ctx, in, set, log, func(s *stack) error {
		if set.profile {
			s.addProfile()
		}
		fmt.Fprintf(out, "ready http://%s account %s region %s pid %d\n", set.listen, set.account, set.region, os.Getpid())
		return nil
	})
}

// endpoint is where a client on this machine finds the API.
func endpoint(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err == nil {
		switch host {
		case "", "0.0.0.0":
			listen = net.JoinHostPort("127.0.0.1", port)
		case "::":
			listen = net.JoinHostPort("::1", port)
		}
	}
	return "http://" + listen
}

// stack is both halves and the admin socket: all of Berth on one machine.
type stack struct {
	in      *instance.Instance
	set     settings
	log     *slog.Logger
	plane   *plane
	host    *host
	started time.Time
	exit    context.CancelFunc
}

// run opens everything, calls ready when it is usable, and serves until ctx ends, ready fails, or
// something breaks.
func run(ctx context.Context, in *instance.Instance, set settings, log *slog.Logger, ready func(*stack) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &stack{in: in, set: set, log: log, started: time.Now(), exit: cancel}
	var opening errgroup.Group
	opening.Go(func() (err error) { s.plane, err = openPlane(ctx, in, set, log); return err })
	opening.Go(func() (err error) { s.host, err = openHost(ctx, in, set, log); return err })
	err = opening.Wait()
	defer func() {
		if s.host != nil {
			s.host.close()
		}
		if s.plane != nil {
			s.plane.close()
		}
	}()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.plane.run(ctx) })
	g.Go(func() error { return s.host.run(ctx) })
	g.Go(func() error { return admin.Serve(ctx, in.AdminSocket(), s, log.With("room", "admin")) })
	g.Go(func() error {
		if err := s.awaitHost(ctx); err != nil {
			return err
		}
		return ready(s)
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// hostPatience is how long the host of the same process may take to connect.
const hostPatience = 20 * time.Second

// awaitHost returns when this machine's own agent is connected, so that the first RunTask finds it.
func (s *stack) awaitHost(ctx context.Context) error {
	late := time.NewTimer(hostPatience)
	defer late.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !s.plane.dispatch.Connected(s.host.agent.HostID()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("this machine's agent did not connect within %v", hostPatience)
		}
	}
	return nil
}

// profile is the AWS profile of this Berth.
func (s *stack) profile() awsprofile.Profile {
	root := s.plane.keys.Root()
	return awsprofile.Profile{
		Endpoint: endpoint(s.set.listen), Region: s.set.region,
		AccessKeyID: root.AccessKeyID, SecretAccessKey: root.SecretAccessKey,
	}
}

// addProfile writes the AWS profile. A Berth without one serves all the same, so a failure is told and
// no more.
func (s *stack) addProfile() {
	home, err := awsprofile.Invoker()
	if err == nil {
		var result awsprofile.Result
		profile := s.profile()
		result, err = awsprofile.Add(home, profile)
		switch {
		case err != nil:
		case result == awsprofile.Foreign:
			s.log.Info("an AWS profile named "+awsprofile.Name+" is there already and was not altered; see `berth env`", "home", home.Dir)
		default:
			err = s.in.RememberProfile(instance.Profile{Home: home.Dir, Endpoint: profile.Endpoint, Region: profile.Region})
		}
	}
	if err != nil {
		s.log.Warn("no AWS profile was added; see `berth env`", "error", err)
	}
}
