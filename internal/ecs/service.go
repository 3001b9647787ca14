package ecs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/ecs/orchestrator"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Config is what the service needs.
type Config struct {
	Store        *store.Store
	Orchestrator *orchestrator.Orchestrator
	// SharedKernelFargate lets FARGATE tasks run without a kernel of their own: for development. Without
	// it they are refused, because a task that asked for isolation must get it.
	SharedKernelFargate bool
	Logger              *slog.Logger
}

// Service implements the ecs API. Operations it does not have are answered by Unimplemented.
type Service struct {
	ecs.Unimplemented
	store *store.Store
	orch  *orchestrator.Orchestrator
	cfg   Config
}

var _ ecs.API = (*Service)(nil)

// New returns the service.
func New(cfg Config) *Service {
	return &Service{store: cfg.Store, orch: cfg.Orchestrator, cfg: cfg}
}

// scope says where the call works: the caller's account, in the region it named.
func scope(ctx context.Context) (store.Scope, error) {
	p, err := caller.From(ctx)
	if err != nil {
		return store.Scope{}, err
	}
	return store.Scope{Account: p.AccountID, Region: p.Region}, nil
}

const defaultCluster = "default"

// serviceGroup begins the group of a service's tasks; no other task can have such a group.
const serviceGroup = "service:"

const (
	active   = "ACTIVE"
	inactive = "INACTIVE"
)

var clusterName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,255}$`)

// cluster finds the active cluster that a name or an ARN means; nil means the default one.
func (s *Service) cluster(v store.View, sc store.Scope, ref *string) (store.Row[ecs.Cluster], error) {
	row, ok := findCluster(v, sc, ref)
	if !ok || *row.Value.Status != active {
		return row, &ecs.ClusterNotFoundException{Message: "Cluster not found."}
	}
	return row, nil
}

func findCluster(v store.View, sc store.Scope, ref *string) (store.Row[ecs.Cluster], bool) {
	name, ok := clusterRef(sc, ref)
	if !ok {
		return store.Row[ecs.Cluster]{}, false
	}
	return state.Clusters.Get(v, store.K(sc, name))
}

// clusterRef reads a cluster's name out of a name or an ARN of this account and region.
func clusterRef(sc store.Scope, ref *string) (string, bool) {
	if ref == nil || *ref == "" {
		return defaultCluster, true
	}
	if !strings.HasPrefix(*ref, "arn:") {
		return *ref, clusterName.MatchString(*ref)
	}
	p, err := state.ParseARN(*ref)
	if err != nil || p.Type != "cluster" || len(p.Path) != 1 || p.Scope != sc {
		return "", false
	}
	return p.Path[0], true
}

// resourceID reads an ID out of an ID or an ARN such as task/<cluster>/<id>. ARNs of the old form,
// task/<id>, are understood; one that names another cluster is not.
func resourceID(sc store.Scope, kind, cluster, ref string) (string, bool) {
	if !strings.HasPrefix(ref, "arn:") {
		return ref, ref != ""
	}
	p, err := state.ParseARN(ref)
	if err != nil || p.Type != kind || p.Scope != sc {
		return "", false
	}
	switch len(p.Path) {
	case 1:
		return p.Path[0], true
	case 2:
		return p.Path[1], p.Path[0] == cluster
	}
	return "", false
}

// findInstance finds the container instance of a cluster that an ID or an ARN means, INACTIVE ones too.
func findInstance(v store.View, cluster store.Key, ref string) (store.Row[state.ContainerInstance], bool) {
	id, ok := resourceID(cluster.Scope, "container-instance", cluster.ID, ref)
	if !ok {
		return store.Row[state.ContainerInstance]{}, false
	}
	return state.ContainerInstances.Get(v, store.K(cluster.Scope, cluster.ID+"/"+id))
}

// checkTaskID refuses what cannot be a task of the cluster, as ECS does before it looks.
func checkTaskID(cluster, ref string) error {
	id := ref
	if strings.HasPrefix(ref, "arn:") {
		p, err := state.ParseARN(ref)
		if err != nil || p.Type != "task" || len(p.Path) > 2 {
			return invalid("Invalid identifier: %s", ref)
		}
		if len(p.Path) == 2 && p.Path[0] != cluster {
			return invalid("Invalid identifier: Identifier is for cluster %s. Your cluster is %s", p.Path[0], cluster)
		}
		id = p.Path[len(p.Path)-1]
	}
	if len(id) != 32 && len(id) != 36 { // today's IDs, and the UUIDs before them
		return invalid("taskId length should be one of [32,36]")
	}
	return nil
}

// instanceRef is the ARN of the container instance that a failure is about.
func instanceRef(cluster store.Key, ref string) string {
	if strings.HasPrefix(ref, "arn:") {
		return ref
	}
	return state.ARN(cluster.Scope, "container-instance", cluster.ID, ref)
}

func invalid(format string, args ...any) error {
	return &ecs.InvalidParameterException{Message: fmt.Sprintf(format, args...)}
}

func clientError(format string, args ...any) error {
	return &ecs.ClientException{Message: fmt.Sprintf(format, args...)}
}

func missing(arn string) ecs.Failure {
	return failure(arn, "MISSING")
}

func failure(arn, reason string) ecs.Failure {
	f := ecs.Failure{Reason: &reason}
	if arn != "" {
		f.Arn = &arn
	}
	return f
}

// fromOrchestrator gives the orchestrator's errors their form in the API.
func fromOrchestrator(err error) error {
	switch {
	case errors.Is(err, orchestrator.ErrClusterInactive):
		return &ecs.ClusterNotFoundException{Message: "Cluster not found."}
	case errors.Is(err, orchestrator.ErrDefinitionInactive):
		return clientError("TaskDefinition is inactive")
	case errors.Is(err, orchestrator.ErrTokenReused):
		return &ecs.ConflictException{Message: "The clientToken was used before with different request parameters."}
	case errors.Is(err, orchestrator.ErrNoPlacer):
		return &ecs.ServerException{Message: "Tasks cannot be placed at this time. Please try again later."}
	case errors.Is(err, orchestrator.ErrNoInstances):
		return invalid("No Container Instances were found in your cluster.")
	}
	return err
}
