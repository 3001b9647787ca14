package runtime

import (
	"context"
	"errors"

	"github.com/berthhq/berth/internal/agent"
)

type usageFacts struct{}

func (r *Runtime) Usage(ctx context.Context, id string) (agent.Usage, error) {
	return agent.Usage{}, errors.New("x")
}
