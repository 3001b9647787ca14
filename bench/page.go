package main

import (
	"fmt"
	"strings"
)

// The page is made of sections, one a measurement, each with the machine, the day and the version it was
// measured with: a run of some of them replaces theirs and leaves the others.

const pageHead = `# Benchmarks

Written by ` + "`make bench`" + `; do not edit. Each peer runs on the same machine in the same run, unpacked from
Debian's packages. A figure either holds to its bar or falls short of it, and both are printed. Each section
says when it was measured; ` + "`go run ./bench -only NAME`" + ` measures one anew.
`

// section is one measurement's part of the page.
type section struct {
	name, text string // text with its heading
}

// newSection renders a measurement.
func newSection(name string, m Machine, figures []Figure, notes []string) section {
	var w strings.Builder
	fmt.Fprintf(&w, "## %s\n\n", name)
	fmt.Fprintf(&w, "Measured %s at %s on %s, %d cores, %d GiB, Linux %s, %s, cgroup %s, %s. Peers: %s.\n\n", m.Date, m.Version, m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.OS, m.Cgroup, m.Go, strings.Join(m.Peers, ", "))
	w.WriteString("| figure | value | unit | peer | ratio | bar | |\n|---|---:|---|---:|---:|---:|---|\n")
	for _, f := range figures {
		fmt.Fprintf(&w, "| %s |\n", strings.Join(f.columns(), " | "))
	}
	w.WriteString("\n")
	for _, n := range notes {
		fmt.Fprintf(&w, "- %s\n", n)
	}
	return section{name, w.String()}
}

// merge puts sections in the place of those of the same name in a page, in the order of names.
func merge(page string, fresh []section, order []string) string {
	texts := map[string]string{}
	for i, part := range strings.Split(page, "\n## ") {
		if name, _, ok := strings.Cut(part, "\n"); i > 0 && ok {
			texts[name] = "## " + strings.TrimRight(part, "\n") + "\n"
		}
	}
	for _, s := range fresh {
		texts[s.name] = strings.TrimRight(s.text, "\n") + "\n"
	}
	out := pageHead
	for _, name := range order {
		if text, ok := texts[name]; ok {
			out += "\n" + text
		}
	}
	return out
}
