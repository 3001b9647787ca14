package runtime

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/berthhq/berth/internal/agent"
)

// hidden answers where, in a container, the host's hidden directories would show through the
// directories above them that it mounts.
func hidden(dirs []string, mounts []agent.Mount) []string {
	var out []string
	for _, m := range mounts {
		source := path.Clean(m.Source)
		for _, dir := range dirs {
			if rest, below := strings.CutPrefix(dir, strings.TrimSuffix(source, "/")+"/"); below {
				out = append(out, path.Join(m.Target, rest))
			}
		}
	}
	return out
}

// realDirs resolves links, since mounts come with their sources resolved. A directory that is not there
// yet keeps its name.
func realDirs(dirs []string) []string {
	out := make([]string, 0, len(dirs))
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		out = append(out, filepath.Clean(dir))
	}
	return out
}
