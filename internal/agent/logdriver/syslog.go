package logdriver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

var facilities = map[string]int{
	"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
	"authpriv": 10, "ftp": 11, "local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21,
	"local6": 22, "local7": 23,
}

// syslog sends a message a line, as Docker's driver does.
type syslog struct {
	link
	format        string // "", rfc3164, rfc5424 or rfc5424micro
	facility      int
	tag, hostname string
}

func (d *Drivers) newSyslog(r record) (sink, error) {
	o := r.Options
	if err := checkNames("syslog", o, append([]string{"syslog-address", "syslog-facility", "syslog-format",
		"syslog-tls-ca-cert", "syslog-tls-skip-verify"}, extraOptions...)...); err != nil {
		return nil, err
	}
	s := &syslog{format: o["syslog-format"], facility: facilities["daemon"]}
	switch s.format {
	case "", "rfc3164", "rfc5424", "rfc5424micro":
	default:
		//lint:ignore ST1005 Docker's words
		return nil, errors.New("Invalid syslog format")
	}
	if f := o["syslog-facility"]; f != "" {
		n, ok := facilities[f]
		if i, err := strconv.Atoi(f); err == nil && i >= 0 && i <= 23 {
			n, ok = i, true
		}
		if !ok {
			return nil, errors.New("invalid syslog facility")
		}
		s.facility = n
	}
	var err error
	if s.tag, err = r.tag("{{.ID}}"); err != nil {
		return nil, err
	}
	if s.hostname, err = os.Hostname(); err != nil {
		return nil, err
	}
	if err := s.locate(d, o); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *syslog) locate(d *Drivers, o map[string]string) error {
	address := o["syslog-address"]
	if address == "" {
		s.network, s.address = "unixgram", "/dev/log"
		return nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "unix", "unixgram":
		s.network, s.address = u.Scheme, u.Path
		return d.socketPath(u.Path)
	case "udp", "tcp", "tcp+tls":
	default:
		return fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "514"
	}
	s.network, s.address = strings.TrimSuffix(u.Scheme, "+tls"), net.JoinHostPort(host, port)
	if u.Scheme == "tcp+tls" {
		_, skip := o["syslog-tls-skip-verify"]
		s.tls, err = tlsConfig(host, o["syslog-tls-ca-cert"], skip)
	}
	return err
}

func (s *syslog) limits() limits { return socketLimits }

func (s *syslog) prepare(ctx context.Context) error { return s.open(ctx) }

func (s *syslog) send(ctx context.Context, events []event) (int, error) {
	if err := s.open(ctx); err != nil {
		return 0, err
	}
	var all []byte
	for _, e := range events {
		m := s.message(e)
		if s.network == "tcp" || s.network == "unix" {
			all = append(all, m...)
		} else if err := s.write(m); err != nil {
			return 0, err
		}
	}
	if len(all) == 0 {
		return 0, nil
	}
	return 0, s.write(all)
}

// message is one message, framed.
func (s *syslog) message(e event) []byte {
	severity := 6 // informational
	if e.stream == spool.Stderr {
		severity = 3 // error
	}
	priority, pid := s.facility<<3|severity, os.Getpid()
	stamp := e.time.Format(time.RFC3339)
	var b []byte
	switch s.format {
	case "":
		b = fmt.Appendf(nil, "<%d>%s %s[%d]: ", priority, e.time.Format(time.Stamp), s.tag, pid)
	case "rfc3164":
		b = fmt.Appendf(nil, "<%d>%s %s %s[%d]: ", priority, e.time.Format(time.Stamp), s.hostname, s.tag, pid)
	case "rfc5424micro":
		stamp = e.time.Format("2006-01-02T15:04:05.000000Z07:00")
		fallthrough
	case "rfc5424":
		b = fmt.Appendf(nil, "<%d>1 %s %s %s %d %s - ", priority, stamp, s.hostname, s.tag, pid, s.tag)
	}
	b = append(append(b, bytes.TrimSuffix(e.text, []byte("\r"))...), '\n')
	if s.tls != nil && strings.HasPrefix(s.format, "rfc5424") {
		return append(fmt.Appendf(nil, "%d ", len(b)), b...) // RFC 5425
	}
	return b
}
