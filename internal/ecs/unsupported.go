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
// versionConsistency and runtimePlatform, because there is one platform. A healthCheck is not run, and the
// task says so: its health stays UNKNOWN.
func unsupported(def *ecs.TaskDefinition) error {
	var found []string
	note := func(is bool, member string) {
		if is {
			found = append(found, member)
		}
	}
	note(def.ProxyConfiguration != nil, "proxyConfiguration")
	note(def.PidMode != "", "pidMode")
	note(def.IpcMode != "", "ipcMode")
	note(len(def.InferenceAccelerators) > 0, "inferenceAccelerators")
	note(def.EphemeralStorage != nil, "ephemeralStorage")
	for _, v := range def.Volumes {
		note(v.Host == nil || api.Value(v.Host.SourcePath) == "", "volume "+api.Value(v.Name)+" (only host volumes with a sourcePath)")
	}
	for _, c := range def.ContainerDefinitions {
		in := "container " + api.Value(c.Name) + ": "
		note(len(c.Secrets) > 0, in+"secrets")
		note(len(c.EnvironmentFiles) > 0, in+"environmentFiles")
		note(len(c.DependsOn) > 0, in+"dependsOn")
		note(len(c.VolumesFrom) > 0, in+"volumesFrom")
		note(len(c.Links) > 0, in+"links")
		note(c.FirelensConfiguration != nil, in+"firelensConfiguration")
		note(c.RepositoryCredentials != nil, in+"repositoryCredentials")
		note(len(c.ResourceRequirements) > 0, in+"resourceRequirements")
		note(c.RestartPolicy != nil && api.Value(c.RestartPolicy.Enabled), in+"restartPolicy")
		note(len(c.CredentialSpecs) > 0, in+"credentialSpecs")
		note(len(c.DockerSecurityOptions) > 0, in+"dockerSecurityOptions")
		note(api.Value(c.DisableNetworking), in+"disableNetworking")
		if l := c.LogConfiguration; l != nil {
			note(l.LogDriver == ecs.LogDriverAwsfirelens, in+"logDriver awsfirelens")
			note(len(l.SecretOptions) > 0, in+"logConfiguration.secretOptions")
		}
		if lp := c.LinuxParameters; lp != nil {
			note(len(lp.Devices) > 0, in+"linuxParameters.devices")
			note(lp.MaxSwap != nil, in+"linuxParameters.maxSwap")
			note(lp.Swappiness != nil, in+"linuxParameters.swappiness")
		}
	}
	if len(found) == 0 {
		return nil
	}
	return &ecs.UnsupportedFeatureException{Message: fmt.Sprintf("Berth does not implement yet: %s.", strings.Join(found, "; "))}
}
