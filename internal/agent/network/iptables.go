package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From the kernel's uapi/linux/netfilter_ipv4/ip_tables.h.
const (
	iptGetInfo    = 64 // IPT_SO_GET_INFO
	iptGetEntries = 65 // IPT_SO_GET_ENTRIES
	iptNameLen    = 32
	iptInfoLen    = 84  // struct ipt_getinfo
	iptEntriesOff = 40  // struct ipt_get_entries, before its entries
	iptEntryLen   = 112 // struct ipt_entry, before its matches
	iptHooks      = 5
	hookForward   = 2
	verdictDrop   = -1 // in a standard target: -NF_DROP - 1
	maxRuleset    = 64 << 20
)

// legacyForwardDrops tells whether iptables' legacy filter table, of the current network namespace,
// has a FORWARD chain with policy DROP. nftables does not show it.
func legacyForwardDrops() (bool, error) {
	info, entries, err := legacyTableIfLoaded("filter")
	if err != nil || info == nil {
		return false, err
	}
	verdict, err := chainPolicy(info, entries, hookForward)
	return verdict == verdictDrop, err
}

// legacyEntries are the rules of a table, nil if it is not in use.
func legacyEntries(table string) ([]byte, error) {
	_, entries, err := legacyTableIfLoaded(table)
	return entries, err
}

func legacyTableIfLoaded(name string) (info, entries []byte, err error) {
	// Asking for a table that is not there would make the kernel load it.
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !slices.Contains(strings.Fields(string(names)), name) {
		return nil, nil, nil
	}
	if info, entries, err = legacyTable(name); err != nil {
		return nil, nil, fmt.Errorf("read the legacy %s table: %w", name, err)
	}
	return info, entries, nil
}

// legacyTable reads a table: its struct ipt_getinfo, and its rules.
func legacyTable(name string) (info, entries []byte, err error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(s)
	for { // the table may grow between the two calls
		info = make([]byte, iptInfoLen)
		copy(info, name)
		if err := getsockopt(s, iptGetInfo, info); err != nil {
			return nil, nil, err
		}
		size := binary.NativeEndian.Uint32(info[80:])
		if size > maxRuleset {
			return nil, nil, fmt.Errorf("the table has %d bytes", size)
		}
		b := make([]byte, iptEntriesOff+int(size))
		copy(b, name)
		binary.NativeEndian.PutUint32(b[iptNameLen:], size)
		err := getsockopt(s, iptGetEntries, b)
		if err == nil {
			return info, b[iptEntriesOff:], nil
		}
		if err != unix.EAGAIN {
			return nil, nil, err
		}
	}
}

func getsockopt(s, opt int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.IPPROTO_IP, uintptr(opt),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// chainPolicy finds the verdict of a built-in chain's last rule, which is its policy.
func chainPolicy(info, entries []byte, hook int) (int32, error) {
	if len(info) < iptInfoLen {
		return 0, errors.New("the table's description is short")
	}
	// struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
	if binary.NativeEndian.Uint32(info[iptNameLen:])&(1<<hook) == 0 {
		return 0, errors.New("the table has no such chain")
	}
	at := uint64(binary.NativeEndian.Uint32(info[iptNameLen+4+4*(iptHooks+hook):]))
	if at+iptEntryLen > uint64(len(entries)) {
		return 0, errors.New("the chain's policy lies outside of the table")
	}
	e := entries[at:]
	// struct ipt_entry: … target_offset u16 at 88; struct xt_standard_target: size u16, name [29],
	// revision u8, verdict i32
	target := uint64(binary.NativeEndian.Uint16(e[88:]))
	if target+36 > uint64(len(e)) {
		return 0, errors.New("the policy's target lies outside of the table")
	}
	t := e[target:]
	if name := t[2:31]; name[0] != 0 { // the standard target has no name
		return 0, fmt.Errorf("the chain's policy is the target %q", bytes.TrimRight(name, "\x00"))
	}
	return int32(binary.NativeEndian.Uint32(t[32:])), nil
}

// legacyChain is what there is of a chain, and of our rules in it.
type legacyChain struct {
	found bool
	ours  [2]int // of each direction
}

// findLegacyChain looks for a chain that is not built in, and in it for rules for interfaces of the
// prefix that bear the comment.
func findLegacyChain(entries []byte, chain, prefix, comment string) (legacyChain, error) {
	var c legacyChain
	inside := false
	for len(entries) > 0 {
		// struct ipt_entry: struct ipt_ip with iniface [16] at 16 and outiface [16] at 32, …,
		// target_offset u16 at 88, next_offset u16 at 90
		if len(entries) < iptEntryLen {
			return c, errors.New("the table ends within a rule")
		}
		target, next := int(binary.NativeEndian.Uint16(entries[88:])), int(binary.NativeEndian.Uint16(entries[90:]))
		if target < iptEntryLen || next < target+32 || next > len(entries) {
			return c, errors.New("a rule of the table lies outside of it")
		}
		e := entries[:next]
		entries = entries[next:]
		// A chain begins with a rule whose target is ERROR, with the chain's name.
		if cString(e[target+2:target+31]) == "ERROR" {
			inside = cString(e[target+32:]) == chain
			c.found = c.found || inside
			continue
		}
		if inside && bytes.Contains(e[iptEntryLen:target], append([]byte(comment), 0)) {
			for i, at := range []int{16, 32} {
				if strings.TrimSuffix(cString(e[at:at+16]), "+") == prefix { // iptables keeps the wildcard, which its mask leaves out
					c.ours[i]++
				}
			}
		}
	}
	return c, nil
}

// cString is what precedes the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
