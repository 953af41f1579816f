package cache

import (
	"crypto/sha512"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// FuzzName takes what go-digest takes for a digest of one of our two algorithms, and nothing
// else, and puts it together again.
func FuzzName(f *testing.F) {
	long := digest.NewDigestFromBytes(digest.SHA512, make([]byte, sha512.Size))
	short := digest.FromString("x")
	for _, s := range []string{
		"", ":", "sha256:", "sha256", short.String(), long.String(), strings.ToUpper(short.String()), short.String()[:70], short.String() + "a",
		"sha512:" + short.Encoded(), "sha256:" + long.Encoded(), "sha384:" + strings.Repeat("a", 96), "sha256:" + strings.Repeat("g", 64),
		"sha256:" + strings.Repeat("/", 64), "sha256:" + strings.Repeat(":", 64), "sha256+b:" + short.Encoded(), short.String()[:70] + "\x80",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := digest.Digest(s)
		n, err := nameOf(d)
		valid := d.Validate() == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
		if (err == nil) != valid {
			t.Fatalf("%q: %v; valid: %v", s, err, valid)
		}
		if err != nil {
			return
		}
		if n.digest() != d {
			t.Fatalf("%q became %q", d, n.digest())
		}
		if want := "blobs/" + d.Algorithm().String() + "/" + d.Encoded()[:2] + "/" + d.Encoded(); n.path() != want {
			t.Fatalf("%q lies at %q", d, n.path())
		}
	})
}
