package metadata

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a Server for the length of a test and answers its two addresses.
func serve(t *testing.T, s *Server) (metadata, introspection string) {
	t.Helper()
	var lns [2]net.Listener
	for i := range lns {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		lns[i] = ln
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, lns[0], lns[1]) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
	})
	return lns[0].Addr().String(), lns[1].Addr().String()
}

// raw sends bytes as they are and answers the status line and the rest.
func raw(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request[:min(len(request), 80)], err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestPathTricks: what is not the plain form of a request is led to it or refused, and never gets at
// anything that the plain form does not.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	s, _ := server(t, processes{}, nil)
	addr, introspection := serve(t, s)
	id := s.EndpointID(onHost().Task, 0)
	line := func(method, target, host string) string {
		return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, target, host)
	}
	for _, c := range []struct {
		request  string
		status   int
		location string
	}{
		{line("GET", "/v4/"+id, "169.254.170.2"), 200, ""},
		{line("GET", "/v4/"+id, "169.254.170.2:80"), 200, ""},
		{line("GET", "/v4/"+id, "localhost:51679"), 200, ""},
		{line("GET", "/v4/"+id+"?x=/../..", "[::1]:51679"), 200, ""},
		{line("HEAD", "/v4/"+id, "127.0.0.1"), 200, ""},
		{line("GET", "//v4//"+id, "169.254.170.2"), 301, "/v4/" + id},
		{line("GET", "/v4/x/../"+id+"/task/", "169.254.170.2"), 301, "/v4/" + id + "/task/"},
		{line("GET", "/v4/x/%2e%2e/"+id, "169.254.170.2"), 301, "/v4/" + id},
		{line("GET", "/v4/%2e/"+id, "169.254.170.2"), 301, "/v4/" + id},
		{line("GET", "/v3/..%2fv4%2f"+id, "169.254.170.2"), 301, "/v4/" + id},
		{line("GET", "//evil.example/%2e%2e", "169.254.170.2"), 301, "/"},
		{line("GET", "/%2f%2fevil.example", "169.254.170.2"), 301, "/evil.example"},
		{line("GET", "/v4/"+id+"%00", "169.254.170.2"), 404, ""},
		{line("GET", "/v4/"+id+"%0d%0aX: y", "169.254.170.2"), 400, ""},
		{line("GET", "http://169.254.170.2/v4/"+id, "169.254.170.2"), 404, ""},
		{line("GET", "http://169.254.169.254/latest/meta-data", "169.254.169.254"), 404, ""},
		{line("GET", "/v4/"+id, "rebound.example"), 404, ""},
		{line("GET", "*", "169.254.170.2"), 404, ""},
		{line("OPTIONS", "*", "169.254.170.2"), 404, ""}, // not net/http's own 200
		{line("CONNECT", "169.254.169.254:80", "169.254.169.254:80"), 404, ""},
		{line("POST", "/v4/"+id, "169.254.170.2"), 405, ""},
		{line("DELETE", "/api/"+id+"/task-protection/v1/state", "169.254.170.2"), 405, ""},
		{line("BREW", "/v2/credentials/x", "169.254.170.2"), 405, ""},
		{line("GET", "/v4/"+strings.Repeat("a", 2000), "169.254.170.2"), 414, ""},
	} {
		resp, body := raw(t, addr, c.request)
		if resp.StatusCode != c.status || resp.Header.Get("Location") != c.location {
			t.Errorf("%q: %d to %q; want %d to %q", c.request[:min(len(c.request), 80)], resp.StatusCode, resp.Header.Get("Location"), c.status, c.location)
		}
		if resp.StatusCode != 200 && strings.Contains(body, hostTask) {
			t.Errorf("%q tells of the task", c.request)
		}
		s.throttle = throttle{}
	}
	// The server hangs up on these; whether its answer arrives before is the network's affair.
	for _, request := range []string{
		line("GET", "/v4/"+strings.Repeat("a", 20_000), "169.254.170.2"),
		"GET /v4/" + id + " HTTP/1.1\r\nHost: 169.254.170.2\r\nX: " + strings.Repeat("a", 20_000) + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(conn, request)
		answer, err := io.ReadAll(conn)
		conn.Close()
		if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes of request: %.80q, %v; want 431", len(request), answer, err)
		}
	}
	for request, want := range map[string]int{
		line("GET", "/v1/tasks", "localhost:51678"): 200, line("GET", "/v1/tasks", "10.0.0.1"): 200,
		line("GET", "/v1/tasks", "rebound.example"): 404, line("GET", "/v1//tasks", "localhost"): 301,
		line("PUT", "/v1/tasks", "localhost"): 405,
	} {
		if resp, _ := raw(t, introspection, request); resp.StatusCode != want {
			t.Errorf("introspection %q: %d; want %d", request, resp.StatusCode, want)
		}
	}
}

// TestConnectionsAreBounded: one address cannot hold more than its share.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s, _ := server(t, processes{}, nil)
	addr, _ := serve(t, s)
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range maxConns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	over, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	over.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := over.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one connection too many was kept: %d, %v", n, err)
	}
	held[0].Close()
	for deadline := time.Now().Add(5 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(time.Second))
		io.WriteString(conn, "GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
		n, _ := conn.Read(make([]byte, 4))
		conn.Close()
		if n == 4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a connection that was closed still counts")
		}
	}
}

func TestServeNeedsSomebodyToAsk(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), nil, nil); err == nil {
		t.Error("Serve before Use")
	}
}

// FuzzRequest: whatever is asked from a container's address, no other task shows in the answer.
func FuzzRequest(f *testing.F) {
	s, _ := server(f, processes{}, protector(func(_ context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
		if r.TaskArn != bridgeTask {
			return nil, fmt.Errorf("asked for %s", r.TaskArn)
		}
		return &dispatchpb.ProtectionReply{Enabled: r.Enabled}, nil
	}))
	h, intro := s.MetadataHandler(), s.IntrospectionHandler()
	own, other := s.EndpointID(onBridge().Task, 0), s.EndpointID(inVPC().Task, 0)
	for _, path := range []string{
		"/v2/metadata", "/v2/metadata/ecs-shop-3-web-aaaa", "/v2/stats/x", "/v2/credentials/", "/v1/credentials?id=%zz",
		"/v3/" + other, "/v4/" + other + "/task", "/v4/" + own + "/task", "/v4/" + own + "/associations/gpu/../..", "//v4//" + other,
		"/api/" + other + "/task-protection/v1/state", "/api/" + own + "/task-protection/v1/state", "/v4/%2e%2e/" + other, "/v4/\x00", "*", "",
		"/v1/tasks?dockerid=", "/v1/metadata",
	} {
		f.Add("GET", path, "169.254.170.2", "")
		f.Add("PUT", path, "127.0.0.1:51679", `{"ProtectionEnabled":true,"ExpiresInMinutes":60}`)
	}
	f.Fuzz(func(t *testing.T, method, target, host, body string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(
			method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body)))
		if err != nil {
			return // net/http does not let it through
		}
		r.RemoteAddr = bridgeAddr + ":40000"
		s.throttle = throttle{}
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, r)
		if text := w.body.String(); strings.Contains(text, vpcTask) || strings.Contains(text, "shop") && !strings.Contains(target, "shop") {
			t.Errorf("%s %q tells of another task: %d %s", method, target, w.status, text)
		}
		if w.status == 0 || w.status == http.StatusInternalServerError && !strings.Contains(r.URL.Path, "/v3/") && !strings.HasSuffix(r.URL.Path, "stats") {
			t.Errorf("%s %q: %d %s", method, target, w.status, w.body.String())
		}
		if loc := w.header.Get("Location"); loc != "" && (!strings.HasPrefix(loc, "/") || strings.HasPrefix(loc, "//")) {
			t.Errorf("%s %q leads away to %q", method, target, loc)
		}
		intro.ServeHTTP(&recorder{header: http.Header{}}, r)
	})
}

// recorder is a ResponseWriter; status is 0 until something is answered.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}
func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// TestClientsThatCloseTheirSide: one that has sent its request and closes its side, as `nc` does, is
// answered.
func TestClientsThatCloseTheirSide(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	s, _ := server(t, processes{}, protector(func(ctx context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error) {
		close(asked)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond): // by then net/http has seen the end of what the client sends
			return &dispatchpb.ProtectionReply{Enabled: true}, nil
		}
	}))
	addr, _ := serve(t, s)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /api/%s/task-protection/v1/state HTTP/1.0\r\nHost: 169.254.170.2\r\n\r\n", s.EndpointID(onHost().Task, 0))
	<-asked
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), `"ProtectionEnabled":true`) {
		t.Errorf("%v, %s", err, answer)
	}
}
