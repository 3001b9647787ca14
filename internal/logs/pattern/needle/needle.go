// Package needle finds substrings that a text must contain to be worth a closer look.
package needle

import (
	"regexp/syntax"
	"strings"
)

// Regexp answers substrings of every text that an expression matches. There may be none.
func Regexp(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return []string{string(re.Rune)}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return Regexp(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return Regexp(re.Sub[0])
		}
	case syntax.OpConcat:
		var out []string
		for _, sub := range re.Sub {
			out = append(out, Regexp(sub)...)
		}
		return out
	}
	return nil
}

// JSON answers the parts of a string that a JSON document can write otherwise only with \u escapes.
func JSON(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool {
		return r < ' ' || r == '"' || r == '\\' || r == '/' || r == '\ufffd'
	})
}
