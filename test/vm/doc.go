// Package vm holds what `make test-vm` runs inside a virtual machine: Debian's kernel, nothing but
// busybox around it, pure cgroup version 2, and a power cut and a reboot that are real.
//
// scripts/test-vm.sh builds this package's tests and those of the rooms that touch the kernel, puts
// them into a disk image with busybox as the init, and boots it three times:
//
//	boot 1: the rooms' own tests; berth up; tasks start (TestBeforePowerCut) ─ the machine is cut off
//	boot 2: berth up again: what was acknowledged is there, what ran is STOPPED and why
//	        (TestAfterPowerCut), new tasks start ─ an orderly reboot
//	boot 3: the same once more (TestAfterReboot) ─ power off
//
// The tests have the build tag vm: outside the machine they have nothing to run on.
package vm
