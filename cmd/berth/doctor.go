package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/agent/network"
	"github.com/berthhq/berth/internal/agent/runtime"
	"github.com/berthhq/berth/internal/awsprofile"
	"github.com/berthhq/berth/internal/instance"
)

// finding is one thing to know before Berth runs on this host.
type finding struct {
	kind string // missing, change or warning
	what string
	why  string
}

const (
	isMissing = string(network.Missing)
	isChange  = string(network.Change)
)

func doctorCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "List what this host lacks, and what Berth will change on it, and why",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			findings, err := examine(c.Context(), o, true)
			if err != nil {
				return err
			}
			if len(findings) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "ok       nothing is missing and nothing will be changed")
			}
			return tell(c.OutOrStdout(), findings)
		},
	}
}

// preflight is the doctor before `up`: it stops at what is missing, and is silent about what Berth has
// changed on this host before.
func preflight(ctx context.Context, o *options, profile bool, w io.Writer) error {
	findings, err := examine(ctx, o, profile)
	if err != nil {
		return err
	}
	_, known := instance.Peek(o.dataDir)
	var say []finding
	for _, f := range findings {
		if f.kind != isChange || errors.Is(known, instance.ErrNone) {
			say = append(say, f)
		}
	}
	return tell(w, say)
}

// tell prints findings, and fails if something is missing.
func tell(w io.Writer, findings []finding) error {
	missing := 0
	for _, f := range findings {
		if f.kind == isMissing {
			missing++
		}
		fmt.Fprintf(w, "%-8s %s\n         %s\n", f.kind, f.what, f.why)
	}
	if missing > 0 {
		return fmt.Errorf("%s missing on this host: see above", count(missing, "thing is", "things are"))
	}
	return nil
}

func examine(ctx context.Context, o *options, profile bool) ([]finding, error) {
	if os.Geteuid() != 0 {
		return []finding{{isMissing, "root", "containers, networks and cgroups are made by root: run it with sudo"}}, nil
	}
	id, runDir := unnamed, "/run/berth"
	var findings []finding
	in, err := instance.Peek(o.dataDir)
	switch {
	case err == nil:
		id, runDir = in.ID, in.RunDir
	case errors.Is(err, instance.ErrNone):
		findings = append(findings, finding{isChange, "the directory " + o.dataDir + " is made",
			"state, images, keys and what containers write are kept there; `berth reset --yes` removes it"})
	default:
		return nil, err
	}
	for _, f := range runtime.Doctor(existing(o.dataDir), "") {
		if !f.OK {
			kind := "warning"
			if f.Fatal {
				kind = isMissing
			}
			findings = append(findings, finding{kind, f.Name, f.Detail})
		}
	}
	net, err := network.Doctor(ctx, network.Config{Instance: id, StateDir: filepath.Join(o.dataDir, "network"), RunDir: runDir})
	if err != nil {
		return nil, fmt.Errorf("examine the network: %w", err)
	}
	named := strings.NewReplacer()
	if id == unnamed {
		named = strings.NewReplacer(unnamed, "ID", "be"+unnamed[:4]+"+", "be+") // what every instance's links begin with
	}
	for _, f := range net {
		findings = append(findings, finding{string(f.Kind), named.Replace(f.What), named.Replace(f.Why)})
	}
	if !profile {
		return findings, nil
	}
	home, err := awsprofile.Invoker()
	if err != nil {
		return append(findings, finding{"warning", "no home directory", err.Error()}), nil
	}
	if awsprofile.Exists(home) {
		return findings, nil
	}
	return append(findings, finding{isChange, "an AWS profile named " + awsprofile.Name + " is added in " + filepath.Join(home.Dir, ".aws"),
		"so that AWS tools find this Berth; profiles that are there are not altered; --no-aws-profile leaves it out"}), nil
}

// unnamed is the ID of an instance that is yet to be made.
const unnamed = "00000000"

// existing is the path, or the directory nearest to it that is there: the doctor makes none.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}
