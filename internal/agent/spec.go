package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// containerID is the container's runtime ID, in the forms that clients know: Docker's 64 hexadecimal
// digits, by which monitoring agents find a container in the paths of cgroups, and on Fargate the task's
// ID with ten digits. Where Docker draws it at random, here it follows from the task's ID and the
// container's name: a container made by a run of the agent that crashed before it could take a note is
// found again, and is never made twice.
//
// containerd allows 76 characters, letters and digits with single separators between.
func containerID(t *dispatchpb.Task, i int) string {
	sum := sha256.Sum256([]byte(taskID(t.Arn) + "/" + t.Containers[i].Name))
	if launchType(t) == "FARGATE" {
		return fmt.Sprintf("%s-%010d", taskID(t.Arn), binary.BigEndian.Uint64(sum[:8])%1e10)
	}
	return hex.EncodeToString(sum[:])
}

// dockerName is the container's name as Amazon's agent gives it, ecs-<family>-<revision>-<name>-<hex>;
// there the last part is random.
func dockerName(t *dispatchpb.Task, i int) string {
	name := t.Containers[i].Name
	sum := sha256.Sum256([]byte(taskID(t.Arn) + "/" + name))
	parts := []string{"ecs", idPart(t.Family, 22), strconv.FormatInt(t.Revision, 10), idPart(name, 18), hex.EncodeToString(sum[:8])}
	return strings.Join(parts, "-")
}

// idPart makes s fit for a part of a runtime ID: at most n characters, no separator at either end and
// none beside another.
func idPart(s string, n int) string {
	var b strings.Builder
	separator := false
	for _, r := range s {
		if b.Len() >= n {
			break
		}
		alphanumeric := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		switch {
		case alphanumeric:
			b.WriteRune(r)
			separator = false
		case !separator && b.Len() > 0:
			b.WriteByte('-')
			separator = true
		}
	}
	if out := strings.TrimSuffix(b.String(), "-"); out != "" {
		return out
	}
	return "x"
}

// containerSpec says how the runtime makes container i. Network namespace, environment, mounts and FIFOs
// are the caller's.
func containerSpec(t *dispatchpb.Task, i int, image Image, hostname string) ContainerSpec {
	c := t.Containers[i]
	return ContainerSpec{
		ID:          containerID(t, i),
		TaskID:      taskID(t.Arn),
		Image:       image,
		Container:   c,
		HostNetwork: t.NetworkMode == networkHost,
		PIDMode:     t.PidMode,
		IPCMode:     t.IpcMode,
		Hostname:    containerHostname(t, i, hostname),
		Labels:      labels(t, c),
	}
}

// taskSpec says what the containers of a task share.
func taskSpec(t *dispatchpb.Task) TaskSpec {
	s := TaskSpec{ID: taskID(t.Arn), CPUUnits: t.CpuUnits, MemoryMiB: t.MemoryMib, PIDMode: t.PidMode, IPCMode: t.IpcMode}
	for _, c := range t.Containers {
		s.SharedMemoryMiB = max(s.SharedMemoryMiB, c.SharedMemoryMib) // all of them have the same /dev/shm
	}
	return s
}

// containerHostname is the host's in network mode host, the private DNS name in awsvpc, as on ECS, and
// otherwise the container's own.
func containerHostname(t *dispatchpb.Task, i int, host string) string {
	const maxHostname = 64 // the kernel's
	switch t.NetworkMode {
	case networkHost:
		return host
	case networkAWSVPC:
		n := t.NetworkInterface.PrivateDnsName
		if n == "" {
			n = "ip-" + strings.NewReplacer(".", "-").Replace(t.NetworkInterface.PrivateIpv4)
		}
		if len(n) > maxHostname {
			n, _, _ = strings.Cut(n, ".")
		}
		return n[:min(len(n), maxHostname)]
	}
	if h := t.Containers[i].Hostname; h != "" {
		return h[:min(len(h), maxHostname)]
	}
	return containerID(t, i)[:12] // as Docker does
}

// environment is the definition's, then that of its environment files, and what ECS adds to both. A name
// that the definition gives twice has its last value.
func environment(t *dispatchpb.Task, c *dispatchpb.Container, files []*dispatchpb.KeyValue) []string {
	last := make(map[string]int, len(c.Environment)+len(files))
	all := append(slices.Clip(files), c.Environment...)
	for k, kv := range all {
		last[kv.Name] = k
	}
	has := func(name string) bool { _, ok := last[name]; return ok }

	env := make([]string, 0, len(all)+3)
	add := func(name, value string) {
		if !has(name) {
			env = append(env, name+"="+value)
		}
	}
	add("AWS_EXECUTION_ENV", "AWS_ECS_"+launchType(t))
	// Amazon's agent sets the region only where the definition is silent on both names.
	if t.Region != "" && !has("AWS_REGION") && !has("AWS_DEFAULT_REGION") {
		add("AWS_REGION", t.Region)
		add("AWS_DEFAULT_REGION", t.Region)
	}
	for k, kv := range all {
		if last[kv.Name] == k {
			env = append(env, kv.Name+"="+kv.Value)
		}
	}
	return env
}

// mergeEnvironment appends to env what over says, which wins.
func mergeEnvironment(env, over []string) []string {
	if len(env) == 0 {
		return over
	}
	names := make(map[string]bool, len(over))
	for _, kv := range over {
		name, _, _ := strings.Cut(kv, "=")
		names[name] = true
	}
	out := make([]string, 0, len(env)+len(over))
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); !names[name] {
			out = append(out, kv)
		}
	}
	return append(out, over...)
}

func launchType(t *dispatchpb.Task) string {
	if t.LaunchType == "FARGATE" {
		return "FARGATE"
	}
	return "EC2"
}

// labels are the definition's, and those by which tools tell ECS's containers.
func labels(t *dispatchpb.Task, c *dispatchpb.Container) map[string]string {
	out := make(map[string]string, len(c.DockerLabels)+5)
	maps.Copy(out, c.DockerLabels)
	out["com.amazonaws.ecs.task-arn"] = t.Arn
	out["com.amazonaws.ecs.container-name"] = c.Name
	out["com.amazonaws.ecs.task-definition-family"] = t.Family
	out["com.amazonaws.ecs.task-definition-version"] = strconv.FormatInt(t.Revision, 10)
	out["com.amazonaws.ecs.cluster"] = t.ClusterArn[strings.LastIndexByte(t.ClusterArn, '/')+1:]
	return out
}
