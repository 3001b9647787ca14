package ecs

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// Limits and defaults of capacity providers, from the API reference.
const (
	maxClusterProviders   = 20
	maxDescribedProviders = 100
	providersPage         = 10
	defaultTargetCapacity = 100
	maxScalingStep        = 10_000
	defaultWarmup         = 300 // seconds
)

var (
	providerName     = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,255}$`)
	reservedProvider = regexp.MustCompile(`(?i)^(aws|ecs|fargate)`)
	scalingGroupARN  = regexp.MustCompile(`^arn:aws[a-z-]*:autoscaling:[a-z0-9-]+:[0-9]{12}:autoScalingGroup:[0-9a-fA-F-]+:autoScalingGroupName/.{1,255}$`)
	scalingGroupName = regexp.MustCompile(`^[^:/\s][^:/]{0,254}$`)
)

// CreateCapacityProvider makes a capacity provider of an Auto Scaling group. In Berth that is a named
// set of hosts: those whose attribute orchestrator.ProviderAttribute is the provider's name. How the
// group is to be scaled is kept and shown; Berth starts no machines.
func (s *Service) CreateCapacityProvider(ctx context.Context, in *ecs.CreateCapacityProviderInput) (*ecs.CreateCapacityProviderOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	name := api.Value(in.Name)
	switch {
	case !providerName.MatchString(name) || reservedProvider.MatchString(name):
		return nil, invalid("The specified capacity provider name is invalid. Up to 255 characters are allowed, including letters (upper and lowercase), numbers, underscores, and hyphens. The name cannot be prefixed with \"aws\", \"ecs\", or \"fargate\". Specify a valid name and try again.")
	case in.ManagedInstancesProvider != nil:
		return nil, &ecs.UnsupportedFeatureException{Message: "Berth does not implement Amazon ECS Managed Instances: its hosts are machines that are there."}
	case in.AutoScalingGroupProvider == nil:
		return nil, invalid("The specified capacity provider must have an Auto Scaling group provider. Specify one and try again.")
	case api.Value(in.Cluster) != "":
		return nil, invalid("A capacity provider using an Auto Scaling group cannot be created in a cluster. Use PutClusterCapacityProviders to associate it with one.")
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	group := *in.AutoScalingGroupProvider
	if arn := api.Value(group.AutoScalingGroupArn); !scalingGroupARN.MatchString(arn) && !scalingGroupName.MatchString(arn) {
		return nil, clientError("The specified Auto Scaling group ARN is invalid. Specify a valid ARN and try again.")
	}
	settled, err := settleGroup(group)
	if err != nil {
		return nil, err
	}
	arn := state.ARN(sc, "capacity-provider", name)
	made := &ecs.CapacityProvider{
		CapacityProviderArn: &arn, Name: &name, Status: ecs.CapacityProviderStatusActive,
		Type: ecs.CapacityProviderTypeEc2Autoscaling, AutoScalingGroupProvider: settled,
	}
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		if old, ok := state.CapacityProviders.Get(tx, store.K(sc, name)); ok && old.Value.Status == ecs.CapacityProviderStatusActive {
			return clientError("The specified capacity provider already exists. To change the configuration of an existing capacity provider, update the capacity provider.")
		}
		for other := range state.CapacityProviders.List(tx, sc, "") {
			if other.Value.Status == ecs.CapacityProviderStatusActive && *other.Value.AutoScalingGroupProvider.AutoScalingGroupArn == *settled.AutoScalingGroupArn {
				return clientError("The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a unique Auto Scaling group ARN and try again.")
			}
		}
		state.CapacityProviders.Put(tx, store.K(sc, name), &state.CapacityProvider{CapacityProvider: *made})
		putTags(tx, sc, arn, in.Tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	shown := *made
	shown.Tags = append([]ecs.Tag{}, in.Tags...)
	return &ecs.CreateCapacityProviderOutput{CapacityProvider: &shown}, nil
}

// settleGroup checks an Auto Scaling group provider and fills in ECS's defaults.
func settleGroup(g ecs.AutoScalingGroupProvider) (*ecs.AutoScalingGroupProvider, error) {
	scaling := ecs.ManagedScaling{}
	if g.ManagedScaling != nil {
		scaling = *g.ManagedScaling
	}
	or := func(v *int32, otherwise int32) *int32 {
		if v == nil {
			return &otherwise
		}
		return v
	}
	if scaling.Status == "" {
		scaling.Status = ecs.ManagedScalingStatusDisabled
		if g.ManagedScaling != nil {
			scaling.Status = ecs.ManagedScalingStatusEnabled
		}
	}
	scaling.TargetCapacity = or(scaling.TargetCapacity, defaultTargetCapacity)
	scaling.MinimumScalingStepSize = or(scaling.MinimumScalingStepSize, 1)
	scaling.MaximumScalingStepSize = or(scaling.MaximumScalingStepSize, maxScalingStep)
	scaling.InstanceWarmupPeriod = or(scaling.InstanceWarmupPeriod, defaultWarmup)
	if g.ManagedTerminationProtection == "" {
		g.ManagedTerminationProtection = ecs.ManagedTerminationProtectionDisabled
	}
	if g.ManagedDraining == "" {
		g.ManagedDraining = ecs.ManagedDrainingEnabled
	}
	low, high := *scaling.MinimumScalingStepSize, *scaling.MaximumScalingStepSize
	switch {
	case scaling.Status != ecs.ManagedScalingStatusEnabled && scaling.Status != ecs.ManagedScalingStatusDisabled:
		return nil, invalid("Invalid managedScaling status: %s", scaling.Status)
	case *scaling.TargetCapacity < 1 || *scaling.TargetCapacity > 100:
		return nil, invalid("The target capacity value is invalid. The value must be between 1 and 100.")
	case low < 1 || high > maxScalingStep || low > high:
		return nil, invalid("The minimum or maximum scaling step size value is invalid. The values must be between 1 and %d, and the minimum cannot exceed the maximum.", maxScalingStep)
	case *scaling.InstanceWarmupPeriod < 0 || *scaling.InstanceWarmupPeriod > 10_000:
		return nil, invalid("The instance warmup period value is invalid. The value must be between 0 and 10000.")
	case g.ManagedTerminationProtection != ecs.ManagedTerminationProtectionEnabled && g.ManagedTerminationProtection != ecs.ManagedTerminationProtectionDisabled:
		return nil, invalid("Invalid managedTerminationProtection: %s", g.ManagedTerminationProtection)
	case g.ManagedDraining != ecs.ManagedDrainingEnabled && g.ManagedDraining != ecs.ManagedDrainingDisabled:
		return nil, invalid("Invalid managedDraining: %s", g.ManagedDraining)
	case g.ManagedTerminationProtection == ecs.ManagedTerminationProtectionEnabled && scaling.Status != ecs.ManagedScalingStatusEnabled:
		return nil, invalid("The managed termination protection setting for the capacity provider is invalid. To enable managed termination protection for a capacity provider, managed scaling must be enabled.")
	}
	g.ManagedScaling = &scaling
	return &g, nil
}

// providerRef reads a capacity provider's name out of a name or an ARN of this account and region.
func providerRef(sc store.Scope, ref string) string {
	if p, err := state.ParseARN(ref); err == nil && p.Type == "capacity-provider" && p.Scope == sc && len(p.Path) == 1 {
		return p.Path[0]
	}
	return ref
}

// findProvider finds a capacity provider, deleted ones too.
func findProvider(v store.View, sc store.Scope, name string) (*ecs.CapacityProvider, bool) {
	if isFargate(name) {
		arn := state.ARN(sc, "capacity-provider", name)
		return &ecs.CapacityProvider{
			CapacityProviderArn: &arn, Name: &name,
			Status: ecs.CapacityProviderStatusActive, Type: ecs.CapacityProviderType(name),
		}, true
	}
	if name == "" {
		return nil, false
	}
	row, ok := state.CapacityProviders.Get(v, store.K(sc, name))
	if !ok {
		return nil, false
	}
	return &row.Value.CapacityProvider, true
}

func activeProvider(v store.View, sc store.Scope, name string) bool {
	p, ok := findProvider(v, sc, name)
	return ok && p.Status == ecs.CapacityProviderStatusActive
}

// UpdateCapacityProvider changes how a capacity provider scales.
func (s *Service) UpdateCapacityProvider(ctx context.Context, in *ecs.UpdateCapacityProviderInput) (*ecs.UpdateCapacityProviderOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	name := providerRef(sc, api.Value(in.Name))
	switch {
	case isFargate(name):
		return nil, invalid("The specified capacity provider is reserved and cannot be updated.")
	case in.ManagedInstancesProvider != nil:
		return nil, &ecs.UnsupportedFeatureException{Message: "Berth does not implement Amazon ECS Managed Instances: its hosts are machines that are there."}
	case in.AutoScalingGroupProvider == nil:
		return nil, invalid("The update must have an Auto Scaling group provider. Specify one and try again.")
	}
	var out ecs.CapacityProvider
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		p, ok := findProvider(tx, sc, name)
		if !ok || p.Status != ecs.CapacityProviderStatusActive {
			return errNoProvider()
		}
		group, change := *p.AutoScalingGroupProvider, in.AutoScalingGroupProvider
		if m := change.ManagedScaling; m != nil {
			scaling := *group.ManagedScaling
			if m.Status != "" {
				scaling.Status = m.Status
			}
			for _, f := range []struct {
				to   **int32
				from *int32
			}{
				{&scaling.TargetCapacity, m.TargetCapacity}, {&scaling.InstanceWarmupPeriod, m.InstanceWarmupPeriod},
				{&scaling.MinimumScalingStepSize, m.MinimumScalingStepSize}, {&scaling.MaximumScalingStepSize, m.MaximumScalingStepSize},
			} {
				if f.from != nil {
					*f.to = f.from
				}
			}
			group.ManagedScaling = &scaling
		}
		if change.ManagedTerminationProtection != "" {
			group.ManagedTerminationProtection = change.ManagedTerminationProtection
		}
		if change.ManagedDraining != "" {
			group.ManagedDraining = change.ManagedDraining
		}
		settled, err := settleGroup(group)
		if err != nil {
			return err
		}
		next := *p
		next.AutoScalingGroupProvider = settled
		next.UpdateStatus, next.UpdateStatusReason = ecs.CapacityProviderUpdateStatusUpdateComplete, nil
		state.CapacityProviders.Put(tx, store.K(sc, name), &state.CapacityProvider{CapacityProvider: next})
		out = next
		out.Tags = tagsOf(tx, sc, *next.CapacityProviderArn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateCapacityProviderOutput{CapacityProvider: &out}, nil
}

func errNoProvider() error {
	return clientError("The specified capacity provider does not exist. Specify a valid name or ARN and try again.")
}

// DeleteCapacityProvider makes a capacity provider INACTIVE. One that a cluster has stays, and says why
// in its updateStatusReason; that is no error.
func (s *Service) DeleteCapacityProvider(ctx context.Context, in *ecs.DeleteCapacityProviderInput) (*ecs.DeleteCapacityProviderOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	name := providerRef(sc, api.Value(in.CapacityProvider))
	if isFargate(name) {
		return nil, invalid("The specified capacity provider is reserved and cannot be deleted.")
	}
	var out ecs.CapacityProvider
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		p, ok := findProvider(tx, sc, name)
		if !ok || p.Status != ecs.CapacityProviderStatusActive {
			return errNoProvider()
		}
		next := *p
		next.Status, next.UpdateStatus = ecs.CapacityProviderStatusInactive, ecs.CapacityProviderUpdateStatusDeleteComplete
		next.UpdateStatusReason = nil
		for c := range state.Clusters.List(tx, sc, "") {
			if *c.Value.Status == active && slices.Contains(c.Value.CapacityProviders, name) {
				next = *p
				next.UpdateStatus = ecs.CapacityProviderUpdateStatusDeleteFailed
				next.UpdateStatusReason = api.Ptr("The capacity provider cannot be deleted because it is associated with cluster: " + *c.Value.ClusterName + ". Remove the capacity provider from the cluster and try again.")
				break
			}
		}
		out = next
		out.Tags = tagsOf(tx, sc, *next.CapacityProviderArn)
		row := &state.CapacityProvider{CapacityProvider: next}
		if next.Status == ecs.CapacityProviderStatusInactive {
			row.DeletedAt = time.Now().UTC()
			state.Tags.Delete(tx, store.K(sc, *next.CapacityProviderArn))
		}
		state.CapacityProviders.Put(tx, store.K(sc, name), row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteCapacityProviderOutput{CapacityProvider: &out}, nil
}

// DescribeCapacityProviders describes the providers named, deleted ones too, or all that can be used.
func (s *Service) DescribeCapacityProviders(ctx context.Context, in *ecs.DescribeCapacityProvidersInput) (*ecs.DescribeCapacityProvidersOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.CapacityProviders) > maxDescribedProviders {
		return nil, invalid("Capacity providers cannot have more than %d elements.", maxDescribedProviders)
	}
	snap := s.store.Snapshot()
	var only []string // nil: all
	if in.Cluster != nil {
		c, err := s.cluster(snap, sc, in.Cluster)
		if err != nil {
			return nil, err
		}
		only = append([]string{}, c.Value.CapacityProviders...)
	}
	out := &ecs.DescribeCapacityProvidersOutput{Failures: []ecs.Failure{}}
	var names []string
	if len(in.CapacityProviders) > 0 {
		for _, ref := range in.CapacityProviders {
			name := providerRef(sc, ref)
			if _, ok := findProvider(snap, sc, name); !ok || only != nil && !slices.Contains(only, name) {
				arn := ref
				if !strings.HasPrefix(ref, "arn:") {
					arn = state.ARN(sc, "capacity-provider", ref)
				}
				out.Failures = append(out.Failures, missing(arn))
				continue
			}
			names = append(names, name)
		}
	} else {
		names = []string{fargate, fargateSpot}
		for row := range state.CapacityProviders.List(snap, sc, "") {
			if row.Value.Status == ecs.CapacityProviderStatusActive {
				names = append(names, row.ID)
			}
		}
		if only != nil {
			names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(only, n) })
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	most := int32(providersPage)
	if len(in.CapacityProviders) > 0 && in.MaxResults == nil {
		most = maxDescribedProviders // those named are answered whole
	}
	out.CapacityProviders, out.NextToken, err = page(func(yield func(string, ecs.CapacityProvider) bool) {
		for _, name := range names {
			p, _ := findProvider(snap, sc, name)
			shown := *p
			shown.Tags = []ecs.Tag{}
			if slices.Contains(in.Include, ecs.CapacityProviderFieldTags) {
				shown.Tags = tagsOf(snap, sc, *p.CapacityProviderArn)
			}
			if !yield(name, shown) {
				return
			}
		}
	}, in.MaxResults, most, in.NextToken)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// PutClusterCapacityProviders sets which capacity providers a cluster has and which are its default.
func (s *Service) PutClusterCapacityProviders(ctx context.Context, in *ecs.PutClusterCapacityProvidersInput) (*ecs.PutClusterCapacityProvidersOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if in.CapacityProviders == nil || in.DefaultCapacityProviderStrategy == nil {
		return nil, invalid("Both capacityProviders and defaultCapacityProviderStrategy must be specified; they can be empty.")
	}
	var out ecs.Cluster
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := s.cluster(tx, sc, in.Cluster)
		if err != nil {
			return err
		}
		c := *row.Value
		if err := associate(tx, sc, &c, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
			return err
		}
		for _, name := range row.Value.CapacityProviders {
			if !slices.Contains(c.CapacityProviders, name) && providerInUse(tx.Snapshot(), row.Key, name) {
				return &ecs.ResourceInUseException{Message: "The specified capacity provider is in use and cannot be removed."}
			}
		}
		state.Clusters.Put(tx, row.Key, &c)
		out = describeCluster(tx, store.Row[ecs.Cluster]{Key: row.Key, Value: &c}, []ecs.ClusterField{ecs.ClusterFieldSettings, ecs.ClusterFieldAttachments})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.PutClusterCapacityProvidersOutput{Cluster: &out}, nil
}

// associate gives a cluster its capacity providers and default strategy. The providers' rows are
// written again as they are, so that none of them is deleted at the same time.
func associate(tx *store.Tx, sc store.Scope, c *ecs.Cluster, refs []string, strategy []ecs.CapacityProviderStrategyItem) error {
	names := []string{}
	for _, ref := range refs {
		name := providerRef(sc, ref)
		if slices.Contains(names, name) {
			continue
		}
		if !activeProvider(tx, sc, name) {
			return invalid("The specified capacity provider was not found. Specify a valid capacity provider and try again.")
		}
		names = append(names, name)
	}
	if len(names) > maxClusterProviders {
		return invalid("The maximum number of capacity providers per cluster has been exceeded.")
	}
	settled := []ecs.CapacityProviderStrategyItem{}
	for _, item := range strategy {
		settled = append(settled, ecs.CapacityProviderStrategyItem{
			CapacityProvider: api.Ptr(providerRef(sc, api.Value(item.CapacityProvider))),
			Base:             api.Ptr(api.Value(item.Base)), Weight: api.Ptr(api.Value(item.Weight)),
		})
	}
	if err := checkStrategy(settled, func(name string) bool { return slices.Contains(names, name) }); err != nil {
		return err
	}
	for _, name := range names {
		if row, ok := state.CapacityProviders.Get(tx, store.K(sc, name)); ok {
			state.CapacityProviders.Put(tx, row.Key, row.Value)
		}
	}
	c.CapacityProviders, c.DefaultCapacityProviderStrategy = names, settled
	return nil
}

// providerInUse tells whether a task of the cluster that has not stopped was given to the provider.
func providerInUse(v store.View, cluster store.Key, name string) bool {
	for spec := range state.Specs.List(v, cluster.Scope, cluster.ID+"/") {
		if spec.Value.CapacityProvider != name {
			continue
		}
		if rec, ok := state.Record(v, spec.Key); ok && rec.Status.LastStatus != lifecycle.Stopped {
			return true
		}
	}
	return false
}
