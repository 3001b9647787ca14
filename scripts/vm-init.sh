#!/bin/sh
# The init of the virtual machine that scripts/test-vm.sh boots: see test/vm/doc.go. It says what came
# of each part on the serial console, on lines that begin with "VM:", and ends the machine.
export PATH=/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /run /tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size=1g tmpfs /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
mount -o remount,rw /
ulimit -Hn 524288 # as under systemd
ulimit -n 524288
hostname berth-vm
ip link set lo up
# What an ordinary host has loaded or loads by itself; the kernel asks for the rest through modprobe.
for module in overlay veth nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_redir nft_fib_ipv4 nf_conntrack; do
	modprobe $module 2>/dev/null
done

boot=$(cat /var/lib/vm/boot)
echo "VM: boot $boot, Linux $(uname -r), $(grep -c ^processor /proc/cpuinfo) CPUs"

# part NAME COMMAND...: its output is kept, and shown when it fails.
part() {
	local name=$1 began=$(date +%s) log=/var/lib/vm/$1.log
	shift
	if "$@" >$log 2>&1 </dev/null; then
		echo "VM: ok $name $(grep -c '^--- PASS' $log) tests $(($(date +%s) - began)) s"
	else
		echo "VM: FAILED $name $(($(date +%s) - began)) s"
		tail -c 20000 $log | sed 's/^/VM| /'
	fi
}
up() {
	berth up --no-aws-profile >/var/lib/vm/up$boot.log 2>&1 </dev/null &
	for i in $(seq 120); do
		grep -q ready /var/lib/vm/up$boot.log && return
		sleep 1
	done
	echo "VM: FAILED berth up"
	sed 's/^/VM| /' /var/lib/vm/up$boot.log
}

case $boot in
1)
	for suite in /tests/*.room; do
		name=$(basename $suite .room)
		cd /tests
		part $name $suite -test.v -test.timeout 60m -test.parallel 2 -test.run "$(cat /tests/run)" -test.skip "$(cat /tests/skip)"
	done
	up
	part power-cut-before /tests/vm -test.v -test.timeout 10m -test.run '^TestBeforePowerCut$'
	echo 2 >/var/lib/vm/boot
	sync -f /var/lib/vm/boot /var/lib/vm/record.json
	echo "VM: cut"
	sleep 600
	;;
2)
	up
	part power-cut-after /tests/vm -test.v -test.timeout 10m -test.run '^TestAfterPowerCut$'
	echo 3 >/var/lib/vm/boot
	echo "VM: reboot"
	sync
	reboot -f
	;;
3)
	up
	part reboot /tests/vm -test.v -test.timeout 10m -test.run '^TestAfterReboot$'
	echo "VM: done"
	sync
	poweroff -f
	;;
esac
sleep 600 # an init that ends is a panic; the script ends the machine
