package cache

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A key is the first 32 bytes of a digest. No two blobs have the same key: a sha512
// cut to 256 bits is as hard to collide with as a sha256. But anybody can make up a
// digest with the key of another, so a key alone does not name a blob.
type key [32]byte

// A name is a digest taken apart. It is only made from a valid digest, so
// that a path built from it can't lead elsewhere.
type name struct {
	key  key
	long bool // sha512: rest holds the digest's second half
	rest [32]byte
}

// nameOf takes d apart. Only sha256 and sha512 are known. It is called several times for each
// request, so go-digest's expressions are left to what is wrong.
func nameOf(d digest.Digest) (name, error) {
	var n name
	text, short := strings.CutPrefix(string(d), "sha256:")
	if short && len(text) == 64 && unhex(n.key[:], text) {
		return n, nil
	}
	text, n.long = strings.CutPrefix(string(d), "sha512:")
	if n.long && len(text) == 128 && unhex(n.key[:], text[:64]) && unhex(n.rest[:], text[64:]) {
		return n, nil
	}
	err := d.Validate()
	if err == nil {
		err = digest.ErrDigestUnsupported
	}
	return name{}, fmt.Errorf("digest %q: %w", d, err)
}

// digest puts the name together again.
func (n name) digest() digest.Digest {
	if n.long {
		return digest.NewDigestFromEncoded(digest.SHA512, fmt.Sprintf("%x%x", n.key[:], n.rest[:]))
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(n.key[:]))
}

// path is the blob's file below the cache directory.
func (n name) path() string {
	d := n.digest()
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()[:2] + "/" + d.Encoded()
}

// unhex decodes s, which has two digits for each byte of dst. It reports false if one is none: in a digest they are in lower case.
func unhex(dst []byte, s string) bool {
	for i := range dst {
		hi, lo := nibbles[s[2*i]], nibbles[s[2*i+1]]
		if hi|lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

// nibbles are the values of hexadecimal digits in lower case, 255 for all other characters.
var nibbles = func() (all [256]byte) {
	for i := range all {
		all[i] = 255
	}
	for i, c := range []byte("0123456789abcdef") {
		all[c] = byte(i)
	}
	return all
}()
