package cache

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A key is the first 32 bytes of a digest. No two blobs have the same key: a sha512
// cut to 256 bits is as hard to collide with as a sha256. But anybody can make up a
// digest with the key of another, so a key alone does not name a blob.
type key [32]byte

// prefix is what a table finds a key by, which saves memory. Only one blob of those with a
// prefix is in a shard. To make up one that another blob's prefix has takes 2^64 tries; whoever makes up two of
// one prefix, in 2^32 tries, has one of them cached.
func (k key) prefix() uint64 { return binary.BigEndian.Uint64(k[:]) }

// A name is a digest taken apart. It is only made from a valid digest, so
// that a path built from it can't lead elsewhere.
type name struct {
	key  key
	long bool // sha512: rest holds the digest's second half
	rest [32]byte
}

// nameOf takes d apart. Only sha256 and sha512 are known.
func nameOf(d digest.Digest) (n name, err error) {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	switch {
	case algorithm == "sha256" && unhex(n.key[:], encoded):
		return n, nil
	case algorithm == "sha512" && len(encoded) == 128 && unhex(n.key[:], encoded[:64]) && unhex(n.rest[:], encoded[64:]):
		n.long = true
		return n, nil
	}
	if err = d.Validate(); err == nil {
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
	b := make([]byte, 0, len("blobs/sha512/xx/")+128)
	b = append(b, "blobs/sha256/"...)
	if n.long {
		b = append(b[:0], "blobs/sha512/"...)
	}
	b = append(hex.AppendEncode(b, n.key[:1]), '/')
	b = hex.AppendEncode(b, n.key[:])
	if n.long {
		b = hex.AppendEncode(b, n.rest[:])
	}
	return string(b)
}

// unhex decodes s into all of dst, and reports whether s is lower case hexadecimal of that
// length.
func unhex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range dst {
		high, low := nibble(s[2*i]), nibble(s[2*i+1])
		if high|low > 15 {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

// nibble is the value of a lower case hexadecimal digit, more than 15 for what is none.
func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
