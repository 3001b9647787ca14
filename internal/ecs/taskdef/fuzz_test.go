package taskdef

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// FuzzRegister: whatever is decoded, Register answers a definition or one of ECS's errors, leaves its
// input alone, and takes its own echo for the same definition.
func FuzzRegister(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		`{"family":"f","containerDefinitions":[null]}`,
		one("", ""),
		one(`"cpu":"1 vCPU","memory":".5GB"`, `"cpu":3,"environment":[{"name":"A"}],"portMappings":[{"containerPort":80,"hostPort":0}]`),
		one(`"networkMode":"awsvpc"`, `"portMappings":[{"containerPortRange":"1-3","protocol":"udp"},{"containerPort":80}]`),
		one(`"volumes":[{"name":"v"},{"name":"e","efsVolumeConfiguration":{"fileSystemId":"fs-1"}},{"name":"d","dockerVolumeConfiguration":{}}]`, `"mountPoints":[{"sourceVolume":"v","containerPath":"/v"}]`),
		two("", `,"dependsOn":[{"containerName":"b","condition":"COMPLETE"}],"links":["b"],"volumesFrom":[{"sourceContainer":"b"}]`, `,"essential":false,"healthCheck":{"command":["x"]}`),
		fargate(`"executionRoleArn":"r","ephemeralStorage":{"sizeInGiB":21}`, `"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p"},"secretOptions":[{"name":"a","valueFrom":"b"}]}`),
		one("", `"linuxParameters":{"capabilities":{"add":["ALL"]},"devices":[{"hostPath":"/d"}],"tmpfs":[{"containerPath":"/t","size":1}]},"ulimits":[{"name":"nofile","softLimit":1,"hardLimit":2}]`),
		one(`"placementConstraints":[{"type":"memberOf","expression":"a==b"}],"runtimePlatform":{"cpuArchitecture":"ARM64"}`, `"restartPolicy":{"enabled":true},"firelensConfiguration":{"type":"fluentbit"}`),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var in, pristine ecs.RegisterTaskDefinitionInput
		if json.Unmarshal(text, &in) != nil || json.Unmarshal(text, &pristine) != nil {
			return
		}
		def, err := Register(&in)
		if !reflect.DeepEqual(in, pristine) {
			t.Fatalf("the input was changed: %s", text)
		}
		if err != nil {
			var known api.Error
			if !errors.As(err, &known) {
				t.Fatalf("not one of ECS's errors: %v", err)
			}
			return
		}
		again, err := Register(reread(t, def))
		if err != nil {
			t.Fatalf("the echo is refused: %v\n%s", err, encode(t, def))
		}
		if !reflect.DeepEqual(def, again) {
			t.Fatalf("echo %s\nagain %s", encode(t, def), encode(t, again))
		}
		need, err := RequirementsOf(def)
		if err != nil || need.CPUUnits < 0 || need.MemoryMiB < minContainerMemory {
			t.Fatalf("requirements %+v, %v of %s", need, err, encode(t, def))
		}
	})
}

// FuzzResolve: whatever is overridden, the definition stays as it was.
func FuzzResolve(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		`{"cpu":"512","memory":"1 GB","containerOverrides":[{"name":"a","command":["x"],"environment":[{"name":"A","value":"2"}],"memory":128}]}`,
		`{"containerOverrides":[{"name":"a","environmentFiles":[{"type":"s3","value":"arn:aws:s3:::b/k"}],"resourceRequirements":[{"type":"GPU","value":"1"}]}]}`,
	} {
		f.Add([]byte(seed))
	}
	text := two("", `,"environment":[{"name":"A","value":"1"}],"command":["y"]`, "")
	def, pristine := registered(f, text), registered(f, text)
	f.Fuzz(func(t *testing.T, text []byte) {
		var o ecs.TaskOverride
		if json.Unmarshal(text, &o) != nil {
			return
		}
		got, err := Resolve(def, &o)
		if !reflect.DeepEqual(def, pristine) {
			t.Fatalf("the definition was changed by %s", text)
		}
		if err != nil {
			var known *ecs.InvalidParameterException
			if !errors.As(err, &known) {
				t.Fatalf("not an InvalidParameterException: %v", err)
			}
			return
		}
		if need, err := RequirementsOf(got); err != nil || need.MemoryMiB < minContainerMemory {
			t.Fatalf("requirements %+v, %v", need, err)
		}
	})
}

// FuzzParseReference: what is read is written as it was.
func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{"f", "f:1", "arn:aws:ecs:r:1:task-definition/f:1", "arn:", ":", "f:01"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again.Family != r.Family || again.Revision != r.Revision {
			t.Fatalf("%q is %+v, and that is %+v, %v", s, r, again, err)
		}
	})
}
