package runtime

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/apparmor"
)

const (
	unconfined = "unconfined"
	// defaultApparmorProfile is Docker's, by its name: profiles and rules that name it as a peer hold.
	defaultApparmorProfile = "docker-default"
)

// security is what a container's dockerSecurityOptions say.
type security struct {
	noNewPrivileges bool
	apparmor        string // profile; empty: the default
	seccomp         string // "unconfined", or empty for the default
}

// securityOptions reads options as Docker does, with "=" or ":" between name and value. SELinux labels
// are accepted and have no effect, as with a Docker daemon that was not started with
// --selinux-enabled, which is the default. An AppArmor profile has an effect where the kernel enforces
// profiles.
func securityOptions(options []string) (security, error) {
	var out security
	for _, option := range options {
		if option == "no-new-privileges" {
			out.noNewPrivileges = true
			continue
		}
		if option == "disable" {
			continue // of labels
		}
		name, value, ok := strings.Cut(option, "=")
		if !ok {
			name, value, ok = strings.Cut(option, ":")
		}
		if !ok {
			return security{}, fmt.Errorf("invalid --security-opt 1: %q", option)
		}
		switch name {
		case "label":
		case "apparmor":
			out.apparmor = value
		case "seccomp":
			// Docker takes a profile's text too, of which ECS says nothing.
			switch value {
			case unconfined:
				out.seccomp = unconfined
			case "builtin":
				out.seccomp = ""
			default:
				return security{}, fmt.Errorf("invalid --security-opt 2: %q: of seccomp profiles there are unconfined and builtin", option)
			}
		case "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return security{}, fmt.Errorf("invalid --security-opt 2: %q", option)
			}
			out.noNewPrivileges = on
		default:
			return security{}, fmt.Errorf("invalid --security-opt 2: %q", option)
		}
	}
	return out, nil
}

// filtered tells whether the container's system calls are filtered.
func (s security) filtered(privileged bool) bool { return !privileged && s.seccomp != unconfined }

// apparmorProfile answers the profile that confines the container; none where the host enforces none.
func apparmorProfile(s security, privileged, enforced bool) string {
	switch {
	case !enforced:
		return ""
	case s.apparmor != "":
		return s.apparmor
	case privileged:
		return unconfined
	}
	return defaultApparmorProfile
}

// loadApparmorProfile sees to it that the kernel knows the default profile. Others are the
// administrator's to load; runc says so of one that is missing.
func loadApparmorProfile(name string) error {
	if name != defaultApparmorProfile {
		return nil
	}
	if err := apparmor.LoadDefaultProfile(name); err != nil {
		return fmt.Errorf("AppArmor enabled on system but the %s profile could not be loaded: %w", name, err)
	}
	return nil
}
