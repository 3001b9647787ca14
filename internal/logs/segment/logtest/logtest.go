// Package logtest generates log lines such as applications write, for tests and benchmarks: JSON lines,
// access logs and stack traces. The same seed makes the same lines.
package logtest

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Source generates lines.
type Source struct {
	r     *rand.Rand
	at    int64 // ms
	buf   []byte
	paths []string
	ips   []string
	users []string
}

// New makes a source whose first line is of that time.
func New(seed uint64, start time.Time) *Source {
	s := &Source{r: rand.New(rand.NewPCG(seed, 0x10c)), at: start.UnixMilli()}
	for range 40 {
		s.paths = append(s.paths, "/"+pick(s.r, segments)+"/"+pick(s.r, segments))
	}
	for range 500 {
		s.ips = append(s.ips, fmt.Sprintf("%d.%d.%d.%d", 10+s.r.IntN(180), s.r.IntN(256), s.r.IntN(256), s.r.IntN(256)))
	}
	for range 2000 {
		s.users = append(s.users, fmt.Sprintf("user-%06d", s.r.IntN(1_000_000)))
	}
	return s
}

var (
	segments = []string{"api", "v1", "v2", "orders", "users", "cart", "checkout", "search", "items", "health", "login", "static", "metrics", "payments", "inventory", "images"}
	methods  = []string{"GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"}
	statuses = []int{200, 200, 200, 200, 200, 200, 200, 201, 204, 301, 304, 400, 401, 404, 500, 503}
	agents   = []string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
		"curl/8.5.0", "python-requests/2.32.3", "Go-http-client/2.0", "ELB-HealthChecker/2.0",
	}
	levels   = []string{"INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR"}
	loggers  = []string{"com.example.orders.OrderService", "com.example.orders.OrderRepository", "com.example.payments.Gateway", "com.example.web.RequestFilter", "com.example.cache.RedisCache", "com.example.auth.TokenVerifier"}
	messages = []string{
		"order accepted", "order shipped to warehouse", "payment authorised by provider", "cache miss, loading from database",
		"token verified", "request completed", "retrying after transient failure", "queue depth within limits", "connection returned to the pool",
		"slow query detected", "configuration reloaded", "could not reach the payment provider", "session expired for user",
	}
	exceptions = []string{"java.lang.NullPointerException: Cannot invoke \"Order.getId()\" because \"order\" is null", "java.sql.SQLTransientConnectionException: HikariPool-1 - Connection is not available, request timed out after 30000ms", "java.net.SocketTimeoutException: Read timed out", "java.lang.IllegalStateException: Order is already shipped"}
	frames     = []string{
		"com.example.orders.OrderService.place(OrderService.java:%d)", "com.example.orders.OrderController.create(OrderController.java:%d)",
		"com.example.payments.Gateway.authorise(Gateway.java:%d)", "org.springframework.web.method.support.InvocableHandlerMethod.doInvoke(InvocableHandlerMethod.java:%d)",
		"org.springframework.web.servlet.DispatcherServlet.doDispatch(DispatcherServlet.java:%d)", "org.apache.catalina.core.ApplicationFilterChain.internalDoFilter(ApplicationFilterChain.java:%d)",
		"org.apache.tomcat.util.net.SocketProcessorBase.run(SocketProcessorBase.java:%d)", "java.base/java.util.concurrent.ThreadPoolExecutor.runWorker(ThreadPoolExecutor.java:%d)", "java.base/java.lang.Thread.run(Thread.java:%d)",
	}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// Next answers the next line, which is valid until the next call, and its time in ms. Times ascend.
func (s *Source) Next() (timestamp int64, line []byte) {
	s.at += int64(s.r.IntN(4))
	s.buf = s.buf[:0]
	switch n := s.r.IntN(100); {
	case n < 55:
		s.json()
	case n < 98:
		s.access()
	default:
		s.trace()
	}
	return s.at, s.buf
}

func (s *Source) hex(digits int) {
	const h = "0123456789abcdef"
	for i := 0; i < digits; {
		v := s.r.Uint64()
		for j := 0; j < 16 && i < digits; j++ {
			s.buf = append(s.buf, h[v&15])
			v >>= 4
			i++
		}
	}
}

func (s *Source) str(v string) { s.buf = append(s.buf, v...) }
func (s *Source) num(v int)    { s.buf = strconv.AppendInt(s.buf, int64(v), 10) }
func (s *Source) duration() int {
	return int(s.r.ExpFloat64()*40) + 1
}

func (s *Source) json() {
	s.str(`{"timestamp":"`)
	s.buf = time.UnixMilli(s.at).UTC().AppendFormat(s.buf, "2006-01-02T15:04:05.000Z")
	s.str(`","level":"`)
	s.str(pick(s.r, levels))
	s.str(`","logger":"`)
	s.str(pick(s.r, loggers))
	s.str(`","thread":"http-nio-8080-exec-`)
	s.num(1 + s.r.IntN(32))
	s.str(`","message":"`)
	s.str(pick(s.r, messages))
	s.str(`","requestId":"`)
	s.hex(16)
	s.str(`","userId":"`)
	s.str(pick(s.r, s.users))
	s.str(`","path":"`)
	s.str(pick(s.r, s.paths))
	s.str(`","status":`)
	s.num(pick(s.r, statuses))
	s.str(`,"durationMs":`)
	s.num(s.duration())
	s.str(`,"service":"orders","version":"1.14.2","environment":"production","region":"eu-central-1"}`)
}

func (s *Source) access() {
	s.str(pick(s.r, s.ips))
	s.str(` - - [`)
	s.buf = time.UnixMilli(s.at).UTC().AppendFormat(s.buf, "02/Jan/2006:15:04:05 -0700")
	s.str(`] "`)
	s.str(pick(s.r, methods))
	s.buf = append(s.buf, ' ')
	s.str(pick(s.r, s.paths))
	s.buf = append(s.buf, '/')
	s.num(s.r.IntN(50_000))
	s.str(` HTTP/1.1" `)
	s.num(pick(s.r, statuses))
	s.buf = append(s.buf, ' ')
	s.num(s.r.IntN(30_000))
	s.str(` "https://shop.example.com`)
	s.str(pick(s.r, s.paths))
	s.str(`" "`)
	s.str(pick(s.r, agents))
	s.str(`" rt=0.`)
	s.num(s.duration())
}

func (s *Source) trace() {
	s.buf = time.UnixMilli(s.at).UTC().AppendFormat(s.buf, "2006-01-02 15:04:05.000")
	s.str(" ERROR [http-nio-8080-exec-")
	s.num(1 + s.r.IntN(32))
	s.str("] ")
	s.str(pick(s.r, loggers))
	s.str(" - request ")
	s.hex(16)
	s.str(" failed\n")
	s.str(pick(s.r, exceptions))
	for range 8 + s.r.IntN(20) {
		s.str("\n\tat ")
		s.buf = fmt.Appendf(s.buf, pick(s.r, frames), 40+s.r.IntN(12)*17)
	}
}
