package wire

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/berthhq/berth/api"
)

// The HTTP bindings that restXml and restJson share: an operation is known by its method, the path and
// the parameters in its URI template, and members travel in path, query, headers and body.

// restOperation finds the operation whose template fits the request best: the one with most parameters
// of its own in the template ("?acl"), and of those with as many, the one with most required parameters
// and headers, all of which the request has (UploadPart needs a partNumber, and PutObject has the same
// template). When a required one is missing everywhere, it is the one that requires least. "" is none.
func restOperation(svc *api.Service, r *http.Request) string {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return ""
	}
	path := r.URL.EscapedPath()
	best, bestScore := "", [3]int{-1}
	for _, op := range svc.Operations {
		if op.Method != r.Method {
			continue
		}
		template, own, _ := strings.Cut(op.URI, "?")
		if !eachLabel(template, path, func(string, string) {}) {
			continue
		}
		literals, ok := query.holds(own)
		if !ok {
			continue
		}
		score := [3]int{literals}
		for i := range op.Input.Members {
			m := &op.Input.Members[i]
			if !m.Required || m.Location != api.InQueryString && m.Location != api.InHeader {
				continue
			}
			score[2]++
			if m.Location == api.InHeader && r.Header.Get(m.Wire()) == "" || m.Location == api.InQueryString && !query.has(m.Wire()) {
				score[1] = -1
			}
		}
		if score[1] < 0 {
			score[2] = -score[2]
		}
		if slices.Compare(score[:], bestScore[:]) > 0 {
			best, bestScore = op.Name, score
		}
	}
	return best
}

// query is a request's query, each parameter decoded, in the order given.
type query []formField

func parseQuery(raw string) (query, error) {
	var q query
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		k, err := url.QueryUnescape(k)
		if err != nil {
			return nil, errQueryEscape
		}
		if v, err = url.QueryUnescape(v); err != nil {
			return nil, errQueryEscape
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, errQueryUTF8
		}
		q = append(q, formField{k, v})
	}
	return q, nil
}

func (q query) has(name string) bool {
	return slices.ContainsFunc(q, func(f formField) bool { return f.key == name })
}

// holds counts the parameters of a template, and tells whether all are there, with the values they have
// in it, if any.
func (q query) holds(own string) (n int, ok bool) {
	for own != "" {
		var want string
		want, own, _ = strings.Cut(own, "&")
		name, value, valued := strings.Cut(want, "=")
		if !slices.ContainsFunc(q, func(f formField) bool { return f.key == name && (!valued || f.value == value) }) {
			return 0, false
		}
		n++
	}
	return n, true
}

// eachLabel fits an escaped path to a template's and calls f with each label's name and value, escaped as
// it is in the path. A label takes one segment, and {Greedy+} the rest, neither of them empty. A slash at
// the end of a path is not heeded. ok is false when the path does not fit.
func eachLabel(template, path string, f func(name, escaped string)) (ok bool) {
	template, path = strings.TrimPrefix(template, "/"), strings.TrimPrefix(path, "/")
	for template != "" {
		var part string
		part, template, _ = strings.Cut(template, "/")
		name, label := strings.CutPrefix(part, "{")
		name = strings.TrimSuffix(name, "}")
		if name, greedy := strings.CutSuffix(name, "+"); label && greedy {
			if path == "" {
				return false
			}
			f(name, path)
			return true
		}
		var segment string
		segment, path, _ = strings.Cut(path, "/")
		switch {
		case label && segment != "":
			f(name, segment)
		case label || segment != part:
			return false
		}
	}
	return path == ""
}

// decodeBindings reads the members that travel outside the body.
func decodeBindings(v reflect.Value, op *api.Operation, r *http.Request) error {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	template, _, _ := strings.Cut(op.URI, "?")
	labels := map[string]string{}
	eachLabel(template, r.URL.EscapedPath(), func(name, escaped string) { labels[name] = escaped })
	for i := range op.Input.Members {
		m := &op.Input.Members[i]
		f := v.Field(m.Index)
		var err error
		switch m.Location {
		case api.InURI:
			if escaped, ok := labels[m.Wire()]; ok {
				var text string
				if text, err = url.PathUnescape(escaped); err != nil || !utf8.ValidString(text) {
					return inputErrorf("Couldn't parse the specified URI.")
				}
				err = setText(f, m, text)
			}
		case api.InQueryString:
			err = setQuery(f, m, query)
		case api.InHeader:
			err = setHeader(f, m, r.Header.Values(m.Wire()))
		case api.InHeaders:
			err = setPrefixed(f, m.Wire(), r.Header)
		}
		if err != nil {
			return inputErrorf("%v: %s", err, m.Wire())
		}
	}
	return nil
}

func setQuery(f reflect.Value, m *api.Member, q query) error {
	for _, field := range q {
		if field.key != m.Wire() {
			continue
		}
		if m.Shape.Kind == api.List {
			elem := reflect.New(f.Type().Elem()).Elem()
			if err := setText(elem, m.Shape.Elem, field.value); err != nil {
				return err
			}
			f.Set(reflect.Append(f, elem))
			continue
		}
		if field.value == "" && m.Shape.Kind != api.String { // max-keys= is no number, and AWS takes it for absent
			return nil
		}
		return setText(f, m, field.value)
	}
	return nil
}

func setHeader(f reflect.Value, m *api.Member, values []string) error {
	if len(values) == 0 {
		return nil
	}
	text := strings.Join(values, ",")
	if !utf8.ValidString(text) {
		return inputError("Invalid UTF-8 in a header")
	}
	switch {
	case m.Shape.Kind == api.List:
		for part := range strings.SplitSeq(text, ",") {
			elem := reflect.New(f.Type().Elem()).Elem()
			if err := setText(elem, m.Shape.Elem, strings.TrimSpace(part)); err != nil {
				return err
			}
			f.Set(reflect.Append(f, elem))
		}
		return nil
	case text == "" && m.Shape.Kind != api.String:
		return nil
	case m.Shape.Kind == api.Timestamp:
		// A date that is none is as good as no date (RFC 9110, section 13.1.3).
		if t, err := http.ParseTime(text); err == nil {
			setTime(f, t.UTC())
			return nil
		}
		_ = setText(f, m, text)
		return nil
	}
	return setText(f, m, text)
}

// setPrefixed reads the headers that begin with the prefix into a map of strings, by the rest of their
// names in lower case: HTTP does not keep the case, and net/http has it its own way.
func setPrefixed(f reflect.Value, prefix string, h http.Header) error {
	for name, values := range h {
		if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			continue
		}
		text := strings.Join(values, ",")
		if !utf8.ValidString(text) {
			return inputError("Invalid UTF-8 in a header")
		}
		if f.IsNil() {
			f.Set(reflect.MakeMap(f.Type()))
		}
		f.SetMapIndex(reflect.ValueOf(strings.ToLower(name[len(prefix):])), reflect.ValueOf(text))
	}
	return nil
}

// encodeBindings writes the members of an output that travel in headers, and answers the status if one
// of them is that.
func encodeBindings(h http.Header, v reflect.Value, s *api.Shape) (status int) {
	for i := range s.Members {
		m := &s.Members[i]
		f := v.Field(m.Index)
		if absent(f) {
			continue
		}
		switch m.Location {
		case api.InStatusCode:
			status = int(indirect(f).Int())
		case api.InHeader:
			if text := headerText(f, m); text != "" {
				h.Set(m.Wire(), text)
			}
		case api.InHeaders:
			for _, key := range sortedKeys(f) {
				// As AWS writes it: clients take their users' names from what follows the prefix.
				h[strings.ToLower(m.Wire()+key)] = []string{headerSafe(f.MapIndex(reflect.ValueOf(key)).String())}
			}
		}
	}
	return status
}

func headerText(f reflect.Value, m *api.Member) string {
	switch m.Shape.Kind {
	case api.String:
		return headerSafe(indirect(f).String())
	case api.Timestamp:
		format := api.RFC822
		if m.TimestampFormat != "" {
			format = m.TimestampFormat
		} else if m.Shape.TimestampFormat != "" {
			format = m.Shape.TimestampFormat
		}
		return string(appendTime(nil, timeOf(f), format))
	case api.Boolean:
		return strconv.FormatBool(indirect(f).Bool())
	case api.Integer, api.Long:
		return strconv.FormatInt(indirect(f).Int(), 10)
	case api.List:
		var parts []string
		for i := range f.Len() {
			parts = append(parts, headerText(f.Index(i), m.Shape.Elem))
		}
		return strings.Join(parts, ", ")
	}
	return ""
}

// headerSafe leaves out what would end a header.
func headerSafe(s string) string {
	if strings.ContainsAny(s, "\r\n\x00") {
		return strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(s)
	}
	return s
}
