package mesh

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

const (
	// suspectFor is how long nodes are not asked for a blob that came out wrong.
	suspectFor = time.Minute
	// maxSuspects bounds the blobs that are remembered.
	maxSuspects = 4096
)

// suspects remember, for each blob that came out wrong, the nodes that took part in
// its download. If several sources had a part in it, nobody can say which one lied; it
// may have been the registry. So no node is blamed, but the same mixture must not come
// together again and again.
type suspects struct {
	mu    sync.Mutex // guards the fields below; never held during I/O
	cases *simplelru.LRU[oci.Content, suspicion]
}

// A suspicion is about one blob.
type suspicion struct {
	ids   []string // of the nodes
	until time.Time
}

// newSuspects returns an empty list.
func newSuspects() *suspects {
	cases, _ := simplelru.NewLRU[oci.Content, suspicion](maxSuspects, nil) // the size is right
	return &suspects{cases: cases}
}

// add notes that peers took part in a download of the blob that came out wrong.
func (s *suspects) add(c oci.Content, peers []Peer) {
	if len(peers) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.cases.Get(c)
	if !known || time.Now().After(one.until) {
		one.ids = nil
	}
	ids := slices.Clone(one.ids)
	for _, p := range peers {
		if !slices.Contains(ids, p.ID()) {
			ids = append(ids, p.ID())
		}
	}
	s.cases.Add(c, suspicion{ids, time.Now().Add(suspectFor)})
}

// has reports whether p is not to be asked for the blob.
func (s *suspects) has(c oci.Content, p Peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.cases.Get(c)
	return ok && p != nil && time.Now().Before(one.until) && slices.Contains(one.ids, p.ID())
}

// Suspect notes that peers took part in a download of the content that came out wrong.
// They are not asked for it for a while.
func (m *Mesh) Suspect(c oci.Content, peers []Peer) { m.suspects.add(c, peers) }

// Trusted leaves out the nodes that are suspected for the blob, unless this node may not
// ask the registry itself and has nobody else.
func (m *Mesh) Trusted(ref oci.Ref, nodes []Peer) []Peer {
	if !m.MayAsk(ref) {
		return nodes
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(p Peer) bool { return m.suspects.has(ref.Content(), p) })
}
