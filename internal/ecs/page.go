package ecs

import (
	"encoding/base64"
	"iter"

	"github.com/berthhq/berth/api"
)

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
		if derr != nil || len(raw) == 0 {
			return nil, nil, invalid("Invalid token: %s", t)
		}
		after = string(raw)
	}
	items = []T{}
	last := ""
	for key, item := range rows(after) {
		if key <= after {
			continue
		}
		if len(items) == int(limit) {
			return items, api.Ptr(base64.RawURLEncoding.EncodeToString([]byte(last))), nil
		}
		items, last = append(items, item), key
	}
	return items, nil, nil
}
