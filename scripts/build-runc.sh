#!/bin/sh
# Builds the static runc that berth carries, from the module pinned in third_party/runc, and does
# nothing when that was already done for this pin, this Go and this machine's architecture.
#
#   build-runc.sh [OUTPUT]     default: internal/agent/runtime/embedded/runc
#
# Needs gcc, pkg-config and libseccomp-dev (its static library). Everything else comes through Go's
# module cache. To be built into berth with: go build -tags embed_runc ./cmd/berth
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/internal/agent/runtime/embedded/runc}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$root/third_party/runc"

version=$(sed -n 's|^[[:space:]]*github.com/opencontainers/runc v\([^ ]*\).*|\1|p' go.mod)
stamp="runc $version $(go env GOVERSION GOOS GOARCH | tr '\n' ' ')$(cat go.sum "$root/scripts/build-runc.sh" | cksum)"

if [ -x "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi

for tool in gcc pkg-config; do
	command -v $tool >/dev/null || {
		echo "build-runc: $tool is missing (Debian: apt-get install gcc pkg-config libseccomp-dev)" >&2
		exit 1
	}
done
pkg-config --exists libseccomp || {
	echo "build-runc: libseccomp's development files are missing (Debian: apt-get install libseccomp-dev)" >&2
	exit 1
}

mkdir -p "$(dirname "$out")"
tmp=$out.tmp.$$
trap 'rm -f "$tmp"' EXIT
CGO_ENABLED=1 GOFLAGS= go build -trimpath -buildvcs=false \
	-tags seccomp,netgo,osusergo \
	-ldflags "-s -w -X main.version=$version -extldflags -static" \
	-o "$tmp" github.com/opencontainers/runc
"$tmp" --version | grep -q "^runc version $version\$" || {
	echo "build-runc: what was built does not answer as runc $version" >&2
	exit 1
}
mv "$tmp" "$out"
printf '%s\n' "$stamp" >"$out.stamp"
