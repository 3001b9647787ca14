package runtime

import (
	"bytes"
	"io"
	"os"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// accounts are an image's own users and groups: /etc/passwd and /etc/group, nil where missing.
type accounts struct{ passwd, group []byte }

// maxAccountsFile bounds what is read of either file.
const maxAccountsFile = 4 << 20

// resolveUser turns "user", "uid", "user:group", … into numbers with the supplementary groups, as
// Docker does; the empty string is root.
func (a accounts) resolveUser(name string) (specs.User, error) {
	reader := func(b []byte) io.Reader {
		if b == nil {
			return nil
		}
		return bytes.NewReader(b)
	}
	u, err := user.GetExecUser(name, nil, reader(a.passwd), reader(a.group))
	if err != nil {
		return specs.User{}, err
	}
	// The primary group is also among the others: else a set-group-ID program would rid itself of a
	// group that a file's mode shuts out (CVE-2022-36109).
	out := specs.User{UID: uint32(u.Uid), GID: uint32(u.Gid), AdditionalGids: []uint32{uint32(u.Gid)}}
	for _, g := range u.Sgids {
		if g != u.Gid {
			out.AdditionalGids = append(out.AdditionalGids, uint32(g))
		}
	}
	return out, nil
}

// readAccounts reads them out of an image's root file system.
func readAccounts(root string) (accounts, error) {
	// os.Root keeps the image's symbolic links inside the image.
	dir, err := os.OpenRoot(root)
	if err != nil {
		return accounts{}, err
	}
	defer dir.Close()
	return accounts{
		passwd: readAccountsFile(dir, "etc/passwd"),
		group:  readAccountsFile(dir, "etc/group"),
	}, nil
}

// readAccountsFile answers nil for what is missing or not a file: such an image has no such users.
func readAccountsFile(dir *os.Root, name string) []byte {
	info, err := dir.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAccountsFile))
	if err != nil {
		return nil
	}
	return data
}
