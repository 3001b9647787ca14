// Command berth-shim is the shim as a binary of its own, which scripts/build-shim.sh builds for berth
// to carry.
package main

import "github.com/berthhq/berth/internal/agent/runtime/shim"

func main() { shim.Main() }
