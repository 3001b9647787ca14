package main

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Figure is one thing measured.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Peer is what it is compared with, and PeerValue the peer's figure in the same unit; Ratio is
	// Value over PeerValue. All are absent without a peer.
	Peer      string  `json:"peer,omitempty"`
	PeerValue float64 `json:"peerValue,omitempty"`
	Ratio     float64 `json:"ratio,omitempty"`
	// Bar is what was promised, of the ratio if there is a peer, else of the value; Verdict is "holds"
	// or "short", or empty for what was promised to nobody.
	Bar     Bar    `json:"bar"`
	Verdict string `json:"verdict,omitempty"`
}

// Bar is a promise: at most, or at least, a value.
type Bar struct {
	Most  float64 `json:"most,omitempty"`
	Least float64 `json:"least,omitempty"`
}

func (b Bar) String() string {
	switch {
	case b.Most > 0:
		return "≤" + short(b.Most)
	case b.Least > 0:
		return "≥" + short(b.Least)
	}
	return "-"
}

func (f *Figure) judge() {
	judged := f.Value
	if f.Peer != "" {
		if f.PeerValue > 0 {
			f.Ratio = f.Value / f.PeerValue
		}
		judged = f.Ratio
	}
	switch {
	case f.Bar == Bar{}:
	case math.IsNaN(judged) || f.Bar.Most > 0 && judged > f.Bar.Most || judged < f.Bar.Least:
		f.Verdict = "short"
	default:
		f.Verdict = "holds"
	}
}

// columns are the figure's values as text, "-" where there is none.
func (f Figure) columns() []string {
	peer, ratio := "-", "-"
	if f.Peer != "" {
		peer, ratio = short(f.PeerValue)+" ("+f.Peer+")", short(f.Ratio)+"×"
	}
	bar := f.Bar.String()
	if f.Peer != "" && bar != "-" {
		bar += "×"
	}
	verdict := f.Verdict
	if verdict == "" {
		verdict = "-"
	}
	return []string{f.Name, short(f.Value), f.Unit, peer, ratio, bar, verdict}
}

func (f Figure) line() string { return strings.Join(f.columns(), "\t") }

// short prints three significant digits.
func short(v float64) string {
	if v == 0 {
		return "0"
	}
	if a := math.Abs(v); a >= 1000 {
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// quantile of durations, in milliseconds. The median of an even number is the upper one.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return ms(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))])
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
