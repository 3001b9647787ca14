package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/sigv4"
)

// CheckListen refuses addresses that a gateway must not listen on. In dev mode whoever reaches it is
// root, so it must be on loopback; otherwise any address will do. addr is host:port.
func CheckListen(addr string, dev bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", addr, err)
	}
	if dev && !isLoopback(host) {
		return fmt.Errorf("dev mode accepts any credentials as root, so it listens on loopback only: %q is not", addr)
	}
	return nil
}

// IsLoopback tells whether a listen address, host:port, can be reached from this machine alone.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && isLoopback(host)
}

// isLoopback tells whether a host, without port, can only be this machine.
func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761
		return true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// believe takes the caller for root of the account that the request names: an access key ID of
// twelve digits is an account, as it is for other local stand-ins of AWS; any other is the server's.
// Sessions that were really issued are honoured, so that AssumeRole shows its effect here too.
func (g *Gateway) believe(r *http.Request) (caller.Principal, error) {
	key, token, scope := sigv4.Claim(r)
	account := g.cfg.Account
	if isAccount(key) {
		account = key
	}
	p := caller.ForRoot(account)
	p.AccessKeyID = key
	if token != "" {
		_, session, err := g.cfg.Credentials.Lookup(r.Context(), key, token)
		switch refused := (*sigv4.Error)(nil); {
		case err == nil:
			p = session
		case errors.As(err, &refused) && refused.Fault == sigv4.UnknownKey:
		default:
			return caller.Principal{}, err
		}
	}
	p.Region = scope.Region
	if p.Region == "" {
		p.Region = g.cfg.Region
	}
	return p, nil
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// guard refuses what a web page could have a browser send: with no signature to forge, it would be
// root. A page of another origin shows in Origin or Sec-Fetch-Site; one that had its own name resolve
// to this machine (DNS rebinding) shows in Host.
func guard(r *http.Request, allowed []string) error {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && !local.IP.IsLoopback() {
		return guarded("dev mode serves loopback only") // whatever it was made to listen on
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !isLoopback(host) && !slices.Contains(allowed, strings.ToLower(host)) {
		return guarded("dev mode serves loopback only; the request is addressed to another host")
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return guarded("dev mode does not serve requests from other sites")
	}
	for _, origin := range r.Header.Values("Origin") {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return guarded("dev mode does not serve requests from other origins")
		}
	}
	return nil
}

func guarded(why string) error {
	return &api.CommonError{Code: "AccessDeniedException", Message: why, Status: http.StatusForbidden}
}
