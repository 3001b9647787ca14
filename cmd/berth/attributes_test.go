package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/ecs/taskdef"
)

// TestEveryRunnableDefinitionIsOffered: whatever member that Berth runs a definition has, the host
// offers what it then requires.
func TestEveryRunnableDefinitionIsOffered(t *testing.T) {
	t.Parallel()
	const ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"
	task := `"family":"f","taskRoleArn":"arn:aws:iam::123456789012:role/r","executionRoleArn":"arn:aws:iam::123456789012:role/r"`
	member := func(text string) string {
		return `{` + task + `,"containerDefinitions":[{"name":"a","image":"` + ecr + `","memory":64,` + text + `}]}`
	}
	definitions := []string{
		`{` + task + `,"networkMode":"awsvpc","containerDefinitions":[{"name":"a","image":"i","memory":64}]}`,
		`{` + task + `,"networkMode":"host","pidMode":"task","ipcMode":"none","containerDefinitions":[{"name":"a","image":"i","memory":64}]}`,
		`{` + task + `,"containerDefinitions":[{"name":"a","image":"i","memory":64}],"volumes":[{"name":"v","dockerVolumeConfiguration":{"scope":"shared","driver":"local"}},
			{"name":"e","efsVolumeConfiguration":{"fileSystemId":"fs-12345678","transitEncryption":"ENABLED","authorizationConfig":{"iam":"ENABLED"}}}]}`,
		member(`"privileged":true,"user":"1","readonlyRootFilesystem":true,"environment":[{"name":"a","value":"b"}]`),
		member(`"memoryReservation":32,"dockerLabels":{"a":"b"},"ulimits":[{"name":"nofile","softLimit":1,"hardLimit":1}],"systemControls":[{"namespace":"net.ipv4.ip_forward","value":"1"}]`),
		member(`"healthCheck":{"command":["CMD","true"],"startPeriod":9},"startTimeout":9,"stopTimeout":9,"restartPolicy":{"enabled":true}`),
		member(`"environmentFiles":[{"type":"s3","value":"arn:aws:s3:::b/a.env"}],"portMappings":[{"containerPortRange":"8000-8010"}]`),
		member(`"linuxParameters":{"initProcessEnabled":true,"sharedMemorySize":64,"tmpfs":[{"containerPath":"/t","size":9}]},"resourceRequirements":[{"type":"GPU","value":"1"}]`),
		member(`"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-create-group":"true","mode":"non-blocking"}}`),
	}
	for _, driver := range []string{"json-file", "syslog", "gelf", "fluentd", "splunk"} {
		definitions = append(definitions, member(`"logConfiguration":{"logDriver":"`+driver+`"}`))
	}
	offered := attributes(t.TempDir())
	for _, text := range definitions {
		var in ecs.RegisterTaskDefinitionInput
		if err := json.Unmarshal([]byte(text), &in); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		def, err := taskdef.Register(&in)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, a := range def.RequiresAttributes {
			if _, ok := offered[*a.Name]; !ok {
				t.Errorf("the host does not offer %s, for %s", *a.Name, text)
			}
		}
	}
}

func TestKernelsModulesAreOffered(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	for path, text := range map[string]string{"module/apparmor/parameters/enabled": "Y\n", "fs/selinux/enforce": "0"} {
		file := filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	without, with := attributes(t.TempDir()), attributes(sys)
	for _, name := range []string{"com.amazonaws.ecs.capability.apparmor", "com.amazonaws.ecs.capability.selinux"} {
		if _, ok := without[name]; ok {
			t.Errorf("%s of a kernel that has none", name)
		}
		if _, ok := with[name]; !ok {
			t.Errorf("no %s of a kernel that has it", name)
		}
	}
}
