package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
)

// A key signs requests and answers. It is made from one of the cluster's secrets.
type key struct{ request, answer []byte }

// newKey makes the key of a secret. Gossip is encrypted with the same secret:
// each use has a key of its own.
func newKey(secret []byte) key {
	return key{
		request: sum(secret, []byte("oci-proxy peer request v"+version)),
		answer:  sum(secret, []byte("oci-proxy peer answer v"+version)),
	}
}

// keys are those of the cluster's secrets by now.
type keys struct{ p atomic.Pointer[[]key] }

// set takes the secrets: the first signs, all are accepted. It leaves out empty
// ones, which anybody would know.
func (k *keys) set(secrets [][]byte) {
	var out []key
	for _, s := range secrets {
		if len(s) > 0 {
			out = append(out, newKey(s))
		}
	}
	k.p.Store(&out)
}

// all returns the keys, the signing one first.
func (k *keys) all() []key {
	if p := k.p.Load(); p != nil {
		return *p
	}
	return nil
}

// sum is HMAC-SHA256 over the fields. Each follows its length, so that no two
// lists of fields read the same.
func sum(key []byte, fields ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, f := range fields {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write(f)
	}
	return h.Sum(nil)
}
