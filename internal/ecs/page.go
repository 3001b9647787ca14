package ecs

import (
	"encoding/base64"
	"iter"
	"strings"

	"github.com/berthhq/berth/api"
)

// tokenMark begins every token, so that what only looks like one is refused.
const tokenMark = "after:"

// page cuts a listing that is ordered by key. A token is the last key of the page before, so a page
// stays right when rows come and go between two calls.
func page[T any](rows iter.Seq2[string, T], maxResults *int32, most int32, token *string) (items []T, next *string, err error) {
	return pageFrom(func(string) iter.Seq2[string, T] { return rows }, maxResults, most, token)
}

// pageFrom is page for a listing that can start at a key.
func pageFrom[T any](rows func(from string) iter.Seq2[string, T], maxResults *int32, most int32, token *string) (items []T, next *string, err error) {
	limit := most
	if maxResults != nil {
		if *maxResults < 1 || *maxResults > most {
			return nil, nil, invalid("Invalid maxResults: must be between 1 and %d.", most)
		}
		limit = *maxResults
	}
	after := ""
	if t := api.Value(token); t != "" {
		raw, derr := base64.RawURLEncoding.DecodeString(t)
		key, ours := strings.CutPrefix(string(raw), tokenMark)
		if derr != nil || !ours || key == "" {
			return nil, nil, invalid("Invalid token: %s", t)
		}
		after = key
	}
	items = []T{}
	last := ""
	for key, item := range rows(after) {
		if key <= after {
			continue
		}
		if len(items) == int(limit) {
			return items, api.Ptr(base64.RawURLEncoding.EncodeToString([]byte(tokenMark + last))), nil
		}
		items, last = append(items, item), key
	}
	return items, nil, nil
}
