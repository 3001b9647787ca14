package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestClusters(t *testing.T) {
	t.Parallel()
	b := plain(t)
	client := b.ECS()
	name := label(t)

	made, err := client.CreateCluster(ctx(t), &ecs.CreateClusterInput{ClusterName: &name, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("harbour")}}})
	if err != nil {
		t.Fatal(err)
	}
	arn := aws.ToString(made.Cluster.ClusterArn)
	if want := "arn:aws:ecs:us-east-1:000000000000:cluster/" + name; arn != want {
		t.Errorf("clusterArn is %s, want %s", arn, want)
	}
	if s := aws.ToString(made.Cluster.Status); s != "ACTIVE" {
		t.Errorf("status is %s", s)
	}
	again, err := client.CreateCluster(ctx(t), &ecs.CreateClusterInput{ClusterName: &name})
	if err != nil || aws.ToString(again.Cluster.ClusterArn) != arn {
		t.Errorf("creating it again is no error and the same cluster: %v", err)
	}

	for _, ref := range []string{name, arn} {
		seen, err := client.DescribeClusters(ctx(t), &ecs.DescribeClustersInput{Clusters: []string{ref}, Include: []types.ClusterField{types.ClusterFieldTags}})
		if err != nil || len(seen.Clusters) != 1 {
			t.Fatalf("DescribeClusters %s: %v", ref, err)
		}
		if tags := seen.Clusters[0].Tags; len(tags) != 1 || aws.ToString(tags[0].Value) != "harbour" {
			t.Errorf("tags are %s", show(tags))
		}
	}
	missing, err := client.DescribeClusters(ctx(t), &ecs.DescribeClustersInput{Clusters: []string{"nowhere"}})
	if err != nil || len(missing.Failures) != 1 || aws.ToString(missing.Failures[0].Reason) != "MISSING" {
		t.Errorf("an unknown cluster is the failure MISSING: %v %s", err, show(missing))
	}

	var listed []string
	pages := ecs.NewListClustersPaginator(client, &ecs.ListClustersInput{MaxResults: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(page.ClusterArns) > 1 {
			t.Errorf("a page of %d, asked for one", len(page.ClusterArns))
		}
		listed = append(listed, page.ClusterArns...)
	}
	if !slices.Contains(listed, arn) {
		t.Errorf("%s is not listed in %v", arn, listed)
	}

	gone, err := client.DeleteCluster(ctx(t), &ecs.DeleteClusterInput{Cluster: &name})
	if err != nil || aws.ToString(gone.Cluster.Status) != "INACTIVE" {
		t.Errorf("DeleteCluster: %v", err)
	}
	after, err := client.ListClusters(ctx(t), &ecs.ListClustersInput{})
	if err != nil || slices.Contains(after.ClusterArns, arn) {
		t.Errorf("a deleted cluster is listed: %v", err)
	}
}

func TestClusterWithTasksIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	task := w.runApp("wait")
	_, err := w.ecs.DeleteCluster(ctx(t), &ecs.DeleteClusterInput{Cluster: &w.cluster})
	wantError(t, err, "ClusterContainsTasksException")
	w.running(task)
}

func TestTaskDefinitionEcho(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	family := label(t)
	register := func() *types.TaskDefinition {
		out, err := w.ecs.RegisterTaskDefinition(ctx(t), &ecs.RegisterTaskDefinitionInput{
			Family: &family, NetworkMode: types.NetworkModeAwsvpc, Cpu: aws.String("256"), Memory: aws.String("512"),
			ContainerDefinitions: []types.ContainerDefinition{{
				Name: aws.String("web"), Image: &w.image,
				PortMappings: []types.PortMapping{{ContainerPort: aws.Int32(8080)}},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.TaskDefinition
	}
	td := register()
	c := td.ContainerDefinitions[0]
	switch {
	case td.Revision != 1:
		t.Errorf("revision %d", td.Revision)
	case td.Status != types.TaskDefinitionStatusActive:
		t.Errorf("status %s", td.Status)
	case aws.ToString(td.Cpu) != "256" || aws.ToString(td.Memory) != "512":
		t.Errorf("cpu %s memory %s are strings as given", aws.ToString(td.Cpu), aws.ToString(td.Memory))
	case !slices.Contains(td.Compatibilities, types.CompatibilityEc2) || !slices.Contains(td.Compatibilities, types.CompatibilityFargate):
		t.Errorf("compatibilities %v", td.Compatibilities)
	case c.Cpu != 0 || !aws.ToBool(c.Essential):
		t.Errorf("defaults cpu %d essential %v", c.Cpu, aws.ToBool(c.Essential))
	case c.Environment == nil || c.MountPoints == nil || c.VolumesFrom == nil:
		t.Errorf("empty lists are echoed: %s", show(c))
	case len(c.PortMappings) != 1 || aws.ToInt32(c.PortMappings[0].HostPort) != 8080 || c.PortMappings[0].Protocol != types.TransportProtocolTcp:
		t.Errorf("awsvpc port mappings gain hostPort and protocol: %s", show(c.PortMappings))
	}
	if want := "arn:aws:ecs:us-east-1:000000000000:task-definition/" + family + ":1"; aws.ToString(td.TaskDefinitionArn) != want {
		t.Errorf("taskDefinitionArn %s, want %s", aws.ToString(td.TaskDefinitionArn), want)
	}
	var attributes []string
	for _, a := range td.RequiresAttributes {
		attributes = append(attributes, aws.ToString(a.Name))
	}
	if !slices.Contains(attributes, "ecs.capability.task-eni") {
		t.Errorf("requiresAttributes %v lacks ecs.capability.task-eni", attributes)
	}

	if second := register(); second.Revision != 2 {
		t.Errorf("revision %d after 1", second.Revision)
	}
	for ref, revision := range map[string]int32{family: 2, family + ":1": 1, aws.ToString(td.TaskDefinitionArn): 1} {
		seen, err := w.ecs.DescribeTaskDefinition(ctx(t), &ecs.DescribeTaskDefinitionInput{TaskDefinition: &ref})
		if err != nil || seen.TaskDefinition.Revision != revision {
			t.Errorf("DescribeTaskDefinition %s: %v, want revision %d", ref, err, revision)
		}
	}
	list, err := w.ecs.ListTaskDefinitions(ctx(t), &ecs.ListTaskDefinitionsInput{FamilyPrefix: &family, Sort: types.SortOrderDesc})
	if err != nil || len(list.TaskDefinitionArns) != 2 || !strings.HasSuffix(list.TaskDefinitionArns[0], ":2") {
		t.Errorf("ListTaskDefinitions, descending: %v %s", err, show(list))
	}
	families, err := w.ecs.ListTaskDefinitionFamilies(ctx(t), &ecs.ListTaskDefinitionFamiliesInput{FamilyPrefix: &family})
	if err != nil || !slices.Contains(families.Families, family) {
		t.Errorf("ListTaskDefinitionFamilies: %v %s", err, show(families))
	}

	out, err := w.ecs.DeregisterTaskDefinition(ctx(t), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String(family + ":2")})
	if err != nil || out.TaskDefinition.Status != types.TaskDefinitionStatusInactive {
		t.Errorf("DeregisterTaskDefinition: %v", err)
	}
	seen, err := w.ecs.DescribeTaskDefinition(ctx(t), &ecs.DescribeTaskDefinitionInput{TaskDefinition: &family})
	if err != nil || seen.TaskDefinition.Revision != 1 {
		t.Errorf("the family's newest active revision is 1 again: %v", err)
	}
	if third := register(); third.Revision != 3 {
		t.Errorf("revision %d: revisions only grow", third.Revision)
	}
	_, err = w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: aws.String(family + ":2")})
	wantError(t, err, "ClientException", "inactive")
}
