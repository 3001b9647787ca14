package network

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// choose finds a row if there is one, the next after the last one, and keeps nothing else.
func TestChoose(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		within := portRange{100, 100 + rapid.Uint16Range(0, 20).Draw(rt, "size")}
		count := rapid.IntRange(1, 5).Draw(rt, "count")
		last := rapid.Uint16Range(95, 125).Draw(rt, "last")
		busy := map[uint16]bool{}
		for _, p := range rapid.SliceOfN(rapid.Uint16Range(100, 120), 0, 15).Draw(rt, "busy") {
			busy[p] = true
		}
		var except []portRange
		for _, p := range rapid.SliceOfN(rapid.Uint16Range(100, 119), 0, 2).Draw(rt, "except") {
			except = append(except, portRange{p, p + 1})
		}
		free := func(first int) bool {
			for p := first; p < first+count; p++ {
				if !within.contains(uint16(p)) || busy[uint16(p)] {
					return false
				}
				for _, r := range except {
					if r.contains(uint16(p)) {
						return false
					}
				}
			}
			return true
		}
		// The reference: every first port, in the order of the walk.
		want := 0
		start := int(within.First)
		if within.contains(last) && last < within.Last {
			start = int(last) + 1
		}
		size := int(within.Last-within.First) + 1
		for k := range size {
			if first := int(within.First) + (start-int(within.First)+k)%size; free(first) {
				want = first
				break
			}
		}
		taken := map[uint16]bool{}
		got, err := choose(within, except, last, count,
			func(p uint16) error {
				if busy[p] || taken[p] {
					return errors.New("busy")
				}
				taken[p] = true
				return nil
			},
			func(p uint16) {
				if !taken[p] {
					rt.Fatalf("%d is given back, but was not taken", p)
				}
				delete(taken, p)
			})
		if int(got) != want || (err != nil) != (want == 0) {
			rt.Fatalf("chose %d, %v; want %d", got, err, want)
		}
		if kept := len(taken); err == nil && kept != count || err != nil && kept != 0 {
			rt.Fatalf("%d ports are kept of %d; %v", kept, count, err)
		}
		for p := range count {
			if err == nil && !taken[got+uint16(p)] {
				rt.Fatalf("%d is not taken", int(got)+p)
			}
		}
	})
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"80", "8000-8010", "1-65535", "0-1", "9-1", "-", "80-", "65536", "+1-2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parsePorts(s)
		if err == nil && (r.First == 0 || r.Last < r.First) {
			t.Errorf("%q is %v", s, r)
		}
		if err == nil {
			if again, err := parsePorts(rangeText(r.First, r.Last-r.First+1)); err != nil || again != r {
				t.Errorf("%q is %v, written %v; %v", s, r, again, err)
			}
		}
		for _, r := range parsePortList(s) {
			if r.First == 0 || r.Last < r.First {
				t.Errorf("%q has %v", s, r)
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"schema":1,"address":"172.29.0.4","bindings":[{"protocol":"tcp","container":80,"count":1,"host":8080}]}`))
	f.Add([]byte(`{"schema":1,"address":"172.29.0.4","bindings":[{"protocol":"tcp","container":80,"count":65535,"host":8080}]}`))
	f.Add([]byte(`{"schema":1,"bindings":[{"count":0}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		for _, m := range r.mappings() {
			m.element() // must have an address
			if m.port == 0 || m.to.Port() == 0 {
				t.Errorf("%s maps %v", b, m)
			}
		}
	})
}
