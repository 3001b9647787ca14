#!/bin/bash
# Rewrites what is generated: api/ from the API models, docs/compatibility.md with it, and the hosts'
# wire contract from its .proto. With -check it changes nothing and fails if something is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

proto=internal/dispatch/dispatchpb
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
export CGO_ENABLED=0
go build -o "$tools/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
protoc_into() {
	protoc --plugin="$tools/protoc-gen-go" --plugin="$tools/protoc-gen-go-grpc" -I "$proto" -I /usr/include \
		--go_out="$1" --go_opt=paths=source_relative --go-grpc_out="$1" --go-grpc_opt=paths=source_relative \
		dispatch.proto
}

if [ "${1:-}" = -check ]; then
	go run ./api/gen -check
	mkdir "$tools/out"
	protoc_into "$tools/out"
	for f in dispatch.pb.go dispatch_grpc.pb.go; do
		# The compiler's own version is in a comment: another protoc makes no other code.
		diff <(grep -v '^//.*protoc' "$proto/$f") <(grep -v '^//.*protoc' "$tools/out/$f") >/dev/null || {
			echo "$proto/$f is stale: make generate" >&2
			exit 1
		}
	done
else
	go run ./api/gen
	protoc_into "$proto"
fi
