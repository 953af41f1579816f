package membership

import (
	"slices"
	"strings"
	"time"

	"oci-proxy/ring"
)

// A View is what this node knows of the members at one moment. It is
// immutable.
type View struct {
	// Self is this node, as the others are told of it.
	Self Member
	// Ring is who owns what: active and restarting members, and those that are
	// down but keep their place.
	Ring *ring.Ring
	// Members are all of them, by ID: self, those that are down and keep their
	// place, and draining ones too.
	Members []Member
	// Former are the rings before, the latest first: at most 4, and none that
	// was replaced more than 10 minutes ago.
	Former []*ring.Ring

	next chan struct{} // closed when there is a newer one
}

// Member returns the member of that id. It belongs to the View: don't change
// it.
func (v *View) Member(id string) (*Member, bool) {
	i, ok := slices.BinarySearchFunc(v.Members, id, func(m Member, id string) int { return strings.Compare(m.ID, id) })
	if !ok {
		return nil, false
	}
	return &v.Members[i], true
}

// A Member is one node of the mesh, as another sees it.
type Member struct {
	ID          string // its own for good: 32 hexadecimal digits
	Name        string // what people call it; need not be unique
	Epoch       uint64 // grows with each start of the node
	Gossip      string // host:port of gossip
	Peer        string // host:port of blobs between nodes
	Zone        string
	Version     string
	Weight      int  // ring units
	Egress      bool // it may ask upstream
	Whitelist   bool // only its own registries may be asked
	State       State
	Up          bool      // it lives and takes new requests; this node itself is always up
	Since       time.Time // when it was first seen alive in this epoch, or lost
	Nonce       []byte    // 16 bytes, new at each start
	Fingerprint [32]byte  // SHA-256 of its peer listener's certificate; zero: it speaks plain HTTP

	registries []byte // see pack
	keys       []byte // see sketch
	any        bool   // it is configured for more registries than these
	anySecret  bool   // and some of those are private
	alive      bool
	meta       string // all of the above that it told
}

// Has tells whether the member is configured for the registry (its canonical
// host), has a login there, and treats its content as private. One with too
// many registries to tell counts as configured for any; if it could not even
// tell all private ones, any may be private.
func (m *Member) Has(registry string) (isConfigured, hasLogin, isPrivate bool) {
	if flags, named := m.named(registry); named {
		return flags&configured != 0, flags&login != 0, flags&private != 0
	}
	return m.any, false, m.anySecret
}

// Names reports whether the member tells that it is configured for this very
// registry, and does not merely count as configured for any.
func (m *Member) Names(registry string) bool {
	flags, named := m.named(registry)
	return named && flags&configured != 0
}

// named returns what the member tells of a registry, if it tells of it.
func (m *Member) named(registry string) (flags byte, named bool) {
	p := prefix(registry)
	for e := range slices.Chunk(m.registries, entrySize) {
		if [3]byte(e[:3]) == p {
			return e[3], true
		}
	}
	return 0, false
}

// Alive reports whether the member can be reached, whatever its state: one that
// is restarting or draining still gives what it has.
func (m *Member) Alive() bool { return m.alive }

// same: nothing of what others see has changed.
func (m *Member) same(o *Member) bool {
	return m.meta == o.meta && m.Gossip == o.Gossip && m.Up == o.Up && m.alive == o.alive && m.Since.Equal(o.Since)
}

// A State is what a member says of itself.
type State int

// The states.
const (
	Active     State = iota // it serves
	Restarting              // it stops for a moment and keeps its place in the ring
	Draining                // it leaves for good: out of the ring, but a source as long as it lives
)

// String is the state in a word.
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Restarting:
		return "restarting"
	case Draining:
		return "draining"
	}
	return "unknown"
}
