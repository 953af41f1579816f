package mesh

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

const (
	// quarantineFor is how long nodes are not asked for a blob that came out wrong.
	quarantineFor = time.Minute
	// maxQuarantined bounds the blobs that are remembered.
	maxQuarantined = 4096
)

// A quarantine remembers, for each blob that came out wrong, the nodes that took
// part in its download. If several sources had a part in it, nobody can say which
// one lied; it may have been the registry. So no node is blamed, but the same
// mixture must not come together again and again.
type quarantine struct {
	mu    sync.Mutex // guards the fields below; never held during I/O
	cases *simplelru.LRU[oci.Content, suspects]
}

// suspects are the nodes that are not asked for one blob.
type suspects struct {
	ids   []string
	until time.Time
}

// newQuarantine returns an empty one.
func newQuarantine() *quarantine {
	cases, _ := simplelru.NewLRU[oci.Content, suspects](maxQuarantined, nil) // the size is right
	return &quarantine{cases: cases}
}

// add puts peers in quarantine for the blob.
func (q *quarantine) add(c oci.Content, peers []Peer) {
	if len(peers) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	one, known := q.cases.Get(c)
	if !known || time.Now().After(one.until) {
		one.ids = nil
	}
	ids := slices.Clone(one.ids)
	for _, p := range peers {
		if !slices.Contains(ids, p.ID()) {
			ids = append(ids, p.ID())
		}
	}
	q.cases.Add(c, suspects{ids, time.Now().Add(quarantineFor)})
}

// has reports whether p is not to be asked for the blob.
func (q *quarantine) has(c oci.Content, p Peer) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	one, ok := q.cases.Get(c)
	return ok && p != nil && time.Now().Before(one.until) && slices.Contains(one.ids, p.ID())
}

// Quarantine notes that peers took part in a download of the content that came
// out wrong. They are not asked for it for a while.
func (m *Mesh) Quarantine(c oci.Content, peers []Peer) { m.quarantine.add(c, peers) }

// Trusted leaves out those of the nodes that are in quarantine for the blob,
// unless this node may not ask the registry itself and has nobody else.
func (m *Mesh) Trusted(ref oci.Ref, nodes []Peer) []Peer {
	if !m.MayAsk(ref) {
		return nodes
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(p Peer) bool { return m.quarantine.has(ref.Content(), p) })
}
