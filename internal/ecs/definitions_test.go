package ecs_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func TestDefinitionsFromRegistrationToDeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 {
		if got, want := w.register("web", nil), fmt.Sprintf("arn:aws:ecs:eu-west-1:123456789012:task-definition/web:%d", i+1); got != want {
			t.Errorf("registered %s, want %s", got, want)
		}
	}
	describe := func(ref string) (*ecs.TaskDefinition, error) {
		out, err := w.ecs.DescribeTaskDefinition(w.ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &ref})
		if err != nil {
			return nil, err
		}
		return out.TaskDefinition, nil
	}
	deregister := func(ref string) error {
		_, err := w.ecs.DeregisterTaskDefinition(w.ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &ref})
		return err
	}
	if err := deregister("web:3"); err != nil {
		t.Fatal(err)
	}
	if def, err := describe("web"); err != nil || *def.Revision != 2 {
		t.Errorf("the newest active revision: %v %+v", err, def)
	}
	if def, err := describe("web:3"); err != nil || def.Status != ecs.TaskDefinitionStatusInactive || def.DeregisteredAt == nil {
		t.Errorf("an inactive revision: %v %+v", err, def)
	}
	_, err := describe("web:9")
	wantError(t, err, "ClientException", "Unable to describe task definition.")
	wantError(t, deregister("web"), "InvalidParameterException", "revision")
	wantError(t, deregister("web:9"), "ClientException", "does not exist")

	out, err := w.ecs.DeleteTaskDefinitions(w.ctx, &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: []string{"web:2", "web:3", "web:9"}})
	if err != nil || len(out.TaskDefinitions) != 1 || len(out.Failures) != 2 || out.TaskDefinitions[0].Status != ecs.TaskDefinitionStatusDeleteInProgress {
		t.Fatalf("DeleteTaskDefinitions: %v %+v", err, out)
	}
	w.createCluster("demo")
	w.connect("h1", 4)
	_, err = w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: api.Ptr("web:3")})
	wantError(t, err, "ClientException", "TaskDefinition is inactive")
	if got := w.register("web", nil); got[len(got)-2:] != ":4" {
		t.Errorf("after deletions: %s", got)
	}
}

func TestListTaskDefinitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, family := range []string{"web-a", "web", "api"} {
		w.register(family, nil)
		w.register(family, nil)
	}
	list := func(in *ecs.ListTaskDefinitionsInput) (names []string) {
		t.Helper()
		for {
			out, err := w.ecs.ListTaskDefinitions(w.ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, arn := range out.TaskDefinitionArns {
				names = append(names, arn[len("arn:aws:ecs:eu-west-1:123456789012:task-definition/"):])
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return names
			}
		}
	}
	all := []string{"api:1", "api:2", "web:1", "web:2", "web-a:1", "web-a:2"}
	if got := list(&ecs.ListTaskDefinitionsInput{MaxResults: api.Ptr(int32(4))}); !slices.Equal(got, all) {
		t.Errorf("all: %v", got)
	}
	slices.Reverse(all)
	if got := list(&ecs.ListTaskDefinitionsInput{Sort: ecs.SortOrderDesc, MaxResults: api.Ptr(int32(1))}); !slices.Equal(got, all) {
		t.Errorf("descending: %v", got)
	}
	if got := list(&ecs.ListTaskDefinitionsInput{FamilyPrefix: api.Ptr("web")}); !slices.Equal(got, []string{"web:1", "web:2"}) {
		t.Errorf("of one family: %v", got)
	}
	families, err := w.ecs.ListTaskDefinitionFamilies(w.ctx, &ecs.ListTaskDefinitionFamiliesInput{FamilyPrefix: api.Ptr("web")})
	if err != nil || !slices.Equal(families.Families, []string{"web", "web-a"}) {
		t.Errorf("families: %v %+v", err, families)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	arn := "arn:aws:ecs:eu-west-1:123456789012:cluster/demo"
	task := *w.run("demo", w.register("web", nil), 1).Tasks[0].TaskArn
	for _, resource := range []string{arn, task} {
		tag := func(key, value string) error {
			_, err := w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &resource, Tags: []ecs.Tag{{Key: &key, Value: &value}}})
			return err
		}
		for _, kv := range [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}} {
			if err := tag(kv[0], kv[1]); err != nil {
				t.Fatal(err)
			}
		}
		wantError(t, tag("aws:x", "1"), "InvalidParameterException", "reserved")
		wantError(t, tag("", "1"), "InvalidParameterException", "blank")
		if _, err := w.ecs.UntagResource(w.ctx, &ecs.UntagResourceInput{ResourceArn: &resource, TagKeys: []string{"b", "none"}}); err != nil {
			t.Fatal(err)
		}
		out, err := w.ecs.ListTagsForResource(w.ctx, &ecs.ListTagsForResourceInput{ResourceArn: &resource})
		if err != nil || len(out.Tags) != 1 || *out.Tags[0].Key != "a" || *out.Tags[0].Value != "3" {
			t.Errorf("tags of %s: %v %+v", resource, err, out)
		}
	}
	_, err := w.ecs.ListTagsForResource(w.ctx, &ecs.ListTagsForResourceInput{ResourceArn: api.Ptr("nonsense")})
	wantError(t, err, "InvalidParameterException", "arn")
	_, err = w.ecs.ListTagsForResource(w.ctx, &ecs.ListTagsForResourceInput{ResourceArn: api.Ptr(arn + "-2")})
	wantError(t, err, "ClusterNotFoundException", "")
}

func TestContainerInstances(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	w.run("demo", w.register("web", withPort(8080)), 1)
	list, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: api.Ptr("demo")})
	if err != nil || len(list.ContainerInstanceArns) != 1 {
		t.Fatalf("list: %v %+v", err, list)
	}
	out, err := w.ecs.DescribeContainerInstances(w.ctx, &ecs.DescribeContainerInstancesInput{Cluster: api.Ptr("demo"), ContainerInstances: append(list.ContainerInstanceArns, "none")})
	if err != nil || len(out.ContainerInstances) != 1 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Fatalf("describe: %v %+v", err, out)
	}
	ci := out.ContainerInstances[0]
	if !*ci.AgentConnected || *ci.Status != "ACTIVE" || *ci.PendingTasksCount != 1 {
		t.Errorf("instance: %+v", ci)
	}
	for i, want := range []string{"3840", "3968", "[22 8080]"} {
		r := ci.RemainingResources[i]
		got := fmt.Sprint(*r.IntegerValue)
		if *r.Type == "STRINGSET" {
			got = fmt.Sprint(r.StringSetValue)
		}
		if got != want {
			t.Errorf("remaining %s is %s, want %s", *r.Name, got, want)
		}
	}
	w.orch.HostDisconnected(w.ctx, "h1")
	out, _ = w.ecs.DescribeContainerInstances(w.ctx, &ecs.DescribeContainerInstancesInput{Cluster: api.Ptr("demo"), ContainerInstances: list.ContainerInstanceArns})
	if *out.ContainerInstances[0].AgentConnected {
		t.Error("still connected")
	}
}
