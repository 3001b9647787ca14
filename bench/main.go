// Bench measures Berth beside its peers, on the same machine in the same run, and says where it
// holds to its bars and where it falls short. `make bench` runs it.
//
// It prints one line a figure: name, value, unit, the peer's value, ratio, bar, holds or short. The
// same goes to bench/out/latest.json, and with the machine to docs/benchmarks.md. The peers, Debian's
// own packages of Docker and containerd, are unpacked below bench/out/peers and run there, in a
// network namespace of their own: nothing is installed, and the host's firewall is not touched.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/berthhq/berth/test/harness"
)

// bench is one run.
type bench struct {
	harness.T
	ctx     context.Context
	short   bool
	figures []Figure
	notes   []string
}

// measurements in the order in which they run: idle first, on a machine that is still quiet.
var measurements = []struct {
	name string
	run  func(*bench)
}{
	{"idle", idle},
	{"placement", placement},
	{"launch", launch},
	{"bridge", bridge},
	{"chain", chain},
	{"hundred", hundred},
	{"churn", churn},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == execInNamespace {
		os.Exit(execInNewNamespace(os.Args[2:]))
	}
	short := flag.Bool("short", false, "fewer repetitions and a shorter idle time; docs/benchmarks.md is left alone")
	only := flag.String("only", "", "measure only those whose name matches this regular expression: idle, placement, launch, bridge, chain, hundred, churn")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *short, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, short bool, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	var failures []error
	var figures []Figure
	var notes []string
	var sections []section
	for _, m := range measurements {
		if !wanted.MatchString(m.name) || ctx.Err() != nil {
			continue
		}
		t := &harness.Standalone{Title: "bench " + m.name}
		b := &bench{T: t, ctx: ctx, short: short}
		t.Logf("measuring")
		err := t.Run(func() { m.run(b) })
		if err := errors.Join(err, t.Close()); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", m.name, err))
		}
		figures = append(figures, b.figures...)
		notes = append(notes, b.notes...)
		if err == nil {
			sections = append(sections, newSection(m.name, thisMachine(), b.figures, b.notes))
		}
	}
	if ctx.Err() != nil {
		failures = append(failures, ctx.Err())
	}
	if short {
		sections = nil // too few repetitions to be kept
	}
	if err := write(figures, notes, sections, short || only != ""); err != nil {
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// note adds a sentence to the report, about how something was measured.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// add prints a figure and keeps it.
func (b *bench) add(f Figure) {
	f.judge()
	fmt.Println(f.line())
	b.figures = append(b.figures, f)
}

// report is the JSON of a run.
type report struct {
	Machine Machine  `json:"machine"`
	Figures []Figure `json:"figures"`
	Notes   []string `json:"notes"`
	Partial bool     `json:"partial"` // shortened, or not all that can be measured
}

func write(figures []Figure, notes []string, sections []section, partial bool) error {
	r := report{Machine: thisMachine(), Figures: figures, Notes: notes, Partial: partial}
	out := filepath.Join(harness.Root(), "bench", "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(out, "latest.json"), append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if len(sections) == 0 {
		return nil
	}
	file := filepath.Join(harness.Root(), "docs", "benchmarks.md")
	page, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write the page: %w", err)
	}
	var order []string
	for _, m := range measurements {
		order = append(order, m.name)
	}
	return os.WriteFile(file, []byte(merge(string(page), sections, order)), 0o644)
}
