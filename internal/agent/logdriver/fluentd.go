package logdriver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// fluentd sends batches by Fluentd's forward protocol, version 1, in its Forward mode.
type fluentd struct {
	link
	tag       string
	fields    []string // of every record: name, value, …
	subSecond bool
	async     bool
	ack       bool
}

func (d *Drivers) newFluentd(r record) (sink, error) {
	o := r.Options
	if err := checkNames("fluentd", o, append([]string{"fluentd-address", "fluentd-async", "fluentd-async-connect",
		"fluentd-async-reconnect-interval", "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack",
		"fluentd-retry-wait", "fluentd-sub-second-precision", "fluentd-write-timeout"}, extraOptions...)...); err != nil {
		return nil, err
	}
	f := &fluentd{}
	if err := f.locate(d, o["fluentd-address"]); err != nil {
		return nil, fmt.Errorf("invalid fluentd-address (%s): %w", o["fluentd-address"], err)
	}
	for name, to := range map[string]*bool{"fluentd-async": &f.async, "fluentd-async-connect": &f.async,
		"fluentd-request-ack": &f.ack, "fluentd-sub-second-precision": &f.subSecond} {
		if v := o[name]; v != "" {
			on, err := strconv.ParseBool(v)
			if err != nil {
				return nil, err
			}
			*to = *to || on
		}
	}
	// What follows is checked only: the spool is the buffer, and deliveries are tried for as long as it takes.
	if v := o["fluentd-buffer-limit"]; v != "" {
		if _, err := parseSize(v); err != nil {
			return nil, err
		}
	}
	if v := o["fluentd-max-retries"]; v != "" {
		if _, err := strconv.ParseUint(v, 10, 31); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"fluentd-retry-wait", "fluentd-async-reconnect-interval", "fluentd-write-timeout"} {
		if v := o[name]; v != "" {
			if _, err := time.ParseDuration(v); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if f.tag, err = r.tag("{{.ID}}"); err != nil {
		return nil, err
	}
	f.fields = []string{"container_id", r.ContainerID, "container_name", "/" + r.Name}
	for name, v := range r.extras() {
		f.fields = append(f.fields, name, v)
	}
	return f, nil
}

func (f *fluentd) locate(d *Drivers, address string) error {
	if address == "" {
		address = "127.0.0.1:24224"
	}
	if !strings.Contains(address, "://") {
		address = "tcp://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "unix":
		if strings.Trim(u.Path, "/") == "" {
			return errors.New("path is empty")
		}
		f.network, f.address = "unix", u.Path
		return d.socketPath(u.Path)
	case "tcp", "tls":
	default:
		return fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	if u.Path != "" {
		return errors.New("should not contain a path element")
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "24224"
	}
	f.network, f.address = "tcp", net.JoinHostPort(host, port)
	if u.Scheme == "tls" {
		f.tls, err = tlsConfig(host, "", false)
	}
	return err
}

func (f *fluentd) limits() limits { return socketLimits }

// prepare makes the connection, unless the definition says that it may come later.
func (f *fluentd) prepare(ctx context.Context) error {
	if f.async {
		return nil
	}
	return f.open(ctx)
}

func (f *fluentd) send(ctx context.Context, events []event) (int, error) {
	if err := f.open(ctx); err != nil {
		return 0, err
	}
	chunk := ""
	if f.ack {
		var id [16]byte
		rand.Read(id[:])
		chunk = base64.StdEncoding.EncodeToString(id[:])
	}
	if err := f.write(f.message(events, chunk)); err != nil || !f.ack {
		return 0, err
	}
	// The answer is {"ack": chunk}.
	want := packString(packString([]byte{0x81}, "ack"), chunk)
	got := make([]byte, len(want))
	f.conn.SetReadDeadline(time.Now().Add(writeTimeout))
	for n := 0; n < len(got); {
		k, err := f.conn.Read(got[n:])
		if n += k; err != nil {
			f.close()
			return 0, fmt.Errorf("wait for the acknowledgement: %w", err)
		}
	}
	if !bytes.Equal(got, want) {
		f.close()
		return 0, errors.New("another batch was acknowledged")
	}
	return 0, nil
}

// message is [tag, [[time, record], …], {"chunk": …}].
func (f *fluentd) message(events []event, chunk string) []byte {
	b := []byte{0x92}
	if chunk != "" {
		b[0]++
	}
	b = packString(b, f.tag)
	b = append(b, 0xdd)
	b = binary.BigEndian.AppendUint32(b, uint32(len(events)))
	for _, e := range events {
		b = append(b, 0x92)
		if f.subSecond {
			b = append(b, 0xd7, 0) // EventTime
			b = binary.BigEndian.AppendUint32(b, uint32(e.time.Unix()))
			b = binary.BigEndian.AppendUint32(b, uint32(e.time.Nanosecond()))
		} else {
			b = append(b, 0xd3)
			b = binary.BigEndian.AppendUint64(b, uint64(e.time.Unix()))
		}
		n := len(f.fields)/2 + 2
		if e.partial {
			n++
		}
		b = append(b, 0xde)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		for _, s := range f.fields {
			b = packString(b, s)
		}
		b = packString(packString(b, "source"), e.stream.String())
		b = packString(packString(b, "log"), string(e.text))
		if e.partial {
			b = packString(packString(b, "partial_message"), "true")
		}
	}
	if chunk != "" {
		b = packString(packString(append(b, 0x81), "chunk"), chunk)
	}
	return b
}

// packString appends s as MessagePack.
func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}
