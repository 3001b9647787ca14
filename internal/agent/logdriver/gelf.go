package logdriver

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

// A GELF message over UDP is cut into chunks of at most this size, and at most this many.
const (
	gelfChunk     = 1420
	gelfMaxChunks = 128
)

// gelf sends a GELF 1.1 message a line.
type gelf struct {
	link
	fields      map[string]any // of every message
	compression string
	level       int
}

func (d *Drivers) newGelf(r record) (sink, error) {
	o := r.Options
	if err := checkNames("gelf", o, append([]string{"gelf-address", "gelf-compression-level", "gelf-compression-type",
		"gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"}, extraOptions...)...); err != nil {
		return nil, err
	}
	if o["gelf-address"] == "" {
		return nil, errors.New("gelf-address is a required parameter")
	}
	u, err := url.Parse(o["gelf-address"])
	if err != nil {
		return nil, err
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" {
		return nil, errors.New("gelf: endpoint needs to be TCP or UDP")
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return nil, errors.New("gelf: please provide gelf-address as proto://host:port")
	}
	g := &gelf{link: link{network: u.Scheme, address: u.Host}, compression: "gzip", level: gzip.BestSpeed}
	for _, name := range []string{"gelf-compression-type", "gelf-compression-level"} {
		if _, ok := o[name]; ok && u.Scheme == "tcp" {
			return nil, errors.New("compression is only supported on UDP")
		}
	}
	if v, ok := o["gelf-compression-type"]; ok {
		if v != "gzip" && v != "zlib" && v != "none" {
			return nil, fmt.Errorf("unknown value %q for log option \"gelf-compression-type\" for gelf log driver", v)
		}
		g.compression = v
	}
	if v, ok := o["gelf-compression-level"]; ok {
		if g.level, err = strconv.Atoi(v); err != nil || g.level < -1 || g.level > 9 {
			return nil, fmt.Errorf("unknown value %q for log option \"gelf-compression-level\" for gelf log driver", v)
		}
	}
	for _, name := range []string{"gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"} {
		if v, ok := o[name]; ok { // checked only: here a link is made again for as long as it takes
			if n, err := strconv.Atoi(v); err != nil || n < 0 || u.Scheme == "udp" {
				return nil, fmt.Errorf("%q must be a positive integer, with TCP", name)
			}
		}
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	tag, err := r.tag("{{.ID}}")
	if err != nil {
		return nil, err
	}
	g.fields = map[string]any{"version": "1.1", "host": hostname, "_container_id": r.ContainerID,
		"_container_name": r.Name, "_image_name": r.Image, "_tag": tag}
	for name, v := range r.extras() {
		g.fields["_"+name] = v
	}
	return g, nil
}

func (g *gelf) limits() limits { return socketLimits }

func (g *gelf) prepare(ctx context.Context) error { return g.open(ctx) }

func (g *gelf) send(ctx context.Context, events []event) (refused int, err error) {
	if err := g.open(ctx); err != nil {
		return 0, err
	}
	var all []byte
	for _, e := range events {
		if len(e.text) == 0 {
			continue // GELF has no empty message
		}
		m, err := g.message(e)
		if err != nil {
			return 0, final{err}
		}
		if g.network == "tcp" {
			all = append(append(all, m...), 0)
			continue
		}
		packets := chunks(m)
		if packets == nil {
			refused++
		}
		for _, p := range packets {
			if err := g.write(p); err != nil {
				return 0, err
			}
		}
	}
	if len(all) > 0 {
		err = g.write(all)
	}
	return refused, err
}

// message is one message, compressed if it goes by UDP.
func (g *gelf) message(e event) ([]byte, error) {
	level := 6 // informational
	if e.stream == spool.Stderr {
		level = 3 // error
	}
	g.fields["level"], g.fields["short_message"] = level, string(e.text)
	g.fields["timestamp"] = json.Number(strconv.FormatFloat(float64(e.time.UnixMicro())/float64(time.Second/time.Microsecond), 'f', 6, 64))
	b, err := json.Marshal(g.fields)
	if err != nil || g.network == "tcp" || g.compression == "none" {
		return b, err
	}
	var out bytes.Buffer
	var w io.WriteCloser
	if g.compression == "zlib" {
		w, err = zlib.NewWriterLevel(&out, g.level)
	} else {
		w, err = gzip.NewWriterLevel(&out, g.level)
	}
	if err == nil {
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	}
	return out.Bytes(), err
}

// chunks cuts a message for UDP; nil: it is too long.
func chunks(m []byte) [][]byte {
	const header = 12
	if len(m) <= gelfChunk {
		return [][]byte{m}
	}
	n := (len(m) + gelfChunk - header - 1) / (gelfChunk - header)
	if n > gelfMaxChunks {
		return nil
	}
	var id [8]byte
	rand.Read(id[:])
	var out [][]byte
	for i := range n {
		c := append([]byte{0x1e, 0x0f}, id[:]...)
		c = append(c, byte(i), byte(n))
		size := min(len(m), gelfChunk-header)
		out = append(out, append(c, m[:size]...))
		m = m[size:]
	}
	return out
}
