package sigv4

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest is the text that both sides hash, for one way to write the path.
func canonicalRequest(r *http.Request, s *Signature, path, payloadHash string) string {
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	b.WriteString(path)
	b.WriteByte('\n')
	b.WriteString(canonicalQuery(r.URL.RawQuery))
	b.WriteByte('\n')
	for _, name := range s.signedHeaders {
		b.WriteString(name)
		b.WriteByte(':')
		for i, v := range headerValues(r, name) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(trimSpaces(v))
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(s.headerList)
	b.WriteByte('\n')
	b.WriteString(payloadHash)
	return b.String()
}

// headerValues looks in the places where net/http puts the headers it interprets itself.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		// Signers leave the scheme's own port out even where the client then sends it.
		if r.TLS != nil {
			return []string{strings.TrimSuffix(r.Host, ":443")}
		}
		return []string{strings.TrimSuffix(r.Host, ":80")}
	case "content-length":
		if r.ContentLength >= 0 {
			return []string{strconv.FormatInt(r.ContentLength, 10)}
		}
	case "transfer-encoding":
		return r.TransferEncoding
	}
	return r.Header.Values(name)
}

// trimSpaces removes spaces around a header value and makes each run of them inside one.
func trimSpaces(v string) string {
	v = strings.TrimSpace(v)
	if !strings.Contains(v, "  ") {
		return v
	}
	var b strings.Builder
	for i := range len(v) {
		if v[i] != ' ' || v[i-1] != ' ' {
			b.WriteByte(v[i])
		}
	}
	return b.String()
}

// canonicalPaths are the ways in which a signer may have written the request's path, the likeliest
// first. S3 encodes it once: SDKs sign the path as they send it, and S3's own rule is to encode the
// key anew. Everyone else encodes the path as sent a second time; by the specification after removing
// empty and relative segments, which botocore does and the Go SDK does not.
func canonicalPaths(r *http.Request, service string) []string {
	raw := requestPath(r)
	var paths []string
	if service == "s3" {
		paths = append(paths, raw)
		if plain, err := url.PathUnescape(raw); err == nil {
			paths = append(paths, escape(plain, true))
		}
	} else {
		paths = append(paths, escape(raw, true), escape(normalize(raw), true))
	}
	return slices.Compact(paths)
}

// requestPath is the path as it stood on the wire, before any routing rewrote r.URL.
func requestPath(r *http.Request) string {
	path := r.URL.EscapedPath()
	if r.RequestURI != "" {
		path = r.RequestURI
		if !strings.HasPrefix(path, "/") { // absolute form, as sent to a proxy
			_, after, _ := strings.Cut(path, "://")
			_, path, _ = strings.Cut(after, "/")
			path = "/" + path
		}
		path, _, _ = strings.Cut(path, "?")
	}
	if path == "" {
		return "/"
	}
	return path
}

// normalize removes empty, "." and ".." segments (RFC 3986, section 5.2.4), keeping a final slash.
func normalize(path string) string {
	var out []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, segment)
		}
	}
	clean := "/" + strings.Join(out, "/")
	if strings.HasSuffix(path, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// param is one query parameter, decoded.
type param struct{ name, value string }

type params []param

func (p params) get(name string) (value string, ok bool) {
	for _, q := range p {
		if q.name == name {
			return q.value, true
		}
	}
	return "", false
}

func (p params) count(name string) (n int) {
	for _, q := range p {
		if q.name == name {
			n++
		}
	}
	return n
}

// parseQuery decodes a query, refusing what net/url would silently drop: a parameter that the
// signature does not see must not be seen by anyone.
func parseQuery(raw string) (params, error) {
	var ps params
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err1 := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil {
			return nil, incomplete("The query string is not properly percent-encoded.")
		}
		ps = append(ps, param{n, v})
	}
	return ps, nil
}

// canonicalQuery encodes each parameter and sorts them in encoded form, leaving the signature out. A
// query that does not parse was refused by Parse.
func canonicalQuery(raw string) string {
	ps, err := parseQuery(raw)
	if err != nil {
		return ""
	}
	ps = slices.DeleteFunc(ps, func(p param) bool { return p.name == "X-Amz-Signature" })
	for i, p := range ps {
		ps[i] = param{escape(p.name, false), escape(p.value, false)}
	}
	slices.SortFunc(ps, func(a, b param) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name)
		b.WriteByte('=')
		b.WriteString(p.value)
	}
	return b.String()
}

// escape percent-encodes everything but RFC 3986's unreserved characters and, if told so, slashes.
func escape(s string, keepSlash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s))
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
