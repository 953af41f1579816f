package cache

import (
	"encoding/hex"
	"fmt"

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

// nameOf takes d apart. Only sha256 and sha512 are known.
func nameOf(d digest.Digest) (name, error) {
	var n name
	if err := d.Validate(); err != nil {
		return n, fmt.Errorf("digest %q: %w", d, err)
	}
	switch d.Algorithm() {
	case digest.SHA256:
		unhex(n.key[:], d.Encoded())
	case digest.SHA512:
		n.long = true
		unhex(n.key[:], d.Encoded()[:64])
		unhex(n.rest[:], d.Encoded()[64:])
	default:
		return n, fmt.Errorf("digest %q: %w", d, digest.ErrDigestUnsupported)
	}
	return n, nil
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

// unhex decodes s, which is known to be hexadecimal, into dst.
func unhex(dst []byte, s string) {
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		panic("validated digest is no hex: " + err.Error())
	}
}
