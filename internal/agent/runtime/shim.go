package runtime

import "github.com/berthhq/berth/internal/agent/runtime/shim"

// IsShim tells whether a process started with these arguments is to be the shim. main asks before
// anything else, because the shim's start is part of every launch.
func IsShim(args []string) bool { return shim.Is(args) }

// ShimMain is the whole life of a shim process. It returns only when the shim is done, and exits the
// process itself when the shim fails.
func ShimMain() { shim.Main() }
