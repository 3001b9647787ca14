package taskdef

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"pgregory.net/rapid"
)

// Pieces of definitions, most of them valid, of which any few together may or may not be.
var (
	taskPieces = []string{
		`"networkMode":"awsvpc"`, `"networkMode":"awsvpc"`, `"networkMode":"host"`, `"networkMode":"bridge"`, `"networkMode":"none"`,
		`"cpu":"1 vCPU","memory":"2 GB"`, `"cpu":"256"`, `"memory":".5GB"`, `"requiresCompatibilities":["FARGATE"]`,
		`"requiresCompatibilities":["EC2"]`, `"requiresCompatibilities":["EXTERNAL","EC2"]`, `"requiresCompatibilities":[]`,
		`"executionRoleArn":"arn:aws:iam::111122223333:role/x"`, `"taskRoleArn":"app"`, `"pidMode":"task"`, `"ipcMode":"none"`,
		`"volumes":[{"name":"v"}]`, `"volumes":[{"name":"v","host":{"sourcePath":"/v"}}]`,
		`"volumes":[{"name":"v","dockerVolumeConfiguration":{"driver":"rexray"}},{"name":"e","efsVolumeConfiguration":{"fileSystemId":"fs-1"}}]`,
		`"volumes":[{"name":"v","configuredAtLaunch":true}]`, `"ephemeralStorage":{"sizeInGiB":30}`, `"tags":[{"key":"k","value":"v"}]`,
		`"placementConstraints":[{"type":"memberOf","expression":"attribute:a==b"}]`, `"enableFaultInjection":true`,
		`"runtimePlatform":{"cpuArchitecture":"ARM64","operatingSystemFamily":"LINUX"}`, `"proxyConfiguration":{"containerName":"a"}`,
	}
	containerPieces = []string{
		`"memory":64`, `"memory":64`, `"memoryReservation":32`, `"cpu":128`, `"essential":false`, `"command":[]`, `"command":["<x>"]`, `"entryPoint":["sh"]`,
		`"environment":[{"name":"A","value":"1"},{"name":"B"}]`, `"secrets":[{"name":"S","valueFrom":"arn:aws:secretsmanager:r:1:secret:s"},{"name":"P","valueFrom":"p"}]`,
		`"portMappings":[{"containerPort":80}]`, `"portMappings":[{"containerPort":81,"hostPort":0,"name":"web","appProtocol":"http"}]`,
		`"portMappings":[{"containerPort":82,"hostPort":8082,"protocol":"udp"}]`, `"portMappings":[{"containerPortRange":"90-95"}]`,
		`"mountPoints":[{"sourceVolume":"v","containerPath":"/v","readOnly":true}]`, `"volumesFrom":[{"sourceContainer":"a"}]`,
		`"dependsOn":[{"containerName":"a","condition":"START"}]`, `"dependsOn":[{"containerName":"b","condition":"HEALTHY"}]`, `"links":["a:x"]`,
		`"healthCheck":{"command":["CMD-SHELL","true"],"startPeriod":10}`, `"healthCheck":{"command":["true"],"interval":5}`,
		`"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p","mode":"non-blocking"}}`,
		`"logConfiguration":{"logDriver":"json-file"}`, `"logConfiguration":{"logDriver":"awsfirelens"}`, `"firelensConfiguration":{"type":"fluentbit","options":{"config-file-type":"file"}}`,
		`"ulimits":[{"name":"nofile","softLimit":1,"hardLimit":2}]`, `"linuxParameters":{"initProcessEnabled":true,"capabilities":{"drop":["ALL"]}}`,
		`"linuxParameters":{"sharedMemorySize":64,"tmpfs":[{"containerPath":"/t","size":1}]}`, `"privileged":true`, `"user":"1000"`, `"readonlyRootFilesystem":true`,
		`"stopTimeout":30`, `"stopTimeout":300`, `"startTimeout":10`, `"hostname":"h"`, `"dockerLabels":{"k":"v"}`, `"systemControls":[{"namespace":"net.core.somaxconn","value":"1"}]`,
		`"restartPolicy":{"enabled":true,"ignoredExitCodes":[0]}`, `"environmentFiles":[{"type":"s3","value":"arn:aws:s3:::b/k.env"}]`,
		`"resourceRequirements":[{"type":"GPU","value":"1"}]`, `"dockerSecurityOptions":["label:x","apparmor:y"]`, `"interactive":true`,
	}
)

// TestAnyPieces: a definition is refused with one of ECS's errors, or its echo is a fixed point; the
// input stays as it was either way.
func TestAnyPieces(t *testing.T) {
	t.Parallel()
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		some := func(pieces []string, most int, label string) []string {
			return rapid.SliceOfN(rapid.SampledFrom(pieces), 0, most).Draw(t, label)
		}
		var containers []string
		for i := range rapid.IntRange(1, 3).Draw(t, "containers") {
			c := append([]string{`"name":"` + string(rune('a'+i)) + `"`, `"image":"x"`, `"memory":64`}, some(containerPieces, 4, "container")...)
			containers = append(containers, "{"+strings.Join(c, ",")+"}")
		}
		task := append([]string{`"family":"f"`, `"containerDefinitions":[` + strings.Join(containers, ",") + `]`}, some(taskPieces, 4, "task")...)
		text := "{" + strings.Join(task, ",") + "}"

		in, pristine := decode(t, text), decode(t, text)
		def, err := Register(in)
		if !reflect.DeepEqual(in, pristine) {
			t.Fatalf("the input was changed: %s", text)
		}
		if err != nil {
			var known api.Error
			if !errors.As(err, &known) || known.ErrorMessage() == "" {
				t.Fatalf("%s: %v", text, err)
			}
			return
		}
		accepted++
		raw, err := encodeJSON(def)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Register(decode(t, string(raw)))
		if err != nil || !reflect.DeepEqual(def, again) {
			t.Fatalf("the echo %s\nregisters as %+v, %v", raw, again, err)
		}
		if _, err := RequirementsOf(def); err != nil {
			t.Fatal(err)
		}
	})
	if accepted < 5 {
		t.Errorf("only %d definitions were valid: the test shows nothing", accepted)
	}
}

func decode(t *rapid.T, text string) *ecs.RegisterTaskDefinitionInput {
	var in ecs.RegisterTaskDefinitionInput
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return &in
}
