package ecs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// instances lists the container instances of a cluster.
func (w *world) instances(cluster string) []string {
	w.Helper()
	out, err := w.ecs.ListContainerInstances(w.ctx, &ecs.ListContainerInstancesInput{Cluster: &cluster})
	if err != nil {
		w.Fatalf("ListContainerInstances: %v", err)
	}
	return out.ContainerInstanceArns
}

func (w *world) instance(cluster, arn string, include ...ecs.ContainerInstanceField) ecs.ContainerInstance {
	w.Helper()
	out, err := w.ecs.DescribeContainerInstances(w.ctx, &ecs.DescribeContainerInstancesInput{Cluster: &cluster, ContainerInstances: []string{arn}, Include: include})
	if err != nil || len(out.ContainerInstances) != 1 {
		w.Fatalf("DescribeContainerInstances of %s: %v %+v", arn, err, out)
	}
	return out.ContainerInstances[0]
}

func attribute(name, value, target string) ecs.Attribute {
	a := ecs.Attribute{Name: &name, TargetId: &target, TargetType: ecs.TargetTypeContainerInstance}
	if value != "" {
		a.Value = &value
	}
	return a
}

func (w *world) put(cluster string, attributes ...ecs.Attribute) {
	w.Helper()
	out, err := w.ecs.PutAttributes(w.ctx, &ecs.PutAttributesInput{Cluster: &cluster, Attributes: attributes})
	if err != nil || len(out.Attributes) != len(attributes) {
		w.Fatalf("PutAttributes: %v %+v", err, out)
	}
}

func (w *world) valueOf(ci ecs.ContainerInstance, name string) (string, bool) {
	for _, a := range ci.Attributes {
		if *a.Name == name {
			return api.Value(a.Value), true
		}
	}
	return "", false
}

func TestAttributesFromPutToDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	w.connect("h2", 4)
	arns := w.instances("demo")
	id := arns[0][strings.LastIndexByte(arns[0], '/')+1:]

	w.put("demo", attribute("stack", "prod", id), ecs.Attribute{Name: api.Ptr("flag"), TargetId: &arns[0]}, attribute("stack", "test", arns[1]))
	ci := w.instance("demo", arns[0])
	if v, _ := w.valueOf(ci, "stack"); v != "prod" {
		t.Errorf("stack is %q", v)
	}
	if _, ok := w.valueOf(ci, "flag"); !ok {
		t.Error("an attribute without a value is not there")
	}
	if zone, _ := w.valueOf(ci, "ecs.availability-zone"); zone != region+"a" {
		t.Errorf("zone %q", zone)
	}
	before := *ci.Version
	w.put("demo", attribute("stack", "next", id), attribute("stack", "next", id))
	if ci = w.instance("demo", arns[0]); *ci.Version != before+1 {
		t.Errorf("version %d after %d: one change", *ci.Version, before)
	}

	list := func(name string, value *string) []ecs.Attribute {
		t.Helper()
		var all []ecs.Attribute
		in := &ecs.ListAttributesInput{Cluster: api.Ptr("demo"), TargetType: ecs.TargetTypeContainerInstance, AttributeValue: value, MaxResults: api.Ptr(int32(2))}
		if name != "" {
			in.AttributeName = &name
		}
		for {
			out, err := w.ecs.ListAttributes(w.ctx, in)
			if err != nil || len(out.Attributes) > 2 {
				t.Fatalf("ListAttributes: %v %+v", err, out)
			}
			all = append(all, out.Attributes...)
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return all
			}
		}
	}
	if got := list("stack", nil); len(got) != 2 || *got[0].TargetId != arns[0] || got[0].TargetType != ecs.TargetTypeContainerInstance {
		t.Errorf("stacks: %+v", got)
	}
	if got := list("stack", api.Ptr("test")); len(got) != 1 || *got[0].TargetId != arns[1] {
		t.Errorf("test stacks: %+v", got)
	}
	if got := list("", nil); len(got) != 15 { // a zone and five of the host's own each, two stacks, one flag
		t.Errorf("all: %d", len(got))
	}

	for range 2 { // what is not there any more is deleted as well
		out, err := w.ecs.DeleteAttributes(w.ctx, &ecs.DeleteAttributesInput{Cluster: api.Ptr("demo"), Attributes: []ecs.Attribute{attribute("flag", "", id)}})
		if err != nil || len(out.Attributes) != 1 || *out.Attributes[0].TargetId != arns[0] {
			t.Fatalf("DeleteAttributes: %v %+v", err, out)
		}
	}
	if _, ok := w.valueOf(w.instance("demo", arns[0]), "flag"); ok {
		t.Error("a deleted attribute is there")
	}
}

func TestAttributesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.createCluster("demo")
	w.connect("h1", 4)
	arn := w.instances("demo")[0]
	many := []ecs.Attribute{}
	for i := range 11 {
		many = append(many, attribute(fmt.Sprint("a", i), "v", arn))
	}
	for name, c := range map[string]struct {
		code, message string
		attributes    []ecs.Attribute
	}{
		"none":                 {"InvalidParameterException", "empty", nil},
		"eleven":               {"InvalidParameterException", "more than 10", many},
		"a bad name":           {"InvalidParameterException", "name", []ecs.Attribute{attribute("a b", "v", arn)}},
		"no name":              {"InvalidParameterException", "name", []ecs.Attribute{{TargetId: &arn}}},
		"a long name":          {"InvalidParameterException", "name", []ecs.Attribute{attribute(strings.Repeat("a", 129), "v", arn)}},
		"a built-in one":       {"InvalidParameterException", "reserved", []ecs.Attribute{attribute("ecs.os-type", "plan9", arn)}},
		"a space at the end":   {"InvalidParameterException", "value", []ecs.Attribute{attribute("a", "v ", arn)}},
		"a long value":         {"InvalidParameterException", "value", []ecs.Attribute{attribute("a", strings.Repeat("v", 129), arn)}},
		"an ID without a type": {"InvalidParameterException", "targetType", []ecs.Attribute{{Name: api.Ptr("a"), TargetId: api.Ptr("123")}}},
		"no target":            {"InvalidParameterException", "targetId", []ecs.Attribute{{Name: api.Ptr("a")}}},
		"an unknown target":    {"TargetNotFoundException", "wasn't found", []ecs.Attribute{attribute("a", "v", strings.Repeat("0", 32))}},
		"another's target":     {"TargetNotFoundException", "wasn't found", []ecs.Attribute{attribute("a", "v", strings.Replace(arn, "/demo/", "/other/", 1))}},
	} {
		_, err := w.ecs.PutAttributes(w.ctx, &ecs.PutAttributesInput{Cluster: api.Ptr("demo"), Attributes: c.attributes})
		t.Log(name)
		wantError(t, err, c.code, c.message)
	}
	w.put("demo", many[:10]...)
	_, err := w.ecs.PutAttributes(w.ctx, &ecs.PutAttributesInput{Cluster: api.Ptr("demo"), Attributes: append([]ecs.Attribute{attribute("a0", "new", arn)}, many[10])})
	wantError(t, err, "AttributeLimitExceededException", "10 custom attributes")
	if v, _ := w.valueOf(w.instance("demo", arn), "a0"); v != "v" {
		t.Errorf("a refused call changed a0 to %q", v)
	}
	_, err = w.ecs.ListAttributes(w.ctx, &ecs.ListAttributesInput{Cluster: api.Ptr("demo"), TargetType: ecs.TargetTypeContainerInstance, AttributeValue: api.Ptr("v")})
	wantError(t, err, "InvalidParameterException", "attributeName")
	_, err = w.ecs.ListAttributes(w.ctx, &ecs.ListAttributesInput{Cluster: api.Ptr("demo"), TargetType: "task"})
	wantError(t, err, "InvalidParameterException", "targetType")
	_, err = w.ecs.PutAttributes(w.ctx, &ecs.PutAttributesInput{Cluster: api.Ptr("nowhere"), Attributes: many[:1]})
	wantError(t, err, "ClusterNotFoundException", "Cluster not found.")
}
