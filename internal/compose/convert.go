package compose

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// Options say how a project becomes tasks.
type Options struct {
	// Together puts all services into one task definition, with links and dependsOn between its
	// containers. Otherwise each Compose service has a definition and an ECS service of its own.
	Together bool
	// Cluster is named in the requests for services; empty: the default cluster.
	Cluster string
}

// Result is what a project became.
type Result struct {
	Definitions []ecs.RegisterTaskDefinitionInput
	Services    []ecs.CreateServiceInput // each with the family of its definition
	// Notes say what ECS does otherwise, or cannot, one a line: "web: build: …".
	Notes []string
}

// reservation is what a container without any memory setting reserves, in MiB: ECS wants one.
const reservation = 128

var notFamily = regexp.MustCompile(`[^a-zA-Z0-9_-]+`)

// Convert makes definitions and services of a project. The error says what makes that impossible.
func Convert(p *types.Project, o Options) (Result, error) {
	c := converter{project: p, options: o}
	names := slices.Sorted(maps.Keys(p.Services))
	if len(names) == 0 {
		return Result{}, fmt.Errorf("the Compose file has no services (or none of the active profiles)")
	}
	if o.Together {
		def := ecs.RegisterTaskDefinitionInput{Family: api.Ptr(family(p.Name))}
		order, err := startOrder(p.Services)
		if err != nil {
			return Result{}, err
		}
		for _, name := range order {
			c.service(p.Services[name], &def)
		}
		if n := len(def.ContainerDefinitions); n > 10 {
			return Result{}, fmt.Errorf("a task has at most 10 containers, and the Compose file has %d services: leave --together out", n)
		}
		c.out.Definitions = append(c.out.Definitions, def)
		return c.out, nil
	}
	for _, name := range names {
		s := p.Services[name]
		def := ecs.RegisterTaskDefinitionInput{Family: api.Ptr(family(p.Name + "-" + name))}
		c.service(s, &def)
		c.out.Definitions = append(c.out.Definitions, def)
		c.out.Services = append(c.out.Services, c.ecsService(s, &def))
	}
	return c.out, nil
}

func family(name string) string {
	name = strings.Trim(notFamily.ReplaceAllString(name, "-"), "-")
	if name == "" {
		return "compose"
	}
	return name[:min(len(name), 255)]
}

type converter struct {
	project *types.Project
	options Options
	out     Result
}

func (c *converter) note(service, format string, args ...any) {
	c.out.Notes = append(c.out.Notes, service+": "+fmt.Sprintf(format, args...))
}

// startOrder lists services after those they depend on.
func startOrder(services types.Services) ([]string, error) {
	var order []string
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name string) error
	visit = func(name string) error {
		switch state[name] {
		case 1:
			return fmt.Errorf("services depend on each other in a circle, at %s", name)
		case 2:
			return nil
		}
		state[name] = 1
		s, ok := services[name]
		if !ok {
			return nil // of a profile that is not active
		}
		for _, on := range slices.Sorted(maps.Keys(s.DependsOn)) {
			if err := visit(on); err != nil {
				return err
			}
		}
		state[name] = 2
		order = append(order, name)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// service adds a Compose service to a definition as a container.
func (c *converter) service(s types.ServiceConfig, def *ecs.RegisterTaskDefinitionInput) {
	d := ecs.ContainerDefinition{Name: api.Ptr(s.Name), Image: api.Ptr(s.Image), Essential: api.Ptr(true)}
	if s.Image == "" {
		c.note(s.Name, "image: there is none; build one, push it where the hosts can pull it, and name it here")
		d.Image = api.Ptr(c.project.Name + "-" + s.Name)
	}
	c.process(s, &d)
	c.resources(s, &d)
	c.network(s, def, &d)
	c.volumes(s, def, &d)
	c.lifecycle(s, &d)
	c.namespaces(s, def)
	c.platform(s, def)
	c.unknown(s)
	def.ContainerDefinitions = append(def.ContainerDefinitions, d)
}

// ecsService is the service that keeps a Compose service's task running.
func (c *converter) ecsService(s types.ServiceConfig, def *ecs.RegisterTaskDefinitionInput) ecs.CreateServiceInput {
	svc := ecs.CreateServiceInput{
		ServiceName: api.Ptr(family(s.Name)), TaskDefinition: def.Family, DesiredCount: api.Ptr(int32(replicas(s))),
		LaunchType: ecs.LaunchTypeEc2, SchedulingStrategy: ecs.SchedulingStrategyReplica,
	}
	if c.options.Cluster != "" {
		svc.Cluster = api.Ptr(c.options.Cluster)
	}
	if d := s.Deploy; d != nil {
		if d.Mode == "global" {
			svc.SchedulingStrategy, svc.DesiredCount = ecs.SchedulingStrategyDaemon, nil
		}
		if u := d.UpdateConfig; u != nil {
			conf := &ecs.DeploymentConfiguration{}
			if u.Order != "start-first" {
				conf.MaximumPercent, conf.MinimumHealthyPercent = api.Ptr(int32(100)), api.Ptr(int32(50))
			}
			if u.FailureAction == "rollback" || u.FailureAction == "pause" {
				conf.DeploymentCircuitBreaker = &ecs.DeploymentCircuitBreaker{Enable: api.Ptr(true), Rollback: api.Ptr(u.FailureAction == "rollback")}
			}
			svc.DeploymentConfiguration = conf
		}
		for _, constraint := range d.Placement.Constraints {
			if expression, ok := placementExpression(constraint); ok {
				svc.PlacementConstraints = append(svc.PlacementConstraints, ecs.PlacementConstraint{Type: ecs.PlacementConstraintTypeMemberOf, Expression: &expression})
			} else {
				c.note(s.Name, "deploy.placement.constraints: %q has no counterpart in the cluster query language", constraint)
			}
		}
		if d.Placement.MaxReplicas == 1 {
			svc.PlacementConstraints = append(svc.PlacementConstraints, ecs.PlacementConstraint{Type: ecs.PlacementConstraintTypeDistinctInstance})
		}
	}
	// Others find it by its name, as they do in Compose.
	var named []ecs.ServiceConnectService
	for _, m := range def.ContainerDefinitions[0].PortMappings {
		if m.Name != nil && m.ContainerPort != nil {
			named = append(named, ecs.ServiceConnectService{
				PortName: m.Name, DiscoveryName: m.Name,
				ClientAliases: []ecs.ServiceConnectClientAlias{{Port: m.ContainerPort, DnsName: api.Ptr(s.Name)}},
			})
		}
	}
	if len(c.project.Services) > 1 {
		svc.ServiceConnectConfiguration = &ecs.ServiceConnectConfiguration{Enabled: api.Ptr(true), Namespace: api.Ptr(family(c.project.Name)), Services: named}
	}
	return svc
}

func replicas(s types.ServiceConfig) int {
	switch {
	case s.Scale != nil:
		return *s.Scale
	case s.Deploy != nil && s.Deploy.Replicas != nil:
		return *s.Deploy.Replicas
	}
	return 1
}

var constraintSyntax = regexp.MustCompile(`^\s*node\.(?:labels\.([a-zA-Z0-9_.-]+)|platform\.(os|arch)|(hostname))\s*(==|!=)\s*(\S+)\s*$`)

// placementExpression translates one of Swarm's placement constraints.
func placementExpression(constraint string) (string, bool) {
	m := constraintSyntax.FindStringSubmatch(constraint)
	if m == nil || m[3] != "" {
		return "", false
	}
	attribute := m[1]
	switch m[2] {
	case "os":
		attribute = "ecs.os-type"
	case "arch":
		attribute = "ecs.cpu-architecture"
	}
	return fmt.Sprintf("attribute:%s %s %s", attribute, m[4], m[5]), true
}
