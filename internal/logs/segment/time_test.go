package segment

import (
	"testing"
	"testing/synctest"
	"time"
)

// What is old enough is sealed, and what is past retention is hidden to the millisecond and soon deleted.
func TestTimePasses(t *testing.T) {
	t.Parallel()
	// The codec is shared: what it makes at first use may not belong to this test's bubble.
	c, err := sharedCodec()
	if err != nil {
		t.Fatal(err)
	}
	c.enc.EncodeAll([]byte("x"), nil)
	c.fast.EncodeAll([]byte("x"), nil)
	synctest.Test(t, func(t *testing.T) {
		m := newMemBlob()
		s, err := Open(Config{Dir: t.TempDir(), Blob: m})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.SetRetention(t.Context(), benchGroup, 1); err != nil {
			t.Fatal(err)
		}
		now := time.Now().UnixMilli()
		if _, err := s.Append(t.Context(), benchGroup, "s", []Entry{{now, []byte("first")}, {now + 1, []byte("second")}}); err != nil {
			t.Fatal(err)
		}
		sealed := func(want int) {
			t.Helper()
			if u := s.Usage(); u.Segments != want || len(m.segments()) != want {
				t.Fatalf("%d segments, %d objects, not %d", u.Segments, len(m.segments()), want)
			}
		}
		time.Sleep(10*time.Minute - time.Millisecond)
		synctest.Wait()
		sealed(0)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		sealed(1)
		time.Sleep(time.Until(time.UnixMilli(now).Add(24 * time.Hour)))
		for _, want := range []int{2, 1, 0} {
			if got, gaps := scanAll(t, s, benchGroup); got != want || gaps != nil {
				t.Fatalf("%d events in place of %d, %v", got, want, gaps)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * keepEvery)
		synctest.Wait()
		sealed(0)
	})
}
