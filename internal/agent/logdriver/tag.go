package logdriver

import (
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

var (
	tagAction = regexp.MustCompile(`\{\{[^{}]*\}\}`)
	tagField  = regexp.MustCompile(`^\{\{-?\s*\.(\w+)\s*-?\}\}$`)
)

// tag fills in the option tag. Of Docker's templates it knows the fields, not the functions: a template
// language in a task definition would run on the host.
func (r record) tag(fallback string) (string, error) {
	text := r.Options["tag"]
	if text == "" {
		text = fallback
	}
	var bad string
	out := tagAction.ReplaceAllStringFunc(text, func(action string) string {
		if m := tagField.FindStringSubmatch(action); m != nil {
			switch m[1] {
			case "ID":
				return r.shortID()
			case "FullID":
				return r.ContainerID
			case "Name":
				return r.Name
			case "FullName":
				return "/" + r.Name
			case "ImageName", "ImageFullName":
				return r.Image
			case "DaemonName":
				return "berth"
			}
		}
		bad = action
		return ""
	})
	if bad != "" || strings.Contains(tagAction.ReplaceAllString(text, ""), "{{") {
		return "", fmt.Errorf("template: log-tag: cannot execute %q: the fields are ID, FullID, Name, FullName, ImageName, ImageFullName and DaemonName", text)
	}
	return out, nil
}

// shortID is how Docker shortens IDs.
func (r record) shortID() string { return r.ContainerID[:min(len(r.ContainerID), 12)] }

// extras are the attributes that the options labels, labels-regex, env and env-regex ask for.
func (r record) extras() map[string]string {
	out := maps.Clone(r.Labels)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, r.Env)
	return out
}

// extraOptions are the names of the options that tag and extras read.
var extraOptions = []string{"tag", "labels", "labels-regex", "env", "env-regex"}

func newRecord(t *dispatchpb.Task, i int) (record, error) {
	c := t.Containers[i]
	r := record{TaskARN: t.Arn, Container: c.Name, ContainerID: agent.ContainerID(t, i), Name: agent.DockerName(t, i),
		Driver: c.LogDriver, Options: c.LogOptions, Image: c.Image}
	env := make(map[string]string, len(c.Environment))
	for _, kv := range c.Environment {
		env[kv.Name] = kv.Value
	}
	var err error
	if r.Labels, err = pick(agent.Labels(t, i), c.LogOptions["labels"], c.LogOptions["labels-regex"]); err != nil {
		return r, err
	}
	r.Env, err = pick(env, c.LogOptions["env"], c.LogOptions["env-regex"])
	return r, err
}

// pick takes from all what a list of names and a regular expression name.
func pick(all map[string]string, names, pattern string) (map[string]string, error) {
	out := map[string]string{}
	for name := range strings.SplitSeq(names, ",") {
		if v, ok := all[name]; ok {
			out[name] = v
		}
	}
	if pattern != "" {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, err
		}
		for name, v := range all {
			if re.MatchString(name) {
				out[name] = v
			}
		}
	}
	return out, nil
}
