package flight

import (
	"context"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// Who gets a blob from the registry leads for the cluster. While members join and
// leave, two nodes may each believe that they lead. These rules see to it that only
// one asks the registry, and that no node waits for one that waits for it:
//
//   - A node lists its flight first, then peeks at the nodes that may have the blob
//     or be about to get it. Until the answers are there the flight is not settled.
//   - Any node may follow a flight that is settled. Only a node with a higher id may
//     follow one that is not. A flight that is not settled defers to a node with a
//     lower id that peeks at it. So whoever follows an unsettled flight follows a
//     lower id, and no circle can close.
//   - A node without a flight that is peeked at remembers the other's intent: it
//     will peek at that node in turn.
//
// Peeking costs a round trip, and only on a miss.

// intentFor is how long a node remembers that another is about to get a blob.
const intentFor = 30 * time.Second

// An intent says which member is about to get a blob.
type intent struct {
	member string
	until  time.Time
}

// Peeked answers a member that peeks at q's blob, which the shard does not hold: it
// reports whether the member may follow a flight of this node, and notes that the
// member is about to get the blob.
func (f *Flights) Peeked(q grants.Request, member string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, flying := f.flights[flightKey{q.Content(), true}]
	switch {
	case !flying:
		f.intents.Add(q.Content(), intent{member, time.Now().Add(intentFor)})
	case !NewTicket(q).mayBoard(e.Flight):
	case f.followable(e, member):
		return true
	case e.defers == "" || member < e.defers:
		e.defers = member
	}
	return false
}

// followable reports whether the member may follow the flight. The caller holds mu.
func (f *Flights) followable(e *entry, member string) bool {
	self := f.cfg.Mesh.Self()
	return e.settled || self == "" || self < member
}

// Candidates returns the nodes to peek at for content that this node is about to get: they may
// have it, or be getting it too. It waits until this node knows them.
func (f *Flights) Candidates(ctx context.Context, c oci.Content) []mesh.Peer {
	peers := f.cfg.Mesh.Holders(ctx, c)
	f.mu.Lock()
	one, ok := f.intents.Get(c)
	f.intents.Remove(c)
	f.mu.Unlock()
	if !ok || time.Now().After(one.until) {
		return peers
	}
	for _, p := range peers {
		if p.ID() == one.member {
			return peers
		}
	}
	if p := f.cfg.Mesh.Peer(one.member); p != nil {
		peers = append(peers, p)
	}
	return peers
}

// settle makes the flight ask the registry, unless it has to defer to a member that
// can be asked: that one is returned. A flight that has deferred settles.
func (f *Flights) settle(fl *Flight, deferred bool) mesh.Peer {
	for gone := ""; ; {
		by := f.trySettle(fl, deferred, gone)
		if by == "" {
			return nil
		}
		if p := f.cfg.Mesh.Peer(by); p != nil {
			return p
		}
		gone = by
	}
}

// trySettle settles the flight unless it defers to a member other than gone: that
// one is returned.
func (f *Flights) trySettle(fl *Flight, deferred bool, gone string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if by := fl.entry.defers; by != gone && !deferred {
		return by
	}
	fl.entry.settled = true
	return ""
}

// promote makes a flight that followed others lead, unless another flight of this
// node does: that one is returned.
func (f *Flights) promote(fl *Flight) *Flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := flightKey{fl.key.Content, true}
	if other, ok := f.flights[key]; ok && other != fl.entry && NewTicket(fl.request).mayBoard(other.Flight) {
		return other.Flight
	}
	f.flights[key] = fl.entry
	return nil
}
