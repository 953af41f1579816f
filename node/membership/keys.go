package membership

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// minSecret is the least length of a secret, in bytes.
const minSecret = 16

// The purposes of the keys derived from a secret. A key for one purpose is
// useless for the others.
const (
	forGossip = "oci-proxy gossip 1"
	forPeers  = "oci-proxy peers 1"
	forSketch = "oci-proxy sketch 1"
)

var errSecret = errors.New("bad cluster secret")

// defaultCluster is the id of a cluster that sets none. Its keys and its label are
// those of the versions before clusters had ids, so such nodes are its members.
const defaultCluster = "oci-proxy"

// salt returns the salt of the keys of a cluster (RFC 5869 section 3.1). Two
// clusters with one secret have different keys.
func salt(cluster string) []byte {
	if cluster == defaultCluster {
		return nil
	}
	return []byte("oci-proxy cluster " + cluster)
}

// PeerKeys derives the keys, of 32 bytes, that sign requests between the nodes of
// the cluster with that id: the first one signs, all are accepted. They reveal
// nothing about the keys of gossip. Without secrets there is one key, which everybody
// knows.
func PeerKeys(cluster string, secrets []string) [][]byte {
	if len(secrets) == 0 {
		secrets = []string{""}
	}
	return derive(cluster, secrets, forPeers)
}

func derive(cluster string, secrets []string, purpose string) [][]byte {
	var keys [][]byte
	for _, s := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(s), salt(cluster), purpose, 32)
		if err != nil {
			panic("membership: " + err.Error()) // only for keys longer than 8,160 bytes
		}
		keys = append(keys, key)
	}
	return keys
}

func checkSecrets(secrets []string) error {
	for i, s := range secrets {
		if len(s) < minSecret {
			return fmt.Errorf("%w: number %d has %d bytes; it needs at least %d", errSecret, i+1, len(s), minSecret)
		}
	}
	return nil
}

// maxSketch is the number of secrets that a node tells the others about.
const maxSketch = 4

// sketchSize is the number of bytes that stand for a secret.
const sketchSize = 3

// sketch returns what a node tells of its secrets: a few bytes for each, which
// only a node that knows the secret can compare.
func sketch(secrets []string) (all []byte) {
	for _, key := range derive(defaultCluster, secrets[:min(len(secrets), maxSketch)], forSketch) {
		all = append(all, key[:sketchSize]...)
	}
	return all
}

// A Sketch stands for a secret: making one takes microseconds, comparing it none.
type Sketch []byte

// Sketches returns the sketch of each of the secrets.
func Sketches(secrets []string) (all []Sketch) {
	for _, s := range secrets {
		all = append(all, sketch([]string{s}))
	}
	return all
}

// Accepts reports whether the member knows the secret that the sketch stands for, among
// the first four of its list.
func (m *Member) Accepts(secret Sketch) bool { return m.accepts(secret) }

func (m *Member) accepts(one []byte) bool {
	for s := range slices.Chunk(m.keys, sketchSize) {
		if bytes.Equal(s, one) {
			return true
		}
	}
	return false
}

// gossipKeys are the keys of gossip. All secrets are accepted. The first one that
// every other live member accepts is used: a node that used a secret which
// another one does not know would look dead to it.
type gossipKeys struct {
	cluster string              // its id
	ring    *memberlist.Keyring // nil: gossip is not encrypted

	mu      sync.Mutex // guards the fields below; never held during I/O
	secrets []string
	tried   int // secrets tried while alone
}

// newGossipKeys makes the keys of the secrets. Without secrets gossip is not
// encrypted: memberlist then refuses what is.
func newGossipKeys(cluster string, secrets []string) (*gossipKeys, error) {
	k := &gossipKeys{cluster: cluster, secrets: slices.Clone(secrets)}
	if err := checkSecrets(secrets); err != nil || len(secrets) == 0 {
		return k, err
	}
	keys := derive(cluster, secrets, forGossip)
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSecret, err)
	}
	k.ring = ring
	return k, nil
}

// encrypted reports whether gossip is encrypted.
func (k *gossipKeys) encrypted() bool { return k.ring != nil }

// replace replaces the secrets. others are the other live members.
func (k *gossipKeys) replace(secrets []string, others []*Member) error {
	if err := checkSecrets(secrets); err != nil {
		return err
	}
	if k.encrypted() == (len(secrets) == 0) {
		return fmt.Errorf("%w: gossip can't become encrypted or plain while it runs; restart the node", errSecret)
	}
	if !k.encrypted() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := install(k.ring, derive(k.cluster, secrets, forGossip), max(agreed(secrets, others), 0)); err != nil {
		return fmt.Errorf("changing the secrets: %w", err)
	}
	k.secrets = slices.Clone(secrets)
	return nil
}

// agreed returns the index of the first secret that all others accept, or -1.
func agreed(secrets []string, others []*Member) int {
	for i, one := range slices.Collect(slices.Chunk(sketch(secrets), sketchSize)) {
		if !slices.ContainsFunc(others, func(o *Member) bool { return !o.accepts(one) }) {
			return i
		}
	}
	return -1
}

// sketch returns what this node tells of its secrets.
func (k *gossipKeys) sketch() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return sketch(k.secrets)
}

// settle uses the secret that all others accept, if there is one. It returns its
// number, or 0 if it was in use before.
func (k *gossipKeys) settle(others []*Member) (number int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.secrets) < 2 {
		return 0, nil
	}
	if i := agreed(k.secrets, others); i >= 0 {
		return k.use(i)
	}
	return 0, nil
}

// tryNext is for a node that finds nobody: the others may not accept the secret
// that it uses. It returns what settle returns.
func (k *gossipKeys) tryNext() (number int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.secrets) < 2 {
		return 0, nil
	}
	k.tried++
	return k.use(k.tried % len(k.secrets))
}

// use is called with k.mu held.
func (k *gossipKeys) use(i int) (number int, err error) {
	key := derive(k.cluster, k.secrets[i:i+1], forGossip)[0]
	if bytes.Equal(k.ring.GetPrimaryKey(), key) {
		return 0, nil
	}
	return i + 1, k.ring.UseKey(key)
}

// install makes the keyring hold exactly the keys, and use one of them. RemoveKey
// changes the slice that readers of packets walk through, unless the key is the
// last one. So the keys that stay are moved before those that go.
func install(ring *memberlist.Keyring, keys [][]byte, use int) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	keep := func(key []byte) bool {
		return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
	}
	old := slices.Clone(ring.GetKeys())
	if !slices.ContainsFunc(old, func(k []byte) bool { return !keep(k) }) {
		return ring.UseKey(keys[use])
	}
	for _, key := range append(slices.Clone(keys), keys[use]) {
		if err := ring.UseKey(key); err != nil {
			return err
		}
	}
	for _, key := range slices.Backward(slices.Clone(ring.GetKeys())) {
		if !keep(key) {
			if err := ring.RemoveKey(key); err != nil {
				return err
			}
		}
	}
	return nil
}
