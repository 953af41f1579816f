package membership

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hashicorp/memberlist"
)

// minSecret is the least length of a secret, in bytes.
const minSecret = 16

// What the keys made of one secret are for: nothing signed by one is believed
// by the other.
const (
	forGossip = "oci-proxy gossip 1"
	forPeers  = "oci-proxy peers 1"
	forSketch = "oci-proxy sketch 1"
)

var errSecret = errors.New("bad secret")

// PeerKeys are the keys, of 32 bytes, that sign requests between nodes: the
// first signs, all are accepted. They tell nothing of gossip's keys. Without
// secrets there is one, which everybody knows.
func PeerKeys(secrets []string) [][]byte {
	if len(secrets) == 0 {
		secrets = []string{""}
	}
	return derive(secrets, forPeers)
}

func derive(secrets []string, purpose string) [][]byte {
	var keys [][]byte
	for _, s := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(s), nil, purpose, 32)
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

// newKeyring is nil without secrets: memberlist then neither encrypts nor
// takes what is encrypted.
func newKeyring(secrets []string) (*memberlist.Keyring, error) {
	if err := checkSecrets(secrets); err != nil || len(secrets) == 0 {
		return nil, err
	}
	keys := derive(secrets, forGossip)
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSecret, err)
	}
	return ring, nil
}

// Rekey replaces the secrets: all are accepted, and the first is used as soon
// as every other member accepts it too. So two steps at any pace, [new, old]
// everywhere and then [new], keep the mesh together; they may be restarts as
// well. After an error the secrets are as before. What was started without a
// secret stays so.
func (m *Membership) Rekey(secrets []string) error {
	if err := checkSecrets(secrets); err != nil {
		return err
	}
	if (m.keys == nil) != (len(secrets) == 0) {
		return fmt.Errorf("%w: whether gossip is encrypted is settled at the start", errSecret)
	}
	if m.keys == nil {
		return nil
	}
	m.rekeying.Lock()
	m.secrets = slices.Clone(secrets)
	use := max(m.agreed(m.View().Members), 0)
	err := install(m.keys, derive(secrets, forGossip), use)
	m.rekeying.Unlock()
	if err != nil {
		return fmt.Errorf("changing the secrets: %w", err)
	}
	m.log.Info("gossip has new secrets", "accepted", len(secrets))
	go m.announceOrWarn(func(self *Member) { self.keys = sketch(secrets) })
	return nil
}

// maxSketch is how many of its secrets a node tells others of.
const maxSketch = 4

// sketchSize is the bytes that stand for a secret among those who know it.
const sketchSize = 3

// sketch stands for the secrets in what a node tells of itself.
func sketch(secrets []string) (all []byte) {
	for _, key := range derive(secrets[:min(len(secrets), maxSketch)], forSketch) {
		all = append(all, key[:sketchSize]...)
	}
	return all
}

// Accepts tells whether the member knows the secret, at the first places of
// its list at least.
func (m *Member) Accepts(secret string) bool { return m.accepts(sketch([]string{secret})) }

func (m *Member) accepts(one []byte) bool {
	for s := range slices.Chunk(m.keys, sketchSize) {
		if bytes.Equal(s, one) {
			return true
		}
	}
	return false
}

// agreed is the first of the secrets that all others who live accept; -1 if
// there is none. It is called with m.rekeying held.
func (m *Membership) agreed(members []Member) int {
	for i, one := range slices.Collect(slices.Chunk(sketch(m.secrets), sketchSize)) {
		if !slices.ContainsFunc(members, func(o Member) bool {
			return o.alive && o.ID != m.roster.self && !o.accepts(one)
		}) {
			return i
		}
	}
	return -1
}

// settle uses the agreed secret: where a node used one that another does not
// know yet, that one would take it for dead. Of a node alone, see
// tryNextSecret.
func (m *Membership) settle(members []Member) {
	m.rekeying.Lock()
	defer m.rekeying.Unlock()
	if len(m.secrets) < 2 || len(members) < 2 {
		return
	}
	if i := m.agreed(members); i >= 0 {
		m.use(i)
	}
}

// tryNextSecret is for a node that finds nobody: the others may not accept
// the one that it uses.
func (m *Membership) tryNextSecret() {
	m.rekeying.Lock()
	defer m.rekeying.Unlock()
	if len(m.secrets) > 1 {
		m.tried++
		m.use(m.tried % len(m.secrets))
	}
}

// use is called with m.rekeying held.
func (m *Membership) use(i int) {
	key := derive(m.secrets[i:i+1], forGossip)[0]
	if bytes.Equal(m.keys.GetPrimaryKey(), key) {
		return
	}
	if err := m.keys.UseKey(key); err != nil {
		m.log.Error("gossip keeps its secret", "error", err)
		return
	}
	m.murmur.tell(slog.LevelDebug, "gossip uses another of its secrets", "number", i+1)
}

// install makes the ring hold the keys, and use one of them. RemoveKey
// changes the slice that readers of packets walk through, unless the key is
// the last one: so the keys that stay are moved before those that go.
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
