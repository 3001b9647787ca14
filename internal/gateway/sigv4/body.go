package sigv4

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// frame is how a body is framed: as it is, or in chunks (Content-Encoding: aws-chunked), which may be
// signed and may be followed by headers.
type frame struct{ chunked, signed, trailer bool }

var plain frame

// framing tells a frame by x-amz-content-sha256. The kinds not listed are signed with SigV4A.
func framing(payload string) frame {
	switch payload {
	case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
		return frame{chunked: true, signed: true}
	case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER":
		return frame{chunked: true, signed: true, trailer: true}
	case "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
		return frame{chunked: true, trailer: true}
	}
	return plain
}

const (
	maxChunkLine = 4 << 10 // of a chunk's head or a trailing header
	maxTrailers  = 8
	maxChunk     = 1 << 40 // far above any object; keeps the arithmetic safe
)

// Chain is where the signatures of a body's chunks begin: each covers the one before it.
type Chain struct {
	key         []byte
	time, scope string
	previous    string
}

// Chain begins at s, which was verified with secret.
func (s *Signature) Chain(secret string) *Chain {
	return &Chain{key: signingKey(secret, s.Scope), time: s.Time.Format(timeFormat), scope: s.Scope.String(), previous: s.signature}
}

// next tells whether signature is that of the next part, and takes it up.
func (c *Chain) next(kind, signature string, hashes ...string) bool {
	text := strings.Join(append([]string{kind, c.time, c.scope, c.previous}, hashes...), "\n")
	want := hex.EncodeToString(mac(c.key, text))
	c.previous = want
	return subtle.ConstantTimeCompare([]byte(want), []byte(signature)) == 1
}

// emptyHash is the SHA-256 of nothing, in which the form of a chunk's signature has its headers.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Body is a request's body without its frame, verified while it is read: what was read is known to be
// what was signed when Read answers io.EOF, and not before. Its errors are [*Error] for a body that is
// wrong and the connection's own for one that does not arrive. It holds nothing but a line of the body.
type Body struct {
	r     *bufio.Reader // of the framed body
	whole io.Reader     // of a body without a frame
	frame frame
	chain *Chain // nil: chunks' signatures are not looked at
	sum   hash.Hash
	want  string // the hash of a body without a frame; "": none was declared

	left      int64 // of the chunk
	total     int64
	decoded   int64 // the length announced; -1: none
	signature string
	announced []string
	trailers  map[string]string
	err       error // for ever after
}

// NewBody takes the body of r, which is signed or in dev mode not even that, out of its frame. payload is
// Signature.Payload or, without a signature, what the request declares. chain is nil where signatures are
// not verified.
func NewBody(r *http.Request, payload string, chain *Chain) (*Body, error) {
	b := &Body{frame: framing(payload), chain: chain, decoded: -1, left: -1}
	if b.frame == plain && strings.HasPrefix(payload, "STREAMING-") { // Parse refuses it where there is a signature
		return nil, &Error{Fault: UnsupportedPayload, Message: "A payload signed in this way (x-amz-content-sha256: STREAMING-…) is not supported by this service."}
	}
	if b.frame == plain {
		b.whole = r.Body
		if isHex64(payload) {
			b.sum, b.want = sha256.New(), payload
		}
		return b, nil
	}
	b.r = bufio.NewReaderSize(r.Body, maxChunkLine)
	text := r.Header.Get("X-Amz-Decoded-Content-Length")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, payloadError("MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	b.decoded = n
	if b.frame.signed && chain != nil {
		b.sum = sha256.New()
	}
	if b.frame.trailer {
		for _, value := range r.Header.Values("X-Amz-Trailer") {
			for name := range strings.SplitSeq(value, ",") {
				if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
					b.announced = append(b.announced, name)
				}
			}
		}
		if len(b.announced) > maxTrailers {
			return nil, payloadError("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		b.trailers = map[string]string{}
	}
	return b, nil
}

// Length is the body's length without its frame; -1 when it is not known before the end.
func (b *Body) Length(r *http.Request) int64 {
	if b.frame.chunked {
		return b.decoded
	}
	return r.ContentLength
}

// Announced names the headers that follow the body, in lower case.
func (b *Body) Announced() []string { return b.announced }

// Trailer is a header that followed the body; "" before its end and for one that did not.
func (b *Body) Trailer(name string) string { return b.trailers[strings.ToLower(name)] }

// Close closes nothing: net/http closes the body of a request.
func (b *Body) Close() error { return nil }

func (b *Body) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.frame == plain {
		n, err = b.readWhole(p)
	} else {
		n, err = b.readChunk(p)
	}
	b.err = err
	return n, err
}

func (b *Body) readWhole(p []byte) (int, error) {
	n, err := b.whole.Read(p)
	if b.sum == nil {
		return n, err
	}
	b.sum.Write(p[:n])
	if err == io.EOF && subtle.ConstantTimeCompare([]byte(hex.EncodeToString(b.sum.Sum(nil))), []byte(b.want)) != 1 {
		return n, invalid("The provided 'x-amz-content-sha256' header does not match what was computed.").inS3("XAmzContentSHA256Mismatch")
	}
	return n, err
}

func (b *Body) readChunk(p []byte) (int, error) {
	for b.left <= 0 {
		if b.left == 0 {
			if err := b.endChunk(); err != nil {
				return 0, err
			}
		}
		if err := b.beginChunk(); err != nil {
			return 0, err
		}
		if b.left == 0 { // the last chunk has no bytes
			return 0, b.end()
		}
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if b.sum != nil {
		b.sum.Write(p[:n])
	}
	b.left -= int64(n)
	return n, err
}

// line reads one that ends in CRLF, without it.
func (b *Body) line() (string, error) {
	line, err := b.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", badFrame()
	case err == io.EOF:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return "", badFrame()
	}
	return string(text), nil
}

func (b *Body) beginChunk() error {
	line, err := b.line()
	if err != nil {
		return err
	}
	size, extension, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(size, 16, 41)
	if err != nil || n > maxChunk || size == "" {
		return badFrame()
	}
	b.left = int64(n)
	if b.total += b.left; b.total > b.decoded {
		return payloadError("IncompleteBody", "The request body holds more than x-amz-decoded-content-length announces.")
	}
	signature, ok := strings.CutPrefix(extension, "chunk-signature=")
	if b.frame.signed && !ok {
		return badFrame()
	}
	b.signature = signature
	return nil
}

// endChunk reads what follows a chunk's bytes, and verifies them.
func (b *Body) endChunk() error {
	if line, err := b.line(); err != nil {
		return err
	} else if line != "" {
		return badFrame()
	}
	return b.verifyChunk()
}

func (b *Body) verifyChunk() error {
	if b.sum == nil {
		return nil
	}
	sum := hex.EncodeToString(b.sum.Sum(nil))
	b.sum.Reset()
	if !b.chain.next("AWS4-HMAC-SHA256-PAYLOAD", b.signature, emptyHash, sum) {
		return badChunk()
	}
	return nil
}

// end verifies the last chunk, reads the headers behind it and answers io.EOF if all is well.
func (b *Body) end() error {
	if err := b.verifyChunk(); err != nil {
		return err
	}
	if b.total != b.decoded {
		return payloadError("IncompleteBody", "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header.")
	}
	var signed strings.Builder
	signature := ""
	for n := 0; ; n++ {
		line, err := b.line()
		// Some clients end a body without trailers with the last chunk's line.
		if errors.Is(err, io.ErrUnexpectedEOF) && n == 0 && len(b.announced) == 0 {
			break
		}
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" && b.frame.signed {
			signature = value
			continue
		}
		if _, twice := b.trailers[name]; !ok || !b.frame.trailer || twice || !slices.Contains(b.announced, name) {
			return payloadError("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		b.trailers[name] = value
		signed.WriteString(name + ":" + value + "\n")
	}
	for _, name := range b.announced {
		if _, ok := b.trailers[name]; !ok {
			return payloadError("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
	}
	if b.frame.signed && b.frame.trailer && b.chain != nil {
		sum := sha256.Sum256([]byte(signed.String()))
		if !b.chain.next("AWS4-HMAC-SHA256-TRAILER", signature, hex.EncodeToString(sum[:])) {
			return badChunk()
		}
	}
	return io.EOF
}

func payloadError(s3, message string) *Error {
	return (&Error{Fault: Payload, Message: message}).inS3(s3)
}

func badFrame() *Error {
	return payloadError("InvalidRequest", "The request body is not framed in the way that x-amz-content-sha256 announces.")
}

func badChunk() *Error {
	return (&Error{Fault: Payload, Message: "The request signature we calculated does not match the signature you provided. " +
		"Check your key and signing method."}).inS3("SignatureDoesNotMatch")
}
