# Berth. The targets people need: build, demo, test, check, bench. CONTRIBUTING.md tells more.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS   += --no-builtin-rules

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
TAGS    := embed_runc,embed_shim,no_btrfs,no_devmapper,no_zfs,netgo,osusergo,grpcnotrace
LDFLAGS := -s -w -X main.version=$(VERSION)
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH,CI,GOFLAGS,GOPROXY,GOCACHE,GOMODCACHE,BERTH_BIN)

# The tests that run containers are a package path of their own, not a flag: nothing is ever skipped.
UNIT    = $$(go list ./... | grep -v -e '/test/e2e$$')
FUZZTIME ?= 10s

.PHONY: test-vm print-tags help build runc demo test unit race e2e check bench bench-short fuzz generate clean deps

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

build: deps runc ## bin/berth: one static binary with containerd and runc inside
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/berth ./cmd/berth

deps:
	@scripts/install-deps.sh build

runc: # and the shim: what berth carries
	@scripts/build-runc.sh
	@scripts/build-shim.sh

demo: ## from nothing to a task that answers over HTTP
	@scripts/demo.sh

check: deps ## everything that needs no containers: build, vet, staticcheck, gofmt, unit tests, generated files
	@scripts/check.sh

test: deps ## all tests, those with real containers included (needs root)
	@scripts/install-deps.sh test
	@$(MAKE) --no-print-directory runc race e2e

unit:
	go test $(UNIT)

race: ## the unit tests with the race detector
	CGO_ENABLED=1 go test -race -timeout 10m $(UNIT)

e2e: runc ## end to end: the AWS CLI, boto3 and the Go SDK against a real berth
	$(SUDO) env CGO_ENABLED=0 go test -count=1 -timeout 20m ./test/e2e

test-vm: ## Debian's kernel in QEMU: cgroup version 2, a power cut, a reboot (apart from `make test`)
	@scripts/test-vm.sh

print-tags:
	@echo $(TAGS)

bench: build ## measure, beside bare containerd, Docker and Swarm
	$(SUDO) env CGO_ENABLED=0 go run ./bench

bench-short: build
	$(SUDO) env CGO_ENABLED=0 go run ./bench -short

fuzz: ## every fuzz test, FUZZTIME each
	@scripts/fuzz.sh $(FUZZTIME)

generate: ## rewrite generated code and docs/compatibility.md
	@scripts/install-deps.sh generate
	@scripts/generate.sh

clean: ## remove what was built; for what Berth made on this host: bin/berth reset --yes
	rm -rf bin bench/out test/e2e/.cache
	rm -f internal/agent/runtime/embedded/runc internal/agent/runtime/embedded/runc.stamp
