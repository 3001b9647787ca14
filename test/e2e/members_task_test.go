package e2e

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// taskMembers are those of the task as a whole.
var taskMembers = []member{
	{[]string{"family"}, acts, "the definition's and the task's group's name; revisions count up in it", func(w *world) {
		first := w.define(func(in *taskDefinition) { in.Family = aws.String("family-of-the-members-test") }, w.shell("true"))
		second := w.define(func(in *taskDefinition) { in.Family = aws.String("family-of-the-members-test") }, w.shell("true"))
		task := w.run("family-of-the-members-test")
		if first == second || aws.ToString(task.TaskDefinitionArn) != second || aws.ToString(task.Group) != "family:family-of-the-members-test" {
			w.Errorf("%s, %s, then the task %s of group %s", first, second, aws.ToString(task.TaskDefinitionArn), aws.ToString(task.Group))
		}
		w.stopped(task)
	}},
	{[]string{"pidMode"}, acts, "task: containers see one another's processes; host: the host's", func(w *world) {
		w.says(func(in *taskDefinition) { in.PidMode = types.PidModeTask }, []string{"seen"},
			w.shell("for i in $(seq 50); do busybox ps -o args | grep -q 'sleep 98[7]' && break; sleep 0.1; done; busybox ps -o args | grep -q 'sleep 98[7]' && echo seen"),
			w.shell("busybox sleep 987", named("other"), beside))
		w.says(nil, []string{"1"}, w.shell("busybox ls /proc | grep -c -E '^1$'"))
		host := w.stopped(w.run(w.define(func(in *taskDefinition) { in.PidMode = types.PidModeHost }, w.shell("cat /proc/1/comm; echo $$"))))
		if lines := w.b.Logs(id(host), "app"); len(lines) != 2 || lines[1] == "1" {
			w.Errorf("with pidMode host the shell sees %q", lines)
		}
	}},
	{[]string{"ipcMode"}, acts, "task: containers share /dev/shm and System V IPC; none: /dev/shm is not even there for sharing; host: the host's", func(w *world) {
		w.says(func(in *taskDefinition) { in.IpcMode = types.IpcModeTask }, []string{"shared"},
			w.shell("echo shared >/dev/shm/file", named("other"), beside), w.shell("cat /dev/shm/file", after("other")))
		w.says(nil, []string{"own"},
			w.shell("echo shared >/dev/shm/file", named("other"), beside), w.shell("cat /dev/shm/file 2>/dev/null || echo own", after("other")))
	}},
	{[]string{"placementConstraints[].expression", "placementConstraints[].type"}, acts, "a task is placed on no host that the expression excludes, and the answer says so", func(w *world) {
		constrained := func(expression string) func(*taskDefinition) {
			return func(in *taskDefinition) {
				in.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: types.TaskDefinitionPlacementConstraintTypeMemberOf, Expression: &expression}}
			}
		}
		w.stopped(w.run(w.define(constrained("attribute:ecs.os-type == linux"), w.shell("true"))))
		if reason := w.notPlaced(w.define(constrained("attribute:ecs.os-type == windows"), w.shell("true"))); reason != "MemberOf placement constraint unsatisfied." {
			w.Errorf("it was not placed because of %q", reason)
		}
	}},
	{[]string{"requiresCompatibilities"}, acts, "a definition that does not meet FARGATE's rules is refused, one that does shows both compatibilities", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
		}, "ClientException", "fargate")
	}},
	{[]string{"runtimePlatform.cpuArchitecture", "runtimePlatform.operatingSystemFamily"}, acts, "a task for another architecture is not placed", func(w *world) {
		other := types.CPUArchitectureArm64
		if w.architecture() == "arm64" {
			other = types.CPUArchitectureX8664
		}
		definition := w.define(func(in *taskDefinition) {
			in.RuntimePlatform = &types.RuntimePlatform{CpuArchitecture: other, OperatingSystemFamily: types.OSFamilyLinux}
		}, w.shell("true"))
		if reason := w.notPlaced(definition); reason != "ATTRIBUTE" {
			w.Errorf("it was not placed because of %q", reason)
		}
	}},
	{[]string{"tags[].key", "tags[].value"}, acts, "kept with the definition, and with propagateTags on its tasks", func(w *world) {
		definition := w.define(func(in *taskDefinition) { in.Tags = []types.Tag{{Key: aws.String("team"), Value: aws.String("blue")}} }, w.shell("true"))
		out, err := w.ecs.RunTask(ctx(w.T), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, PropagateTags: types.PropagateTagsTaskDefinition})
		if err != nil || len(out.Tasks) != 1 || len(out.Tasks[0].Tags) != 1 || aws.ToString(out.Tasks[0].Tags[0].Value) != "blue" {
			w.Fatalf("RunTask: %v, %s", err, show(out))
		}
		w.stopped(out.Tasks[0])
	}},
	{[]string{"taskRoleArn", "executionRoleArn"}, kept, "stored and echoed; credentials come with the roles", func(w *world) {
		w.echoes(func(in *taskDefinition) {
			in.TaskRoleArn, in.ExecutionRoleArn = aws.String("arn:aws:iam::000000000000:role/app"), aws.String("arn:aws:iam::000000000000:role/agent")
		}, func(d *types.TaskDefinition) any {
			return []string{aws.ToString(d.TaskRoleArn), aws.ToString(d.ExecutionRoleArn)}
		},
			[]string{"arn:aws:iam::000000000000:role/app", "arn:aws:iam::000000000000:role/agent"})
	}},
	{[]string{"enableFaultInjection"}, refused, "fault injection is not built", func(w *world) {
		w.refuses(func(in *taskDefinition) { in.EnableFaultInjection = aws.Bool(true) }, "UnsupportedFeatureException", "enableFaultInjection")
	}},
}

// otherMembers need services that are not built yet. RunTask names them, and runs nothing without them.
var otherMembers = []member{
	{of("secrets[].name", "secrets[].valueFrom"), refused, "Secrets Manager and Parameter Store are not built yet", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.ExecutionRoleArn = aws.String("arn:aws:iam::000000000000:role/agent")
			in.ContainerDefinitions[0].Secrets = []types.Secret{{Name: aws.String("S"), ValueFrom: aws.String("arn:aws:secretsmanager:us-east-1:000000000000:secret:x-AbCdEf")}}
		}, "UnsupportedFeatureException", "secrets")
	}},
	{of("logConfiguration.secretOptions[].name", "logConfiguration.secretOptions[].valueFrom"), refused, "likewise", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.ExecutionRoleArn = aws.String("arn:aws:iam::000000000000:role/agent")
			in.ContainerDefinitions[0].LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverSplunk, Options: map[string]string{"splunk-url": "https://splunk.example"},
				SecretOptions: []types.Secret{{Name: aws.String("splunk-token"), ValueFrom: aws.String("arn:aws:secretsmanager:us-east-1:000000000000:secret:x-AbCdEf")}}}
		}, "UnsupportedFeatureException", "secretOptions")
	}},
	{of("repositoryCredentials.credentialsParameter"), refused, "likewise", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.ExecutionRoleArn = aws.String("arn:aws:iam::000000000000:role/agent")
			in.ContainerDefinitions[0].RepositoryCredentials = &types.RepositoryCredentials{CredentialsParameter: aws.String("arn:aws:secretsmanager:us-east-1:000000000000:secret:x-AbCdEf")}
		}, "UnsupportedFeatureException", "repositoryCredentials")
	}},
	{of("firelensConfiguration.type", "firelensConfiguration.options"), refused, "FireLens is not built yet", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.ContainerDefinitions[0].FirelensConfiguration = &types.FirelensConfiguration{Type: types.FirelensConfigurationTypeFluentbit}
		}, "UnsupportedFeatureException", "firelensConfiguration")
	}},
	{of("credentialSpecs"), refused, "Active Directory credentials are not built", func(w *world) {
		w.refuses(func(in *taskDefinition) {
			in.ContainerDefinitions[0].CredentialSpecs = []string{"credentialspecdomainless:arn:aws:s3:::bucket/spec.json"}
		}, "UnsupportedFeatureException", "credentialSpecs")
	}},
}

func (w *world) architecture() string {
	out, err := w.ecs.ListContainerInstances(ctx(w.T), &ecs.ListContainerInstancesInput{Cluster: &w.cluster, Filter: aws.String("attribute:ecs.cpu-architecture == arm64")})
	if err != nil {
		w.Fatalf("ListContainerInstances: %v", err)
	}
	return map[bool]string{true: "arm64", false: "x86_64"}[len(out.ContainerInstanceArns) > 0]
}
