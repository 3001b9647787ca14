package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/berthhq/berth/internal/agent"
)

// archiveItem is what the progress of reading an imported archive goes by.
const archiveItem = "archive"

// bars shows progress on a terminal, and nothing where there is none.
type bars struct {
	mu       sync.Mutex
	progress *mpb.Progress
	items    map[string]*item
}

// item is a line: with a bar once its size is known, with its status until then.
type item struct {
	bar    *mpb.Bar
	status string // guarded by bars.mu
}

func newBars(w io.Writer) *bars {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return barsOn(mpb.New(mpb.WithOutput(w), mpb.WithWidth(48)))
	}
	return barsOn(nil)
}

func barsOn(p *mpb.Progress) *bars { return &bars{progress: p, items: map[string]*item{}} }

func (b *bars) update(p agent.ImageProgress) {
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	it := b.items[p.Item]
	if it == nil {
		it = b.add(p.Item)
		b.items[p.Item] = it
	}
	it.status = p.Status
	b.mu.Unlock()
	if p.Total > 0 {
		it.bar.SetTotal(p.Total, false)
	}
	it.bar.SetCurrent(p.Current)
	if p.Total > 0 && p.Current >= p.Total {
		it.bar.SetTotal(p.Total, true)
	}
}

// sized is update for an archive whose size the caller knows; 0 is unknown.
func (b *bars) sized(size int64) func(agent.ImageProgress) {
	return func(p agent.ImageProgress) {
		if p.Item == archiveItem {
			p.Total = size
		}
		b.update(p)
	}
}

func (b *bars) add(name string) *item {
	it := &item{}
	filler := mpb.BarStyle().Build()
	it.bar = b.progress.MustAdd(0,
		mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
			if s.Total <= 0 {
				return nil // an empty bar would say that nothing happens
			}
			return filler.Fill(w, s)
		}),
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.Any(func(s decor.Statistics) string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return it.says(s)
		}, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
			if s.Total <= 0 {
				return ""
			}
			return fmt.Sprintf("%d %%", s.Current*100/s.Total)
		})))
	return it
}

// says is what is known of the item: how much of how much, how much, or what is being done.
func (i *item) says(s decor.Statistics) string {
	switch {
	case s.Total > 0:
		return fmt.Sprintf("%.1f / %.1f MB", float64(s.Current)/1e6, float64(s.Total)/1e6)
	case s.Current > 0:
		return fmt.Sprintf("%s %.1f MB", i.status, float64(s.Current)/1e6)
	}
	return i.status
}

// wait ends the bars: as whole if all went well, as they stand otherwise.
func (b *bars) wait(err error) {
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	items := b.items
	b.items = map[string]*item{}
	b.mu.Unlock()
	for _, it := range items {
		switch {
		case it.bar.Completed():
		case err == nil:
			it.bar.SetTotal(-1, true) // the total becomes what there is: an archive's last padding is not read
		default:
			it.bar.Abort(false)
		}
	}
	b.progress.Wait()
}
