package awsprofile

import (
	"io/fs"
	"syscall"
)

func owner(info fs.FileInfo, uid, gid int) (int, int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return uid, gid
}
