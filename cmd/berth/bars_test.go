package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8"

	"github.com/berthhq/berth/internal/agent"
)

// show gives what a terminal shows in the end.
func show(t *testing.T, err error, size int64, progress ...agent.ImageProgress) string {
	t.Helper()
	var out bytes.Buffer
	b := barsOn(mpb.New(mpb.WithOutput(&out), mpb.WithWidth(48), mpb.WithAutoRefresh()))
	for _, p := range progress {
		b.sized(size)(p)
	}
	b.wait(err)
	frames := strings.Split(out.String(), "\x1b[J")
	return frames[len(frames)-1]
}

func TestBarsTellWhatIsKnown(t *testing.T) {
	t.Parallel()
	whole := show(t, nil, 1000_000,
		agent.ImageProgress{Item: archiveItem, Status: "Reading", Current: 400_000},
		agent.ImageProgress{Item: archiveItem, Status: "Reading", Current: 990_000},
		agent.ImageProgress{Item: "box:1", Status: "Extracting"},
		agent.ImageProgress{Item: "box:1", Status: "Import complete"})
	for _, want := range []string{"archive", "100 %", "box:1", "Import complete"} {
		if !strings.Contains(whole, want) {
			t.Errorf("%q is not shown:\n%s", want, whole)
		}
	}
	piped := show(t, nil, 0, agent.ImageProgress{Item: archiveItem, Status: "Reading", Current: 400_000})
	if !strings.Contains(piped, "0.4 MB") || strings.Contains(piped, "/ 0.0") {
		t.Errorf("of unknown size:\n%s", piped)
	}
	broken := show(t, errors.New("gone"), 1000_000, agent.ImageProgress{Item: archiveItem, Status: "Reading", Current: 400_000})
	if !strings.Contains(broken, "40 %") {
		t.Errorf("broken off:\n%s", broken)
	}
}
