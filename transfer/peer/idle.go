package peer

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/mesh"
)

// idleLinks is to how many members a node keeps connections that carry no request. It is no
// fewer than are asked for one blob: up to that size of a cluster nobody waits for a handshake.
// In a larger one all members are told a word now and then, or asked for one, and all those connections would
// take more memory than all else.
const idleLinks = mesh.Many

// An idle knows the links that may have idle connections: those that were used last.
type idle struct {
	most int

	mu    sync.Mutex                      // guards the field below; never held during I/O
	links *simplelru.LRU[*link, struct{}] // by when they were used
}

func newIdle(most int) *idle {
	links, err := simplelru.NewLRU[*link, struct{}](most+1, nil)
	if err != nil { // only for a size that is not positive
		panic(err)
	}
	return &idle{most: most, links: links}
}

// used notes that the link is used now, and reports whether its connection may stay. For a word
// that goes to all members, no other link has to rest: its connection ends if there are enough.
// Else the one that was used longest ago rests: connections of it that carry a request then
// close after that.
func (i *idle) used(l *link, word bool) (stays bool) {
	stays, old := i.add(l, word)
	if old != nil {
		old.rest()
	}
	return stays
}

// add returns the link that is one too many, or nil.
func (i *idle) add(l *link, word bool) (stays bool, old *link) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if l.life.Err() != nil || word && i.links.Len() >= i.most && !i.links.Contains(l) {
		return false, nil
	}
	if i.links.Add(l, struct{}{}); i.links.Len() > i.most {
		old, _, _ = i.links.RemoveOldest()
	}
	return true, old
}

// keeps reports whether the link is one of those that were used last.
func (i *idle) keeps(l *link) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.links.Contains(l)
}

// forget forgets a link that was given up.
func (i *idle) forget(l *link) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.links.Remove(l)
}
