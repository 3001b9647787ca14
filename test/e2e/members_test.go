package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

var update = flag.Bool("update", false, "rewrite docs/task-definitions.md")

// How a member of a task definition is shown to be done.
const (
	acts    = "acts"    // its effect is seen from inside a container, or from outside on it
	kept    = "kept"    // it is stored and echoed; there is nothing for Berth to act on
	refused = "refused" // RegisterTaskDefinition or RunTask answers an error that names it
)

// member is a case for members of a task definition. Every member has one: see TestEveryMember.
type member struct {
	paths []string // as in the API, "containerDefinitions[].command"
	how   string
	shows string // what the case asserts, for docs/task-definitions.md
	test  func(w *world)
}

// members are all cases, in the order of the page.
var members = slices.Concat(processMembers, resourceMembers, lifecycleMembers, networkMembers, volumeMembers, taskMembers, otherMembers)

// TestMembers runs the case of every member of a task definition.
func TestMembers(t *testing.T) {
	t.Parallel()
	for _, m := range members {
		t.Run(strings.TrimPrefix(m.paths[0], "containerDefinitions[]."), func(t *testing.T) {
			t.Parallel()
			m.test(newWorld(t, plain(t)))
		})
	}
}

// TestEveryMember compares the cases with the members that the newest SDK knows.
func TestEveryMember(t *testing.T) {
	t.Parallel()
	want := leaves(reflect.TypeFor[ecs.RegisterTaskDefinitionInput](), "")
	var have []string
	for _, m := range members {
		for _, path := range m.paths {
			if slices.Contains(have, path) {
				t.Errorf("%s has two cases", path)
			}
			have = append(have, path)
		}
	}
	for _, path := range want {
		if !slices.Contains(have, path) {
			t.Errorf("%s has no case", path)
		}
	}
	for _, path := range have {
		if !slices.Contains(want, path) {
			t.Errorf("%s is no member of a task definition", path)
		}
	}
}

// leaves lists the members of a structure that hold values, with those of its structures.
func leaves(t reflect.Type, path string) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return leaves(t.Elem(), path+"[]")
	case t.Kind() == reflect.Struct:
		var out []string
		for f := range t.Fields() {
			if !f.IsExported() || f.Name == "ResultMetadata" {
				continue
			}
			name := strings.ToLower(f.Name[:1]) + f.Name[1:]
			if path != "" {
				name = path + "." + name
			}
			out = append(out, leaves(f.Type, name)...)
		}
		return out
	}
	return []string{path}
}

// TestMembersPage compares docs/task-definitions.md with the cases; -update writes it.
func TestMembersPage(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`# What a task definition can say

Generated from the end-to-end tests (` + "`go test ./test/e2e -run TestMembersPage -update`" + `). Each row is a
case of ` + "`TestMembers`" + `, run against real containers; ` + "`TestEveryMember`" + ` holds the rows against the members
that the AWS SDK knows.

- **acts**: the case sees the member's effect from inside a container, or from outside on it
- **kept**: stored and echoed; there is nothing for Berth to act on, or nothing yet
- **refused**: answered with an error that names it

| member | | what the case shows |
|---|---|---|
`)
	for _, m := range members {
		names := make([]string, len(m.paths))
		for i, path := range m.paths {
			names[i] = "`" + strings.TrimPrefix(path, "containerDefinitions[].") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(names, ", "), m.how, m.shows)
	}
	page := filepath.Join(harness.Root(), "docs", "task-definitions.md")
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have, err := os.ReadFile(page); err != nil || string(have) != b.String() {
		t.Errorf("docs/task-definitions.md is stale: go test ./test/e2e -run TestMembersPage -update (%v)", err)
	}
}

// of names members of a container definition.
func of(names ...string) []string {
	for i := range names {
		names[i] = "containerDefinitions[]." + names[i]
	}
	return names
}

type (
	taskDefinition = ecs.RegisterTaskDefinitionInput
	container      = types.ContainerDefinition
)

// shell is a container that runs a script in busybox.
func (w *world) shell(script string, change ...func(*container)) container {
	c := container{
		Name: aws.String("app"), Image: &w.busybox, Memory: aws.Int32(64), StopTimeout: aws.Int32(2),
		EntryPoint: []string{"/bin/sh", "-c"}, Command: []string{script},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// named gives a container a name.
func named(name string) func(*container) { return func(c *container) { c.Name = &name } }

// beside makes a container one whose end does not end the task.
func beside(c *container) { c.Essential = aws.Bool(false) }

// says runs a task of the containers to its end and compares what "app" wrote with the lines, in
// order, all of them.
func (w *world) says(change func(*taskDefinition), want []string, containers ...container) types.Task {
	w.Helper()
	task := w.run(w.define(change, containers...))
	done := w.stopped(task)
	var got []string
	for _, line := range w.b.Logs(id(task), "app") {
		got = append(got, strings.TrimRight(line, " \r"))
	}
	if !slices.Equal(got, want) {
		w.Errorf("the container wrote %q, not %q; the task stopped: %s %s", got, want, aws.ToString(done.StoppedReason), containerReason(done))
	}
	return done
}

// echoes registers a definition and compares what part answers of the echo with what was sent.
func (w *world) echoes(change func(*taskDefinition), part func(*types.TaskDefinition) any, want any) {
	w.Helper()
	in := &taskDefinition{Family: aws.String(label(w.T)), NetworkMode: types.NetworkModeNone, ContainerDefinitions: []container{w.shell("true")}}
	change(in)
	out, err := w.ecs.RegisterTaskDefinition(ctx(w.T), in)
	if err != nil {
		w.Fatalf("RegisterTaskDefinition: %v", err)
	}
	if got := part(out.TaskDefinition); !reflect.DeepEqual(got, want) {
		w.Errorf("the echo says %s, not %s", show(got), show(want))
	}
}

// refuses expects an error of RegisterTaskDefinition or of RunTask.
func (w *world) refuses(change func(*taskDefinition), code string, words ...string) {
	w.Helper()
	in := &taskDefinition{Family: aws.String(label(w.T)), NetworkMode: types.NetworkModeNone, ContainerDefinitions: []container{w.shell("true")}}
	change(in)
	out, err := w.ecs.RegisterTaskDefinition(ctx(w.T), in)
	if err == nil {
		run := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: out.TaskDefinition.TaskDefinitionArn}
		if in.NetworkMode == types.NetworkModeAwsvpc {
			run.NetworkConfiguration = subnet
		}
		_, err = w.ecs.RunTask(ctx(w.T), run)
	}
	wantError(w.T, err, code, words...)
}
