package agent

import (
	"context"
	"fmt"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// hostPaths stands in for the volumes of a host that has no room for them: it knows host directories.
type hostPaths struct{}

func (hostPaths) Provide(_ context.Context, t *dispatchpb.Task) (map[string]string, error) {
	dirs := map[string]string{}
	for _, v := range t.Volumes {
		if v.Type != volumeHost || v.HostPath == "" {
			return nil, fmt.Errorf("volume %s: this host has only volumes with a host path", v.Name)
		}
		dirs[v.Name] = v.HostPath
	}
	return dirs, nil
}

func (hostPaths) Release(context.Context, string) error { return nil }

func (hostPaths) List(context.Context) ([]string, error) { return nil, nil }
