package ecs

import (
	"context"
	"iter"
	"slices"
	"strconv"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/ecs/lifecycle"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// CreateCluster makes a cluster. One that exists already is answered as it is.
func (s *Service) CreateCluster(ctx context.Context, in *ecs.CreateClusterInput) (*ecs.CreateClusterOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	name := api.Value(in.ClusterName)
	if name == "" {
		name = defaultCluster
	}
	if !clusterName.MatchString(name) {
		return nil, invalid("Cluster name should only contain letters, numbers, hyphens and underscores, and no more than 255 characters.")
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	settings, err := clusterSettings(in.Settings, s.insights(ctx, sc))
	if err != nil {
		return nil, err
	}
	if err := checkConfiguration(in.Configuration); err != nil {
		return nil, err
	}
	key := store.K(sc, name)
	var c ecs.Cluster
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, ok := state.Clusters.Get(tx, key)
		if !ok || *row.Value.Status != active {
			arn := state.ARN(sc, "cluster", name)
			row.Value = &ecs.Cluster{
				ClusterArn: &arn, ClusterName: &name, Status: api.Ptr(active),
				Settings: settings, Configuration: in.Configuration, ServiceConnectDefaults: serviceConnect(in.ServiceConnectDefaults),
			}
			if err := associate(tx, sc, row.Value, in.CapacityProviders, in.DefaultCapacityProviderStrategy); err != nil {
				return err
			}
			state.Clusters.Put(tx, key, row.Value)
			putTags(tx, sc, arn, in.Tags)
		}
		c = describeCluster(tx, row, []ecs.ClusterField{ecs.ClusterFieldSettings, ecs.ClusterFieldTags, ecs.ClusterFieldConfigurations})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateClusterOutput{Cluster: &c}, nil
}

// checkConfiguration judges a cluster's configuration.
func checkConfiguration(c *ecs.ClusterConfiguration) error {
	if c == nil || c.ExecuteCommandConfiguration == nil {
		return nil
	}
	e := c.ExecuteCommandConfiguration
	switch e.Logging {
	case "", ecs.ExecuteCommandLoggingNone, ecs.ExecuteCommandLoggingDefault:
		if e.LogConfiguration != nil {
			return invalid("You must set logging to 'OVERRIDE' when you supply a log configuration.")
		}
	case ecs.ExecuteCommandLoggingOverride:
		if e.LogConfiguration == nil {
			return invalid("You must supply a log configuration when you set logging to 'OVERRIDE'.")
		}
	default:
		return invalid("Invalid logging: %s", e.Logging)
	}
	return nil
}

func serviceConnect(in *ecs.ClusterServiceConnectDefaultsRequest) *ecs.ClusterServiceConnectDefaults {
	if in == nil || api.Value(in.Namespace) == "" {
		return nil
	}
	return &ecs.ClusterServiceConnectDefaults{Namespace: in.Namespace}
}

// insights is what the account settings say of a new cluster's containerInsights.
func (s *Service) insights(ctx context.Context, sc store.Scope) string {
	const name = string(ecs.SettingNameContainerInsights)
	snap := s.store.Snapshot()
	if p, err := caller.From(ctx); err == nil {
		if value, ok := settingsRow(snap, sc, settingsID(p))[name]; ok {
			return value
		}
	}
	if value, ok := settingsRow(snap, sc, accountDefault)[name]; ok {
		return value
	}
	return "disabled"
}

// clusterSettings fills in the one setting there is.
func clusterSettings(in []ecs.ClusterSetting, value string) ([]ecs.ClusterSetting, error) {
	for _, set := range in {
		if set.Name != ecs.ClusterSettingNameContainerInsights {
			return nil, invalid("Unsupported cluster setting: %s", set.Name)
		}
		value = api.Value(set.Value)
		if !slices.Contains([]string{"enabled", "disabled", "enhanced"}, value) {
			return nil, invalid("Invalid cluster setting value for containerInsights: %s", value)
		}
	}
	return []ecs.ClusterSetting{{Name: ecs.ClusterSettingNameContainerInsights, Value: &value}}, nil
}

// counts are how many of a cluster's tasks are where.
type counts struct {
	running, pending map[ecs.LaunchType]int32
	unstopped        int
}

// countTasks walks the cluster's specs and statuses side by side: both are in the order of their keys,
// and a task without a status is yet to start.
func countTasks(v store.View, cluster store.Key) counts {
	n := counts{running: map[ecs.LaunchType]int32{}, pending: map[ecs.LaunchType]int32{}}
	next, stop := iter.Pull(state.Statuses.List(v, cluster.Scope, cluster.ID+"/"))
	defer stop()
	st, more := next()
	for spec := range state.Specs.List(v, cluster.Scope, cluster.ID+"/") {
		for more && st.ID < spec.ID {
			st, more = next()
		}
		last := lifecycle.Pending
		if more && st.ID == spec.ID {
			last = st.Value.LastStatus
		}
		if last != lifecycle.Stopped {
			n.unstopped++
		}
		switch {
		case last == lifecycle.Running:
			n.running[spec.Value.LaunchType]++
		case last.Before(lifecycle.Running):
			n.pending[spec.Value.LaunchType]++
		}
	}
	return n
}

// describeCluster adds what is computed and leaves out what was not asked for.
func describeCluster(v store.View, row store.Row[ecs.Cluster], include []ecs.ClusterField) ecs.Cluster {
	c := *row.Value
	n := countTasks(v, row.Key)
	running, pending := n.running, n.pending
	c.RunningTasksCount = api.Ptr(running[ecs.LaunchTypeEc2] + running[ecs.LaunchTypeFargate])
	c.PendingTasksCount = api.Ptr(pending[ecs.LaunchTypeEc2] + pending[ecs.LaunchTypeFargate])
	c.ActiveServicesCount = api.Ptr(int32(0))
	c.RegisteredContainerInstancesCount = api.Ptr(countInstances(v, row.Key))
	c.Statistics, c.Tags = []ecs.KeyValuePair{}, []ecs.Tag{}
	if c.CapacityProviders == nil {
		c.CapacityProviders = []string{}
	}
	if c.DefaultCapacityProviderStrategy == nil {
		c.DefaultCapacityProviderStrategy = []ecs.CapacityProviderStrategyItem{}
	}
	if slices.Contains(include, ecs.ClusterFieldStatistics) {
		for _, st := range []struct {
			name  string
			count int32
		}{
			{"runningEC2TasksCount", running[ecs.LaunchTypeEc2]}, {"runningFargateTasksCount", running[ecs.LaunchTypeFargate]},
			{"pendingEC2TasksCount", pending[ecs.LaunchTypeEc2]}, {"pendingFargateTasksCount", pending[ecs.LaunchTypeFargate]},
			{"activeEC2ServiceCount", 0}, {"activeFargateServiceCount", 0},
			{"drainingEC2ServiceCount", 0}, {"drainingFargateServiceCount", 0},
		} {
			c.Statistics = append(c.Statistics, ecs.KeyValuePair{Name: &st.name, Value: api.Ptr(strconv.Itoa(int(st.count)))})
		}
	}
	if slices.Contains(include, ecs.ClusterFieldTags) {
		c.Tags = tagsOf(v, row.Scope, *c.ClusterArn)
	}
	if !slices.Contains(include, ecs.ClusterFieldSettings) {
		c.Settings = []ecs.ClusterSetting{}
	}
	if !slices.Contains(include, ecs.ClusterFieldConfigurations) {
		c.Configuration = nil
	}
	// Attachments would be the scaling policies that ECS makes for a cluster's providers. Berth starts no
	// machines and makes none, so they are always up to date.
	if slices.Contains(include, ecs.ClusterFieldAttachments) && len(c.CapacityProviders) > 0 {
		c.Attachments, c.AttachmentsStatus = []ecs.Attachment{}, api.Ptr("UPDATE_COMPLETE")
	}
	return c
}

// countInstances counts the container instances of a cluster that are ACTIVE or DRAINING.
func countInstances(v store.View, cluster store.Key) int32 {
	n := int32(0)
	for row := range state.ContainerInstances.List(v, cluster.Scope, cluster.ID+"/") {
		if row.Value.Status != inactive {
			n++
		}
	}
	return n
}

// DescribeClusters describes clusters, inactive ones too.
func (s *Service) DescribeClusters(ctx context.Context, in *ecs.DescribeClustersInput) (*ecs.DescribeClustersOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	refs := in.Clusters
	if len(refs) == 0 {
		refs = []string{defaultCluster}
	}
	if len(refs) > 100 {
		return nil, invalid("Clusters cannot have more than 100 elements.")
	}
	snap := s.store.Snapshot()
	out := &ecs.DescribeClustersOutput{Clusters: []ecs.Cluster{}, Failures: []ecs.Failure{}}
	for _, ref := range refs {
		row, ok := findCluster(snap, sc, &ref)
		if !ok {
			arn := ref
			if name, valid := clusterRef(sc, &ref); valid {
				arn = state.ARN(sc, "cluster", name)
			}
			out.Failures = append(out.Failures, missing(arn))
			continue
		}
		out.Clusters = append(out.Clusters, describeCluster(snap, row, in.Include))
	}
	return out, nil
}

// ListClusters lists the ARNs of active clusters.
func (s *Service) ListClusters(ctx context.Context, in *ecs.ListClustersInput) (*ecs.ListClustersOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	arns, next, err := page(activeClusters(snap, sc), in.MaxResults, 100, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListClustersOutput{ClusterArns: arns, NextToken: next}, nil
}

func activeClusters(v store.View, sc store.Scope) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for row := range state.Clusters.List(v, sc, "") {
			if *row.Value.Status == active && !yield(row.ID, *row.Value.ClusterArn) {
				return
			}
		}
	}
}

// DeleteCluster makes a cluster INACTIVE. Container instances that Berth registered of itself go with
// it; tasks that have not stopped keep it.
func (s *Service) DeleteCluster(ctx context.Context, in *ecs.DeleteClusterInput) (*ecs.DeleteClusterOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	if api.Value(in.Cluster) == "" {
		return nil, invalid("Cluster can not be blank.")
	}
	found, err := s.cluster(s.store.Snapshot(), sc, in.Cluster)
	if err != nil {
		return nil, err
	}
	var out ecs.Cluster
	err = s.orch.CloseCluster(ctx, found.Key, func(tx *store.Tx) error {
		row, err := s.cluster(tx, sc, in.Cluster)
		if err != nil {
			return err
		}
		if n := countTasks(tx, row.Key); n.unstopped > 0 {
			return &ecs.ClusterContainsTasksException{Message: "The Cluster cannot be deleted while Tasks are active."}
		}
		gone := *row.Value
		gone.Status = api.Ptr(inactive)
		state.Clusters.Put(tx, row.Key, &gone)
		state.Tags.Delete(tx, store.K(sc, *gone.ClusterArn))
		out = describeCluster(tx, store.Row[ecs.Cluster]{Key: row.Key, Value: &gone}, []ecs.ClusterField{ecs.ClusterFieldSettings})
		out.RegisteredContainerInstancesCount = api.Ptr(int32(0))
		return nil
	})
	if err != nil {
		return nil, fromOrchestrator(err)
	}
	return &ecs.DeleteClusterOutput{Cluster: &out}, nil
}

// UpdateCluster changes a cluster's settings, configuration or default namespace.
func (s *Service) UpdateCluster(ctx context.Context, in *ecs.UpdateClusterInput) (*ecs.UpdateClusterOutput, error) {
	c, err := s.changeCluster(ctx, in.Cluster, func(c *ecs.Cluster) error {
		if in.Settings != nil {
			settings, err := clusterSettings(in.Settings, "disabled")
			if err != nil {
				return err
			}
			c.Settings = settings
		}
		if in.Configuration != nil {
			if err := checkConfiguration(in.Configuration); err != nil {
				return err
			}
			c.Configuration = in.Configuration
		}
		if in.ServiceConnectDefaults != nil {
			c.ServiceConnectDefaults = serviceConnect(in.ServiceConnectDefaults)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateClusterOutput{Cluster: c}, nil
}

// UpdateClusterSettings changes a cluster's settings.
func (s *Service) UpdateClusterSettings(ctx context.Context, in *ecs.UpdateClusterSettingsInput) (*ecs.UpdateClusterSettingsOutput, error) {
	if len(in.Settings) == 0 {
		return nil, invalid("Settings can not be empty.")
	}
	c, err := s.changeCluster(ctx, in.Cluster, func(c *ecs.Cluster) error {
		settings, err := clusterSettings(in.Settings, "disabled")
		c.Settings = settings
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateClusterSettingsOutput{Cluster: c}, nil
}

func (s *Service) changeCluster(ctx context.Context, ref *string, change func(*ecs.Cluster) error) (*ecs.Cluster, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	var out ecs.Cluster
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := s.cluster(tx, sc, ref)
		if err != nil {
			return err
		}
		c := *row.Value
		if err := change(&c); err != nil {
			return err
		}
		state.Clusters.Put(tx, row.Key, &c)
		out = describeCluster(tx, store.Row[ecs.Cluster]{Key: row.Key, Value: &c}, []ecs.ClusterField{ecs.ClusterFieldSettings, ecs.ClusterFieldConfigurations})
		return nil
	})
	return &out, err
}
