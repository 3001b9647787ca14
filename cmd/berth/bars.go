package main

import (
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/berthhq/berth/internal/agent"
)

// bars shows progress on a terminal, and nothing where there is none.
type bars struct {
	mu       sync.Mutex
	progress *mpb.Progress
	items    map[string]*mpb.Bar
}

func newBars(w io.Writer) *bars {
	b := &bars{items: map[string]*mpb.Bar{}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.progress = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))
	}
	return b
}

func (b *bars) update(p agent.ImageProgress) {
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bar := b.items[p.Item]
	if bar == nil {
		bar = b.add(p.Item, p.Total)
		b.items[p.Item] = bar
	}
	if p.Total > 0 {
		bar.SetTotal(p.Total, false)
	}
	bar.SetCurrent(p.Current)
	if p.Total > 0 && p.Current >= p.Total {
		bar.SetTotal(p.Total, true)
	}
}

// reader shows a bar for what is read from r; size 0 is unknown.
func (b *bars) reader(name string, size int64, r io.Reader) io.Reader {
	if b.progress == nil {
		return r
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bar := b.add(name, size)
	b.items[name] = bar
	return bar.ProxyReader(r)
}

func (b *bars) add(name string, total int64) *mpb.Bar {
	return b.progress.AddBar(total,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage()))
}

// wait ends the bars; those that never learned their total are left as they stand.
func (b *bars) wait() {
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	for _, bar := range b.items {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	b.mu.Unlock()
	b.progress.Wait()
}
