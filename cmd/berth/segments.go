package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"

	"github.com/berthhq/berth/internal/blob"
	"github.com/berthhq/berth/internal/logs/segment"
)

// Log events may use a quarter of the volume of the data directory, and minLogBytes in any case.
const (
	logShare    = 4
	minLogBytes = 2 << 30
)

// openSegments opens the store of log events. Before it is full, and whenever it had to drop the oldest
// events, the log says so.
func openSegments(dir string, objects blob.Store, log *slog.Logger) (*segment.Store, error) {
	limit := int64(minLogBytes)
	var volume syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(dir), &volume); err == nil {
		limit = max(limit, int64(volume.Blocks)*volume.Bsize/logShare)
	}
	s, err := segment.Open(segment.Config{
		Dir: dir, Blob: objects, MaxBytes: limit, Logger: log,
		OnPressure: func(u segment.Usage) {
			log.Warn("log events are close to the space they may use; the oldest are dropped when it is full",
				"used", u.Total(), "limit", u.MaxBytes, "droppedEvents", u.DroppedEvents)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open log events in %s: %w", dir, err)
	}
	return s, nil
}
