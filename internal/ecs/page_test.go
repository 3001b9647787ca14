package ecs

import (
	"cmp"
	"encoding/base64"
	"errors"
	"iter"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

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

// Rows come and go between two pages: those that were there all the time are listed once each, in order.
func TestPagesStayRightWhileRowsChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rows := map[string]bool{}
		for _, k := range rapid.SliceOfN(rapid.StringMatching(`[a-d]{1,3}`), 0, 30).Draw(t, "rows") {
			rows[k] = true
		}
		stayed := maps.Clone(rows)
		size := int32(rapid.IntRange(1, 7).Draw(t, "page"))
		var got []string
		var token *string
		for range 100 {
			items, next, err := page(func(yield func(string, string) bool) {
				for _, k := range slices.Sorted(maps.Keys(rows)) {
					if !yield(k, k) {
						return
					}
				}
			}, &size, 100, token)
			if err != nil || len(items) > int(size) {
				t.Fatalf("page of %d: %v", len(items), err)
			}
			got = append(got, items...)
			if token = next; token == nil {
				break
			}
			for _, k := range rapid.SliceOfN(rapid.StringMatching(`[a-d]{1,3}`), 0, 3).Draw(t, "changes") {
				if rows[k] {
					delete(rows, k)
				} else {
					rows[k] = true
				}
				delete(stayed, k)
			}
		}
		if token != nil {
			t.Fatal("the listing does not end")
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("not in order, or twice: %v", got)
		}
		for k := range stayed {
			if !slices.Contains(got, k) {
				t.Fatalf("%s was there all the time and is not listed: %v", k, got)
			}
		}
	})
}

func TestDefinitionsAreKeyedInTheirOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var defs []*ecs.TaskDefinition
		for range rapid.IntRange(0, 20).Draw(t, "definitions") {
			defs = append(defs, &ecs.TaskDefinition{
				Family:            api.Ptr(rapid.StringMatching(`[ab_-]{1,3}`).Draw(t, "family")),
				Revision:          api.Ptr(int32(rapid.IntRange(1, 1000).Draw(t, "revision"))),
				TaskDefinitionArn: api.Ptr("arn"),
			})
		}
		slices.SortFunc(defs, func(a, b *ecs.TaskDefinition) int {
			return cmp.Or(cmp.Compare(*a.Family, *b.Family), cmp.Compare(*a.Revision, *b.Revision))
		})
		for _, backward := range []bool{false, true} {
			var keys []string
			for k := range keyed(defs, backward) {
				keys = append(keys, k)
			}
			if !slices.IsSorted(keys) {
				t.Fatalf("backward %v: %q", backward, keys)
			}
			slices.Reverse(defs)
		}
	})
}
