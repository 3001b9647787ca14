package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// paint colours text on a terminal, and nowhere else. NO_COLOR (no-color.org) turns it off.
type paint bool

func newPaint(w io.Writer) paint {
	f, ok := w.(*os.File)
	return paint(ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd())))
}

func (p paint) in(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) bold(s string) string { return p.in("1", s) }
func (p paint) dim(s string) string  { return p.in("2", s) }
func (p paint) bad(s string) string  { return p.in("31", s) }
func (p paint) warn(s string) string { return p.in("33", s) }
func (p paint) good(s string) string { return p.in("32", s) }

// state colours a text by the state it tells: what runs is green, what failed red, what moves yellow.
func (p paint) state(text, state string, failed bool) string {
	switch {
	case state == "RUNNING" || state == "HEALTHY":
		return p.good(text)
	case state == "UNHEALTHY" || state == "NOT PLACED" || state == "STOPPED" && failed:
		return p.bad(text)
	case state == "STOPPED":
		return p.dim(text)
	}
	return p.warn(text)
}

// level colours a text by an event's type: INFO, WARN or ERROR.
func (p paint) level(text, level string) string {
	switch level {
	case "ERROR":
		return p.bad(text)
	case "WARN":
		return p.warn(text)
	}
	return p.good(text)
}
