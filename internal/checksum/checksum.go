// Package checksum is S3's further checksums of objects: x-amz-checksum-crc32 and the like. It knows the
// algorithms and how their values are written, and verifies a stream against what was promised of it.
// Source: S3 user guide, "Checking object integrity".
package checksum

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"strings"
	"sync"
)

// Algorithms are those known, as S3's API spells them. XXHASH64, XXHASH3 and XXHASH128 are not.
var Algorithms = []string{"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5"}

// HeaderPrefix and an algorithm in lower case is the header that has its value.
const HeaderPrefix = "x-amz-checksum-"

var (
	castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })
	// nvme is the polynomial of the NVM Express Base Specification, section 5.2.1.3.4, its bits reversed.
	nvme = sync.OnceValue(func() *crc64.Table { return crc64.MakeTable(0x9a6c9329ac4bc9b5) })
)

// New makes a hash of that algorithm; nil for one that is not known.
func New(algorithm string) hash.Hash {
	switch algorithm {
	case "CRC32":
		return crc32.NewIEEE()
	case "CRC32C":
		return crc32.New(castagnoli())
	case "CRC64NVME":
		return crc64.New(nvme())
	case "SHA1":
		return sha1.New()
	case "SHA256":
		return sha256.New()
	case "SHA512":
		return sha512.New()
	case "MD5":
		return md5.New()
	}
	return nil
}

// Text is a hash's value as headers have it.
func Text(h hash.Hash) string { return base64.StdEncoding.EncodeToString(h.Sum(nil)) }

// OfHeader is the algorithm whose value a header has; "" for a header of another kind.
func OfHeader(name string) string {
	name = strings.ToLower(name)
	if rest, ok := strings.CutPrefix(name, HeaderPrefix); ok && rest != "type" && rest != "algorithm" && rest != "mode" {
		return strings.ToUpper(rest)
	}
	return ""
}

// Mismatch says that a stream is not what was promised.
type Mismatch struct{ Algorithm, Want, Got string }

func (e *Mismatch) Error() string {
	return fmt.Sprintf("the %s is %s and not %s as was promised", e.Algorithm, e.Got, e.Want)
}

// Trailers are headers that follow a stream.
type Trailers interface {
	Announced() []string
	Trailer(name string) string
}

// Reader hands a stream through and computes its checksums. At its end it is a *Mismatch in place of
// io.EOF if one is not what was promised, in the stream's trailers or beforehand.
type Reader struct {
	r        io.Reader
	hashes   map[string]hash.Hash
	promised map[string]string
	trailers Trailers
	done     bool
	// AtEnd, if not nil, is called once, when all was found to be as promised.
	AtEnd func(values map[string]string)
}

// NewReader makes a Reader of r that computes the algorithms promised, those announced if r is Trailers,
// and those wanted; an algorithm that is not known is an error. Promised values are base64.
func NewReader(r io.Reader, promised map[string]string, want ...string) (*Reader, error) {
	c := &Reader{r: r, promised: promised, hashes: map[string]hash.Hash{}}
	for algorithm := range promised {
		want = append(want, algorithm)
	}
	if t, ok := r.(Trailers); ok {
		for _, name := range t.Announced() {
			if algorithm := OfHeader(name); algorithm != "" {
				want = append(want, algorithm)
				c.trailers = t
			}
		}
	}
	for _, algorithm := range want {
		if c.hashes[algorithm] == nil {
			if c.hashes[algorithm] = New(algorithm); c.hashes[algorithm] == nil {
				return nil, fmt.Errorf("checksum algorithm %q is not supported", algorithm)
			}
		}
	}
	return c, nil
}

func (c *Reader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for _, h := range c.hashes {
		h.Write(p[:n])
	}
	if err == io.EOF && !c.done {
		c.done = true
		return n, c.end()
	}
	return n, err
}

func (c *Reader) end() error {
	values := map[string]string{}
	for algorithm, h := range c.hashes {
		got := Text(h)
		values[algorithm] = got
		want, promised := c.promised[algorithm]
		if c.trailers != nil {
			if t := c.trailers.Trailer(HeaderPrefix + algorithm); t != "" {
				want, promised = t, true
			}
		}
		if promised && subtle.ConstantTimeCompare([]byte(want), []byte(got)) != 1 {
			return &Mismatch{algorithm, want, got}
		}
	}
	if c.AtEnd != nil {
		c.AtEnd(values)
	}
	return io.EOF
}
