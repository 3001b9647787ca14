package logdriver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
)

// socketLimits bound what is tried again as a whole after a connection broke off.
var socketLimits = limits{bytes: smallBatch, events: 512}

// pieces are lines as Docker gives them to drivers that do not ask for longer ones.
var pieces = shape{line: 16 << 10}

// link is a connection to a destination, made when it is needed and again when it broke off.
type link struct {
	network, address string
	tls              *tls.Config
	conn             net.Conn
}

// stream tells whether the destination must be there for the link to be made.
func (l *link) stream() bool { return l.network == "tcp" || l.network == "unix" }

func (l *link) open(ctx context.Context) error {
	if l.conn != nil && (!l.stream() || !hungUp(l.conn)) {
		return nil
	}
	l.close()
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, l.network, l.address)
	if err != nil {
		return err
	}
	if l.tls != nil {
		secure := tls.Client(conn, l.tls)
		shaking, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := secure.HandshakeContext(shaking); err != nil {
			conn.Close()
			return err
		}
		conn = secure
	}
	l.conn = conn
	return nil
}

func (l *link) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// write sends b whole, or closes the link.
func (l *link) write(b []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := l.conn.Write(b)
	if err != nil {
		l.close()
	}
	return err
}

// hungUp tells that the other side has closed the connection, which a first write would not notice.
func hungUp(c net.Conn) bool {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	raw, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := raw.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
		return true
	})
	return closed || err != nil
}

// socketPath refuses a socket in a directory that is hidden from containers.
func (d *Drivers) socketPath(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, dir := range d.cfg.Hidden {
		if hidden, err := filepath.EvalSymlinks(dir); err == nil {
			dir = hidden
		}
		if real == dir || strings.HasPrefix(real, dir+"/") {
			return fmt.Errorf("%s cannot be a log driver's address", path)
		}
	}
	return nil
}

// tlsConfig reads the options of a driver that can speak TLS.
func tlsConfig(host, caFile string, skipVerify bool) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, InsecureSkipVerify: skipVerify, MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("failed to append certificates from PEM file: " + caFile)
	}
	return cfg, nil
}
