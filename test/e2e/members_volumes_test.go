package e2e

import (
	"os"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func mount(volume, path string) func(*container) {
	return func(c *container) {
		c.MountPoints = append(c.MountPoints, types.MountPoint{SourceVolume: &volume, ContainerPath: &path})
	}
}

func volumes(v ...types.Volume) func(*taskDefinition) {
	return func(in *taskDefinition) { in.Volumes = append(in.Volumes, v...) }
}

// after makes a container start once the other has ended.
func after(name string) func(*container) {
	return func(c *container) {
		c.DependsOn = append(c.DependsOn, types.ContainerDependency{ContainerName: &name, Condition: types.ContainerConditionComplete})
	}
}

// volumeMembers are the directories that containers share, keep, or borrow from the host.
var volumeMembers = []member{
	{[]string{"volumes[].name", "containerDefinitions[].mountPoints[].sourceVolume", "containerDefinitions[].mountPoints[].containerPath", "containerDefinitions[].mountPoints[].readOnly"}, acts, "containers see one another's files in a volume, wherever each has it; a read-only mount cannot be written", func(w *world) {
		w.says(volumes(types.Volume{Name: aws.String("data")}), []string{"written", "/bin/sh: can't create /in/other: Read-only file system"},
			w.shell("echo written >/out/file", named("writer"), beside, mount("data", "/out")),
			w.shell("exec 2>&1; cat /in/file; echo x >/in/other", after("writer"), mount("data", "/in"), func(c *container) { c.MountPoints[0].ReadOnly = aws.Bool(true) }))
	}},
	{[]string{"volumes[].host.sourcePath"}, acts, "a directory of the host", func(w *world) {
		dir := w.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the host\n"), 0o644); err != nil {
			w.Fatal(err)
		}
		w.says(volumes(types.Volume{Name: aws.String("host"), Host: &types.HostVolumeProperties{SourcePath: &dir}}), []string{"of the host"},
			w.shell("cat /host/file; echo back >/host/answer", mount("host", "/host")))
		if b, err := os.ReadFile(filepath.Join(dir, "answer")); err != nil || string(b) != "back\n" {
			w.Errorf("the host has %q, %v", b, err)
		}
	}},
	{[]string{"volumes[].dockerVolumeConfiguration.scope", "volumes[].dockerVolumeConfiguration.autoprovision"}, acts, "shared: kept for later tasks; task: gone with the task; without autoprovision a shared one must be there", func(w *world) {
		name := label(w.T)
		shared := func(auto bool) func(*taskDefinition) {
			return volumes(types.Volume{Name: &name, DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeShared, Autoprovision: aws.Bool(auto)}})
		}
		missing := w.stopped(w.run(w.define(shared(false), w.shell("true", mount(name, "/data")))))
		if missing.StopCode != types.TaskStopCodeTaskFailedToStart {
			w.Errorf("a shared volume that is not there: %s %q", missing.StopCode, aws.ToString(missing.StoppedReason))
		}
		w.says(shared(true), []string{"1"}, w.shell("echo 1 >>/data/lines; cat /data/lines", mount(name, "/data")))
		w.says(shared(false), []string{"1", "1"}, w.shell("echo 1 >>/data/lines; cat /data/lines", mount(name, "/data")))
		own := volumes(types.Volume{Name: aws.String("own"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{Scope: types.ScopeTask}})
		definition := w.define(own, w.shell("echo 1 >>/data/lines; cat /data/lines", mount("own", "/data")))
		for range 2 {
			done := w.stopped(w.run(definition))
			if lines := w.b.Logs(id(done), "app"); len(lines) != 1 {
				w.Errorf("a volume of the task's scope has %q", lines)
			}
		}
	}},
	{[]string{"volumes[].dockerVolumeConfiguration.driver", "volumes[].dockerVolumeConfiguration.driverOpts", "volumes[].dockerVolumeConfiguration.labels"}, acts, "Docker's driver local, with tmpfs and bind; another driver is an error", func(w *world) {
		w.says(volumes(types.Volume{Name: aws.String("mem"), DockerVolumeConfiguration: &types.DockerVolumeConfiguration{
			Scope: types.ScopeTask, Driver: aws.String("local"), DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=4m"}, Labels: map[string]string{"a": "b"},
		}}), []string{"4096"}, w.shell("busybox df -k /mem | busybox awk 'NR==2 {print $2}'", mount("mem", "/mem")))
	}},
	{of("volumesFrom[].sourceContainer", "volumesFrom[].readOnly"), acts, "another container's mounts at the same paths", func(w *world) {
		w.says(volumes(types.Volume{Name: aws.String("data")}), []string{"written"},
			w.shell("echo written >/data/file; sleep 1000", named("source"), beside, mount("data", "/data")),
			w.shell("until busybox test -s /data/file; do sleep 0.1; done; cat /data/file; (echo x >/data/file) 2>/dev/null", func(c *container) {
				c.VolumesFrom = []types.VolumeFrom{{SourceContainer: aws.String("source"), ReadOnly: aws.Bool(true)}}
			}))
	}},
	{[]string{"volumes[].efsVolumeConfiguration.fileSystemId", "volumes[].efsVolumeConfiguration.rootDirectory"}, acts, "a directory of the host that stands for the file system, the same for every task", func(w *world) {
		efs := volumes(types.Volume{Name: aws.String("efs"), EfsVolumeConfiguration: &types.EFSVolumeConfiguration{FileSystemId: aws.String("fs-0123456789abcdef0")}})
		file := label(w.T)
		w.says(efs, nil, w.shell("echo one >/efs/"+file, mount("efs", "/efs")))
		w.says(efs, []string{"one"}, w.shell("cat /efs/"+file, mount("efs", "/efs")))
	}},
	{[]string{"volumes[].efsVolumeConfiguration.authorizationConfig.accessPointId", "volumes[].efsVolumeConfiguration.authorizationConfig.iam", "volumes[].efsVolumeConfiguration.transitEncryption", "volumes[].efsVolumeConfiguration.transitEncryptionPort"}, acts, "an access point has a root of its own; encryption in transit has no transit to encrypt here", func(w *world) {
		id := "fs-0123456789abcdef1"
		definition := func(point string) func(*taskDefinition) {
			return volumes(types.Volume{Name: aws.String("efs"), EfsVolumeConfiguration: &types.EFSVolumeConfiguration{
				FileSystemId: &id, TransitEncryption: types.EFSTransitEncryptionEnabled,
				AuthorizationConfig: &types.EFSAuthorizationConfig{AccessPointId: &point, Iam: types.EFSAuthorizationConfigIAMEnabled},
			}})
		}
		w.says(definition("fsap-0123456789abcdef0"), nil, w.shell("echo one >/efs/file", mount("efs", "/efs")))
		w.says(definition("fsap-0123456789abcdef1"), []string{"none"}, w.shell("cat /efs/file 2>/dev/null || echo none", mount("efs", "/efs")))
		w.says(definition("fsap-0123456789abcdef0"), []string{"one"}, w.shell("cat /efs/file", mount("efs", "/efs")))
	}},
	{[]string{"volumes[].configuredAtLaunch"}, refused, "EBS volumes are not built yet", func(w *world) {
		w.refuses(volumes(types.Volume{Name: aws.String("ebs"), ConfiguredAtLaunch: aws.Bool(true)}), "UnsupportedFeatureException", "configuredAtLaunch")
	}},
	{[]string{"volumes[].fsxWindowsFileServerVolumeConfiguration.fileSystemId", "volumes[].fsxWindowsFileServerVolumeConfiguration.rootDirectory", "volumes[].fsxWindowsFileServerVolumeConfiguration.authorizationConfig.credentialsParameter", "volumes[].fsxWindowsFileServerVolumeConfiguration.authorizationConfig.domain"}, refused, "a file server for Windows", func(w *world) {
		w.refuses(volumes(types.Volume{Name: aws.String("fsx"), FsxWindowsFileServerVolumeConfiguration: &types.FSxWindowsFileServerVolumeConfiguration{
			FileSystemId: aws.String("fs-1"), RootDirectory: aws.String("\\data"),
			AuthorizationConfig: &types.FSxWindowsFileServerAuthorizationConfig{CredentialsParameter: aws.String("arn:aws:secretsmanager:us-east-1:000000000000:secret:x"), Domain: aws.String("example.com")},
		}}), "UnsupportedFeatureException", "fsxWindowsFileServerVolumeConfiguration")
	}},
	{[]string{"volumes[].s3filesVolumeConfiguration.fileSystemArn", "volumes[].s3filesVolumeConfiguration.accessPointArn", "volumes[].s3filesVolumeConfiguration.rootDirectory", "volumes[].s3filesVolumeConfiguration.transitEncryptionPort"}, refused, "S3 Files are not built", func(w *world) {
		w.refuses(volumes(types.Volume{Name: aws.String("s3"), S3filesVolumeConfiguration: &types.S3FilesVolumeConfiguration{FileSystemArn: aws.String("arn:aws:s3files:us-east-1:000000000000:file-system/fs-1")}}), "UnsupportedFeatureException", "s3filesVolumeConfiguration")
	}},
}
