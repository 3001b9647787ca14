package main

import (
	"bytes"
	"testing"

	"github.com/berthhq/berth/internal/admin"
)

func TestLinePrinter(t *testing.T) {
	t.Parallel()
	line := func(container, stream, text string, partial bool) admin.LogLine {
		return admin.LogLine{Container: container, Stream: stream, Text: []byte(text), Partial: partial}
	}
	for name, c := range map[string]struct {
		lines    []admin.LogLine
		out, err string
	}{
		"one container, byte for byte": {
			lines: []admin.LogLine{line("a", "stdout", "x\x00\xff", false), line("a", "stderr", "oops", false)},
			out:   "x\x00\xff\n", err: "oops\n",
		},
		"a long line in parts": {
			lines: []admin.LogLine{line("a", "stdout", "be", true), line("a", "stdout", "rth", false)},
			out:   "berth\n",
		},
		"several containers are told apart, once a line": {
			lines: []admin.LogLine{
				line("a", "stdout", "1", false), line("b", "stdout", "2", true), line("b", "stdout", "3", false), line("a", "stdout", "4", false),
			},
			out: "1\nb | 23\na | 4\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, err bytes.Buffer
			p := &linePrinter{out: &out, errOut: &err}
			for _, l := range c.lines {
				if e := p.print(l); e != nil {
					t.Fatal(e)
				}
			}
			if out.String() != c.out || err.String() != c.err {
				t.Errorf("printed %q and %q, want %q and %q", out.String(), err.String(), c.out, c.err)
			}
		})
	}
}

func TestEveryCommandTakesTheTwoFlags(t *testing.T) {
	t.Parallel()
	root := command()
	for _, c := range root.Commands() {
		for _, name := range []string{"data-dir", "listen"} {
			if c.InheritedFlags().Lookup(name) == nil {
				t.Errorf("berth %s has no --%s", c.Name(), name)
			}
		}
	}
}
