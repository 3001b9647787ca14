package keyring

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/sigv4"
)

// maxSession is the longest that any session lives, GetSessionToken's 36 hours; a sealing key that
// was replaced longer ago than that has nothing left to open.
const maxSession = 129600 * time.Second

// Key is an access key with its secret.
type Key struct {
	AccessKeyID     string
	SecretAccessKey string
}

// String keeps the secret out of logs.
func (k Key) String() string { return k.AccessKeyID }

// rootFile is the form of root-key.json.
type rootFile struct {
	versioned
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	CreatedAt       time.Time `json:"createdAt"`
}

// sealFile is the form of session-keys.json.
type sealFile struct {
	versioned
	Keys []sealKey `json:"keys"` // the newest first; that one seals
}

// Keyring is the credentials of one Berth. It is safe for concurrent use.
type Keyring struct {
	dir     string
	account string
	root    Key

	mu    sync.RWMutex
	seals []sealer
}

// Open reads the credentials in dir, making dir and what is missing in it. account is the 12-digit
// account whose root key this is.
func Open(dir, account string) (*Keyring, error) {
	if !regexp.MustCompile(`^[0-9]{12}$`).MatchString(account) {
		return nil, fmt.Errorf("account ID %q is not 12 digits", account)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the credentials' directory: %w", err)
	}
	now := time.Now().UTC()
	root, err := loadOrMake(filepath.Join(dir, "root-key.json"), func() (rootFile, error) {
		id, err := newAccessKeyID(longTerm, account)
		return rootFile{versioned{schema}, id, newSecret(), now}, err
	})
	if err != nil {
		return nil, fmt.Errorf("open the root key: %w", err)
	}
	if root.AccessKeyID == "" || len(root.SecretAccessKey) < 16 {
		return nil, fmt.Errorf("open the root key: the file in %s lacks the key", dir)
	}
	k := &Keyring{dir: dir, account: account, root: Key{root.AccessKeyID, root.SecretAccessKey}}
	seals, err := loadOrMake(k.sealPath(), func() (sealFile, error) {
		return sealFile{versioned{schema}, []sealKey{newSealKey(now)}}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the session keys: %w", err)
	}
	return k, k.use(seals)
}

func (k *Keyring) sealPath() string { return filepath.Join(k.dir, "session-keys.json") }

func (k *Keyring) use(f sealFile) error {
	if len(f.Keys) == 0 {
		return fmt.Errorf("open the session keys: the file in %s holds none", k.dir)
	}
	var seals []sealer
	for _, key := range f.Keys {
		s, err := key.sealer()
		if err != nil {
			return fmt.Errorf("open the session keys: %w", err)
		}
		seals = append(seals, s)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seals = seals
	return nil
}

// Root is the account's root key.
func (k *Keyring) Root() Key { return k.root }

// Rotate brings in a new sealing key. Sessions sealed by earlier ones stay good until they expire;
// keys too old for any session to remain are dropped.
func (k *Keyring) Rotate() error {
	var f sealFile
	if err := load(k.sealPath(), &f); err != nil {
		return fmt.Errorf("rotate the session keys: %w", err)
	}
	now := time.Now().UTC()
	keep := []sealKey{newSealKey(now)}
	inUseUntil := now
	for _, key := range f.Keys {
		if now.Sub(inUseUntil) <= maxSession {
			keep = append(keep, key)
		}
		inUseUntil = key.CreatedAt // of the next older one
	}
	f.Keys = keep
	if err := store(k.sealPath(), f); err != nil {
		return fmt.Errorf("rotate the session keys: %w", err)
	}
	return k.use(f)
}

// Lookup finds the secret that belongs to an access key, and whose it is; token is the session token
// that came along, if any. The principal has no Region and no RequestID yet. Errors are
// [*sigv4.Error]: an unknown key or token, or an expired session.
func (k *Keyring) Lookup(_ context.Context, accessKeyID, token string) (secret string, p caller.Principal, err error) {
	if token == "" {
		if accessKeyID != k.root.AccessKeyID {
			return "", p, sigv4.ErrUnknownKey()
		}
		p = caller.ForRoot(k.account)
		p.AccessKeyID = accessKeyID
		return k.root.SecretAccessKey, p, nil
	}
	s, secret, err := k.open(accessKeyID, token)
	if err != nil {
		return "", p, err
	}
	p = s.Principal
	p.AccessKeyID, p.Session = accessKeyID, true
	return secret, p, nil
}

// random fills a slice of n bytes; the system's generator does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
