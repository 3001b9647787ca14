package ecs

import (
	"fmt"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
)

// unsupported names what a definition asks for and Berth cannot do yet. Such a task is refused: run
// without it, it would be another task than the one that was meant.
//
// Members that only say where something goes beside the task are let through: logConfiguration,
// because output is always kept on the host; the roles, because there is no AWS to call with them;
// versionConsistency, because there is no service yet whose tasks it would hold together.
// docs/task-definitions.md tells of every member.
func unsupported(def *ecs.TaskDefinition) error {
	var found []string
	note := func(is bool, member string) {
		if is {
			found = append(found, member)
		}
	}
	note(def.ProxyConfiguration != nil, "proxyConfiguration")
	note(len(def.InferenceAccelerators) > 0, "inferenceAccelerators")
	note(api.Value(def.EnableFaultInjection), "enableFaultInjection")
	for _, v := range def.Volumes {
		in := "volume " + api.Value(v.Name) + ": "
		note(api.Value(v.ConfiguredAtLaunch), in+"configuredAtLaunch")
		note(v.FsxWindowsFileServerVolumeConfiguration != nil, in+"fsxWindowsFileServerVolumeConfiguration")
		note(v.S3filesVolumeConfiguration != nil, in+"s3filesVolumeConfiguration")
	}
	for _, c := range def.ContainerDefinitions {
		in := "container " + api.Value(c.Name) + ": "
		note(len(c.Secrets) > 0, in+"secrets")
		note(c.FirelensConfiguration != nil, in+"firelensConfiguration")
		note(c.RepositoryCredentials != nil, in+"repositoryCredentials")
		note(len(c.CredentialSpecs) > 0, in+"credentialSpecs")
		if l := c.LogConfiguration; l != nil {
			note(l.LogDriver == ecs.LogDriverAwsfirelens, in+"logDriver awsfirelens")
			note(len(l.SecretOptions) > 0, in+"logConfiguration.secretOptions")
		}
	}
	if len(found) == 0 {
		return nil
	}
	return &ecs.UnsupportedFeatureException{Message: fmt.Sprintf("Berth does not implement yet: %s.", strings.Join(found, "; "))}
}
