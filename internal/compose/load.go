package compose

import (
	"context"
	"fmt"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// Load reads a project as `docker compose` does. Files are merged; with none, the one that Compose
// would find is read.
func Load(ctx context.Context, files []string, options ...cli.ProjectOptionsFn) (p *types.Project, err error) {
	// compose-go panics on some files that no schema should let pass, such as one with "pid:" and no
	// value.
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("the Compose file is not valid: %v", r)
		}
	}()
	loader, err := cli.NewProjectOptions(files, options...)
	if err != nil {
		return nil, fmt.Errorf("find the Compose file: %w", err)
	}
	if p, err = loader.LoadProject(ctx); err != nil {
		return nil, fmt.Errorf("read the Compose file: %w", err)
	}
	return p, nil
}
