package ecs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// items makes a strategy of "name base weight" triples.
func items(texts ...string) []ecs.CapacityProviderStrategyItem {
	var out []ecs.CapacityProviderStrategyItem
	for _, text := range texts {
		var name string
		var base, weight int32
		if _, err := fmt.Sscan(text, &name, &base, &weight); err != nil {
			panic(err)
		}
		out = append(out, ecs.CapacityProviderStrategyItem{CapacityProvider: &name, Base: &base, Weight: &weight})
	}
	return out
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		strategy []ecs.CapacityProviderStrategyItem
		count    int
		want     []int
	}{
		{items("a 0 1"), 7, []int{7}},
		{items("a 0 0"), 7, []int{7}},             // alone, it needs no weight
		{items("a 0 1", "b 0 1"), 4, []int{2, 2}}, // the guide: split evenly
		{items("a 0 1", "b 0 4"), 10, []int{2, 8}},
		{items("a 2 1", "b 0 4"), 7, []int{3, 4}}, // the base first
		{items("a 5 0", "b 0 1"), 3, []int{3, 0}}, // a base larger than the count
		{items("a 1 0", "b 0 1"), 5, []int{1, 4}}, // nothing beyond the base without a weight
		{items("a 0 1", "b 0 1", "c 0 1"), 5, []int{2, 2, 1}},
		{items("a 0 1", "b 0 3"), 1, []int{0, 1}},
		{items("a 0 1000", "b 0 1"), 10, []int{10, 0}},
		{items("a 0 0", "b 0 0"), 0, nil}, // refused before
	} {
		if c.want == nil {
			if err := usable(c.strategy); err == nil {
				t.Errorf("%v can be used", c.strategy)
			}
			continue
		}
		if got := split(c.strategy, c.count); !slices.Equal(got, c.want) {
			t.Errorf("%v of %d: %v, want %v", c.strategy, c.count, got, c.want)
		}
	}
}

// Whatever the strategy: all tasks are given out, the base is filled first, what has no weight gets no
// more than its base, and nobody is a whole task away from its share of the rest.
func TestSplitIsFair(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var strategy []ecs.CapacityProviderStrategyItem
		n := rapid.IntRange(1, 6).Draw(t, "providers")
		based := rapid.IntRange(0, n).Draw(t, "which has the base")
		total := 0
		for i := range n {
			item := ecs.CapacityProviderStrategyItem{CapacityProvider: api.Ptr(fmt.Sprint("p", i)), Weight: api.Ptr(int32(rapid.IntRange(0, maxWeight).Draw(t, "weight")))}
			if i == based {
				item.Base = api.Ptr(int32(rapid.IntRange(1, 40).Draw(t, "base")))
			}
			total += int(*item.Weight)
			strategy = append(strategy, item)
		}
		if usable(strategy) != nil || checkStrategy(strategy, func(string) bool { return true }) != nil {
			t.Skip("refused")
		}
		count := rapid.IntRange(0, 100).Draw(t, "count")
		got := split(strategy, count)
		sum, base := 0, 0
		if based < n {
			base = min(int(*strategy[based].Base), count)
		}
		for i, item := range strategy {
			sum += got[i]
			beyond := got[i]
			if i == based {
				beyond -= base
			}
			if n == 1 {
				continue
			}
			share := float64(count-base) * float64(*item.Weight) / float64(total)
			if beyond < 0 || float64(beyond) <= share-1 || float64(beyond) >= share+1 {
				t.Fatalf("%s has %d beyond its base, its share is %.2f: %v", *item.CapacityProvider, beyond, share, got)
			}
		}
		if sum != count {
			t.Fatalf("%d given out of %d: %v", sum, count, got)
		}
	})
}

func TestStrategiesAreRefused(t *testing.T) {
	t.Parallel()
	many := []string{}
	for i := range maxStrategy + 1 {
		many = append(many, fmt.Sprintf("p%d 0 1", i))
	}
	for want, strategy := range map[string][]ecs.CapacityProviderStrategyItem{
		"cannot contain more than 20":    items(many...),
		"not associated":                 items("other 0 1"),
		"a mix of capacity providers":    items("p0 0 1", "FARGATE 0 1"),
		"multiple capacity providers":    items("p0 1 1", "p1 1 1"),
		"duplicate":                      items("p0 0 1", "p0 0 2"),
		"Invalid base":                   items("p0 100001 1"),
		"Invalid base for":               items("p0 -1 1"),
		"Invalid weight":                 items("p0 0 1001"),
		"Invalid weight for":             items("p0 0 -1"),
		"Capacity provider can not be b": {{Weight: api.Ptr(int32(1))}},
	} {
		err := checkStrategy(strategy, func(name string) bool { return name != "other" })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want …%s…", err, want)
		}
	}
	if err := checkStrategy(items("FARGATE 1 1", "FARGATE_SPOT 0 4"), func(string) bool { return true }); err != nil {
		t.Error(err)
	}
}

func TestPlatformVersion(t *testing.T) {
	t.Parallel()
	for asked, want := range map[string]string{"": "1.4.0", "LATEST": "1.4.0", "1.4.0": "1.4.0", "1.3.0": "1.3.0"} {
		if got, err := platformVersion(asked); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", asked, got, err, want)
		}
	}
	var unknown *ecs.PlatformUnknownException
	if got, err := platformVersion("9.9"); !errors.As(err, &unknown) {
		t.Errorf("9.9: %q, %v", got, err)
	}
}
