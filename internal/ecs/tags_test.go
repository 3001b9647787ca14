package ecs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func tag(key, value string) ecs.Tag { return ecs.Tag{Key: &key, Value: &value} }

func (w *world) tags(arn string) string {
	w.Helper()
	out, err := w.ecs.ListTagsForResource(w.ctx, &ecs.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil {
		w.Fatalf("ListTagsForResource of %s: %v", arn, err)
	}
	var texts []string
	for _, t := range out.Tags {
		texts = append(texts, *t.Key+"="+*t.Value)
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

func TestEveryResourceIsTagged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", nil)
	for _, arn := range []string{
		"arn:aws:ecs:eu-west-1:123456789012:cluster/demo", def,
		*w.run("demo", def, 1).Tasks[0].TaskArn, w.instances("demo")[0], *w.createProvider("web").CapacityProviderArn,
	} {
		if _, err := w.ecs.UntagResource(w.ctx, &ecs.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"k"}}); err != nil {
			t.Fatal(err)
		}
		for _, tags := range [][]ecs.Tag{{tag("a", "1"), tag("b", "2")}, {tag("b", "3")}} {
			if _, err := w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: tags}); err != nil {
				t.Fatalf("TagResource of %s: %v", arn, err)
			}
		}
		if got := w.tags(arn); got != "a=1 b=3" {
			t.Errorf("%s: %s", arn, got)
		}
		if _, err := w.ecs.UntagResource(w.ctx, &ecs.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"a", "none"}}); err != nil {
			t.Fatal(err)
		}
		if got := w.tags(arn); got != "b=3" {
			t.Errorf("%s: %s", arn, got)
		}
	}
}

func TestManagedAndPropagatedTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	def := w.register("web", func(in *ecs.RegisterTaskDefinitionInput) { in.Tags = []ecs.Tag{tag("team", "a"), tag("env", "prod")} })
	out, err := w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{
		Cluster: api.Ptr("demo"), TaskDefinition: &def, EnableECSManagedTags: api.Ptr(true),
		PropagateTags: ecs.PropagateTagsTaskDefinition, Tags: []ecs.Tag{tag("env", "test")},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := *out.Tasks[0].TaskArn
	if got := w.tags(arn); got != "aws:ecs:clusterName=demo env=test team=a" || len(out.Tasks[0].Tags) != 3 {
		t.Errorf("tags: %s", got)
	}
	// Managed tags stay, and do not count.
	_, err = w.ecs.UntagResource(w.ctx, &ecs.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"aws:ecs:clusterName"}})
	wantError(t, err, "InvalidParameterException", "reserved")
	_, err = w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: []ecs.Tag{tag("aws:ecs:clusterName", "x")}})
	wantError(t, err, "InvalidParameterException", "reserved")
	var more []ecs.Tag
	for i := range 48 {
		more = append(more, tag(fmt.Sprint("k", i), ""))
	}
	if _, err = w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: more}); err != nil {
		t.Errorf("50 tags: %v", err)
	}
	_, err = w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: []ecs.Tag{tag("one more", "")}})
	wantError(t, err, "InvalidParameterException", "at most 50")
	started, err := w.ecs.StartTask(w.ctx, &ecs.StartTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, ContainerInstances: w.instances("demo"), EnableECSManagedTags: api.Ptr(true)})
	if err != nil || w.tags(*started.Tasks[0].TaskArn) != "aws:ecs:clusterName=demo" {
		t.Errorf("StartTask: %v %+v", err, started)
	}
	_, err = w.ecs.RunTask(w.ctx, &ecs.RunTaskInput{Cluster: api.Ptr("demo"), TaskDefinition: &def, PropagateTags: ecs.PropagateTagsTaskDefinition, Tags: append(more, tag("x", ""))})
	wantError(t, err, "InvalidParameterException", "at most 50")
}

func TestTagsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	arn := "arn:aws:ecs:eu-west-1:123456789012:cluster/demo"
	for message, tags := range map[string][]ecs.Tag{
		"blank":             {{Value: api.Ptr("v")}},
		"at most 128":       {tag(strings.Repeat("ä", 129), "")},
		"values at most":    {tag("k", strings.Repeat("v", 257))},
		"reserved":          {tag("AWS:x", "")},
		"Duplicate tag key": {tag("k", "1"), tag("k", "2")},
	} {
		_, err := w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: tags})
		wantError(t, err, "InvalidParameterException", message)
	}
	if _, err := w.ecs.TagResource(w.ctx, &ecs.TagResourceInput{ResourceArn: &arn, Tags: []ecs.Tag{tag(strings.Repeat("ä", 128), strings.Repeat("ü", 256))}}); err != nil {
		t.Errorf("the longest: %v", err)
	}
	for ref, code := range map[string]string{
		"demo": "InvalidParameterException",
		"arn:aws:ecs:eu-west-1:999999999999:cluster/demo":           "InvalidParameterException",
		"arn:aws:ecs:eu-west-1:123456789012:cluster/none":           "ClusterNotFoundException",
		"arn:aws:ecs:eu-west-1:123456789012:task/demo/none":         "ResourceNotFoundException",
		"arn:aws:ecs:eu-west-1:123456789012:capacity-provider/none": "ResourceNotFoundException",
		"arn:aws:ecs:eu-west-1:123456789012:service/demo/none":      "ResourceNotFoundException",
		"arn:aws:ecs:eu-west-1:123456789012:pancake/demo":           "InvalidParameterException",
	} {
		_, err := w.ecs.ListTagsForResource(w.ctx, &ecs.ListTagsForResourceInput{ResourceArn: &ref})
		t.Log(ref)
		wantError(t, err, code, "")
	}
}
