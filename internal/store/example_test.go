package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/berthhq/berth/internal/store"
)

type task struct {
	Image string `json:"image"`
	Host  string `json:"host,omitempty"`
}

var tasks = store.DefineTable[task]("tasks", 1,
	store.Index("byHost", func(_ store.Key, t *task) []string { return []string{t.Host} }))

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	s, err := store.Open(ctx, store.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}, tasks)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	scope := store.Scope{Account: "123456789012", Region: "us-east-1"}
	start := s.Snapshot()
	_, err = s.Update(ctx, func(tx *store.Tx) error {
		key := store.K(scope, "default/0123abcd")
		if _, exists := tasks.Get(tx, key); exists {
			return fmt.Errorf("task %s exists", key.ID)
		}
		tasks.Put(tx, key, &task{Image: "nginx", Host: "host-1"})
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for row := range tasks.By(s.Snapshot(), "byHost", "host-1") {
		fmt.Println(row.ID, row.Value.Image)
	}

	watcher := s.Watch(ctx, start)
	change, err := watcher.Next(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, row := range change.Rows {
		if old, new, ok := tasks.Change(row); ok {
			fmt.Println(old == nil, new.Host)
		}
	}
	// Output:
	// default/0123abcd nginx
	// true host-1
}
