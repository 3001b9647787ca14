package main

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/berthhq/berth/internal/ecs/history"
)

const (
	shownLines = 10  // of a container's output
	shownCell  = 100 // characters of a cell that could hold a whole error
	wrapAt     = 100
)

// renderer prints explanations for people.
type renderer struct {
	w     io.Writer
	paint paint
	now   time.Time
	zone  *time.Location
	err   error // of the first write that failed
}

func (r *renderer) f(format string, args ...any) {
	if r.err == nil {
		_, r.err = fmt.Fprintf(r.w, format, args...)
	}
}

// tame makes texts printable that come from containers, registries and clients.
func tame(e history.Explanation) history.Explanation {
	e.Why, e.Reason = printable(e.Why), printable(e.Reason)
	each := func(texts []string) []string {
		out := make([]string, len(texts))
		for i, s := range texts {
			out[i] = printable(s)
		}
		return out
	}
	e.Hints, e.Notes = each(e.Hints), each(e.Notes)
	e.Timeline = slices.Clone(e.Timeline)
	for i := range e.Timeline {
		e.Timeline[i].Cause = printable(e.Timeline[i].Cause)
	}
	e.Waiting = slices.Clone(e.Waiting)
	for i := range e.Waiting {
		e.Waiting[i].For, e.Waiting[i].Then = printable(e.Waiting[i].For), printable(e.Waiting[i].Then)
	}
	e.Containers = slices.Clone(e.Containers)
	for i := range e.Containers {
		c := &e.Containers[i]
		c.Reason, c.HealthOutput, c.Output = printable(c.Reason), printable(c.HealthOutput), slices.Clone(c.Output)
		for j := range c.Output {
			c.Output[j].Text = printable(c.Output[j].Text)
		}
	}
	return e
}

// list prints failures, one a paragraph of two lines.
func (r *renderer) list(all []history.Explanation) {
	if len(all) == 0 {
		r.f("Nothing has failed in the last 7 days.\n")
		return
	}
	for _, e := range all {
		e = tame(e)
		ago := history.Duration(r.now.Sub(e.At)) + " ago"
		r.f("%s  %s %s  %s\n", r.paint.dim(fmt.Sprintf("%-14s", ago)), e.Kind, r.paint.bold(shortID(e.ID)), r.subject(e))
		r.f("                %s\n", e.Why)
	}
	r.f("\n%s\n", r.paint.dim("`berth explain ID` tells more of one."))
}

func shortID(id string) string {
	if len(id) == 32 {
		return id[:12]
	}
	return id
}

func (r *renderer) subject(e history.Explanation) string {
	s := e.Definition + " in " + e.Cluster
	if e.LaunchType == "FARGATE" {
		s += ", FARGATE"
	}
	return s
}

// explanation prints one: first why, then what there is to it.
func (r *renderer) explanation(e history.Explanation) {
	e = tame(e)
	state := e.State
	if e.Desired == "STOPPED" && e.State != "STOPPED" {
		state += " → STOPPED"
	}
	r.f("%s %s\n\n", r.paint.bold(r.paint.state(state+":", e.State, failedCode(e.Code))), e.Why)
	for _, h := range e.Hints {
		r.wrapped("→ ", "  ", h)
	}
	if len(e.Hints) > 0 {
		r.f("\n")
	}
	r.facts(e)
	r.waiting(e)
	r.timeline(e)
	r.containers(e)
	r.verdicts(e)
	for _, n := range e.Notes {
		r.f("\n%s\n", r.paint.dim("note: "+n))
	}
}

func (r *renderer) facts(e history.Explanation) {
	r.f("%-10s  %s  %s\n", e.Kind, e.ID, r.subject(e))
	if e.Host != "" {
		r.f("%-10s  %s\n", "host", e.Host)
	}
	switch {
	case e.Code == "":
	case strings.Contains(e.Why, e.Reason):
		r.f("%-10s  %s\n", "stop code", e.Code)
	default:
		r.f("%-10s  %s: %s\n", "stop code", e.Code, e.Reason)
	}
	if e.Needs != "" {
		r.f("%-10s  %s\n", "needs", e.Needs)
	}
	r.f("%-10s  %s (%s ago)\n", "since", e.At.In(r.zone).Format(time.DateTime), history.Duration(r.now.Sub(e.At)))
}

func (r *renderer) waiting(e history.Explanation) {
	if len(e.Waiting) == 0 {
		return
	}
	t := table{title: "WAITS FOR", head: []string{"CONTAINER", "WHAT", "SINCE", "AT MOST", "THEN"}}
	for _, w := range e.Waiting {
		since, left := "", "no limit"
		if !w.Since.IsZero() {
			since = history.Duration(r.now.Sub(w.Since))
		}
		if !w.Deadline.IsZero() {
			left = history.Duration(w.Deadline.Sub(r.now)) + " more"
		}
		t.add(cmp.Or(w.Container, "(task)"), history.Gist(w.For, shownCell), since, left, history.Gist(w.Then, shownCell))
	}
	r.table(&t)
}

func (r *renderer) timeline(e history.Explanation) {
	if len(e.Timeline) == 0 {
		return
	}
	t := table{title: "TIMELINE"}
	told := map[string]bool{}
	for i, s := range e.Timeline {
		after := ""
		if i > 0 {
			after = "+" + history.Duration(s.After)
		}
		what := strings.TrimSpace(s.Container + " " + s.What)
		cause := s.Cause
		if told[cause] && len(cause) > 20 {
			cause = "" // long, and said above
		}
		told[s.Cause] = true
		cause = history.Gist(cause, shownCell)
		if s.By != "" {
			cause = strings.TrimPrefix(cause+", by "+s.By, ", ")
		}
		t.add(s.At.In(r.zone).Format("15:04:05.000"), after, what, cause)
		t.colour(2, r.paint.state(what, s.What, true))
	}
	r.table(&t)
	if e.LeftOut > 0 {
		r.f("  %s\n", r.paint.dim(fmt.Sprintf("%d steps in the middle were not kept", e.LeftOut)))
	}
}

func (r *renderer) containers(e history.Explanation) {
	if len(e.Containers) == 0 {
		return
	}
	t := table{title: "CONTAINERS", head: []string{"NAME", "STATUS", "EXIT", "RAN", "RESTARTS", "HEALTH", "IMAGE"}}
	for _, c := range e.Containers {
		exit := ""
		switch {
		case c.OutOfMemory && c.ExitCode != nil:
			exit = fmt.Sprintf("%d, out of memory", *c.ExitCode)
		case c.ExitCode != nil && c.ExitMeaning != "":
			exit = fmt.Sprintf("%d, %s", *c.ExitCode, c.ExitMeaning)
		case c.ExitCode != nil:
			exit = fmt.Sprint(*c.ExitCode)
		case c.Status == "STOPPED":
			exit = "never ran"
		}
		ran := ""
		if c.Ran > 0 {
			ran = history.Duration(c.Ran)
		}
		name := c.Name
		if !c.Essential && len(e.Containers) > 1 {
			name += " (not essential)"
		}
		image := c.Image
		if c.Digest != "" {
			image += " " + strings.TrimPrefix(c.Digest, "sha256:")[:min(12, len(strings.TrimPrefix(c.Digest, "sha256:")))]
		}
		restarts := ""
		if c.Restarts > 0 {
			restarts = fmt.Sprint(c.Restarts)
		}
		t.add(name, c.Status, exit, ran, restarts, c.Health, image)
		t.colour(1, r.paint.state(c.Status, c.Status, c.ExitCode == nil || *c.ExitCode != 0))
		if c.Health != "" {
			t.colour(5, r.paint.state(c.Health, c.Health, false))
		}
	}
	r.table(&t)
	for _, c := range e.Containers {
		if c.Reason != "" && c.Reason != e.Reason {
			r.f("  %s: %s\n", c.Name, c.Reason)
		}
		if c.HealthOutput != "" {
			r.f("  %s: its last check said: %s\n", c.Name, c.HealthOutput)
		}
	}
	for _, c := range e.Containers {
		if len(c.Output) == 0 {
			continue
		}
		r.f("\n%s\n", r.paint.bold("LAST OUTPUT OF "+c.Name))
		for _, l := range c.Output[max(0, len(c.Output)-shownLines):] {
			text := l.Text
			if l.Stream == "stderr" {
				text = r.paint.warn(text)
			}
			r.f("  %s  %s\n", r.paint.dim(l.At.In(r.zone).Format("15:04:05.000")), text)
		}
	}
}

// verdicts prints a run's hosts, with a column for each filter that any of them was asked.
func (r *renderer) verdicts(e history.Explanation) {
	if len(e.Verdicts) == 0 {
		return
	}
	t := table{title: "HOSTS, NEAREST FIRST", head: []string{"HOST", "FOR", "VERDICT"}}
	column := map[string]int{}
	for _, v := range e.Verdicts {
		for _, c := range v.Checks {
			if _, known := column[c.Filter]; !known {
				column[c.Filter] = len(t.head)
				t.head = append(t.head, strings.ToUpper(c.Filter))
			}
		}
	}
	for _, v := range e.Verdicts {
		cells := make([]string, len(t.head))
		bad := map[int]bool{2: v.Reason != ""}
		cells[0], cells[1] = cmp.Or(v.Hostname, shortID(v.HostID)), v.Provider
		cells[2] = cmp.Or(strings.TrimSuffix(v.Reason, " placement constraint unsatisfied"), "fits")
		for _, c := range v.Checks {
			at := column[c.Filter]
			switch {
			case c.OK && cells[at] == "":
				cells[at] = "ok"
			case !c.OK && bad[at]:
				cells[at] += "; " + c.Detail
			case !c.OK:
				cells[at], bad[at] = cmp.Or(c.Detail, "no"), true
			}
		}
		t.add(cells...)
		for i, text := range cells {
			if bad[i] {
				t.colour(i, r.paint.bad(text))
			}
		}
	}
	r.table(&t)
}

// escapes are the sequences that colour text and move the cursor.
var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

// printable keeps a text from steering the terminal.
func printable(s string) string {
	s = escapes.ReplaceAllString(s, "")
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\t' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return '\uFFFD'
		}
		return c
	}, strings.TrimRight(s, "\r\n"))
}

// wrapped prints a paragraph.
func (r *renderer) wrapped(first, rest, text string) {
	line := first
	for _, word := range strings.Fields(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > wrapAt && line != first && line != rest {
			r.f("%s\n", strings.TrimRight(line, " "))
			line = rest
		}
		line += word + " "
	}
	r.f("%s\n", strings.TrimRight(line, " "))
}

// table is aligned by what is seen: colours take no room, and columns without anything in them are left
// out.
type table struct {
	title string
	head  []string // empty: none
	rows  [][]cell
}

type cell struct{ text, painted string }

func (t *table) add(texts ...string) {
	row := make([]cell, len(texts))
	for i, s := range texts {
		row[i] = cell{s, s}
	}
	t.rows = append(t.rows, row)
}

// colour sets how a cell of the newest row is painted.
func (t *table) colour(column int, painted string) { t.rows[len(t.rows)-1][column].painted = painted }

func (r *renderer) table(t *table) {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i >= len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	last := -1
	for i := range widths {
		if widths[i] == 0 {
			continue
		}
		if last = i; i < len(t.head) {
			widths[i] = max(widths[i], utf8.RuneCountInString(t.head[i]))
		}
	}
	r.f("\n%s\n", r.paint.bold(t.title))
	line := func(text func(i int) cell) {
		var b strings.Builder
		for i := range widths {
			if widths[i] == 0 {
				continue
			}
			c := text(i)
			b.WriteString("  " + c.painted)
			if i != last {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)))
			}
		}
		r.f("%s\n", strings.TrimRight(b.String(), " "))
	}
	if len(t.head) > 0 {
		line(func(i int) cell {
			if i >= len(t.head) {
				return cell{}
			}
			return cell{t.head[i], r.paint.dim(t.head[i])}
		})
	}
	for _, row := range t.rows {
		line(func(i int) cell {
			if i >= len(row) {
				return cell{}
			}
			return row[i]
		})
	}
}
