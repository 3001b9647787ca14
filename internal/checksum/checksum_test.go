package checksum

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// Check values of "123456789", from the catalogue of parametrised CRC algorithms and the SDKs' tests.
func TestValues(t *testing.T) {
	t.Parallel()
	for algorithm, want := range map[string]string{
		"CRC32": "y/Q5Jg==", "CRC32C": "4waSgw==", "CRC64NVME": "rosUhgp5mIg=",
		"SHA1": "98O8HYCOBHMq32eZZczDTKeuNEE=", "SHA256": "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=", "MD5": "JfnnlDI7RTiF9RgfG2JNCw==",
	} {
		h := New(algorithm)
		io.WriteString(h, "123456789")
		if got := Text(h); got != want {
			t.Errorf("%s: %s, want %s", algorithm, got, want)
		}
	}
}

type trailed struct {
	io.Reader
	names  []string
	values map[string]string
}

func (t trailed) Announced() []string        { return t.names }
func (t trailed) Trailer(name string) string { return t.values[strings.ToLower(name)] }

func TestReader(t *testing.T) {
	t.Parallel()
	body := func(trailer string) io.Reader {
		return trailed{strings.NewReader("123456789"), []string{"x-amz-checksum-crc32"}, map[string]string{"x-amz-checksum-crc32": trailer}}
	}
	for name, c := range map[string]struct {
		r        io.Reader
		promised map[string]string
		bad      bool
	}{
		"nothing promised":    {r: strings.NewReader("123456789")},
		"promised":            {r: strings.NewReader("123456789"), promised: map[string]string{"CRC32": "y/Q5Jg=="}},
		"promise not kept":    {r: strings.NewReader("123456780"), promised: map[string]string{"CRC32": "y/Q5Jg=="}, bad: true},
		"promised at the end": {r: body("y/Q5Jg==")},
		"not kept at the end": {r: body("AAAAAA=="), bad: true},
	} {
		c2, err := NewReader(c.r, c.promised, "SHA1")
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]string
		c2.AtEnd = func(v map[string]string) { values = v }
		b, err := io.ReadAll(c2)
		if mismatch := (*Mismatch)(nil); len(b) != 9 || errors.As(err, &mismatch) != c.bad || !c.bad && values["SHA1"] == "" {
			t.Errorf("%s: %q, %v, %v", name, b, err, values)
		}
	}
	if _, err := NewReader(strings.NewReader(""), map[string]string{"XXHASH3": "x"}); err == nil {
		t.Error("an algorithm that is not known is computed")
	}
}
