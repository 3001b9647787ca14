package logdriver

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/agent/logger/spool"
)

// made makes a driver's sink for the test task.
func made(t *testing.T, driver string, options map[string]string) sink {
	t.Helper()
	rec, err := newRecord(testTask(driver, options), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, k, err := (&Drivers{}).driver(rec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k
}

func twoEvents() []event {
	at := time.Date(2026, 11, 23, 6, 40, 1, 250_000_000, time.UTC)
	return []event{{time: at, stream: spool.Stdout, text: []byte("hello"), partial: true}, {time: at, stream: spool.Stderr, text: []byte("bad \"news\"")}}
}

func mustSend(t *testing.T, k sink, events []event) {
	t.Helper()
	if refused, err := k.send(t.Context(), events); err != nil || refused != 0 {
		t.Fatalf("refused %d: %v", refused, err)
	}
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func listenUDP(t *testing.T) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	pc.SetReadDeadline(time.Now().Add(10 * time.Second))
	return pc
}

func packet(t *testing.T, pc net.PacketConn) []byte {
	t.Helper()
	b := make([]byte, 64<<10)
	n, _, err := pc.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// received accepts a connection and reads n bytes, or until the end.
func received(t *testing.T, ln net.Listener, n int64) (net.Conn, string) {
	t.Helper()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(io.LimitReader(conn, n))
	if err != nil {
		t.Fatal(err)
	}
	return conn, string(b)
}

func TestSyslog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, first, second string }{
		{"", `^<134>Nov 23 06:40:01 web\[\d+\]: hello\n$`, `^<131>Nov 23 06:40:01 web\[\d+\]: bad "news"\n$`},
		{"rfc3164", `^<134>Nov 23 06:40:01 \S+ web\[\d+\]: hello\n$`, `^<131>Nov 23`},
		{"rfc5424", `^<134>1 2026-11-23T06:40:01Z \S+ web \d+ web - hello\n$`, `^<131>1 `},
		{"rfc5424micro", `^<134>1 2026-11-23T06:40:01\.250000Z \S+ web \d+ web - hello\n$`, `^<131>1 `},
	} {
		options := map[string]string{"syslog-facility": "local0", "tag": "web"}
		if c.format != "" {
			options["syslog-format"] = c.format
		}
		pc := listenUDP(t)
		options["syslog-address"] = "udp://" + pc.LocalAddr().String()
		mustSend(t, made(t, "syslog", options), twoEvents())
		for _, want := range []string{c.first, c.second} {
			if got := packet(t, pc); !regexp.MustCompile(want).Match(got) {
				t.Errorf("%s: %q, want %s", c.format, got, want)
			}
		}
		ln := listenTCP(t)
		options["syslog-address"] = "tcp://" + ln.Addr().String()
		k := made(t, "syslog", options)
		mustSend(t, k, twoEvents()[:1])
		k.close()
		if _, got := received(t, ln, 1<<20); !regexp.MustCompile(c.first).MatchString(got) {
			t.Errorf("%s over TCP: %q, want %s", c.format, got, c.first)
		}
	}
}

// TestReconnect: a destination that closed the connection, and is back, gets what comes next.
func TestReconnect(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	k := made(t, "syslog", map[string]string{"syslog-address": "tcp://" + ln.Addr().String(), "tag": "x"}).(*syslog)
	mustSend(t, k, twoEvents()[:1])
	conn, got := received(t, ln, 3)
	if got != "<30" {
		t.Errorf("%q", got)
	}
	conn.Close()
	for deadline := time.Now().Add(10 * time.Second); !hungUp(k.conn); {
		if time.Now().After(deadline) {
			t.Fatal("the end of the connection is not seen")
		}
	}
	mustSend(t, k, twoEvents()[1:])
	k.close()
	if _, got := received(t, ln, 1<<20); !strings.HasSuffix(got, "bad \"news\"\n") {
		t.Errorf("%q", got)
	}
}

func TestGelf(t *testing.T) {
	t.Parallel()
	pc := listenUDP(t)
	k := made(t, "gelf", map[string]string{"gelf-address": "udp://" + pc.LocalAddr().String(), "tag": "{{.ImageName}}/{{.Name}}",
		"labels": "com.amazonaws.ecs.container-name"})
	long := event{time: time.Unix(7, 0), stream: spool.Stdout, text: []byte(random(8000))}
	mustSend(t, k, append(twoEvents(), long))
	check := func(packed []byte, text string, level float64) {
		t.Helper()
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.NewDecoder(r).Decode(&m); err != nil {
			t.Fatal(err)
		}
		if m["version"] != "1.1" || m["short_message"] != text || m["level"] != level || m["host"] == "" ||
			!strings.HasPrefix(m["_tag"].(string), "app:1/ecs-web-3-app-") || m["_com.amazonaws.ecs.container-name"] != "app" {
			t.Errorf("%v", m)
		}
		if text == "hello" && m["timestamp"] != 1795416001.25 {
			t.Errorf("timestamp %v", m["timestamp"])
		}
	}
	check(packet(t, pc), "hello", 6)
	check(packet(t, pc), `bad "news"`, 3)
	var whole []byte
	for i, n := 0, 1; i < n; i++ {
		p := packet(t, pc)
		if len(p) > gelfChunk || p[0] != 0x1e || p[1] != 0x0f || int(p[10]) != i {
			t.Fatalf("chunk %d: % x", i, p[:12])
		}
		n = int(p[11])
		whole = append(whole, p[12:]...)
	}
	check(whole, string(long.text), 6)

	ln := listenTCP(t)
	k = made(t, "gelf", map[string]string{"gelf-address": "tcp://" + ln.Addr().String()})
	mustSend(t, k, twoEvents())
	k.close()
	if _, got := received(t, ln, 1<<20); strings.Count(got, "\x00") != 2 || !strings.Contains(got, `"short_message":"hello"`) {
		t.Errorf("%q", got)
	}
	if chunks(make([]byte, 200<<10)) != nil {
		t.Error("a message of more than 128 chunks is sent")
	}
}

// random is text that does not compress well.
func random(n int) string {
	b, x := make([]byte, n), uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'A' + byte(x>>24)%58
	}
	return string(b)
}

func TestFluentd(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "fluent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	k := made(t, "fluentd", map[string]string{"fluentd-address": "unix://" + ln.Addr().String(), "tag": "docker.x",
		"fluentd-sub-second-precision": "true", "fluentd-request-ack": "true", "env": "A"})
	sent := make(chan error, 1)
	go func() {
		_, err := k.send(t.Context(), twoEvents())
		sent <- err
	}()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	var got []byte
	for !bytes.Contains(got, []byte("chunk")) || len(got)-bytes.Index(got, []byte("chunk")) < 5+1+24 {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b[:n]...)
	}
	want := "\x93\xa8docker.x\xdd\x00\x00\x00\x02\x92\xd7\x00\x6b\x03\xdf\xc1\x0e\xe6\xb2\x80\xde\x00\x05\xaccontainer_id"
	if !strings.HasPrefix(string(got), want) || !strings.Contains(string(got), "\xa6source\xa6stdout\xa3log\xa5hello\xafpartial_message\xa4true") ||
		!strings.Contains(string(got), "\xa6source\xa6stderr\xa3log\xaabad \"news\"\x81\xa5chunk") {
		t.Errorf("%q", got)
	}
	conn.Write(append([]byte("\x81\xa3ack"), got[bytes.Index(got, []byte("chunk"))+5:]...))
	if err := <-sent; err != nil {
		t.Error(err)
	}
	go func() {
		_, err := k.send(t.Context(), twoEvents())
		sent <- err
	}()
	conn.Read(make([]byte, 4096))
	conn.Close() // without an acknowledgement
	if err := <-sent; err == nil || isFinal(err) {
		t.Error("delivered without an acknowledgement: ", err)
	}
}

func TestSplunk(t *testing.T) {
	t.Parallel()
	var bodies []string
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Splunk secret" || r.URL.Path != "/services/collector/event/1.0" {
			status = http.StatusForbidden
		}
		in := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			in, _ = gzip.NewReader(r.Body)
		}
		b, _ := io.ReadAll(in)
		bodies = append(bodies, r.Method+" "+string(b))
		w.WriteHeader(status)
	}))
	defer s.Close()
	options := map[string]string{"splunk-url": s.URL, "splunk-token": "secret", "splunk-gzip": "true", "splunk-index": "main", "tag": "web"}
	k := made(t, "splunk", options)
	if err := k.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSend(t, k, twoEvents()[:1])
	options["splunk-format"] = "json"
	mustSend(t, made(t, "splunk", options), []event{{time: time.Unix(1, 0), stream: spool.Stdout, text: []byte(`{"a":1}`)}})
	options["splunk-format"] = "raw"
	mustSend(t, made(t, "splunk", options), twoEvents()[:1])
	for i, want := range []string{`^OPTIONS $`,
		`^POST {"event":{"line":"hello","source":"stdout","tag":"web"},"time":"1795416001.250000","host":"[^"]+","index":"main"}$`,
		`^POST {"event":{"line":{"a":1},"source":"stdout","tag":"web"},"time":"1.000000",`, `^POST {"event":"web hello",`} {
		if !regexp.MustCompile(want).MatchString(bodies[i]) {
			t.Errorf("%q, want %s", bodies[i], want)
		}
	}
	for code, wantFinal := range map[int]bool{400: true, 503: false, 401: false} {
		status = code
		if _, err := k.send(t.Context(), twoEvents()); err == nil || isFinal(err) != wantFinal {
			t.Errorf("%d: %v", code, err)
		}
	}
}

func TestDriverOptions(t *testing.T) {
	t.Parallel()
	hidden := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(hidden, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, c := range []struct{ driver, options, err string }{
		{"syslog", "syslog-address=udp://h,syslog-facility=17", ""},
		{"syslog", "syslog-format=x", "Invalid syslog format"},
		{"syslog", "syslog-facility=x", "invalid syslog facility"},
		{"syslog", "syslog-address=http://x", "unsupported scheme: 'http'"},
		{"syslog", "syslog-address=unix://" + hidden + "/s", hidden + "/s cannot be a log driver's address"},
		{"syslog", "color=red", "unknown log opt 'color' for syslog log driver"},
		{"syslog", "tag={{range 9}}x{{end}}", `template: log-tag: cannot execute "{{range 9}}x{{end}}": the fields are ID, FullID, Name, FullName, ImageName, ImageFullName and DaemonName`},
		{"syslog", "env-regex=(", "error parsing regexp: missing closing ): `(`"},
		{"gelf", "", "gelf-address is a required parameter"},
		{"gelf", "gelf-address=http://x:1", "gelf: endpoint needs to be TCP or UDP"},
		{"gelf", "gelf-address=udp://x", "gelf: please provide gelf-address as proto://host:port"},
		{"gelf", "gelf-address=tcp://x:1,gelf-compression-type=gzip", "compression is only supported on UDP"},
		{"gelf", "gelf-address=udp://x:1,gelf-compression-type=lz", `unknown value "lz" for log option "gelf-compression-type" for gelf log driver`},
		{"fluentd", "", ""},
		{"fluentd", "fluentd-address=tcp://h:1,fluentd-async=true,fluentd-buffer-limit=2m,fluentd-retry-wait=1s", ""},
		{"fluentd", "fluentd-address=ftp://x", "invalid fluentd-address (ftp://x): unsupported scheme: 'ftp'"},
		{"fluentd", "fluentd-address=tcp://x:1/y", "invalid fluentd-address (tcp://x:1/y): should not contain a path element"},
		{"fluentd", "fluentd-buffer-limit=x", "invalid size: 'x'"},
		{"splunk", "splunk-token=t", "splunk: splunk-url is expected"},
		{"splunk", "splunk-url=http://h:1", "splunk: splunk-token is expected"},
		{"splunk", "splunk-token=t,splunk-url=http://h:1/x", "splunk: expected format scheme://dns_name_or_ip:port for splunk-url"},
		{"splunk", "splunk-token=t,splunk-url=http://h:1,splunk-format=x", "unknown format specified x, supported formats are inline, json and raw"},
		{"journald", "", "journald is not enabled on this host"},
	} {
		options := map[string]string{}
		for kv := range strings.SplitSeq(c.options, ",") {
			if name, v, ok := strings.Cut(kv, "="); ok {
				options[name] = v
			}
		}
		rec, err := newRecord(testTask(c.driver, options), 0)
		if err == nil {
			_, _, err = (&Drivers{cfg: Config{Hidden: []string{hidden}}}).driver(rec)
		}
		if got := errorText(err); got != c.err {
			t.Errorf("%s %s: %s, want %s", c.driver, c.options, got, c.err)
		}
	}
}

// TestRefusedConnection: a driver that connects at once keeps its container from being created.
func TestRefusedConnection(t *testing.T) {
	t.Parallel()
	ln := listenTCP(t)
	ln.Close()
	for _, k := range []sink{made(t, "fluentd", map[string]string{"fluentd-address": ln.Addr().String()}),
		made(t, "gelf", map[string]string{"gelf-address": "tcp://" + ln.Addr().String()})} {
		if err := k.prepare(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Error(err)
		}
	}
	if err := made(t, "fluentd", map[string]string{"fluentd-address": ln.Addr().String(), "fluentd-async": "true"}).prepare(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzDriverOptions(f *testing.F) {
	f.Add("syslog", "syslog-address", "tcp+tls://h:1", "tag", "{{.ID}}")
	f.Add("gelf", "gelf-address", "udp://h:1", "gelf-compression-level", "9")
	f.Add("fluentd", "fluentd-address", "unix:///x", "fluentd-request-ack", "true")
	f.Add("splunk", "splunk-url", "https://h:1", "splunk-token", "t")
	f.Fuzz(func(t *testing.T, driver, name, value, name2, value2 string) {
		rec, err := newRecord(testTask(driver, map[string]string{name: value, name2: value2}), 0)
		if err != nil {
			return
		}
		_, k, err := (&Drivers{}).driver(rec)
		if (err == nil) == (k == nil) {
			t.Errorf("%s: %v, %v", driver, k, err)
		}
	})
}
