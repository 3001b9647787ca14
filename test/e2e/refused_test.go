package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestRefusedDefinitions: what RegisterTaskDefinition refuses, in AWS's words; none leaves a revision.
func TestRefusedDefinitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	family := label(t)
	in := func(change func(*taskDefinition, *container)) *taskDefinition {
		d := &taskDefinition{Family: &family, NetworkMode: types.NetworkModeBridge, ContainerDefinitions: []container{w.shell("true")}}
		change(d, &d.ContainerDefinitions[0])
		return d
	}
	app := func(change func(*container)) *taskDefinition {
		return in(func(_ *taskDefinition, c *container) { change(c) })
	}
	second := func(change func(*container)) *taskDefinition {
		return in(func(d *taskDefinition, _ *container) {
			d.ContainerDefinitions = append(d.ContainerDefinitions, w.shell("true", named("second"), beside, change))
		})
	}
	depends := func(name string, condition types.ContainerCondition) func(*container) {
		return func(c *container) {
			c.DependsOn = []types.ContainerDependency{{ContainerName: &name, Condition: condition}}
		}
	}
	check := func(h types.HealthCheck) *taskDefinition {
		return app(func(c *container) { c.HealthCheck = &h })
	}
	port := func(mode types.NetworkMode, mappings ...types.PortMapping) *taskDefinition {
		return in(func(d *taskDefinition, c *container) { d.NetworkMode, c.PortMappings = mode, mappings })
	}
	yes := []string{"CMD", "true"}
	for about, c := range map[string]struct {
		in    *taskDefinition
		words string
	}{
		"no containers":                  {in(func(d *taskDefinition, _ *container) { d.ContainerDefinitions = []container{} }), "Container list cannot be empty."},
		"an unknown network mode":        {in(func(d *taskDefinition, _ *container) { d.NetworkMode = "mesh" }), "failed to satisfy constraint: Member must satisfy enum value set"},
		"a task's cpu of nothing":        {in(func(d *taskDefinition, _ *container) { d.Cpu = aws.String("much") }), "Invalid 'cpu' setting for task."},
		"a task's memory below its sum":  {in(func(d *taskDefinition, _ *container) { d.Memory = aws.String("32") }), "The 'memory' setting for container 'app' is greater than for the task."},
		"containers' cpu above the task": {in(func(d *taskDefinition, c *container) { d.Cpu, c.Cpu = aws.String("256"), 512 }), "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'."},
		"a reservation above the limit":  {app(func(c *container) { c.MemoryReservation = aws.Int32(65) }), "'memory' must be greater than or equal to 'memoryReservation'."},
		"a start timeout of a second":    {app(func(c *container) { c.StartTimeout = aws.Int32(1) }), "Granular start timeout on container 'app' must be at least 2 seconds."},
		"a stop timeout of a second":     {app(func(c *container) { c.StopTimeout = aws.Int32(1) }), "Granular stop timeout on container 'app' must be at least 2 seconds."},
		"an interval of 4 s":             {check(types.HealthCheck{Command: yes, Interval: aws.Int32(4)}), "Health check interval must be greater than or equal to the minimum allowed value 5"},
		"an interval of 301 s":           {check(types.HealthCheck{Command: yes, Interval: aws.Int32(301)}), "less than or equal to the maximum allowed value 300"},
		"a health timeout of 1 s":        {check(types.HealthCheck{Command: yes, Timeout: aws.Int32(1)}), "minimum allowed value 2"},
		"11 retries":                     {check(types.HealthCheck{Command: yes, Retries: aws.Int32(11)}), "maximum allowed value 10"},
		"a start period of 301 s":        {check(types.HealthCheck{Command: yes, StartPeriod: aws.Int32(301)}), "maximum allowed value 300"},
		"a check without a command":      {check(types.HealthCheck{Command: []string{}}), "Health check command must not be empty for container 'app'"},
		"a restart period of 59 s": {app(func(c *container) {
			c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: aws.Bool(true), RestartAttemptPeriod: aws.Int32(59)}
		}), "must be between 60 and 1800"},
		"51 ignored exit codes": {app(func(c *container) {
			c.RestartPolicy = &types.ContainerRestartPolicy{Enabled: aws.Bool(true), IgnoredExitCodes: make([]int32, 51)}
		}), "can have at most 50 values"},
		"depending on nobody":             {app(depends("nobody", "START")), "because it does not exist"},
		"depending on an essential's end": {second(depends("app", "COMPLETE")), "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container"},
		"depending on health unchecked":   {second(depends("app", "HEALTHY")), "A dependency container with HEALTHY condition must have health check configured"},
		"depending in a circle": {in(func(d *taskDefinition, c *container) {
			depends("second", "START")(c)
			d.ContainerDefinitions = append(d.ContainerDefinitions, w.shell("true", named("second"), beside, depends("app", "START")))
		}), "cyclic dependency"},
		"depending on an unknown condition": {second(depends("app", "RUNNING")), "Member must satisfy enum value set"},
		"ports without a network":           {port(types.NetworkModeNone, types.PortMapping{ContainerPort: aws.Int32(80)}), "Port mappings are not supported when networkMode=none."},
		"two ports of a host":               {port(types.NetworkModeHost, types.PortMapping{ContainerPort: aws.Int32(80), HostPort: aws.Int32(81)}), "When networkMode=host, the host ports and container ports in port mappings must match."},
		"a host port twice":                 {port(types.NetworkModeBridge, types.PortMapping{ContainerPort: aws.Int32(80), HostPort: aws.Int32(8080)}, types.PortMapping{ContainerPort: aws.Int32(81), HostPort: aws.Int32(8080)}), "host port '8080' is mapped multiple times in task."},
		"a port and a range":                {port(types.NetworkModeBridge, types.PortMapping{ContainerPort: aws.Int32(80), ContainerPortRange: aws.String("80-81")}), "cannot specify both single port and port range"},
		"a range backward":                  {port(types.NetworkModeBridge, types.PortMapping{ContainerPortRange: aws.String("81-80")}), "Invalid 'containerPortRange' setting for container 'app'."},
		"a link to nobody":                  {app(func(c *container) { c.Links = []string{"nobody"} }), "Cannot link container 'app' to 'nobody' because it does not exist."},
		"links beside bridge": {in(func(d *taskDefinition, c *container) {
			d.NetworkMode, c.Links = types.NetworkModeHost, []string{"nobody"}
		}),
			"Links are not supported when networkMode=host."},
		"an unknown volume": {app(func(c *container) {
			c.MountPoints = []types.MountPoint{{SourceVolume: aws.String("v"), ContainerPath: aws.String("/v")}}
		}), "Unknown volume 'v'."},
		"volumes from nobody": {app(func(c *container) { c.VolumesFrom = []types.VolumeFrom{{SourceContainer: aws.String("nobody")}} }), "Unknown source container 'nobody'"},
		"a volume twice": {in(func(d *taskDefinition, _ *container) {
			d.Volumes = []types.Volume{{Name: aws.String("v")}, {Name: aws.String("v")}}
		}), "Volume names must be unique within a task definition."},
		"a soft limit above": {app(func(c *container) {
			c.Ulimits = []types.Ulimit{{Name: types.UlimitNameNofile, SoftLimit: 2, HardLimit: 1}}
		}), "Soft limit exceeds hard limit for ulimit nofile"},
		"a capability of no one": {app(linux(types.LinuxParameters{Capabilities: &types.KernelCapabilities{Add: []string{"FLY"}}})), "Invalid capability 'FLY' for container 'app'."},
		"swappiness of 101":      {app(linux(types.LinuxParameters{Swappiness: aws.Int32(101)})), "Invalid 'swappiness' setting for container 'app'."},
		"an unknown log driver":  {app(func(c *container) { c.LogConfiguration = &types.LogConfiguration{LogDriver: "paper"} }), "log"},
		"awslogs without a group": {app(func(c *container) { c.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverAwslogs} }),
			"Log driver awslogs requires options: awslogs-region, awslogs-group"},
		"11 environment files": {app(func(c *container) {
			for range 11 {
				c.EnvironmentFiles = append(c.EnvironmentFiles, types.EnvironmentFile{Type: "s3", Value: aws.String("arn:aws:s3:::b/k.env")})
			}
		}), "The maximum number of environment files was exceeded."},
		"a role that is none": {in(func(d *taskDefinition, _ *container) { d.TaskRoleArn = aws.String("arn:aws:s3:::x") }), "Role is not valid"},
		"storage on EC2":      {in(func(d *taskDefinition, _ *container) { d.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 30} }), "Tasks using the EC2 launch type do not support EphemeralStorage."},
		"distinctInstance in it": {in(func(d *taskDefinition, _ *container) {
			d.PlacementConstraints = []types.TaskDefinitionPlacementConstraint{{Type: "distinctInstance"}}
		}), "failed to satisfy constraint"},
		"FARGATE without a size": {in(func(d *taskDefinition, _ *container) {
			d.NetworkMode, d.RequiresCompatibilities = types.NetworkModeAwsvpc, []types.Compatibility{types.CompatibilityFargate}
		}), "Fargate requires that 'cpu' be defined at the task level."},
		"FARGATE of an odd size": {in(func(d *taskDefinition, _ *container) {
			d.NetworkMode, d.RequiresCompatibilities, d.Cpu, d.Memory = types.NetworkModeAwsvpc, []types.Compatibility{types.CompatibilityFargate}, aws.String("256"), aws.String("4096")
		}), "No Fargate configuration exists for given values: 256 CPU, 4096 memory."},
		"FARGATE beside awsvpc": {in(func(d *taskDefinition, _ *container) {
			d.RequiresCompatibilities, d.Cpu, d.Memory = []types.Compatibility{types.CompatibilityFargate}, aws.String("256"), aws.String("512")
		}), "Fargate only supports network mode"},
	} {
		_, err := w.ecs.RegisterTaskDefinition(ctx(t), c.in)
		t.Run(about, func(t *testing.T) { wantError(t, err, "ClientException", c.words) })
	}
	for _, status := range []types.TaskDefinitionStatus{"ACTIVE", "INACTIVE"} {
		left, err := w.ecs.ListTaskDefinitions(ctx(t), &ecs.ListTaskDefinitionsInput{FamilyPrefix: &family, Status: status})
		if err != nil || len(left.TaskDefinitionArns) != 0 {
			t.Errorf("wrong requests left %v, %v", left.TaskDefinitionArns, err)
		}
	}
}

// TestRefusedCalls: combinations that RunTask and its like refuse; none leaves a task, an attribute or a
// provider.
func TestRefusedCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	definition := w.define(nil, w.shell("true"))
	vpc := w.define(func(in *taskDefinition) { in.NetworkMode = types.NetworkModeAwsvpc }, w.shell("true"))
	ci := w.instance()
	run := func(change func(*ecs.RunTaskInput)) func() error {
		in := &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition}
		change(in)
		return func() error { _, err := w.ecs.RunTask(ctx(t), in); return err }
	}
	put := func(a ...types.Attribute) func() error {
		return func() error {
			_, err := w.ecs.PutAttributes(ctx(t), &ecs.PutAttributesInput{Cluster: &w.cluster, Attributes: append([]types.Attribute{}, a...)})
			return err
		}
	}
	attribute := func(name, value string) types.Attribute {
		return types.Attribute{Name: &name, Value: &value, TargetId: ci.ContainerInstanceArn}
	}
	provider := func(name string, group *types.AutoScalingGroupProvider) func() error {
		return func() error {
			_, err := w.ecs.CreateCapacityProvider(ctx(t), &ecs.CreateCapacityProviderInput{Name: &name, AutoScalingGroupProvider: group})
			return err
		}
	}
	group := &types.AutoScalingGroupProvider{AutoScalingGroupArn: aws.String("must-not-be")}
	target := func(n int32) *types.AutoScalingGroupProvider {
		return &types.AutoScalingGroupProvider{AutoScalingGroupArn: aws.String("must-not-be"), ManagedScaling: &types.ManagedScaling{Status: "ENABLED", TargetCapacity: &n}}
	}
	items := func(items ...types.CapacityProviderStrategyItem) func(*ecs.RunTaskInput) {
		return func(in *ecs.RunTaskInput) { in.CapacityProviderStrategy = items }
	}
	item := func(name string, base, weight int32) types.CapacityProviderStrategyItem {
		return types.CapacityProviderStrategyItem{CapacityProvider: &name, Base: base, Weight: weight}
	}
	strategies := func(s ...types.PlacementStrategy) func(*ecs.RunTaskInput) {
		return func(in *ecs.RunTaskInput) { in.PlacementStrategy = s }
	}
	const invalid = "InvalidParameterException"
	for about, c := range map[string]struct {
		call        func() error
		code, words string
	}{
		"no definition":                {run(func(in *ecs.RunTaskInput) { in.TaskDefinition = aws.String("") }), invalid, "TaskDefinition can not be blank."},
		"a count of 0":                 {run(func(in *ecs.RunTaskInput) { in.Count = aws.Int32(0) }), invalid, "Count must be between 1 and 10."},
		"a count below 0":              {run(func(in *ecs.RunTaskInput) { in.Count = aws.Int32(-1) }), invalid, "Count must be between 1 and 10."},
		"a service's group":            {run(func(in *ecs.RunTaskInput) { in.Group = aws.String("service:web") }), invalid, "Invalid namespace for group."},
		"a long startedBy":             {run(func(in *ecs.RunTaskInput) { in.StartedBy = aws.String(strings.Repeat("x", 129)) }), invalid, "startedBy"},
		"a long clientToken":           {run(func(in *ecs.RunTaskInput) { in.ClientToken = aws.String(strings.Repeat("x", 65)) }), invalid, "clientToken"},
		"a long referenceId":           {run(func(in *ecs.RunTaskInput) { in.ReferenceId = aws.String(strings.Repeat("x", 1025)) }), invalid, "referenceId"},
		"awsvpc without a network":     {run(func(in *ecs.RunTaskInput) { in.TaskDefinition = &vpc }), invalid, "Network Configuration must be provided when networkMode 'awsvpc' is specified."},
		"a network without awsvpc":     {run(func(in *ecs.RunTaskInput) { in.NetworkConfiguration = subnet }), invalid, "Network Configuration is not valid for the given networkMode of this task definition."},
		"a platform version on EC2":    {run(func(in *ecs.RunTaskInput) { in.PlatformVersion = aws.String("LATEST") }), invalid, "The platform version must be null when specifying an EC2 launch type."},
		"FARGATE of none's definition": {run(func(in *ecs.RunTaskInput) { in.LaunchType = types.LaunchTypeFargate }), invalid, "Task definition does not support launch_type FARGATE."},
		"an unknown launch type":       {run(func(in *ecs.RunTaskInput) { in.LaunchType = "MOON" }), invalid, "launch"},
		"a type and a strategy": {run(func(in *ecs.RunTaskInput) {
			in.LaunchType = types.LaunchTypeEc2
			items(item("FARGATE", 0, 1))(in)
		}), invalid, "Specifying both a launch type and capacity provider strategy is not supported."},
		"a provider that is not the cluster's": {run(items(item("FARGATE", 0, 1))), invalid, "not associated with the cluster"},
		"a provider twice":                     {run(items(item("FARGATE", 0, 1), item("FARGATE", 0, 1))), invalid, "cluster"},
		"a weight of 1001":                     {run(items(item("FARGATE", 0, 1001))), invalid, "weight"},
		"a base of 100001":                     {run(items(item("FARGATE", 100001, 1))), invalid, "base"},
		"six strategies":                       {run(strategies(slices.Repeat([]types.PlacementStrategy{{Type: "random"}}, 6)...)), invalid, "A maximum of 5 placement strategies can be specified."},
		"binpack by colour":                    {run(strategies(types.PlacementStrategy{Type: "binpack", Field: aws.String("colour")})), invalid, "strategy"},
		"an unknown strategy":                  {run(strategies(types.PlacementStrategy{Type: "pile"})), invalid, ""},
		"memberOf without an expression":       {run(memberOf("")), invalid, "memberOf expression should be specified."},
		"memberOf nonsense":                    {run(memberOf("attribute:stack ==")), invalid, "expression"},
		"memberOf too long":                    {run(memberOf("attribute:a == " + strings.Repeat("x", 2000))), invalid, "expression"},
		"distinctInstance with an expression": {run(func(in *ecs.RunTaskInput) {
			in.PlacementConstraints = []types.PlacementConstraint{{Type: "distinctInstance", Expression: aws.String("x")}}
		}), invalid, "distinctInstance expression should not be specified."},
		"11 constraints": {run(func(in *ecs.RunTaskInput) {
			in.PlacementConstraints = slices.Repeat([]types.PlacementConstraint{{Type: "distinctInstance"}}, 11)
		}), invalid, "A maximum of 10 placement constraints can be specified."},
		"51 tags": {run(func(in *ecs.RunTaskInput) {
			for i := range 51 {
				in.Tags = append(in.Tags, types.Tag{Key: aws.String(strings.Repeat("k", i+1)), Value: aws.String("")})
			}
		}), invalid, "tags"},
		"AWS's own tag": {run(func(in *ecs.RunTaskInput) { in.Tags = []types.Tag{{Key: aws.String("aws:x"), Value: aws.String("")}} }), invalid, "reserved"},

		"no attributes":            {put([]types.Attribute{}...), invalid, ""},
		"an attribute of ECS":      {put(attribute("ecs.os-type", "plan9")), invalid, "reserved"},
		"an attribute's bad name":  {put(attribute("a b", "x")), invalid, "Invalid attribute name"},
		"an attribute's bad value": {put(attribute("a", "x ")), invalid, "Invalid attribute value"},
		"11 attributes in a call":  {put(slices.Repeat([]types.Attribute{attribute("a", "x")}, 11)...), invalid, ""},
		"an attribute of nobody's": {put(types.Attribute{Name: aws.String("a"), TargetId: aws.String(*ci.ContainerInstanceArn + "0")}), "TargetNotFoundException", "target"},
		"one of two wrong":         {put(attribute("good", "x"), types.Attribute{Name: aws.String("a"), TargetId: aws.String(*ci.ContainerInstanceArn + "0")}), "TargetNotFoundException", "target"},
		"listing other targets": {func() error {
			_, err := w.ecs.ListAttributes(ctx(t), &ecs.ListAttributesInput{Cluster: &w.cluster, TargetType: "moon"})
			return err
		}, invalid, ""},

		"a provider's reserved name": {provider("aws-must-not-be", group), invalid, "The specified capacity provider name is invalid."},
		"a provider's bad name":      {provider("must not be", group), invalid, "The specified capacity provider name is invalid."},
		"a provider of nothing":      {provider("must-not-be", nil), invalid, "Auto Scaling group"},
		"a target of 101 percent":    {provider("must-not-be", target(101)), invalid, "Member must have value less than or equal to 100"},
		"deleting FARGATE": {func() error {
			_, err := w.ecs.DeleteCapacityProvider(ctx(t), &ecs.DeleteCapacityProviderInput{CapacityProvider: aws.String("FARGATE")})
			return err
		}, invalid, "reserved"},
		"draining by halves": {func() error {
			_, err := w.ecs.UpdateContainerInstancesState(ctx(t), &ecs.UpdateContainerInstancesStateInput{Cluster: &w.cluster, ContainerInstances: []string{*ci.ContainerInstanceArn}, Status: types.ContainerInstanceStatusDeregistering})
			return err
		}, invalid, "Container instance status should be one of [ACTIVE,DRAINING]"},
		"deregistering nobody": {func() error {
			_, err := w.ecs.DeregisterContainerInstance(ctx(t), &ecs.DeregisterContainerInstanceInput{Cluster: &w.cluster, ContainerInstance: aws.String(strings.Repeat("0", 32))})
			return err
		}, "ClientException", "not found"},
		"pages of 101": {func() error {
			_, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster, MaxResults: aws.Int32(101)})
			return err
		}, invalid, "maxResults"},
		"an unknown service": {func() error {
			_, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster, ServiceName: aws.String("nobody")})
			return err
		}, "ServiceNotFoundException", "Service not found."},
		"an unknown setting": {func() error {
			_, err := w.ecs.PutAccountSetting(ctx(t), &ecs.PutAccountSettingInput{Name: "colour", Value: aws.String("enabled")})
			return err
		}, invalid, ""},
		"starting on nothing": {func() error {
			_, err := w.ecs.StartTask(ctx(t), &ecs.StartTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, ContainerInstances: []string{}})
			return err
		}, invalid, "Container instances"},
		"a tag on nothing": {func() error {
			_, err := w.ecs.TagResource(ctx(t), &ecs.TagResourceInput{ResourceArn: aws.String("arn:aws:ecs:us-east-1:000000000000:cluster/nowhere"), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("")}}})
			return err
		}, "ClusterNotFoundException", ""},
	} {
		err := c.call()
		t.Run(about, func(t *testing.T) { wantError(t, err, c.code, c.words) })
	}

	for _, status := range []types.DesiredStatus{types.DesiredStatusRunning, types.DesiredStatusStopped} {
		left, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster, DesiredStatus: status})
		if err != nil || len(left.TaskArns) != 0 {
			t.Errorf("wrong requests left the tasks %v, %v", left.TaskArns, err)
		}
	}
	if now := w.instance(); now.Version != ci.Version || show(now.Attributes) != show(ci.Attributes) || aws.ToString(now.Status) != "ACTIVE" {
		t.Errorf("wrong requests changed the container instance from %s to %s", show(ci), show(now))
	}
	if seen, err := w.ecs.DescribeCapacityProviders(ctx(t), &ecs.DescribeCapacityProvidersInput{CapacityProviders: []string{"must-not-be"}}); err != nil || len(seen.CapacityProviders) != 0 {
		t.Errorf("wrong requests left the provider %s, %v", show(seen), err)
	}
}

// TestRefusedByS3: errors with S3's codes, as the command line prints them; none leaves an object.
func TestRefusedByS3(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	bucket := "refused-" + strings.ToLower(label(t))
	w.object(bucket, "kept", "kept")
	for about, c := range map[string]struct {
		code string
		args []string
	}{
		"an unknown bucket":     {"NoSuchBucket", []string{"list-objects-v2", "--bucket", bucket + "-no"}},
		"an unknown key":        {"NoSuchKey", []string{"get-object", "--bucket", bucket, "--key", "absent", "/dev/null"}},
		"a head of nothing":     {"404", []string{"head-object", "--bucket", bucket, "--key", "absent"}},
		"a bucket with content": {"BucketNotEmpty", []string{"delete-bucket", "--bucket", bucket}},
		"a bad bucket name":     {"InvalidBucketName", []string{"create-bucket", "--bucket", "Not_A_Bucket"}},
		"a range beyond":        {"InvalidRange", []string{"get-object", "--bucket", bucket, "--key", "kept", "--range", "bytes=100-", "/dev/null"}},
		"an unknown upload":     {"NoSuchUpload", []string{"abort-multipart-upload", "--bucket", bucket, "--key", "k", "--upload-id", "nothing"}},
		"a wrong digest":        {"BadDigest", []string{"put-object", "--bucket", bucket, "--key", "wrong", "--content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="}},
	} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			if problems, err := cli(t, w, nil, append([]string{"s3api"}, c.args...)...); err == nil || !strings.Contains(problems, "("+c.code+")") {
				t.Errorf("s3api %s: %v, want %s: %s", strings.Join(c.args, " "), err, c.code, problems)
			}
		})
	}
	t.Cleanup(func() {
		var left struct{ Contents []struct{ Key string } }
		mustCLI(t, w, &left, "s3api", "list-objects-v2", "--bucket", bucket)
		if len(left.Contents) != 1 || left.Contents[0].Key != "kept" {
			t.Errorf("wrong requests left the objects %v", left.Contents)
		}
	})
}
