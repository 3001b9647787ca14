package logdriver

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// splunk posts batches to an HTTP event collector.
type splunk struct {
	client *http.Client
	url    string // of the collector
	token  string
	format string // inline, json or raw
	verify bool
	gzip   bool
	level  int

	tag      string
	extras   map[string]string
	metadata splunkEvent
}

type splunkEvent struct {
	Event      any    `json:"event"`
	Time       string `json:"time"`
	Host       string `json:"host"`
	Source     string `json:"source,omitempty"`
	SourceType string `json:"sourcetype,omitempty"`
	Index      string `json:"index,omitempty"`
}

type splunkLine struct {
	Line   any               `json:"line"`
	Source string            `json:"source"`
	Tag    string            `json:"tag,omitempty"`
	Attrs  map[string]string `json:"attrs,omitempty"`
}

func newSplunk(r record) (sink, error) {
	o := r.Options
	if err := checkNames("splunk", o, append([]string{"splunk-url", "splunk-token", "splunk-source", "splunk-sourcetype",
		"splunk-index", "splunk-capath", "splunk-caname", "splunk-insecureskipverify", "splunk-format",
		"splunk-verify-connection", "splunk-gzip", "splunk-gzip-level"}, extraOptions...)...); err != nil {
		return nil, err
	}
	for _, name := range []string{"splunk-url", "splunk-token"} {
		if o[name] == "" {
			return nil, fmt.Errorf("splunk: %s is expected", name)
		}
	}
	u, err := url.Parse(o["splunk-url"])
	if err != nil {
		return nil, errors.New("splunk: failed to parse splunk-url as url value in splunk")
	}
	if !u.IsAbs() || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" ||
		u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("splunk: expected format scheme://dns_name_or_ip:port for splunk-url")
	}
	s := &splunk{url: u.Scheme + "://" + u.Host + "/services/collector/event/1.0", token: o["splunk-token"], format: "inline",
		verify: true, level: gzip.DefaultCompression, extras: r.extras(),
		metadata: splunkEvent{Source: o["splunk-source"], SourceType: o["splunk-sourcetype"], Index: o["splunk-index"]}}
	switch f := o["splunk-format"]; f {
	case "":
	case "inline", "json", "raw":
		s.format = f
	default:
		return nil, fmt.Errorf("unknown format specified %s, supported formats are inline, json and raw", f)
	}
	skip := false
	for name, to := range map[string]*bool{"splunk-insecureskipverify": &skip, "splunk-verify-connection": &s.verify, "splunk-gzip": &s.gzip} {
		if v, ok := o[name]; ok {
			if *to, err = strconv.ParseBool(v); err != nil {
				return nil, err
			}
		}
	}
	if v, ok := o["splunk-gzip-level"]; ok {
		if s.level, err = strconv.Atoi(v); err != nil || s.level < gzip.DefaultCompression || s.level > gzip.BestCompression {
			return nil, fmt.Errorf("not supported level '%s' for splunk-gzip-level (supported values between %d and %d)",
				v, gzip.DefaultCompression, gzip.BestCompression)
		}
	}
	if s.tag, err = r.tag("{{.ID}}"); err != nil {
		return nil, err
	}
	if s.metadata.Host, err = os.Hostname(); err != nil {
		return nil, err
	}
	tlsConfig, err := tlsConfig(o["splunk-caname"], o["splunk-capath"], skip)
	if err != nil {
		return nil, err
	}
	s.client = &http.Client{Timeout: putTimeout,
		Transport: &http.Transport{TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		// Nowhere else than where the definition says, and not with the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, nil
}

func (s *splunk) limits() limits { return limits{bytes: 256 << 10, events: 1000} }

func (s *splunk) close() { s.client.CloseIdleConnections() }

func (s *splunk) prepare(ctx context.Context) error {
	if !s.verify {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	if err := s.call(ctx, http.MethodOptions, nil); err != nil {
		return fmt.Errorf("splunk: failed to verify connection - %w", err)
	}
	return nil
}

func (s *splunk) send(ctx context.Context, events []event) (int, error) {
	var body bytes.Buffer
	for _, e := range events {
		if s.format == "raw" && len(bytes.TrimSpace(e.text)) == 0 {
			continue
		}
		b, err := json.Marshal(s.event(e))
		if err != nil {
			return 0, final{err}
		}
		body.Write(b)
	}
	if body.Len() == 0 {
		return 0, nil
	}
	return 0, s.call(ctx, http.MethodPost, body.Bytes())
}

func (s *splunk) event(e event) splunkEvent {
	out := s.metadata
	out.Time = fmt.Sprintf("%f", float64(e.time.UnixNano())/float64(time.Second))
	line := splunkLine{Line: string(e.text), Source: e.stream.String(), Tag: s.tag, Attrs: s.extras}
	switch s.format {
	case "raw":
		text := s.tag + " "
		for name, v := range s.extras {
			text += name + "=" + v + " "
		}
		out.Event = text + string(e.text)
		return out
	case "json":
		if json.Valid(e.text) {
			line.Line = json.RawMessage(e.text)
		}
	}
	out.Event = line
	return out
}

func (s *splunk) call(ctx context.Context, method string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, s.url, nil)
	if err != nil {
		return err
	}
	if s.gzip && body != nil {
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, s.level)
		if err != nil {
			return err
		}
		w.Write(body)
		w.Close()
		body = packed.Bytes()
		r.Header.Set("Content-Encoding", "gzip")
	}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	r.Header.Set("Authorization", "Splunk "+s.token)
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	err = fmt.Errorf("%s - %s", resp.Status, text)
	if resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusRequestEntityTooLarge {
		return final{err}
	}
	return err
}
