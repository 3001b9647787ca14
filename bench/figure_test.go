package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		figure  Figure
		verdict string
	}{
		{Figure{Value: 10, Bar: Bar{Most: 10}}, "holds"},
		{Figure{Value: 10.1, Bar: Bar{Most: 10}}, "short"},
		{Figure{Value: 5000, Bar: Bar{Least: 5000}}, "holds"},
		{Figure{Value: 4999, Bar: Bar{Least: 5000}}, "short"},
		{Figure{Value: 100, Peer: "it", PeerValue: 50, Bar: Bar{Most: 1.6}}, "short"},
		{Figure{Value: 100, Peer: "it", PeerValue: 25, Bar: Bar{Least: 4}}, "holds"},
		{Figure{Value: 100, Peer: "it", Bar: Bar{Least: 4}}, "short"}, // the peer gave nothing to compare with
		{Figure{Value: math.NaN(), Bar: Bar{Most: 1}}, "short"},
		{Figure{Value: 1}, ""},
	} {
		if c.figure.judge(); c.figure.Verdict != c.verdict {
			t.Errorf("%+v: want %q", c.figure, c.verdict)
		}
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	order := []string{"a", "b", "c"}
	page := merge("", []section{newSection("c", Machine{Date: "one"}, []Figure{{Name: "f", Value: 1, Unit: "s"}}, []string{"note"}), newSection("a", Machine{Date: "one"}, nil, nil)}, order)
	again := merge(page, []section{newSection("b", Machine{Date: "two"}, nil, nil), newSection("a", Machine{Date: "three"}, nil, nil)}, order)
	var at []int
	for _, part := range []string{"# Benchmarks", "## a", "Measured three", "## b", "Measured two", "## c", "Measured one", "| f | 1 | s |", "- note"} {
		at = append(at, strings.Index(again, part))
	}
	if !slices.IsSorted(at) || at[0] != 0 || strings.Count(again, "Measured") != 3 {
		t.Errorf("parts at %v of\n%s", at, again)
	}
	if same := merge(again, nil, order); same != again {
		t.Errorf("merging nothing makes\n%s\nof\n%s", same, again)
	}
}

func TestShortAndQuantile(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 1: "1", 1.6: "1.6", 73.149: "73.1", 12345.6: "12346"} {
		if got := short(v); got != want {
			t.Errorf("short(%v) is %s, want %s", v, got, want)
		}
	}
	all := []time.Duration{5 * time.Millisecond, time.Millisecond, 3 * time.Millisecond}
	if got := quantile(all, 0.5); got != 3 {
		t.Errorf("median %v", got)
	}
	if got := quantile(all, 0.99); got != 5 {
		t.Errorf("p99 %v", got)
	}
}
