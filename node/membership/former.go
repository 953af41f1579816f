package membership

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"oci-proxy/ring"
)

// These bound the rings that are remembered and told.
const (
	formerRings  = 4        // in View.Former
	maxToldBytes = 64 << 10 // of all rings in a report; of more the oldest are left out
	maxHeldRings = 8        // that were heard of and are to be built
	// maxFormerMembers bounds the members of a former ring that is told or built: building one of
	// so many takes two seconds, of twice as many ten.
	maxFormerMembers = 1024
)

// A former is a ring that was replaced.
type former struct {
	ring  *ring.Ring
	stood time.Duration // how long it was in use
	end   time.Time     // when it is forgotten
}

// A formers keeps the rings of the last ten minutes: of this node, and those that others
// tell of. So a newcomer, and a node that restarted, know who owned what before.
//
// Rings are told with ages, since clocks differ. That a message takes time makes its
// ring look younger. So a later time counts only if it is far later, or a ring that goes
// round would never end.
//
// What is heard of is built in the background (formerbuild.go), and kept on disk
// (formerfile.go).
type formers struct {
	work chan struct{} // holds one if something was heard of

	mu     sync.Mutex // guards the fields below; never held during I/O
	now    *ring.Ring // in use
	since  time.Time  // when now came into use
	all    []former   // those that end last first; not now
	heard  []heardRing
	busy   chan struct{} // closed when all of heard is built; nil if there is nothing
	failed []heardRing   // that could not be built, the oldest first
}

func newFormers() *formers { return &formers{work: make(chan struct{}, 1)} }

// use notes that r is in use from now on, and forgets rings whose time has come.
func (f *formers) use(r *ring.Ring, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, stood := f.now, now.Sub(f.since)
	if old != r {
		f.now, f.since = r, now
	}
	if old != nil && old.Hash() != r.Hash() {
		f.add(former{old, stood, now.Add(formerFor)})
	}
	f.all = slices.DeleteFunc(f.all, func(p former) bool { return !now.Before(p.end) || p.ring.Hash() == r.Hash() })
}

// add is called with f.mu held. Of too many rings, those go first that stood for a
// moment only, then those that end first.
func (f *formers) add(one former) {
	f.all = slices.DeleteFunc(f.all, func(p former) bool {
		if p.ring.Hash() != one.ring.Hash() {
			return false
		}
		one.stood, one.end = max(one.stood, p.stood), later(one.end, p.end)
		return true
	})
	f.all = append(f.all, one)
	slices.SortStableFunc(f.all, func(a, b former) int { return b.end.Compare(a.end) })
	for len(f.all) > formerRings {
		i := len(f.all) - 1
		for i > 0 && f.all[i].stood >= stoodFor {
			i--
		}
		if f.all[i].stood >= stoodFor {
			i = len(f.all) - 1
		}
		f.all = slices.Delete(f.all, i, i+1)
	}
}

// list returns the rings for a View, and when the first of them is forgotten.
func (f *formers) list(now time.Time) (rings []*ring.Ring, next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = now.Add(formerFor)
	for _, p := range f.all {
		rings, next = append(rings, p.ring), earlier(next, p.end)
	}
	return rings, next
}

// tell returns what this node tells of rings: of the former ones that stood for a while,
// and of the one in use, which is another's former ring as soon as that one has joined.
// It is nil if the members have been the same for long, unless another node joins.
func (f *formers) tell(joining bool, now time.Time) *toldRings {
	f.mu.Lock()
	var all []former
	if f.now != nil && now.Sub(f.since) >= stoodFor && (joining || len(f.all) > 0) {
		all = append(all, former{f.now, 0, now.Add(formerFor)})
	}
	for _, p := range f.all {
		if p.stood >= stoodFor {
			all = append(all, p)
		}
	}
	f.mu.Unlock()
	all = slices.DeleteFunc(all, func(p former) bool { return len(p.ring.Members()) > maxFormerMembers })
	for ; len(all) > 0; all = all[:len(all)-1] {
		if t := encodeRings(all, now); t != nil && t.bytes() <= maxToldBytes {
			return t
		}
	}
	return nil
}

// toldRings are rings as nodes tell each other. Most have the same members, so each member
// travels once.
type toldRings struct {
	Members string     `json:"m"` // a record of recordSize bytes for each
	Rings   []toldRing `json:"r"`
}

// A toldRing is one of them.
type toldRing struct {
	Hash string `json:"h"`
	Ago  int64  `json:"o"` // ms since it was replaced
	In   string `json:"i"` // a bit for each of the members, the lowest first
}

// recordSize is the size of a member's record: its id, its weight and its size.
const recordSize = idSize + 1 + 4

func (t *toldRings) bytes() int {
	n := len(t.Members)
	for _, r := range t.Rings {
		n += len(r.In) + 64
	}
	return n
}

// encodeRings encodes the rings. It returns nil if that is not possible.
func encodeRings(all []former, now time.Time) *toldRings {
	var records []byte
	places := map[ring.Member]int{}
	t := new(toldRings)
	for _, p := range all {
		var in []byte
		for _, m := range p.ring.Members() {
			at, known := places[m]
			if !known {
				id, err := hex.DecodeString(m.ID)
				if err != nil || len(id) != idSize {
					return nil
				}
				at = len(places)
				places[m] = at
				records = binary.BigEndian.AppendUint32(append(append(records, id...), byte(m.Weight)), uint32(m.Size))
			}
			for len(in) <= at/8 {
				in = append(in, 0)
			}
			in[at/8] |= 1 << (at % 8)
		}
		ago := max(now.Add(formerFor).Sub(p.end), 0)
		t.Rings = append(t.Rings, toldRing{fmt.Sprintf("%016x", p.ring.Hash()), ago.Milliseconds(), base64s.EncodeToString(in)})
	}
	t.Members = base64s.EncodeToString(records)
	return t
}

// decode returns the rings that make sense. What does not is left out: another version
// may understand it.
func (t *toldRings) decode(now time.Time) (all []heardRing) {
	records, err := base64s.DecodeString(t.Members)
	if err != nil || len(t.Members) > maxToldBytes {
		return nil
	}
	var members []ring.Member
	for r := range slices.Chunk(records, recordSize) {
		if len(r) < recordSize {
			return nil
		}
		members = append(members, ring.Member{
			ID: hex.EncodeToString(r[:idSize]), Weight: int(r[idSize]), Size: int(binary.BigEndian.Uint32(r[idSize+1:])),
		})
	}
	for _, r := range t.Rings[:min(len(t.Rings), formerRings+1)] {
		hash, err := strconv.ParseUint(r.Hash, 16, 64)
		in, bad := base64s.DecodeString(r.In)
		ago := time.Duration(r.Ago) * time.Millisecond
		if err != nil || bad != nil || r.Ago < 0 || r.Ago >= formerFor.Milliseconds() {
			continue
		}
		one := heardRing{hash: hash, end: now.Add(formerFor - ago)}
		for i, m := range members {
			if i/8 < len(in) && in[i/8]&(1<<(i%8)) != 0 {
				one.members = append(one.members, m)
			}
		}
		if len(one.members) > maxFormerMembers {
			continue
		}
		all = append(all, one)
	}
	return all
}
