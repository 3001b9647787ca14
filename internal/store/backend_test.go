package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
		return
	}
	if dir := os.Getenv(fullDiskDirEnv); dir != "" {
		fullDiskChild(dir)
		return
	}
	code := m.Run()
	if c := sharedCluster.started; c != nil {
		c.stop()
	}
	if left := leftovers(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines of stores or their clients are left:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leftovers gives the goroutines of stores and their clients that do not end. goleak would also find what
// the listeners of etcd's package embed leave behind, which only these tests have.
func leftovers() (left string) {
	for range 50 {
		left = ""
		buf := make([]byte, 4<<20)
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "internal/store.(*") || strings.Contains(g, "etcd/client/v3.") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return left
}

// backend is one of the two kinds of store the suite runs on.
type backend struct {
	name string
	cfg  func(t *testing.T) Config // of a new store
}

// each runs a test on the embedded member and on a cluster of three with mutual TLS.
func each(t *testing.T, f func(t *testing.T, b backend)) {
	t.Parallel()
	backends := []backend{
		{"embedded", func(t *testing.T) Config { return Config{Dir: t.TempDir(), Logger: testLog(t)} }},
		{"cluster", func(t *testing.T) Config {
			c := sharedCluster.get(t)
			return Config{Endpoints: c.endpoints(), TLS: c.clientTLS(), Prefix: "/" + rand.Text(), Logger: testLog(t)}
		}},
	}
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { t.Parallel(); f(t, b) })
	}
}

func open(t *testing.T, cfg Config, tables ...TableDef) *Store {
	t.Helper()
	s, err := Open(context.Background(), cfg, tables...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// testLog logs to the test's output, for as long as the test runs.
func testLog(t *testing.T) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() { w.mu.Lock(); w.t = nil; w.mu.Unlock() })
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	mu sync.Mutex
	t  *testing.T
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// cluster is a real etcd cluster of three members on loopback, with certificates of its own.
type cluster struct {
	dir     string
	ca      *x509.CertPool
	client  tls.Certificate
	members [3]*embed.Etcd
	configs [3]*embed.Config
}

var sharedCluster lazyCluster

type lazyCluster struct {
	once    sync.Once
	started *cluster
	err     error
}

func (l *lazyCluster) get(t *testing.T) *cluster {
	t.Helper()
	l.once.Do(func() { l.started, l.err = startCluster() })
	if l.err != nil {
		t.Fatal("starting the cluster: ", l.err)
	}
	return l.started
}

func startCluster() (_ *cluster, err error) {
	c := &cluster{}
	if c.dir, err = os.MkdirTemp("", "berth-store-cluster-"); err != nil {
		return nil, err
	}
	if err := c.makeCertificates(); err != nil {
		return nil, err
	}
	var peers []string
	for i := range c.configs {
		cfg := embed.NewConfig()
		cfg.Name = fmt.Sprintf("m%d", i)
		cfg.Dir = filepath.Join(c.dir, cfg.Name)
		cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		cfg.ClientTLSInfo, cfg.PeerTLSInfo = c.serverTLS(), c.serverTLS()
		peer, client := freeURL(), freeURL()
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		peers = append(peers, cfg.Name+"="+peer.String())
		cfg.TickMs, cfg.ElectionMs = 50, 500
		c.configs[i] = cfg
	}
	for _, cfg := range c.configs {
		cfg.InitialCluster = strings.Join(peers, ",")
	}
	var wg sync.WaitGroup
	var errs [3]error
	for i := range c.configs {
		wg.Go(func() { errs[i] = c.start(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			c.stop()
			return nil, err
		}
	}
	return c, nil
}

func (c *cluster) start(i int) error {
	cfg := *c.configs[i]
	m, err := embed.StartEtcd(&cfg)
	if err != nil {
		return err
	}
	c.members[i] = m
	select {
	case <-m.Server.ReadyNotify():
		return nil
	case err := <-m.Err():
		return err
	case <-time.After(30 * time.Second):
		return fmt.Errorf("member %d is not ready after 30 s", i)
	}
}

func (c *cluster) stop() {
	for _, m := range c.members {
		if m != nil {
			m.Close()
		}
	}
	os.RemoveAll(c.dir)
}

// kill stops the leader as a crash would, as far as one process can: without handing leadership over.
func (c *cluster) killLeader() int {
	for {
		for i, m := range c.members {
			if m != nil && m.Server.Leader() == m.Server.MemberID() {
				m.Server.HardStop()
				m.Close()
				c.members[i] = nil
				return i
			}
		}
		time.Sleep(10 * time.Millisecond) // an election is under way
	}
}

func (c *cluster) endpoints() (urls []string) {
	for _, cfg := range c.configs {
		urls = append(urls, cfg.ListenClientUrls[0].String())
	}
	return urls
}

func (c *cluster) serverTLS() transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: filepath.Join(c.dir, "server.pem"), KeyFile: filepath.Join(c.dir, "server-key.pem"),
		TrustedCAFile: filepath.Join(c.dir, "ca.pem"), ClientCertAuth: true,
	}
}

func (c *cluster) clientTLS() *tls.Config {
	return &tls.Config{RootCAs: c.ca, Certificates: []tls.Certificate{c.client}, MinVersion: tls.VersionTLS13}
}

func (c *cluster) makeCertificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	ca := template("test CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		return err
	}
	c.ca = x509.NewCertPool()
	c.ca.AddCert(parsed)
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(c.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	if err := write("ca.pem", "CERTIFICATE", caDER); err != nil {
		return err
	}
	issue := func(name string, usage ...x509.ExtKeyUsage) (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		t := template(name)
		t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, usage
		der, err := x509.CreateCertificate(rand.Reader, t, ca, &key.PublicKey, caKey)
		if err != nil {
			return tls.Certificate{}, err
		}
		keyDER, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return tls.Certificate{}, err
		}
		if err := write(name+".pem", "CERTIFICATE", der); err != nil {
			return tls.Certificate{}, err
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, write(name+"-key.pem", "EC PRIVATE KEY", keyDER)
	}
	if _, err := issue("server", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	c.client, err = issue("client", x509.ExtKeyUsageClientAuth)
	return err
}

func freeURL() url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return url.URL{Scheme: "https", Host: l.Addr().String()}
}
