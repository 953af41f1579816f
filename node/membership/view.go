package membership

import (
	"slices"
	"sort"
	"strings"
	"time"

	"oci-proxy/ring"
)

// A View is what this node knows of the members at one moment. It is
// immutable.
type View struct {
	// Self is this node, as it describes itself to the others.
	Self Member
	// Ring says who owns what. In it are active and restarting members, and those
	// that are down but keep their place.
	Ring *ring.Ring
	// Members lists all members by ID: self, draining members, and those that are
	// down but keep their place.
	Members []Member
	// Former lists the rings before this one, the latest first: at most 4, and
	// none that was replaced more than 10 minutes ago. Others tell of those that
	// this node has not seen.
	Former []*ring.Ring

	next chan struct{} // closed when there is a newer View
}

// Member returns the member with that id. It belongs to the View: don't change it.
func (v *View) Member(id string) (*Member, bool) {
	i, ok := find(v.Members, id)
	if !ok {
		return nil, false
	}
	return &v.Members[i], true
}

// find returns where the member with that id is among members that are listed by ID.
func find(members []Member, id string) (i int, ok bool) {
	return sort.Find(len(members), func(i int) int { return strings.Compare(id, members[i].ID) })
}

// A Member is one node of the mesh, as another sees it.
type Member struct {
	ID           string // never changes: 32 hexadecimal digits
	Name         string // for people; need not be unique
	Epoch        uint64 // grows with each start of the node
	Gossip       string // host:port of gossip
	Peer         string // host:port of its peer listener
	Zone         string
	Version      string
	Weight       int  // ring units
	Size         int  // of its cache, see ring.Size; 0: its version tells none
	Egress       bool // it may ask upstream
	Relays       bool // it knows how nodes ask registries for each other; earlier versions do not
	Hears        bool // it keeps what others tell of their blobs; earlier versions do not
	Certificates bool // it keeps certificates for the clients' port: `tls.acme` is set there
	Whitelist    bool // it asks only its own registries
	State        State
	Up           bool      // it is alive and takes new requests; this node itself is always up
	Since        time.Time // when it was first seen alive in this epoch, or lost
	Nonce        []byte    // 16 bytes, new at each start
	Fingerprint  [32]byte  // SHA-256 of its peer listener's certificate; zero: plain HTTP

	registries []byte // see pack
	keys       []byte // see sketch
	any        bool   // it is configured for more registries than it lists
	anySecret  bool   // and some of those are private
	void       bool   // this start takes another id
	alive      bool
	meta       string // what it said of itself, encoded
}

// Has reports whether the member is configured for the registry (its canonical
// host), has a login there, and treats its content as private. A member with too
// many registries to list counts as configured for any; if it could not even list
// all private ones, any may be private.
func (m *Member) Has(registry string) (isConfigured, hasLogin, isPrivate bool) {
	if flags, named := m.named(registry); named {
		return flags&configured != 0, flags&login != 0, flags&private != 0
	}
	return m.any, false, m.anySecret
}

// Names reports whether the member lists this very registry as configured, and
// does not merely count as configured for any.
func (m *Member) Names(registry string) bool {
	flags, named := m.named(registry)
	return named && flags&configured != 0
}

// named returns what the member says of a registry, if it lists it.
func (m *Member) named(registry string) (flags byte, named bool) {
	p := prefix(registry)
	for e := range slices.Chunk(m.registries, entrySize) {
		if [3]byte(e[:3]) == p {
			return e[3], true
		}
	}
	return 0, false
}

// Alive reports whether the member can be reached, whatever its state: a restarting
// or draining one still serves what it has.
func (m *Member) Alive() bool { return m.alive }

// Living returns the member as one that is up, for tests.
func Living(m Member) Member {
	m.Up, m.alive = true, true
	return m
}

// same reports whether o shows nothing new to the rest of the program.
func (m *Member) same(o *Member) bool {
	return m.meta == o.meta && m.Gossip == o.Gossip && m.Up == o.Up && m.alive == o.alive && m.Since.Equal(o.Since)
}

// A State is what a member says of itself.
type State int

// The states.
const (
	Active     State = iota // it serves
	Restarting              // it stops for a moment and keeps its place in the ring
	Draining                // it leaves for good: out of the ring, but a source while it lives
)

// String returns the state in a word.
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
