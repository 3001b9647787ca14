package main

import (
	"log/slog"

	"github.com/spf13/cobra"
)

func preflight(*cobra.Command, *slog.Logger) error { return nil }

func doctorCommand(*options) *cobra.Command { return &cobra.Command{Use: "doctor"} }
