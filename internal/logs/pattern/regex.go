package pattern

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/berthhq/berth/internal/logs/pattern/needle"
)

// regex reads %…%. The guide's syntax is a part of RE2's: letters, digits, a few symbols, the operators
// ^ $ ? [ ] { } | \ * + . and the escapes \d \s \w, their opposites, and \xhh. There are no groups.
func (p *parser) regex() (*regexp.Regexp, []string, error) {
	start := p.pos
	p.pos++
	end := strings.IndexByte(p.text[p.pos:], '%')
	if end <= 0 {
		return nil, nil, invalid(start)
	}
	source := p.text[p.pos : p.pos+end]
	var b strings.Builder
	for i := 0; i < len(source); i++ {
		c := source[i]
		switch {
		case c == '\\':
			n, ok := escapeLength(source[i:])
			if !ok {
				return nil, nil, invalidTerm(p.pos+i, source[i:min(i+2, len(source))])
			}
			b.WriteString(source[i : i+n])
			i += n - 1
		case c == '{' && strings.HasPrefix(source[i:], "{,"):
			b.WriteString("{0") // the guide lets the minimum be left out, RE2 does not
		case isWord(c) || strings.IndexByte(" :#=@/;,-^$?[]{}|*+.", c) >= 0:
			b.WriteByte(c)
		default:
			p.pos += i
			return nil, nil, p.refuse()
		}
	}
	p.pos += end + 1
	if p.regexes++; p.regexes > MaxRegexes {
		return nil, nil, &Error{Message: fmt.Sprintf("A filter pattern can contain at most %d regular expressions", MaxRegexes), Offset: start}
	}
	re, err := regexp.Compile("(?s:" + b.String() + ")")
	if err != nil {
		return nil, nil, invalid(start)
	}
	tree, err := syntax.Parse(b.String(), syntax.Perl|syntax.DotNL)
	if err != nil {
		return nil, nil, invalid(start)
	}
	return re, needle.Regexp(tree), nil
}

// escapeLength is how long the escape at the beginning of a text is, if it is one of the guide's.
func escapeLength(s string) (int, bool) {
	if len(s) < 2 {
		return 0, false
	}
	switch c := s[1]; {
	case strings.IndexByte("dDsSwW", c) >= 0:
		return 2, true
	case c == 'x':
		return 4, len(s) >= 4 && isHex(s[2]) && isHex(s[3])
	}
	return 2, strings.IndexByte(":#=@/;,-^$?[]{}|\\*+.", s[1]) >= 0
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
