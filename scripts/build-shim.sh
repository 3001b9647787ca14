#!/bin/sh
# Builds the shim that berth carries (build tag embed_shim). It is the same code as berth's own under
# the shim's name, in a binary that starts in a third of the time.
#
#   build-shim.sh [OUTPUT]     default: internal/agent/runtime/embedded/shim
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/internal/agent/runtime/embedded/shim}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$root"
mkdir -p "$(dirname "$out")"
# The same bytes from the same source, wherever it is built: a berth that differs elsewhere runs the
# same shim.
CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags netgo,osusergo,grpcnotrace -ldflags '-s -w' -o "$out" ./internal/agent/runtime/shim/berth-shim
