package transfer

import (
	"context"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Who gets a blob from the registry acts for the cluster. While members join
// and leave, two nodes may each believe that it is theirs to act. So that only
// one asks the registry, and none waits for one that waits for it:
//
//   - A node publishes its flight, then peeks at those who may have the blob or
//     be about to get it. A flight is undecided until the answers are there.
//   - A flight that is decided for the registry may be followed by anyone, an
//     undecided one only by a node with a higher id. An undecided flight whose
//     node is peeked at by one with a lower id yields to that one. So whoever
//     follows an undecided flight follows a lower id, and no circle can close.
//   - A node without a flight that is peeked at remembers who did: it will peek
//     at that one in turn.
//
// Peeking costs a round trip, on a miss only.

// claimed is how long a node remembers who is about to get a blob.
const claimed = 30 * time.Second

// maxClaims bounds what is remembered.
const maxClaims = 4096

// A content is a digest as one registry delivers it.
type content struct {
	registry string
	digest   digest.Digest
}

// A claim says who is about to get a blob.
type claim struct {
	by    string
	until time.Time
}

// Presence answers the Peek of the member of that id, and notes that it is
// about to get the blob.
func (m *holder) Presence(ref oci.Ref, asker string) mesh.Presence {
	if m.f.holds(ref) {
		return mesh.Held
	}
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	fl, flying := m.f.flights[flightKey{content{ref.Registry, ref.Digest}, true}]
	switch {
	case !flying:
		m.f.note(content{ref.Registry, ref.Digest}, asker)
		return mesh.Absent
	case !m.f.ticket(ref).mayBoard(fl):
		return mesh.Absent
	case m.f.followable(fl, asker):
		return mesh.Arriving
	default:
		if fl.yields == "" || asker < fl.yields {
			fl.yields = asker
		}
		return mesh.Absent
	}
}

// followable reports whether the member of that id may follow the flight. The
// caller holds mu.
func (f *Fetcher) followable(fl *flight, asker string) bool {
	return fl.decided || f.cfg.Mesh == nil || f.cfg.Mesh.Self() < asker
}

// holds reports whether the shard has ref's digest, and not from another
// registry that is private. Whether ref's registry vouches for it is the
// asker's to know.
func (f *Fetcher) holds(ref oci.Ref) bool {
	_, held := f.cfg.Store(ref.Registry).Stat(ref.Digest)
	return held && !f.foreign(ref)
}

// note remembers a claim. The caller holds mu.
func (f *Fetcher) note(c content, by string) {
	if len(f.claims) >= maxClaims {
		clear(f.claims) // rare, and costs at most a second download
	}
	f.claims[c] = claim{by, time.Now().Add(claimed)}
}

// Progress tells how far this node is with the blob.
func (m *holder) Progress(ref oci.Ref) mesh.Progress {
	p := mesh.Progress{Streams: int(m.f.streams.Load())}
	if size, held := m.f.cfg.Store(ref.Registry).Stat(ref.Digest); held {
		p.Held, p.Offset, p.Unvouched = true, size, !m.f.vouched(ref)
		return p
	}
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if fl, ok := m.f.flights[flightKey{content{ref.Registry, ref.Digest}, true}]; ok {
		p.Offset = fl.in.Sendable()
	}
	return p
}

// peekers are whom to peek at for the flight's blob.
func (f *Fetcher) peekers(c content) []mesh.Peer {
	if f.cfg.Mesh == nil {
		return nil
	}
	peers := f.cfg.Mesh.Holders(c.registry, c.digest.String())
	f.mu.Lock()
	one, ok := f.claims[c]
	delete(f.claims, c)
	f.mu.Unlock()
	if !ok || time.Now().After(one.until) {
		return peers
	}
	for _, p := range peers {
		if p.ID() == one.by {
			return peers
		}
	}
	if p := f.cfg.Mesh.Peer(one.by); p != nil {
		peers = append(peers, p)
	}
	return peers
}

// peek asks all of peers at once who has the blob, and returns those who have
// it or can be followed: the first to ask in front.
func (f *Fetcher) peek(ctx context.Context, ref oci.Ref, peers []mesh.Peer) []mesh.Peer {
	answers := make([]mesh.Presence, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			at, err := p.Peek(ctx, ref)
			if err != nil {
				f.cfg.Log.Debug("peek not answered", "peer", p.Name(), "registry", ref.Registry, "digest", ref.Digest.String(), "error", err)
				return
			}
			answers[i] = at
		})
	}
	wg.Wait()
	var held, arriving []mesh.Peer
	for i, p := range peers {
		switch answers[i] {
		case mesh.Held:
			held = append(held, p)
		case mesh.Arriving:
			arriving = append(arriving, p)
		}
	}
	return append(held, arriving...)
}

// decide makes the flight one that asks the registry, unless it has to yield:
// then it returns the member to follow. It yields once.
func (f *Fetcher) decide(fl *flight, yielded bool) mesh.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if by := fl.yields; by != "" && !yielded {
		if p := f.cfg.Mesh.Peer(by); p != nil {
			return p
		}
	}
	fl.decided = true
	return nil
}

// promote makes a flight that followed others the one that acts, unless
// another of this node does: that one is returned.
func (f *Fetcher) promote(fl *flight) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := flightKey{fl.key.content, true}
	if other, ok := f.flights[key]; ok && other != fl && f.ticket(fl.ref).mayBoard(other) {
		return other
	}
	f.flights[key] = fl
	return nil
}
