package pattern

import (
	"regexp"
	"strings"
)

// termMatcher is the form of words: all required ones, none of the excluded, and if there are only
// optional ones, one of those.
type termMatcher struct {
	required, excluded, optional []term
}

// term is a substring or a regular expression. A phrase of white space alone is in every message.
type term struct {
	text    string
	regex   *regexp.Regexp
	literal []string // substrings of whatever matches
}

func (t *term) in(message string) bool {
	if t.regex != nil {
		return t.regex.MatchString(message)
	}
	return strings.Contains(message, t.text)
}

// terms reads words, each with ? or - before it or nothing.
func (p *parser) terms() (matcher, error) {
	var m termMatcher
	for p.space(); p.pos < len(p.text); p.space() {
		to := &m.required
		switch {
		case p.take("?"):
			to = &m.optional
		case p.take("-"):
			to = &m.excluded
			p.space() // the guide once wrote ERROR - "Exiting"
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		*to = append(*to, t)
	}
	if len(m.required)+len(m.excluded) > 0 {
		m.optional = nil
	}
	return m, nil
}

func (p *parser) term() (term, error) {
	var t term
	switch p.peek() {
	case '%':
		re, literal, err := p.regex()
		if err != nil {
			return t, err
		}
		t = term{regex: re, literal: literal}
	case '"':
		text, err := p.quoted()
		if err != nil {
			return t, err
		}
		if strings.TrimSpace(text) != "" {
			t = term{text: text, literal: []string{text}}
		}
	default:
		text := p.word()
		if text == "" {
			return t, p.refuse()
		}
		t = term{text: text, literal: []string{text}}
	}
	if p.pos < len(p.text) && !isSpace(p.text[p.pos]) {
		return t, p.refuse()
	}
	return t, nil
}

func (m termMatcher) match(message string) bool {
	for i := range m.required {
		if !m.required[i].in(message) {
			return false
		}
	}
	for i := range m.excluded {
		if m.excluded[i].in(message) {
			return false
		}
	}
	for i := range m.optional {
		if m.optional[i].in(message) {
			return true
		}
	}
	return len(m.optional) == 0
}

func (m termMatcher) terms() (plain, escaped []string) {
	for _, t := range m.required {
		plain = append(plain, t.literal...)
	}
	for i, t := range m.optional {
		if i == 0 {
			plain = t.literal
		} else {
			plain = common(plain, t.literal)
		}
	}
	return plain, nil
}

func (m termMatcher) extracted(string) map[string]string  { return nil }
func (m termMatcher) value(string, string) (string, bool) { return "", false }
func (m termMatcher) refers(string) bool                  { return false }
