package ecs

import (
	"encoding/base64"
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func letters() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, l := range []string{"a", "b", "c", "d", "e"} {
			if !yield(l, l) {
				return
			}
		}
	}
}

func TestPagesAreWhole(t *testing.T) {
	t.Parallel()
	var got []string
	var token *string
	for range 4 {
		items, next, err := page(letters(), api.Ptr[int32](2), 100, token)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, items...)
		if token = next; token == nil {
			break
		}
	}
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("pages give %v; want %v", got, want)
	}
}

func TestForeignTokensAreRefused(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"zzz", "!", base64.RawURLEncoding.EncodeToString([]byte("a")), base64.RawURLEncoding.EncodeToString([]byte(tokenMark))} {
		_, _, err := page(letters(), nil, 100, &token)
		if bad := (*ecs.InvalidParameterException)(nil); !errors.As(err, &bad) {
			t.Errorf("token %q: %v; want InvalidParameterException", token, err)
		}
	}
}
