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
		request: sum(secret, with(nil, "oci-proxy peer request v"+version)),
		answer:  sum(secret, with(nil, "oci-proxy peer answer v"+version)),
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

// A message is a list of fields that is signed. Each field follows its length, so
// that no two lists read the same.
type message []byte

// with returns m with the fields at its end.
func with[T string | []byte](m message, fields ...T) message {
	for _, f := range fields {
		m = binary.BigEndian.AppendUint64(m, uint64(len(f)))
		m = append(m, f...)
	}
	return m
}

// sum is HMAC-SHA256.
func sum(key []byte, m message) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(m)
	return h.Sum(nil)
}
