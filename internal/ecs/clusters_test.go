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
