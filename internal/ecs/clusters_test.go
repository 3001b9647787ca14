package ecs_test

import (
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/state"
)

func TestAClusterFromCreationToCreationAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := &ecs.CreateClusterInput{
		ClusterName: api.Ptr("demo"), Tags: []ecs.Tag{{Key: api.Ptr("k"), Value: api.Ptr("v")}},
		Settings: []ecs.ClusterSetting{{Name: ecs.ClusterSettingNameContainerInsights, Value: api.Ptr("enabled")}},
	}
	made, err := w.ecs.CreateCluster(w.ctx, in)
	if err != nil || *made.Cluster.Status != "ACTIVE" || len(made.Cluster.Tags) != 1 || *made.Cluster.Settings[0].Value != "enabled" {
		t.Fatalf("CreateCluster: %v %+v", err, made)
	}
	w.connect("h1", 4)
	def := w.register("web", nil)
	task := *w.run("demo", def, 1).Tasks[0].TaskArn
	w.report(task, "RUNNING", nil)
	out, err := w.ecs.DescribeClusters(w.ctx, &ecs.DescribeClustersInput{
		Clusters: []string{"demo", "none"}, Include: []ecs.ClusterField{ecs.ClusterFieldStatistics, ecs.ClusterFieldTags, ecs.ClusterFieldSettings},
	})
	if err != nil || len(out.Clusters) != 1 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Fatalf("DescribeClusters: %v %+v", err, out)
	}
	c := out.Clusters[0]
	if *c.RunningTasksCount != 1 || *c.PendingTasksCount != 0 || *c.RegisteredContainerInstancesCount != 1 || len(c.Statistics) != 8 {
		t.Errorf("counts: %+v", c)
	}
	_, err = w.ecs.DeleteCluster(w.ctx, &ecs.DeleteClusterInput{Cluster: api.Ptr("demo")})
	wantError(t, err, "ClusterContainsTasksException", "while Tasks are active")
	w.report(task, "STOPPED", nil)
	token := &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ClientToken: api.Ptr("once")}
	first, err := w.ecs.RunTask(w.ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	w.report(*first.Tasks[0].TaskArn, "STOPPED", nil)
	gone, err := w.ecs.DeleteCluster(w.ctx, &ecs.DeleteClusterInput{Cluster: c.ClusterArn})
	if err != nil || *gone.Cluster.Status != "INACTIVE" {
		t.Fatalf("DeleteCluster: %v %+v", err, gone)
	}
	out, err = w.ecs.DescribeClusters(w.ctx, &ecs.DescribeClustersInput{Clusters: []string{"demo"}})
	if err != nil || len(out.Clusters) != 1 || *out.Clusters[0].Status != "INACTIVE" || *out.Clusters[0].RegisteredContainerInstancesCount != 0 {
		t.Errorf("after: %v %+v", err, out)
	}
	_, err = w.ecs.DeleteCluster(w.ctx, &ecs.DeleteClusterInput{Cluster: api.Ptr("demo")})
	wantError(t, err, "ClusterNotFoundException", "Cluster not found.")
	in.Tags, in.Settings = nil, nil
	made, err = w.ecs.CreateCluster(w.ctx, in)
	if err != nil || *made.Cluster.Status != "ACTIVE" || len(made.Cluster.Tags) != 0 || *made.Cluster.Settings[0].Value != "disabled" {
		t.Errorf("again: %v %+v", err, made)
	}
	second, err := w.ecs.RunTask(w.ctx, token)
	if err != nil || len(second.Tasks) != 1 || *second.Tasks[0].TaskArn == *first.Tasks[0].TaskArn {
		t.Errorf("a token of the cluster before is remembered: %v %+v", err, second)
	}
}

func TestClusterConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bucket := &ecs.ExecuteCommandLogConfiguration{S3BucketName: api.Ptr("b")}
	for message, c := range map[string]ecs.ExecuteCommandConfiguration{
		"You must set logging to 'OVERRIDE' when you supply a log configuration.": {Logging: ecs.ExecuteCommandLoggingDefault, LogConfiguration: bucket},
		"You must supply a log configuration":                                     {Logging: ecs.ExecuteCommandLoggingOverride},
		"Invalid logging":                                                         {Logging: "SOME"},
	} {
		_, err := w.ecs.CreateCluster(w.ctx, &ecs.CreateClusterInput{ClusterName: api.Ptr("demo"), Configuration: &ecs.ClusterConfiguration{ExecuteCommandConfiguration: &c}})
		wantError(t, err, "InvalidParameterException", message)
	}
	made, err := w.ecs.CreateCluster(w.ctx, &ecs.CreateClusterInput{
		ClusterName: api.Ptr("demo"), CapacityProviders: []string{"FARGATE", "FARGATE_SPOT"},
		DefaultCapacityProviderStrategy: []ecs.CapacityProviderStrategyItem{{CapacityProvider: api.Ptr("FARGATE_SPOT"), Weight: api.Ptr(int32(1))}},
		Configuration: &ecs.ClusterConfiguration{ExecuteCommandConfiguration: &ecs.ExecuteCommandConfiguration{
			Logging: ecs.ExecuteCommandLoggingOverride, LogConfiguration: bucket}},
	})
	if err != nil || len(made.Cluster.CapacityProviders) != 2 || *made.Cluster.DefaultCapacityProviderStrategy[0].Base != 0 {
		t.Fatalf("CreateCluster: %v %+v", err, made)
	}
	describe := func(include ...ecs.ClusterField) ecs.Cluster {
		t.Helper()
		out, err := w.ecs.DescribeClusters(w.ctx, &ecs.DescribeClustersInput{Clusters: []string{"demo"}, Include: include})
		if err != nil || len(out.Clusters) != 1 {
			t.Fatalf("DescribeClusters: %v %+v", err, out)
		}
		return out.Clusters[0]
	}
	if c := describe(); c.Configuration != nil || len(c.Settings) != 0 || len(c.Statistics) != 0 || c.AttachmentsStatus != nil || len(c.CapacityProviders) != 2 {
		t.Errorf("plainly: %+v", c)
	}
	c := describe(ecs.ClusterFieldConfigurations, ecs.ClusterFieldSettings, ecs.ClusterFieldStatistics, ecs.ClusterFieldAttachments)
	if *c.Configuration.ExecuteCommandConfiguration.LogConfiguration.S3BucketName != "b" || len(c.Settings) != 1 || len(c.Statistics) != 8 || *c.AttachmentsStatus != "UPDATE_COMPLETE" {
		t.Errorf("with all: %+v", c)
	}
	_, err = w.ecs.UpdateCluster(w.ctx, &ecs.UpdateClusterInput{Cluster: api.Ptr("demo"), Configuration: &ecs.ClusterConfiguration{
		ExecuteCommandConfiguration: &ecs.ExecuteCommandConfiguration{LogConfiguration: bucket}}})
	wantError(t, err, "InvalidParameterException", "OVERRIDE")
	for message, err := range map[string]error{
		"Settings can not be empty": second(w.ecs.UpdateClusterSettings(w.ctx, &ecs.UpdateClusterSettingsInput{Cluster: api.Ptr("demo")})),
		"Invalid cluster setting": second(w.ecs.UpdateClusterSettings(w.ctx, &ecs.UpdateClusterSettingsInput{Cluster: api.Ptr("demo"),
			Settings: []ecs.ClusterSetting{{Name: ecs.ClusterSettingNameContainerInsights, Value: api.Ptr("sometimes")}}})),
		"more than 100":            second(w.ecs.DescribeClusters(w.ctx, &ecs.DescribeClustersInput{Clusters: make([]string, 101)})),
		"Cluster can not be blank": second(w.ecs.DeleteCluster(w.ctx, &ecs.DeleteClusterInput{})),
		"must be between 1":        second(w.ecs.ListClusters(w.ctx, &ecs.ListClustersInput{MaxResults: api.Ptr(int32(0))})),
	} {
		wantError(t, err, "InvalidParameterException", message)
	}
}

func second[T any](_ T, err error) error { return err }

// More container instances than a transaction can delete do not keep a cluster.
func TestDeleteClusterOfManyHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	for i := range 150 {
		w.connect(hostName(i), 1)
	}
	if _, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo")}); err != nil {
		t.Fatal(err)
	}
	if n := state.ContainerInstances.Len(w.store.Snapshot()); n != 150 {
		t.Fatalf("%d instances registered", n)
	}
	if _, err := w.ecs.DeleteCluster(w.ctx, &ecs.DeleteClusterInput{Cluster: api.Ptr("demo")}); err != nil {
		t.Fatal(err)
	}
	if n := state.ContainerInstances.Len(w.store.Snapshot()); n != 0 {
		t.Errorf("%d instances left", n)
	}
}
