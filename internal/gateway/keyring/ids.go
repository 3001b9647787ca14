package keyring

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
)

// The prefixes of AWS's identifiers (IAM user guide, "IAM identifiers").
const (
	longTerm = "AKIA" // an access key
	session  = "ASIA" // a temporary access key
	role     = "AROA"
)

// newAccessKeyID makes an access key ID that carries its account as AWS's own do: sixteen base32
// characters are eighty bits, of which the first is set, the next forty are the account's number, and
// the rest are random.
func newAccessKeyID(prefix, account string) (string, error) {
	n, err := strconv.ParseUint(account, 10, 40)
	if err != nil || len(account) != 12 {
		return "", fmt.Errorf("account %q is not 12 digits", account)
	}
	var b [10]byte
	rand.Read(b[:])
	head := uint64(1)<<63 | n<<23 | binary.BigEndian.Uint64(b[:8])&(1<<23-1)
	binary.BigEndian.PutUint64(b[:8], head)
	return prefix + base32.StdEncoding.EncodeToString(b[:]), nil
}

// AccountOf reads the account from an access key ID, of Berth's or of AWS's making. ok is false when
// the ID has no such form.
func AccountOf(accessKeyID string) (account string, ok bool) {
	if len(accessKeyID) != 20 {
		return "", false
	}
	switch accessKeyID[:4] {
	case longTerm, session:
	default:
		return "", false
	}
	b, err := base32.StdEncoding.DecodeString(accessKeyID[4:])
	if err != nil {
		return "", false
	}
	n := binary.BigEndian.Uint64(b[:8]) << 1 >> 24
	if n >= 1e12 {
		return "", false
	}
	return fmt.Sprintf("%012d", n), true
}

// RoleID is the unique ID of a role, the same for the same ARN: until there is an IAM that remembers
// when a role was made, its name is its identity.
func RoleID(roleARN string) string {
	sum := sha256.Sum256([]byte("berth role\x00" + roleARN))
	return role + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

// newSecret makes a secret access key: 240 random bits in 40 characters.
func newSecret() string {
	var b [30]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}
