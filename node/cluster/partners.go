package cluster

import (
	"hash/maphash"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxPartners bounds the blobs of which it is remembered who else holds them. Of the others
// that is asked when a member is lost.
const maxPartners = maxBacklog

// Partners are the members that were last seen to hold what this node holds too. They say
// which blobs lie here alone when one of them is lost. What a member evicts it does not
// tell: that is found when the ring changes.
type partners struct {
	seed maphash.Seed

	mu sync.Mutex        // guards the field below
	of map[uint64]string // the member's id, by a hash of the digest; "": it was lost
}

func newPartners() *partners {
	return &partners{seed: maphash.MakeSeed(), of: map[uint64]string{}}
}

// note notes that the member holds the blob too.
func (p *partners) note(d digest.Digest, id string) {
	key := maphash.String(p.seed, d.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.of[key]; !known && len(p.of) >= maxPartners {
		for one := range p.of {
			delete(p.of, one)
			break
		}
	}
	p.of[key] = id
}

// has reports whether another member is known to hold the blob, and if not, whether one is
// known that did and was lost.
func (p *partners) has(d digest.Digest) (held, lost bool) {
	key := maphash.String(p.seed, d.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	id, known := p.of[key]
	return id != "", known && id == ""
}

// lose notes that these members are lost.
func (p *partners) lose(ids map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, one := range p.of {
		if ids[one] {
			p.of[key] = ""
		}
	}
}
