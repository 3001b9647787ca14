package compose

import (
	"reflect"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// known are the members of a service, by their names in Compose files, that are translated or whose
// absence in ECS is noted where they are met.
var known = strings.Fields(`
	cap_add cap_drop command cpus cpu_shares depends_on deploy devices dns dns_search entrypoint
	environment env_file expose extra_hosts gpus healthcheck hostname image init ipc labels label_file links logging
	mem_limit mem_reservation mem_swappiness memswap_limit network_mode networks pid platform ports
	privileged profiles read_only restart scale security_opt shm_size stdin_open stop_grace_period sysctls tmpfs
	tty ulimits user volumes volumes_from working_dir container_name`)

// meanings tells what to do instead, for members that people use most.
var meanings = map[string]string{
	"build":       "ECS runs images; build and push it, or import it on the host",
	"configs":     "put the file into the image, or mount a directory of the host",
	"secrets":     "use the definition's secrets once a secret store is there, or a mounted directory",
	"stop_signal": "the image's STOPSIGNAL is used; set it there",
	"develop":     "is for building, and has no counterpart",
}

// unknown notes every other member that is set.
func (c *converter) unknown(s types.ServiceConfig) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		for i := range v.NumField() {
			f, value := v.Type().Field(i), v.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case strings.Contains(options, "inline") && value.Kind() == reflect.Struct:
				walk(value)
			case name == "" || name == "-" || name == "name" || strings.HasPrefix(name, "#") || isEmpty(value) || slices.Contains(known, name):
			case meanings[name] != "":
				c.note(s.Name, "%s: %s", name, meanings[name])
			default:
				c.note(s.Name, "%s: has no counterpart in ECS", name)
			}
		}
	}
	walk(reflect.ValueOf(s))
	if s.Deploy != nil && s.Deploy.Resources.Limits != nil && s.Deploy.Resources.Limits.Pids > 0 {
		c.note(s.Name, "deploy.resources.limits.pids: has no counterpart in ECS")
	}
	if s.ContainerName != "" {
		c.note(s.Name, "container_name: containers are named by ECS")
	}
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}

func isZero(v any) bool { return reflect.ValueOf(v).Elem().IsZero() }
