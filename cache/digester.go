package cache

import (
	"crypto/sha512"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"github.com/opencontainers/go-digest"
)

// A digester reads a blob's bytes as they come. Its digest tells whether they are
// right now, its chunk sums whether they still are later.
type digester struct {
	digest digest.Digest
	n      int64 // bytes so far
	hash   hash.Hash
	sums   summer
	small  []byte // the content, while it is small
	size   int64  // how many bytes will come, as far as was told
	judged int64  // how many bytes there were at the last verdict
	found  error  // which was this
}

func newDigester(d digest.Digest) digester {
	return digester{digest: d, hash: d.Algorithm().Hash()}
}

// write takes the next bytes.
func (d *digester) write(p []byte) {
	_, _ = d.hash.Write(p) // a hash never fails
	d.sums.write(p)
	d.n += int64(len(p))
	if d.n <= smallSize && d.size <= smallSize {
		if d.small == nil && d.n < d.size {
			d.small = make([]byte, 0, d.size)
		}
		d.small = append(d.small, p...)
	} else {
		d.small = nil
	}
}

// verdict returns nil if the bytes so far are those that the digest names, or
// ErrDigest.
func (d *digester) verdict() error {
	if d.judged != d.n || d.n == 0 {
		d.judged, d.found = d.n, d.judge()
	}
	return d.found
}

// judge is verdict, found anew.
func (d *digester) judge() error {
	var sum [sha512.Size]byte
	var text [2 * sha512.Size]byte
	if got := hex.AppendEncode(text[:0], d.hash.Sum(sum[:0])); string(got) != d.digest.Encoded() {
		return fmt.Errorf("%w: want %s, got %s:%s", ErrDigest, d.digest, d.digest.Algorithm(), got)
	}
	return nil
}

// state returns the state of the hash, so that another digester can go on.
func (d *digester) state() ([]byte, error) {
	h, ok := d.hash.(encoding.BinaryMarshaler)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return h.MarshalBinary()
}

// restore takes over the state of a hash after n bytes. It reports false if
// this hash can't.
func (d *digester) restore(state []byte, n int64) (bool, error) {
	h, ok := d.hash.(encoding.BinaryUnmarshaler)
	if !ok {
		return false, nil
	}
	d.n = n
	return true, h.UnmarshalBinary(state)
}
