package main

import (
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
)

// The prefixes of what Amazon's agent says that it can do; the older names have the longer one.
const (
	oldCapability = "com.amazonaws.ecs.capability."
	capability    = "ecs.capability."
)

// capabilities are those of Amazon's agent that every host of Berth has, under the names by which task
// definitions require them. Output is kept on the host whatever log driver is named, and so each
// driver is one the host has. What Berth refuses to run (secrets, FireLens, App Mesh, gMSA, EBS) is not
// here.
var capabilities = []string{
	oldCapability + "privileged-container",
	oldCapability + "ecr-auth",
	oldCapability + "task-iam-role",
	oldCapability + "task-iam-role-network-host",
	oldCapability + "logging-driver.awslogs",
	oldCapability + "logging-driver.fluentd",
	oldCapability + "logging-driver.gelf",
	oldCapability + "logging-driver.json-file",
	oldCapability + "logging-driver.splunk",
	oldCapability + "logging-driver.syslog",
	capability + "task-eni",
	capability + "task-cpu-mem-limit",
	capability + "pid-ipc-namespace-sharing",
	capability + "container-health-check",
	capability + "container-ordering",
	capability + "container-restart-policy",
	capability + "network.container-port-range",
	capability + "env-files.s3",
	capability + "efs",
	capability + "efsAuth",
	capability + "docker-plugin.local",
	capability + "execution-role-ecr-pull",
	capability + "execution-role-awslogs",
}

// Docker's remote API, of which Amazon's agent registers every version it can use: those whose members
// task definitions may have.
const firstDockerAPI, lastDockerAPI = 17, 44 // 1.17, 1.44

// attributes are those that this host offers: Amazon's built-in ones and those of its agent. What
// depends on the kernel is read under sys, where sysfs is mounted.
func attributes(sys string) map[string]string {
	a := map[string]string{
		"ecs.os-type": "linux", "ecs.os-family": "LINUX",
		"ecs.cpu-architecture": map[string]string{"amd64": "x86_64", "arm64": "arm64"}[goruntime.GOARCH],
	}
	for _, name := range capabilities {
		a[name] = ""
	}
	for minor := firstDockerAPI; minor <= lastDockerAPI; minor++ {
		a[oldCapability+"docker-remote-api.1."+strconv.Itoa(minor)] = ""
	}
	if on, err := os.ReadFile(filepath.Join(sys, "module/apparmor/parameters/enabled")); err == nil && strings.HasPrefix(string(on), "Y") {
		a[oldCapability+"apparmor"] = ""
	}
	if _, err := os.Stat(filepath.Join(sys, "fs/selinux/enforce")); err == nil {
		a[oldCapability+"selinux"] = ""
	}
	return a
}
