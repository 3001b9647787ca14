package taskdef

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

func input(t testing.TB, text string) *ecs.RegisterTaskDefinitionInput {
	t.Helper()
	var in ecs.RegisterTaskDefinitionInput
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return &in
}

func encode(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// reread makes of an echo what a client would register again.
func reread(t testing.TB, def *ecs.TaskDefinition) *ecs.RegisterTaskDefinitionInput {
	t.Helper()
	return input(t, encode(t, def)) // output-only members have no place in the input
}

func TestEcho(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{
			"the least there is",
			`{"family":"f","containerDefinitions":[{"name":"a","image":"busybox","memory":16}]}`,
			`{"family":"f","containerDefinitions":[{"name":"a","image":"busybox","cpu":0,"memory":16,"essential":true,
				"environment":[],"mountPoints":[],"volumesFrom":[],"portMappings":[],"systemControls":[]}],
			"volumes":[],"placementConstraints":[],"status":"ACTIVE",
			"compatibilities":["EXTERNAL","EC2"],"requiresAttributes":[]}`,
		},
		{
			"Fargate",
			`{"family":"web","networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":".25 vCPU","memory":"0.5GB",
			"taskRoleArn":"arn:aws:iam::111122223333:role/app","executionRoleArn":"arn:aws:iam::111122223333:role/exec",
			"containerDefinitions":[{"name":"a","image":"111122223333.dkr.ecr.us-east-1.amazonaws.com/app:1",
				"portMappings":[{"containerPort":80},{"containerPort":53,"protocol":"udp","hostPort":53}],
				"healthCheck":{"command":["CMD","true"],"retries":2},
				"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p"}}}]}`,
			`{"family":"web","networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"512",
			"taskRoleArn":"arn:aws:iam::111122223333:role/app","executionRoleArn":"arn:aws:iam::111122223333:role/exec",
			"containerDefinitions":[{"name":"a","image":"111122223333.dkr.ecr.us-east-1.amazonaws.com/app:1","cpu":0,"essential":true,
				"environment":[],"mountPoints":[],"volumesFrom":[],"systemControls":[],
				"portMappings":[{"containerPort":80,"hostPort":80,"protocol":"tcp"},{"containerPort":53,"hostPort":53,"protocol":"udp"}],
				"healthCheck":{"command":["CMD","true"],"interval":30,"timeout":5,"retries":2},
				"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","awslogs-stream-prefix":"p"}}}],
			"volumes":[],"placementConstraints":[],"status":"ACTIVE","compatibilities":["EC2","FARGATE"],
			"requiresAttributes":[
				{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.18"},{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.19"},
				{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.24"},
				{"name":"com.amazonaws.ecs.capability.ecr-auth"},{"name":"com.amazonaws.ecs.capability.logging-driver.awslogs"},
				{"name":"com.amazonaws.ecs.capability.task-iam-role"},{"name":"ecs.capability.container-health-check"},
				{"name":"ecs.capability.execution-role-awslogs"},{"name":"ecs.capability.execution-role-ecr-pull"},{"name":"ecs.capability.task-eni"}]}`,
		},
		{
			"host network, volumes, an empty list kept",
			`{"family":"f","networkMode":"host","taskRoleArn":"app","requiresCompatibilities":["EC2"],"volumes":[{"name":"v"},{"name":"h","host":{"sourcePath":"/srv"}}],
			"containerDefinitions":[{"name":"a","image":"x","memoryReservation":16,"command":[],"portMappings":[{"containerPort":8080}],
				"mountPoints":[{"sourceVolume":"v","containerPath":"/v"}],"stopTimeout":5}]}`,
			`{"family":"f","networkMode":"host","taskRoleArn":"app","requiresCompatibilities":["EC2"],"volumes":[{"name":"v","host":{}},{"name":"h","host":{"sourcePath":"/srv"}}],
			"containerDefinitions":[{"name":"a","image":"x","cpu":0,"memoryReservation":16,"essential":true,"command":[],"environment":[],
				"portMappings":[{"containerPort":8080,"hostPort":8080,"protocol":"tcp"}],"volumesFrom":[],"systemControls":[],
				"mountPoints":[{"sourceVolume":"v","containerPath":"/v"}],"stopTimeout":5}],
			"placementConstraints":[],"status":"ACTIVE","compatibilities":["EC2"],"requiresAttributes":[
				{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.21"},{"name":"com.amazonaws.ecs.capability.task-iam-role"},
				{"name":"com.amazonaws.ecs.capability.task-iam-role-network-host"},{"name":"ecs.capability.container-ordering"}]}`,
		},
		{
			"awsvpc that Fargate could not run",
			`{"family":"f","networkMode":"awsvpc","containerDefinitions":[{"name":"a","image":"x","memory":64,"privileged":true}]}`,
			`{"family":"f","networkMode":"awsvpc","containerDefinitions":[{"name":"a","image":"x","memory":64,"privileged":true,"cpu":0,"essential":true,
				"environment":[],"mountPoints":[],"volumesFrom":[],"portMappings":[],"systemControls":[]}],
			"volumes":[],"placementConstraints":[],"status":"ACTIVE","compatibilities":["EC2"],"requiresAttributes":[
				{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.18"},{"name":"com.amazonaws.ecs.capability.privileged-container"},{"name":"ecs.capability.task-eni"}]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := input(t, c.in)
			before := encode(t, in)
			def, err := Register(in)
			if err != nil {
				t.Fatal(err)
			}
			if after := encode(t, in); after != before {
				t.Errorf("the input became %s", after)
			}
			var got, want any
			for into, text := range map[*any]string{&got: encode(t, def), &want: c.want} {
				if err := json.Unmarshal([]byte(text), into); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", encode(t, got), encode(t, want))
			}
			again, err := Register(reread(t, def))
			if err != nil || encode(t, again) != encode(t, def) {
				t.Errorf("the echo, registered: %v\n%s", err, encode(t, again))
			}
		})
	}
}

// one is a valid definition with further members for the task and for its only container.
func one(task, container string) string {
	if container != "" {
		container = "," + container
	}
	if task != "" {
		task += ","
	}
	return `{"family":"f",` + task + `"containerDefinitions":[{"name":"a","image":"x","memory":64` + container + `}]}`
}

func two(task, a, b string) string {
	if task != "" {
		task += ","
	}
	return `{"family":"f",` + task + `"containerDefinitions":[
		{"name":"a","image":"x","memory":64` + a + `},{"name":"b","image":"x","memory":64` + b + `}]}`
}

func fargate(task, container string) string {
	if task != "" {
		task = "," + task
	}
	return one(`"networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"512"`+task, container)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	eleven := strings.TrimSuffix(strings.Repeat(`{"name":"a","image":"x","memory":16},`, 11), ",")
	const logs = `"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r"}}`
	for in, want := range map[string]string{
		`{"containerDefinitions":[]}`:                                                               "Family should not be null or empty.",
		`{"family":"a.b"}`:                                                                          "Family contains invalid characters.",
		`{"family":"` + strings.Repeat("a", 256) + `"}`:                                             "Family contains invalid characters.",
		`{"family":"f"}`:                                                                            "Container list cannot be empty.",
		`{"family":"f","containerDefinitions":[` + eleven + `]}`:                                    "Too many containers.",
		`{"family":"f","containerDefinitions":[{}]}`:                                                "Container.name should not be null or empty.",
		`{"family":"f","containerDefinitions":[null]}`:                                              "Container.name should not be null or empty.",
		`{"family":"f","containerDefinitions":[{"name":"ä"}]}`:                                      "Container.name contains invalid characters.",
		`{"family":"f","containerDefinitions":[{"name":"a"}]}`:                                      "Container.image should not be null or empty.",
		`{"family":"f","containerDefinitions":[{"name":"a","image":"x y"}]}`:                        "Container.image contains invalid characters.",
		`{"family":"f","containerDefinitions":[{"name":"a","image":"x"}]}`:                          "Invalid setting for container 'a'. At least one of 'memory' or 'memoryReservation' must be specified.",
		one("", `"essential":false`):                                                                "Task definition doesn't have any essential container.",
		`{"family":"f","containerDefinitions":[{"name":"a","image":"x"},{"name":"a","image":"x"}]}`: "Container names must be unique within a task definition.",
		one(`"tags":[]`, ""):                                                                        "Tags can not be empty.",
		one("", `"command":["`+strings.Repeat("a", 70_000)+`"]`):                                    "Actual length: '70091'. Max allowed length is '65536' bytes.",
		one(`"cpu":"a lot"`, ""):                                                                    "Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
		one(`"cpu":"96"`, ""):                                                                       "Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
		one(`"memory":"1.0001 GB"`, ""):                                                             "Invalid 'memory' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
		one(`"memory":"32"`, ""):                                                                    "The 'memory' setting for container 'a' is greater than for the task.",
		one(`"cpu":"128"`, `"cpu":129`):                                                             "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.",
		one("", `"memoryReservation":65`):                                                           "Invalid setting for container 'a'. 'memory' must be greater than or equal to 'memoryReservation'.",
		one("", `"cpu":-1`):                                                                         "Invalid 'cpu' setting for container 'a'.",
		one(`"networkMode":"nat"`, ""):                                                              "1 validation error detected: Value 'nat' at 'networkMode' failed to satisfy constraint: Member must satisfy enum value set: [bridge, host, awsvpc, none]",
		one(`"taskRoleArn":"arn:aws:s3:::x"`, ""):                                                   "Role is not valid",

		// Ports.
		one(`"networkMode":"awsvpc"`, `"portMappings":[{"containerPort":80,"hostPort":81}]`):                                                          "When networkMode=awsvpc, the host ports and container ports in port mappings must match.",
		one(`"networkMode":"host"`, `"portMappings":[{"containerPort":80,"hostPort":81}]`):                                                            "When networkMode=host, the host ports and container ports in port mappings must match.",
		one(`"networkMode":"none"`, `"portMappings":[{"containerPort":80}]`):                                                                          "Port mappings are not supported when networkMode=none.",
		one("", `"portMappings":[{"hostPort":80}]`):                                                                                                   "Invalid 'containerPort' setting for container 'a'.",
		one("", `"portMappings":[{"containerPort":80,"hostPort":65536}]`):                                                                             "Invalid 'hostPort' setting for container 'a'.",
		one("", `"portMappings":[{"containerPortRange":"9-8"}]`):                                                                                      "Invalid 'containerPortRange' setting for container 'a'.",
		one("", `"portMappings":[{"containerPortRange":"8-9","hostPort":8}]`):                                                                         "Invalid port mapping for container 'a', cannot specify both single port and port range.",
		one("", `"portMappings":[{"containerPort":1,"hostPort":80},{"containerPort":2,"hostPort":80}]`):                                               "TCP host port '80' is mapped multiple times in task.",
		two(`"networkMode":"awsvpc"`, `,"portMappings":[{"containerPort":80}]`, `,"portMappings":[{"containerPort":80}]`):                             "TCP container port '80' is used multiple times in task when networkMode=awsvpc.",
		one(`"networkMode":"awsvpc"`, `"portMappings":[{"containerPortRange":"8080-8090","protocol":"udp"},{"containerPort":8085,"protocol":"udp"}]`): "UDP container port '8085' is used multiple times in task when networkMode=awsvpc.",
		one(`"networkMode":"awsvpc"`, `"portMappings":[{"containerPort":1,"name":"n"},{"containerPort":2,"name":"n"}]`):                               "When networkMode=awsvpc, port mapping name is already used",

		// What awsvpc rules out.
		two(`"networkMode":"awsvpc"`, `,"links":["b"]`, ""):                                    "Links are not supported when networkMode=awsvpc.",
		one(`"networkMode":"awsvpc"`, `"hostname":"h"`):                                        "hostname is not supported on container when networkMode=awsvpc.",
		one(`"networkMode":"awsvpc"`, `"dnsServers":["1.1.1.1"]`):                              "DNS servers are not supported on container when networkMode=awsvpc.",
		one(`"networkMode":"awsvpc"`, `"extraHosts":[{"hostname":"h","ipAddress":"1.1.1.1"}]`): "Extra hosts are not supported on container when networkMode=awsvpc.",
		one(`"networkMode":"awsvpc"`, `"disableNetworking":true`):                              "Disable Networking is not supported on container when networkMode=awsvpc.",

		// Volumes.
		one("", `"mountPoints":[{"sourceVolume":"v","containerPath":"/v"}]`): "Unknown volume 'v'.",
		one("", `"mountPoints":[{"containerPath":"/v"}]`):                    "Unknown volume 'null'.",
		one(`"volumes":[{"name":"v","host":{"sourcePath":""}}]`, ""):         "host.sourcePath should not be blank.",

		// Containers.
		one("", `"dependsOn":[{"containerName":"b","condition":"START"}]`):                                                              "Cannot depend on container + 'b' because it does not exist",
		two("", `,"dependsOn":[{"containerName":"b","condition":"SUCCESS"}]`, ""):                                                       "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
		two("", `,"dependsOn":[{"containerName":"b","condition":"HEALTHY"}]`, ""):                                                       "A dependency container with HEALTHY condition must have health check configured",
		one("", `"dependsOn":[{"containerName":"a","condition":"START"}]`):                                                              "Container 'a' has a cyclic dependency",
		two("", `,"dependsOn":[{"containerName":"b","condition":"START"}]`, `,"dependsOn":[{"containerName":"a","condition":"START"}]`): "Container 'a' has a cyclic dependency",
		one("", `"healthCheck":{"command":["true"],"interval":301}`):                                                                    "Health check interval must be less than or equal to the maximum allowed value 300 for container 'a'",
		one("", `"healthCheck":{"command":["true"],"timeout":1}`):                                                                       "Health check timeout must be greater than or equal to the minimum allowed value 2 for container 'a'",
		one("", `"ulimits":[{"name":"nofile","softLimit":2,"hardLimit":1}]`):                                                            "Soft limit exceeds hard limit for ulimit nofile",
		one("", `"environmentFiles":[{"type":"s3","value":"s3://b/k"}]`):                                                                "Invalid arn syntax.",
		one("", `"restartPolicy":{"enabled":true,"restartAttemptPeriod":59}`):                                                           "The 'restartAttemptPeriod' setting for container 'a' must be between 60 and 1800.",
		one("", `"secrets":[{"name":"S","valueFrom":"p"}]`):                                                                             "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.",
		one("", `"secrets":[{"name":"S","valueFrom":"p"},{"name":"S","valueFrom":"q"}]`):                                                "Duplicate secret names found: S. Each secret name must be unique.",
		one("", `"environment":[{"name":"S"}],"secrets":[{"name":"S","valueFrom":"p"}]`):                                                "The secret name must be unique and not shared with any new or existing environment variables set on the container, such as 'S'.",
		one("", `"logConfiguration":{"logDriver":"awslogs"}`):                                                                           "Log driver awslogs requires options: awslogs-region, awslogs-group",
		one("", `"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"g","awslogs-region":"r","log_key":"k"}}`):        "Log driver awslogs disallows options: log_key",
		one("", `"logConfiguration":{"logDriver":"none"}`):                                                                              "none is not a valid log driver. Must be one of [json-file,syslog,journald,gelf,fluentd,awslogs,splunk,awsfirelens]",
		one("", `"logConfiguration":{"logDriver":"awsfirelens"}`):                                                                       "When awsfirelens log driver is specified in log configuration, a firelens configuration object must be configured in one of the containers.",
		one(`"proxyConfiguration":{"containerName":"e"}`, ""):                                                                           "APPMESH proxy configuration is only supported in networkMode=awsvpc",
		one(`"networkMode":"awsvpc","proxyConfiguration":{"containerName":"e"}`, ""):                                                    "Proxy container [e] does not exist.",
		one(`"ephemeralStorage":{"sizeInGiB":20}`, ""):                                                                                  "EphemeralStorage size should be at least 21",
		one(`"ephemeralStorage":{"sizeInGiB":30}`, ""):                                                                                  "Tasks using the EC2 launch type do not support EphemeralStorage.",

		// Fargate.
		one(`"requiresCompatibilities":["FARGATE"]`, ""):                                                    "Fargate only supports network mode ‘awsvpc’.",
		one(`"networkMode":"awsvpc","requiresCompatibilities":["FARGATE"]`, ""):                             "Fargate requires that 'cpu' be defined at the task level.",
		one(`"networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256"`, ""):                 "Fargate requires that 'memory' be defined at the task level.",
		one(`"networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"3 GB"`, ""): "No Fargate configuration exists for given values: 256 CPU, 3072 memory. See the Amazon ECS documentation for the valid values.",
		fargate(`"pidMode":"host"`, ""):                                                                     "Tasks using the Fargate launch type do not support pidMode 'host'. The supported value for pidMode is 'task'.",
		fargate(`"ipcMode":"task"`, ""):                                                                     "Fargate compatible task definitions do not support ipcMode",
		fargate(`"volumes":[{"name":"v","host":{"sourcePath":"/v"}}]`, ""):                                  "Fargate compatible task definitions do not support sourcePath",
		fargate(`"placementConstraints":[{"type":"memberOf","expression":"x==y"}]`, ""):                     "Fargate compatible task definitions do not support constraints",
		fargate("", `"privileged":true`):                                                                    "Fargate requires that the ‘privileged’ setting be ‘false’ at the container level.",
		fargate("", `"linuxParameters":{"capabilities":{"add":["NET_ADMIN"]}}`):                             "NET_ADMIN is not allowed on Fargate.",
		fargate("", `"linuxParameters":{"maxSwap":1}`):                                                      "Fargate compatible task definitions do not support maxSwap",
		fargate("", `"resourceRequirements":[{"type":"GPU","value":"1"}]`):                                  "Tasks using the Fargate launch type do not support GPU resource requirements.",
		fargate("", `"logConfiguration":{"logDriver":"json-file"}`):                                         "json-file is not a valid log driver. Must be one of [awslogs,splunk,awsfirelens]",
		fargate("", logs): "Fargate requires log configuration options to include awslogs-stream-prefix to support log driver awslogs.",
		fargate("", strings.Replace(logs, `"g",`, `"g","awslogs-stream-prefix":"p",`, 1)): "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
	} {
		before := input(t, in)
		def, err := Register(before)
		var e api.Error
		if !errors.As(err, &e) {
			t.Errorf("%.200s\n  registered as %s, error %v", in, encode(t, def), err)
			continue
		}
		if e.ErrorMessage() != want {
			t.Errorf("%.200s\n  got  %s\n  want %s", in, e.ErrorMessage(), want)
		}
		if e.HTTPStatusCode() != 400 || e.ErrorCode() != "ClientException" && want != "Tags can not be empty." {
			t.Errorf("%.200s: %s, HTTP %d", in, e.ErrorCode(), e.HTTPStatusCode())
		}
		if encode(t, before) != encode(t, input(t, in)) {
			t.Errorf("%.200s: the input was changed", in)
		}
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		two("", `,"links":["b:db"]`, ""),
		two("", `,"dependsOn":[{"containerName":"b","condition":"SUCCESS"}]`, `,"essential":false`),
		one("", `"portMappings":[{"containerPort":80},{"containerPort":80},{"containerPort":53,"hostPort":53},{"containerPort":53,"hostPort":53,"protocol":"udp"}]`),
		one("", `"portMappings":[{"containerPortRange":"8000-8010"}]`),
		one("", `"ulimits":[{"name":"core","softLimit":-1,"hardLimit":-1}]`),
		one(`"cpu":"196608","memory":"1000 GB"`, ""),
		fargate("", `"linuxParameters":{"capabilities":{"add":["SYS_PTRACE"],"drop":["ALL"]},"tmpfs":[{"containerPath":"/t","size":1}]}`),
		fargate(`"ephemeralStorage":{"sizeInGiB":200},"executionRoleArn":"arn:aws-cn:iam::111122223333:role/a/b"`, `"secrets":[{"name":"S","valueFrom":"arn:aws:secretsmanager:r:1:secret:x"}]`),
	} {
		if _, err := Register(input(t, in)); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestFargateSizes(t *testing.T) {
	t.Parallel()
	sizes := map[int64][]int64{}
	for cpu := int64(1); cpu <= 32768; cpu++ {
		for memory := int64(512); memory <= 131072; memory += 512 {
			if fargateSize(cpu, memory) {
				sizes[cpu] = append(sizes[cpu], memory)
			}
		}
	}
	counts := map[int64]int{256: 3, 512: 4, 1024: 7, 2048: 13, 4096: 23, 8192: 12, 16384: 12}
	if len(sizes) != len(counts) {
		t.Errorf("sizes for %d values of cpu", len(sizes))
	}
	for cpu, n := range counts {
		if len(sizes[cpu]) != n {
			t.Errorf("%d CPU: %d sizes, want %d: %v", cpu, len(sizes[cpu]), n, sizes[cpu])
		}
	}
}

func TestParseAmounts(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{
		"256": 256, "1 vCPU": 1024, ".25 vCPU": 256, "0.5vcpu": 512, " 2 VCPU ": 2048, "256.0": 256,
		"": 0, "vCPU": 0, "1e3": 0, "0x10": 0, "-1": 0, "0": 0, "inf": 0, "1_000": 0, "1.5": 0, "1 GB": 0, "99999999999": 0, "1..5": 0,
	} {
		if got, ok := ParseCPU(s); got != want || ok != (want > 0) {
			t.Errorf("cpu %q: %d, %v", s, got, ok)
		}
	}
	for s, want := range map[string]int64{"512": 512, "1GB": 1024, "0.5 GB": 512, ".5gb": 512, "1 MB": 0, "1 vCPU": 0} {
		if got, ok := ParseMemory(s); got != want || ok != (want > 0) {
			t.Errorf("memory %q: %d, %v", s, got, ok)
		}
	}
}

func TestParseReference(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:ecs:eu-central-1:111122223333:task-definition/web"
	for s, want := range map[string]Reference{
		"web":            {Family: "web"},
		"web:3":          {Family: "web", Revision: 3},
		arn + ":2":       {Family: "web", Revision: 2, Partition: "aws", Region: "eu-central-1", Account: "111122223333"},
		arn:              {Family: "web", Partition: "aws", Region: "eu-central-1", Account: "111122223333"},
		"web:2147483647": {Family: "web", Revision: 2147483647},
	} {
		got, err := ParseReference(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		if tail := s[strings.LastIndex(s, "/")+1:]; got.String() != tail {
			t.Errorf("%s is written %s", s, got)
		}
	}
	for s, want := range map[string]string{
		"":                                 "ClientException: Family should not be null or empty.",
		":1":                               "ClientException: Family should not be null or empty.",
		"a b":                              "ClientException: Family contains invalid characters.",
		"web:x":                            "InvalidParameterException: Invalid revision number. Number: x",
		"web:0":                            "InvalidParameterException: Invalid revision number. Number: 0",
		"web:2147483648":                   "InvalidParameterException: Invalid revision number. Number: 2147483648",
		"arn:aws:ecs":                      "InvalidParameterException: Invalid arn syntax.",
		"arn:aws:ecs:r:1:cluster/c":        "InvalidParameterException: Invalid arn syntax.",
		"arn:aws:s3:r:1:task-definition/c": "InvalidParameterException: Invalid arn syntax.",
		"arn:aws:ecs::1:task-definition/c": "InvalidParameterException: Invalid arn syntax.",
	} {
		if r, err := ParseReference(s); fmt.Sprint(err) != want {
			t.Errorf("%q: %+v, %v", s, r, err)
		}
	}
}
