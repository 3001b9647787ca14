package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/sigv4"
)

// Session is a temporary identity to be issued.
type Session struct {
	// Principal is who the bearer will be. Its Region, AccessKeyID and RequestID do not count.
	Principal caller.Principal
	Expires   time.Time // kept to the second
}

// Issued is a session's credentials, as STS answers them.
type Issued struct {
	Key
	SessionToken string
	Expires      time.Time
}

// sealKey is one master key as it lies in the file.
type sealKey struct {
	ID        string    `json:"id"`  // 16 hexadecimal digits
	Key       []byte    `json:"key"` // 32 bytes
	CreatedAt time.Time `json:"createdAt"`
}

func newSealKey(now time.Time) sealKey {
	return sealKey{ID: hex.EncodeToString(random(keyIDLen)), Key: random(32), CreatedAt: now}
}

// sealer is a master key ready for use: one key for the seal and one for the secrets are derived from
// it, so that neither use can tell anything about the other.
type sealer struct {
	id      []byte
	aead    cipher.AEAD
	secrets []byte
}

func (k sealKey) sealer() (sealer, error) {
	id, err := hex.DecodeString(k.ID)
	if err != nil || len(id) != keyIDLen || len(k.Key) != 32 {
		return sealer{}, fmt.Errorf("a key is malformed")
	}
	derive := func(use string) []byte {
		b, _ := hkdf.Key(sha256.New, k.Key, nil, "berth session "+use, 32) // fails only for absurd lengths
		return b
	}
	block, err := aes.NewCipher(derive("seal"))
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return sealer{}, err
	}
	return sealer{id, aead, derive("secret")}, nil
}

// A token is: version, ID of the master key, sealed session; in base64. The access key's ID is sealed
// along as additional data, so a token is good only with its own.
const (
	tokenVersion = 1
	keyIDLen     = 8
	headLen      = 1 + keyIDLen
)

// sealed is what is inside a token.
type sealed struct {
	Kind    caller.Kind `json:"k"`
	Account string      `json:"a"`
	ARN     string      `json:"n"`
	UserID  string      `json:"u"`
	Role    string      `json:"r,omitempty"`
	Source  string      `json:"s,omitempty"`
	Expires int64       `json:"e"` // Unix seconds
}

// Issue makes credentials for s. Nothing is stored.
func (k *Keyring) Issue(s Session) (Issued, error) {
	p := s.Principal
	id, err := newAccessKeyID(session, p.AccountID)
	if err != nil {
		return Issued{}, fmt.Errorf("issue a session: %w", err)
	}
	plain, err := json.Marshal(sealed{p.Kind, p.AccountID, p.ARN, p.UserID, p.RoleARN, p.SourceIdentity, s.Expires.Unix()})
	if err != nil {
		return Issued{}, fmt.Errorf("issue a session: %w", err)
	}
	k.mu.RLock()
	seal := k.seals[0]
	k.mu.RUnlock()
	head := append([]byte{tokenVersion}, seal.id...)
	token := seal.aead.Seal(bytes.Clone(head), nil, plain, additional(head, id))
	return Issued{
		Key:          Key{id, seal.secret(id, token)},
		SessionToken: base64.StdEncoding.EncodeToString(token),
		Expires:      time.Unix(s.Expires.Unix(), 0).UTC(),
	}, nil
}

// open is Issue's inverse.
func (k *Keyring) open(accessKeyID, text string) (Session, string, error) {
	token, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(token) < headLen || token[0] != tokenVersion {
		return Session{}, "", sigv4.ErrUnknownKey()
	}
	head := token[:headLen]
	k.mu.RLock()
	seals := k.seals
	k.mu.RUnlock()
	for _, seal := range seals {
		if !bytes.Equal(seal.id, head[1:]) {
			continue
		}
		plain, err := seal.aead.Open(nil, nil, token[headLen:], additional(head, accessKeyID))
		if err != nil {
			break
		}
		var s sealed
		if err := json.Unmarshal(plain, &s); err != nil {
			break
		}
		if !time.Now().Before(time.Unix(s.Expires, 0)) {
			return Session{}, "", sigv4.ErrExpiredToken()
		}
		return Session{
			Principal: caller.Principal{Kind: s.Kind, AccountID: s.Account, ARN: s.ARN, UserID: s.UserID,
				RoleARN: s.Role, SourceIdentity: s.Source},
			Expires: time.Unix(s.Expires, 0).UTC(),
		}, seal.secret(accessKeyID, token), nil
	}
	return Session{}, "", sigv4.ErrUnknownKey()
}

func additional(head []byte, accessKeyID string) []byte {
	return append(bytes.Clone(head), accessKeyID...)
}

// secret derives a session's secret key from its token, whose random nonce makes it unique. The token
// travels with each request; without the master key it tells nothing about the secret.
func (s sealer) secret(accessKeyID string, token []byte) string {
	h := hmac.New(sha256.New, s.secrets)
	h.Write([]byte(accessKeyID))
	h.Write([]byte{0})
	h.Write(token)
	return base64.StdEncoding.EncodeToString(h.Sum(nil)[:30]) // 40 characters
}
