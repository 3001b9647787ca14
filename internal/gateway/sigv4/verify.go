package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Skew is how far the clocks of client and server may differ, either way.
const Skew = 15 * time.Minute

// Verifier checks signatures. It is safe for concurrent use; its zero value is ready.
type Verifier struct{ keys keyCache }

// Verify tells whether s, parsed from r, was made with secret, now, for the service of that signing
// name. bodyHash is the SHA-256 of r's body in lower-case hexadecimal; it is not looked at unless
// [Signature.CoversBody]. Errors are [*Error].
func (v *Verifier) Verify(r *http.Request, s *Signature, secret, service, bodyHash string) error {
	if s.version2 {
		return s.verify2(r, secret, service, time.Now().UTC())
	}
	if s.Scope.Service != service {
		return invalid("Credential should be scoped to correct service: '" + service + "'. ")
	}
	if err := s.current(time.Now().UTC()); err != nil {
		return err
	}
	hash := s.payload
	switch {
	case hash == "" && s.Presigned && service == "s3":
		hash = UnsignedPayload // S3's rule: whoever presigns does not know the body yet
	case hash == "":
		hash = bodyHash
	case s.CoversBody() && subtle.ConstantTimeCompare([]byte(hash), []byte(bodyHash)) != 1:
		return invalid("The provided 'x-amz-content-sha256' header does not match what was computed.").inS3("XAmzContentSHA256Mismatch")
	}
	id := keyID{secret, s.Scope}
	key, cached := v.keys.get(id)
	if !cached {
		key = signingKey(secret, s.Scope)
	}
	for _, path := range canonicalPaths(r, service) {
		sum := sha256.Sum256([]byte(canonicalRequest(r, s, path, hash)))
		want := hex.EncodeToString(mac(key, algorithm+"\n"+s.Time.Format(timeFormat)+"\n"+s.Scope.String()+"\n"+hex.EncodeToString(sum[:])))
		if subtle.ConstantTimeCompare([]byte(want), []byte(s.signature)) == 1 {
			if !cached {
				// Only now, so that nobody without the secret can push others' keys out.
				v.keys.put(id, key)
			}
			return nil
		}
	}
	return invalid("The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// current checks the time of signing against now. STS takes a presigned request for 15 minutes
// whatever its X-Amz-Expires says, and Kubernetes' tokens for EKS, presigned for 60 seconds and used
// for 14 minutes, rely on it (aws-iam-authenticator, pkg/token).
func (s *Signature) current(now time.Time) error {
	life := Skew
	if s.Presigned && s.Scope.Service != "sts" {
		life = s.Expires
	}
	if earliest := now.Add(-life); s.Time.Before(earliest) {
		code := "RequestTimeTooSkewed"
		if s.Presigned {
			code = "AccessDenied"
		}
		return invalid(fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %s.)",
			s.Time.Format(timeFormat), earliest.Format(timeFormat), now.Format(timeFormat), span(life))).inS3(code)
	}
	if latest := now.Add(Skew); s.Time.After(latest) {
		return invalid(fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %s.)",
			s.Time.Format(timeFormat), latest.Format(timeFormat), now.Format(timeFormat), span(Skew))).inS3("RequestTimeTooSkewed")
	}
	return nil
}

func span(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// signingKey derives the key of one scope from the secret.
func signingKey(secret string, s Scope) []byte {
	return mac(mac(mac(mac([]byte("AWS4"+secret), s.Date), s.Region), s.Service), terminator)
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

// keyID tells signing keys apart. It holds the secret rather than the access key's ID, so that an
// entry can never outlive a change of the secret.
type keyID struct {
	secret string
	scope  Scope
}

// maxKeys bounds the cache: 64 k scopes would be about 20 MB, 4 k are about 1 MB and hold the
// sessions of a large fleet; what falls out costs four HMACs.
const maxKeys = 4096

// keyCache keeps signing keys in two generations: when the younger is full, the older is dropped. A
// key in use moves back to the younger, so this approximates LRU with no list to maintain.
type keyCache struct {
	mu         sync.Mutex
	young, old map[keyID][]byte
}

func (c *keyCache) get(id keyID) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key, ok := c.young[id]; ok {
		return key, true
	}
	key, ok := c.old[id]
	if ok {
		c.add(id, key)
	}
	return key, ok
}

func (c *keyCache) put(id keyID, key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(id, key)
}

func (c *keyCache) add(id keyID, key []byte) {
	if c.young == nil || len(c.young) >= maxKeys/2 {
		c.young, c.old = make(map[keyID][]byte), c.young
	}
	c.young[id] = key
}
