package transfer

import (
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"slices"
	"sync"
	"time"
)

const (
	// shunFor is how long nodes are not asked for a blob that came out wrong.
	shunFor = time.Minute
	// maxShunned bounds the blobs of which that is remembered.
	maxShunned = 4096
)

// shunned are the nodes that took part in a download which came out wrong, by
// its blob. Where several sources had a part in it, nobody can say who lied: it
// may have been the registry. So none of them is blamed, but the same mixture
// must not come together again and again.
type shunned struct {
	mu sync.Mutex
	of map[content]shun
}

// A shun is about one blob.
type shun struct {
	peers []string // their ids
	until time.Time
}

// add remembers the peers.
func (s *shunned) add(c content, peers []mesh.Peer) {
	if len(peers) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) >= maxShunned {
		s.of = map[content]shun{} // costs each of them one more wrong download
	}
	one := s.of[c]
	if time.Now().After(one.until) {
		one.peers = nil
	}
	ids := slices.Clone(one.peers)
	for _, p := range peers {
		ids = append(ids, p.ID())
	}
	s.of[c] = shun{ids, time.Now().Add(shunFor)}
}

// has reports whether p is not to be asked for the blob.
func (s *shunned) has(c content, p mesh.Peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.of[c]
	return ok && p != nil && time.Now().Before(one.until) && slices.Contains(one.peers, p.ID())
}

// without leaves out those of the nodes that are shunned, unless this node has
// nobody else.
func (f *Fetcher) without(ref oci.Ref, nodes []mesh.Peer) []mesh.Peer {
	if !f.dispensable(ref) {
		return nodes
	}
	c := content{ref.Registry, ref.Digest}
	return slices.DeleteFunc(slices.Clone(nodes), func(p mesh.Peer) bool { return f.shunned.has(c, p) })
}
