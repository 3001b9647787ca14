package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
)

// mapRef answers from where an image of that normalized name is fetched. The keys of redirects are a
// registry host, optionally with the beginning of a repository; "*" in a component stands for any
// part of it. The key with the most components that matches wins, then the one with the most
// characters that are not "*". What follows the match is kept.
func mapRef(name string, redirects map[string]string) (string, error) {
	best, bestScore, bestKey := "", 0, ""
	parts := strings.Split(name, "/")
	for key, target := range redirects {
		pattern := strings.Split(strings.Trim(key, "/"), "/")
		if len(pattern) > len(parts) {
			continue
		}
		matched := true
		rest := strings.Join(parts[len(pattern):], "/")
		suffix := ""
		for i, p := range pattern {
			part := parts[i]
			if i == len(parts)-1 {
				// The last component carries the tag or digest.
				if j := strings.IndexAny(part, ":@"); j >= 0 {
					part, suffix = part[:j], part[j:]
				}
			}
			if ok, err := path.Match(p, part); err != nil || !ok {
				matched = false
				break
			}
		}
		score := len(pattern)<<16 + len(strings.ReplaceAll(key, "*", ""))
		if !matched || score < bestScore || (score == bestScore && key >= bestKey && bestKey != "") {
			continue
		}
		place := strings.TrimSuffix(target, "/")
		if rest != "" {
			place += "/" + rest
		}
		best, bestScore, bestKey = place+suffix, score, key
	}
	if best == "" {
		return name, nil
	}
	mapped, err := reference.ParseDockerRef(best)
	if err != nil {
		return "", fmt.Errorf("the registry map sends %s to %s: %w", name, best, err)
	}
	return mapped.String(), nil
}

// registryHosts tells containerd's resolver how to reach registries: by HTTPS, on loopback by plain
// HTTP, with the credentials of Docker's configuration.
func (r *Runtime) registryHosts() docker.RegistryHosts {
	client := &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       10 * time.Second,
		ForceAttemptHTTP2:     true,
	}}
	return docker.ConfigureDefaultRegistries(
		docker.WithClient(client),
		docker.WithPlainHTTP(docker.MatchLocalhost),
		docker.WithAuthorizer(docker.NewDockerAuthorizer(
			docker.WithAuthClient(client),
			docker.WithAuthCreds(r.credentials),
		)),
	)
}

// dockerHubKey is Docker Hub's name in configuration files, for historical reasons.
const dockerHubKey = "https://index.docker.io/v1/"

// credentials answers user and password for a registry, or an empty user and an identity token. The
// file is read each time, because logging in changes it, and so do helpers' tokens.
func (r *Runtime) credentials(host string) (user, secret string, err error) {
	file := r.config.DockerConfig
	if file == "" {
		file = filepath.Join(config.Dir(), config.ConfigFileName)
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read the registries' credentials: %w", err)
	}
	defer f.Close()
	known, err := config.LoadFromReader(f)
	if err != nil {
		return "", "", fmt.Errorf("read the registries' credentials in %s: %w", file, err)
	}
	if host == "registry-1.docker.io" || host == "docker.io" {
		host = dockerHubKey
	}
	// Runs the registry's credential helper, if it has one.
	auth, err := known.GetAuthConfig(host)
	if err != nil {
		return "", "", fmt.Errorf("get the credentials for %s: %w", host, err)
	}
	if auth.IdentityToken != "" {
		return "", auth.IdentityToken, nil
	}
	return auth.Username, auth.Password, nil
}
