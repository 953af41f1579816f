package membership

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
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

// Rekey replaces the secrets: the first is used from now on, all are accepted.
// A node that does not know the first yet can't hear this one, and takes it
// for dead if that lasts for more than a few seconds. So a slow roll-out goes
// [old], [old, new], [new, old], [new]. After an error the secrets are as
// before. What was started without a secret stays so.
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
	defer m.rekeying.Unlock()
	if err := install(m.keys, derive(secrets, forGossip)); err != nil {
		return fmt.Errorf("changing the secrets: %w", err)
	}
	m.log.Info("gossip has new secrets", "accepted", len(secrets))
	return nil
}

// install makes the ring hold the keys, the first of them in use. RemoveKey
// changes the slice that readers of packets walk through, unless the key is
// the last one: so the keys that stay are moved before those that go.
func install(ring *memberlist.Keyring, keys [][]byte) error {
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
		return ring.UseKey(keys[0])
	}
	for _, key := range slices.Backward(keys) {
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
