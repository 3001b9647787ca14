#!/bin/bash
# Installs what this host lacks of what is needed to build, demonstrate, test or generate Berth, on
# Debian 12 and its relatives. Does nothing, and needs no network, when everything is there.
#
#   install-deps.sh build|demo|test|generate|vm ...
#
# Go is not installed here: see https://go.dev/dl/ for the version in go.mod. The benchmark's peers
# (Docker, containerd) are never installed: `make bench` unpacks Debian's packages into a directory.
set -euo pipefail

say() { printf 'install-deps: %s\n' "$*" >&2; }

missing=()
# need PACKAGE COMMAND...: the package is missing when the command fails.
need() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

build() {
	need gcc command -v gcc
	need libc6-dev test -e /usr/include/stdlib.h
	need make command -v make
	need pkg-config command -v pkg-config
	need libseccomp-dev test -e /usr/include/seccomp.h
	need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
}
demo() {
	need curl command -v curl
	need awscli command -v aws
}
tests() {
	# These, and not whatever else of that name is first in PATH: the tests name Debian's.
	need awscli test -x /usr/bin/aws
	need python3-boto3 /usr/bin/python3 -c 'import boto3'
	need busybox-static test -x /bin/busybox
	need libc6-dev test -e /usr/include/stdlib.h
	need git command -v git
	need e2fsprogs command -v mkfs.ext4
}
generate() {
	need protobuf-compiler command -v protoc
	need libprotobuf-dev test -e /usr/include/google/protobuf/timestamp.proto
}
vm() {
	need qemu-system-x86 command -v qemu-system-x86_64
	need e2fsprogs command -v mkfs.ext4
	need kmod test -x /sbin/depmod
	need cpio command -v cpio
	need busybox-static test -x /bin/busybox
}

[ $# -gt 0 ] || set -- build
for what in "$@"; do
	case $what in
	build | demo | generate | vm) "$what" ;;
	test) tests ;;
	*) say "unknown: $what (build, demo, test, generate, vm)"; exit 2 ;;
	esac
done

command -v go >/dev/null || {
	say "Go is missing: install the version named in go.mod from https://go.dev/dl/ and put it in PATH"
	exit 1
}
[ ${#missing[@]} -gt 0 ] || exit 0

mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
command -v apt-get >/dev/null || {
	say "this host lacks: ${missing[*]} (Debian's names); install them with its package manager"
	exit 1
}
as_root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { say "this host lacks ${missing[*]}; run as root, or install sudo"; exit 1; }
	as_root=(sudo)
fi

say "installing ${missing[*]}"
install() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		-o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "${missing[@]}" </dev/null
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The package lists are fetched only if the ones at hand do not do.
if ! install >"$log" 2>&1; then
	"${as_root[@]}" apt-get update -o DPkg::Lock::Timeout=120 >"$log" 2>&1 </dev/null || { cat "$log" >&2; exit 1; }
	install >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
