#!/bin/bash
# All that can be said about the tree without running a container, in under two minutes when warm.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf -- '--- %s\n' "$*"; }
tags=embed_runc,embed_shim,no_btrfs,no_devmapper,no_zfs,netgo,osusergo,grpcnotrace

step build
make --no-print-directory build

step gofmt
unformatted=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
	printf 'not formatted, run gofmt -w on:\n%s\n' "$unformatted" >&2
	exit 1
fi

step 'go vet'
CGO_ENABLED=0 go vet -tags "$tags" ./...
CGO_ENABLED=0 go vet -tags "$tags,failpoints" ./internal/failpoint ./cmd/berth
CGO_ENABLED=0 go vet -tags vm ./test/vm

step staticcheck
CGO_ENABLED=0 go tool staticcheck -tags "$tags" ./...

step 'generated files'
scripts/install-deps.sh generate
scripts/generate.sh -check

step 'unit tests'
CGO_ENABLED=0 go test $(go list ./... | grep -v -e '/test/e2e$')
