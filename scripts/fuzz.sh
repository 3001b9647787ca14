#!/bin/bash
# Runs every fuzz test of the tree for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v /test/e2e); do
	dir=$(go list -f '{{.Dir}}' "$package")
	for fuzz in $(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | cut -c6- || true); do
		echo "--- $package $fuzz"
		CGO_ENABLED=0 go test "$package" -run '^$' -fuzz "^$fuzz\$" -fuzztime "${1:-10s}"
	done
done
