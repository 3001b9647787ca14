package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

// relay lets a test ask what this container can ask: a request for the introspection API goes to the
// agent's address, by default the router's as monitoring agents find it, any other to the metadata endpoint.
func relay(addr, agent string) error {
	if agent == "" {
		if router, err := defaultRouter(); err == nil {
			agent = net.JoinHostPort(router.String(), "51678")
		}
	}
	metadata, err := url.Parse(os.Getenv("ECS_CONTAINER_METADATA_URI_V4"))
	if err != nil {
		return err
	}
	fmt.Println(metadata)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", metadata.Host
		if strings.HasPrefix(r.In.URL.Path, "/v1/") {
			r.Out.URL.Host = agent
		}
		r.Out.Host = ""
	}}
	return http.ListenAndServe(addr, proxy)
}

// defaultRouter is where this namespace's default route leads.
func defaultRouter() (net.IP, error) {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if field := strings.Fields(lines.Text()); len(field) > 2 && field[1] == "00000000" {
			raw, err := hex.DecodeString(field[2])
			if err != nil || len(raw) != 4 {
				return nil, fmt.Errorf("strange route %q", lines.Text())
			}
			return binary.LittleEndian.AppendUint32(nil, binary.BigEndian.Uint32(raw)), nil
		}
	}
	return nil, errors.New("no default route")
}
