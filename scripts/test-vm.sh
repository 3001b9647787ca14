#!/bin/bash
# Boots Debian's kernel in QEMU, by software where the machine has no KVM, and runs test/vm in it: pure
# cgroup version 2, a power cut, a reboot. Writes what came of it to docs/test-vm.md.
#
# Needs nothing but Debian's packages; nothing is installed but QEMU (and only if it is missing): the
# kernel's package is unpacked into a directory.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
scripts/install-deps.sh build test vm
make --no-print-directory build

work=$root/test/vm/.cache
mkdir -p "$work"
say() { printf 'test-vm: %s\n' "$*" >&2; }

# The kernel, once.
package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}')
[ -n "$package" ] || { say "apt knows no linux-image-cloud-amd64: apt-get update"; exit 1; }
kernel=$work/$package
if [ ! -e "$kernel/done" ]; then
	rm -rf "$kernel" && mkdir -p "$kernel"
	(cd "$kernel" && apt-get download "$package" >/dev/null 2>&1 && dpkg -x ./*.deb . && rm ./*.deb && touch done)
fi
vmlinuz=$(ls "$kernel"/boot/vmlinuz-*)
release=${vmlinuz##*/vmlinuz-}

# The disk: busybox, Berth, the tests, the kernel's modules.
disk=$work/root
rm -rf "$disk" && mkdir -p "$disk"/{bin,sbin,dev,proc,sys,run,tmp,root,etc,tests,lib/modules,var/lib/vm}
cp /bin/busybox "$disk/bin/"
for applet in $(/bin/busybox --list); do
	[ -e "$disk/bin/$applet" ] || ln -s busybox "$disk/bin/$applet"
done
ln -s ../bin/busybox "$disk/sbin/modprobe"
cp bin/berth "$disk/bin/"
cp scripts/vm-init.sh "$disk/sbin/init"
chmod 755 "$disk/sbin/init"
cp -r "$kernel/lib/modules/$release" "$disk/lib/modules/"
rm -rf "$disk/lib/modules/$release/kernel/"{sound,drivers/gpu,drivers/media,drivers/usb,drivers/net/ethernet}
/sbin/depmod -b "$disk" "$release"
echo 'root:x:0:0:root:/root:/bin/sh' >"$disk/etc/passwd"
echo 'root:x:0:' >"$disk/etc/group"
echo '127.0.0.1 localhost berth-vm' >"$disk/etc/hosts"
echo 'berth-vm' >"$disk/etc/hostname"
: >"$disk/etc/resolv.conf"
echo 1 >"$disk/var/lib/vm/boot"
tags=$(make -s print-tags)
for room in runtime network volumes; do
	CGO_ENABLED=0 go test -c -tags "$tags" -o "$disk/tests/$room.room" "./internal/agent/$room"
done
mkdir "$disk/tests/embedded"
cp internal/agent/runtime/embedded/{runc,shim} "$disk/tests/embedded/"
CGO_ENABLED=0 go test -c -tags vm -o "$disk/tests/vm" ./test/vm
# These build a program with Go first, which the machine has not.
printf '%s' "${VM_SKIP:-^TestSeccomp$}" >"$disk/tests/skip"
printf '%s' "${VM_RUN:-.}" >"$disk/tests/run" # fewer tests of the rooms, for those in a hurry
rm -f "$work/disk.img"
truncate -s 6G "$work/disk.img"
mkfs.ext4 -q -E root_owner=0:0 -d "$disk" "$work/disk.img"

# The first file system: what is needed to find the disk.
ramfs=$work/ramfs
rm -rf "$ramfs" && mkdir -p "$ramfs"/{bin,dev,proc,sys,new,lib/modules}
cp /bin/busybox "$ramfs/bin/"
modules=$(/sbin/modprobe -d "$disk" -S "$release" --show-depends -a virtio_pci virtio_blk ext4 virtio_rng | awk '/^insmod/ {print $2}' | awk '!seen[$0]++')
n=10
for module in $modules; do
	cp "$module" "$ramfs/lib/modules/$n-$(basename "$module")"
	n=$((n + 1))
done
cat >"$ramfs/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for m in /lib/modules/*; do /bin/busybox insmod $m; done
for i in 1 2 3 4 5 6 7 8 9 10; do
	/bin/busybox mount -t ext4 /dev/vda /new && break
	/bin/busybox sleep 1
done
exec /bin/busybox switch_root /new /sbin/init
INIT
chmod 755 "$ramfs/init"
(cd "$ramfs" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"

accel=tcg,thread=multi
if [ -w /dev/kvm ] && timeout 10 qemu-system-x86_64 -accel kvm -machine none -S -display none -monitor stdio </dev/null >/dev/null 2>&1; then
	accel=kvm
fi
console=$work/console.log
: >"$console"
machine() {
	: >"$console.part"
	qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m 3072 -nodefaults -display none -serial "file:$console.part" \
		-drive "file=$work/disk.img,format=raw,if=virtio,cache=writeback" -device virtio-rng-pci \
		-kernel "$vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=0" </dev/null &
	qemu=$!
}
qemu=
trap '[ -z "$qemu" ] || kill -9 "$qemu" 2>/dev/null || true' EXIT
# watch LINE SECONDS: until the console has the line or the machine ends.
watch() {
	local i
	for ((i = 0; i < $2; i++)); do
		grep -q "$1" "$console.part" 2>/dev/null && return
		kill -0 "$qemu" 2>/dev/null || { grep -q "$1" "$console.part"; return; }
		! grep -qa 'Kernel panic' "$console.part" || break
		sleep 1
	done
	say "the machine did not come to: $1"
	return 1
}
say "Linux $release with accelerator $accel"
began=$SECONDS
ok=0
machine
watch '^VM: cut' 5400 || ok=1
kill -9 "$qemu" && wait "$qemu" 2>/dev/null || true
cat "$console.part" >>"$console"
if [ "$ok" = 0 ]; then
	machine
	watch '^VM: done' 1500 || ok=1
	for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$qemu" 2>/dev/null || break; sleep 1; done
	kill -9 "$qemu" 2>/dev/null || true
	wait "$qemu" 2>/dev/null || true
	cat "$console.part" >>"$console"
fi
qemu=
tr -d '\r' <"$console" >"$console.text"
grep -a '^VM' "$console.text" || true
grep -aq 'VM: FAILED' "$console.text" && ok=1
for part in runtime network volumes power-cut-before power-cut-after reboot; do
	grep -aq "^VM: ok $part " "$console.text" || ok=1
done

{
	echo '# The virtual machine'
	echo
	echo '`make test-vm` boots Debian'\''s kernel under QEMU with pure cgroup version 2 and nothing but busybox in'
	echo 'the machine, runs the tests of the rooms that touch the kernel, cuts the power while tasks run, boots'
	echo 'again, and reboots once more. It is apart from `make test` because it needs minutes where the machine'
	echo 'must be emulated. This page is written by it; the last run:'
	echo
	echo "- $(date -u +%F), Linux $release, QEMU $(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p'), accelerator $accel, $((SECONDS - began)) s: **$([ "$ok" = 0 ] && echo passed || echo failed)**"
	echo
	echo '| part | result |'
	echo '|---|---|'
	sed -n 's/^VM: ok \([^ ]*\) \(.*\)/| \1 | ok, \2 |/p; s/^VM: FAILED \(.*\)/| \1 | **failed** |/p' "$console.text"
	echo
	echo "Not run in the machine, because it builds a program with Go first: \`$(cat "$disk/tests/skip")\`."
	[ -z "${VM_RUN:-}" ] || echo "Of the rooms' tests, this run had those that match \`$VM_RUN\`."
} >docs/test-vm.md
exit "$ok"
