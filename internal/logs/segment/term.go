package segment

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// Term is a text that an event must contain, byte for byte.
//
// A filter knows two things of a block: its tokens, which are the longest runs of ASCII letters, digits,
// underscores and bytes from 0x80 on; and its grams, which are any four ASCII letters in a row. A scan
// skips a block that lacks one of the tokens and grams an event with the text must have:
//
//   - tokens within the text that have other bytes on both sides. The first and the last run may be parts
//     of longer tokens, unless Word says that they are not;
//   - grams of any run of four letters or more.
//
// A text with neither, such as "4f9" or "a1b2c3" without Word, is looked for in every block. [Term.Skips]
// tells.
type Term struct {
	Text string
	// Word demands that the text stands by itself in the message: no byte of a token is next to one at
	// its beginning or end.
	Word bool
}

// Skips says whether blocks can be skipped that do not have the term.
func (t Term) Skips() bool { return len(t.hashes()) > 0 }

// Tokens are the term's tokens that an event which contains it must have, whole.
func (t Term) Tokens() []string {
	var found []string
	for start := 0; start < len(t.Text); {
		if !tokenByte[t.Text[start]] {
			start++
			continue
		}
		end := start
		for end < len(t.Text) && tokenByte[t.Text[end]] {
			end++
		}
		if (start > 0 || t.Word) && (end < len(t.Text) || t.Word) {
			found = append(found, t.Text[start:end])
		}
		start = end
	}
	return found
}

// hashes are those that the filter of a block with the term has.
func (t Term) hashes() []uint64 {
	var h []uint64
	for _, token := range t.Tokens() {
		h = append(h, hashToken([]byte(token)))
	}
	for i := 0; i+4 <= len(t.Text); i++ {
		if s := t.Text[i : i+4]; letter[s[0]] && letter[s[1]] && letter[s[2]] && letter[s[3]] {
			h = append(h, hashGram(binary.LittleEndian.Uint32([]byte(s))))
		}
	}
	slices.Sort(h)
	return slices.Compact(h)
}

// matcher is a term as it is looked for.
type matcher struct {
	text []byte
	word bool
}

func matchers(terms []Term) []matcher {
	var m []matcher
	for _, t := range terms {
		if t.Text != "" {
			m = append(m, matcher{[]byte(t.Text), t.Word})
		}
	}
	return m
}

func matchAll(terms []matcher, message []byte) bool {
	for _, t := range terms {
		if !t.match(message) {
			return false
		}
	}
	return true
}

func (t matcher) match(message []byte) bool {
	for from := 0; ; {
		at := bytes.Index(message[from:], t.text)
		if at < 0 {
			return false
		}
		at += from
		if !t.word || t.stands(message, at) {
			return true
		}
		from = at + 1
	}
}

func (t matcher) stands(message []byte, at int) bool {
	end := at + len(t.text)
	return (at == 0 || !tokenByte[message[at-1]] || !tokenByte[message[at]]) &&
		(end == len(message) || !tokenByte[message[end]] || !tokenByte[message[end-1]])
}

var tokenByte, letter = func() (t, l [256]bool) {
	for c := range 256 {
		l[c] = 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80
		t[c] = l[c] || '0' <= c && c <= '9' || c == '_' || c >= 0x80
	}
	return t, l
}()

// Hashes are part of the format: they may not change without a new version of it.
const (
	mixA = 0x9e3779b97f4a7c15
	mixB = 0xd6e8feb86659fd93
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func hashToken(b []byte) uint64 {
	h := uint64(len(b)) * mixB
	for len(b) >= 8 {
		h = mix(h^binary.LittleEndian.Uint64(b), mixA)
		b = b[8:]
	}
	switch n := len(b); {
	case n >= 4:
		tail := uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
		h = mix(h^tail, mixA)
	case n > 0:
		tail := uint64(b[0]) | uint64(b[n/2])<<8 | uint64(b[n-1])<<16
		h = mix(h^tail, mixA)
	}
	return max(1, mix(h^mixA, mixB))
}

func hashGram(gram uint32) uint64 { return max(1, mix(uint64(gram)^mixB, mixA|1<<33)) }

// A filter is a Bloom filter in groups of 512 bits, a cache line each: filterHashes bits are set in the
// group that a hash chooses. Eleven bits for each hash let about one of 150 others through.
const (
	filterBits   = 11
	filterHashes = 6
)

// filterBuilder gathers what a block has, in a table of hashes that is at most half full.
type filterBuilder struct {
	table []uint64 // 0: nothing
	n     int
}

func newFilterBuilder() *filterBuilder { return &filterBuilder{table: make([]uint64, 1<<13)} }

// insert says whether h is new.
func (f *filterBuilder) insert(h uint64) bool {
	for i := h & uint64(len(f.table)-1); ; i = (i + 1) & uint64(len(f.table)-1) {
		switch f.table[i] {
		case h:
			return false
		case 0:
			f.table[i] = h
			if f.n++; f.n > len(f.table)/2 {
				f.grow()
			}
			return true
		}
	}
}

func (f *filterBuilder) grow() {
	old := f.table
	f.table, f.n = make([]uint64, 2*len(old)), 0
	for _, h := range old {
		if h != 0 {
			f.insert(h)
		}
	}
}

func (f *filterBuilder) add(message []byte) {
	for i := 0; i < len(message); {
		if !tokenByte[message[i]] {
			i++
			continue
		}
		start := i
		for i++; i < len(message) && tokenByte[message[i]]; i++ {
		}
		// The grams of a token that was seen were seen too.
		if token := message[start:i]; f.insert(hashToken(token)) {
			f.addGrams(token)
		}
	}
}

func (f *filterBuilder) addGrams(token []byte) {
	run, gram := 0, uint32(0)
	for _, c := range token {
		if run++; !letter[c] {
			run = 0
		}
		if gram = gram>>8 | uint32(c)<<24; run >= 4 {
			f.insert(hashGram(gram))
		}
	}
}

// finish writes the filter and makes the builder empty.
func (f *filterBuilder) finish() []byte {
	groups := max(1, (f.n*filterBits+511)/512)
	out := make([]byte, groups*64)
	for _, h := range f.table {
		if h == 0 {
			continue
		}
		line := out[filterGroup(h, groups):][:64]
		for i := range filterHashes {
			bit := filterBit(h, i)
			line[bit>>3] |= 1 << (bit & 7)
		}
	}
	f.n = 0
	clear(f.table)
	return out
}

func filterGroup(h uint64, groups int) int {
	hi, _ := bits.Mul64(h, uint64(groups))
	return int(hi) * 64
}

func filterBit(h uint64, i int) uint { return uint(h*mixA>>(9*i)) & 511 }

// mayHave says whether a block with that filter may have all hashes.
func mayHave(filter []byte, hashes []uint64) bool {
	groups := len(filter) / 64
	for _, h := range hashes {
		line := filter[filterGroup(h, groups):][:64]
		for i := range filterHashes {
			if bit := filterBit(h, i); line[bit>>3]&(1<<(bit&7)) == 0 {
				return false
			}
		}
	}
	return true
}
