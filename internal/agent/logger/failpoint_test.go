//go:build failpoints

package logger

import (
	"fmt"
	"testing"

	"github.com/berthhq/berth/internal/agent"
)

// The logger process dies at each of its failpoints, and nothing is lost or doubled.
func TestProcessDiesAtEachFailpoint(t *testing.T) {
	for _, name := range []string{"open/before", "open/after", "splice/before", "splice/after"} {
		for _, at := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s#%d", name, at), func(t *testing.T) {
				t.Setenv("BERTH_FAILPOINT", fmt.Sprintf("logger-process/%s#%d", name, at))
				f := open(t, nil)
				pid := f.pid(t)
				var shims []*shim
				for i := range 3 {
					shims = append(shims, f.attach(t, "task1", fmt.Sprint("app", i), fmt.Sprint("c", i)))
				}
				for i, s := range shims {
					writeLines(s.out, 2000)
					s.close()
					f.detach(t, fmt.Sprint("c", i))
				}
				if f.pid(t) == pid {
					t.Error("the process did not die")
				}
				for i := range shims {
					checkLines(t, f.read(t, agent.OutputQuery{TaskID: "task1", Container: fmt.Sprint("app", i), Tail: -1}), 2000)
				}
			})
		}
	}
}
