package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/compose"
)

func composeCommand() *cobra.Command {
	c := &cobra.Command{Use: "compose", Short: "From Compose files to ECS"}
	c.AddCommand(composeConvertCommand())
	return c
}

func composeConvertCommand() *cobra.Command {
	var (
		files, profiles []string
		project, out    string
		o               compose.Options
	)
	c := &cobra.Command{
		Use:   "convert",
		Short: "Write task definitions and services for a Compose file",
		Long: `Writes a JSON file for each task definition and service, as the AWS CLI takes them:

  aws ecs register-task-definition --cli-input-json file://ecs/web.task-definition.json
  aws ecs create-service           --cli-input-json file://ecs/web.service.json

With --together all services become the containers of one task, which run-task can start.
What the Compose file says and ECS cannot is told on standard error.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := compose.Load(c.Context(), files,
				cli.WithOsEnv, cli.WithDotEnv, cli.WithConfigFileEnv, cli.WithDefaultConfigPath,
				cli.WithName(project), cli.WithProfiles(profiles), cli.WithResolvedPaths(true))
			if err != nil {
				return err
			}
			result, err := compose.Convert(p, o)
			if err != nil {
				return err
			}
			for _, note := range result.Notes {
				fmt.Fprintln(c.ErrOrStderr(), "note:", note)
			}
			if out == "-" {
				return printJSON(c, map[string]any{"taskDefinitions": result.Definitions, "services": result.Services})
			}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			write := func(name string, v any) error {
				raw, err := json.MarshalIndent(v, "", "  ")
				if err != nil {
					return err
				}
				file := filepath.Join(out, name)
				if err := os.WriteFile(file, append(raw, '\n'), 0o644); err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), file)
				return nil
			}
			for _, d := range result.Definitions {
				if err := write(strings.TrimPrefix(*d.Family, p.Name+"-")+".task-definition.json", d); err != nil {
					return err
				}
			}
			for _, s := range result.Services {
				if err := write(*s.ServiceName+".service.json", s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := c.Flags()
	flags.StringArrayVarP(&files, "file", "f", nil, "Compose file (several are merged; default: compose.yaml here or above)")
	flags.StringArrayVar(&profiles, "profile", nil, "active profile")
	flags.StringVarP(&project, "project-name", "p", "", "project name (default: as Compose finds it)")
	flags.StringVarP(&out, "output", "o", "ecs", "directory to write to, or - for standard output")
	flags.BoolVar(&o.Together, "together", false, "one task with all services as its containers")
	flags.StringVar(&o.Cluster, "cluster", "", "cluster of the services (default: the default cluster)")
	return c
}

func printJSON(c *cobra.Command, v any) error {
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}
