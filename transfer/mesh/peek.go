package mesh

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// followAfter is how long a peek waits for a node that holds the blob before one is
// followed that is getting it. All nodes that are well answer sooner.
const followAfter = 250 * time.Millisecond

// peekWidth is how many nodes a peek asks at a time at least. Clusters of up to that size, and this
// node, are asked in one round trip.
const peekWidth = 32

const (
	// Many is how many members a peek waits for as long as each may take. Of more, an eighth
	// is asked at a time, and all are waited for no longer than manyTime altogether. Routers
	// list so many only if they do not know who else may have the blob.
	Many     = 128
	manyTime = 3 * time.Second
)

// errMany: so many members were asked that not all had the time to answer.
var errMany = errors.New("too many members were to be asked")

// An answer is what a node said to a peek.
type answer struct {
	from Peer
	at   Presence
	said bool // false: it gave no answer, and counts as one without the blob
}

// Peek asks peers, peekWidth at a time, whether they have the blob. It returns those that
// hold it, each as soon as it says so, and then those that can be followed. It ends when
// all have answered, or been late; nobody waits for a slow one while another has the blob.
func (m *Mesh) Peek(ctx context.Context, ref oci.Ref, peers []Peer) iter.Seq[Peer] {
	return m.PeekAt(ctx, ref, peers, func(Peer, Presence) {})
}

// PeekAt is Peek. heard hears of those that say that they have the first bytes of the blob
// (Begun), or nothing of it (Absent).
func (m *Mesh) PeekAt(ctx context.Context, ref oci.Ref, peers []Peer, heard func(Peer, Presence)) iter.Seq[Peer] {
	return func(yield func(Peer) bool) {
		if len(peers) == 0 { // as on a node without others
			return
		}
		soon := time.NewTimer(followAfter)
		defer soon.Stop()
		said, enough := m.peek(ctx, ref, peers)
		defer enough()
		var arriving []Peer
		for left, follow := len(peers), false; left > 0 || len(arriving) > 0; {
			if len(arriving) > 0 && (follow || left == 0) {
				next := arriving[0]
				arriving = arriving[1:]
				if !yield(next) {
					return
				}
				continue
			}
			select {
			case <-soon.C:
				follow = true
			case a := <-said:
				left--
				switch {
				case a.at == Arriving:
					arriving = append(arriving, a.from)
				case a.at == Held:
					if !yield(a.from) {
						return
					}
				case a.said:
					heard(a.from, a.at)
				}
			}
		}
	}
}

// Held is Peek for those that hold the blob.
func (m *Mesh) Held(ctx context.Context, ref oci.Ref, peers []Peer) iter.Seq[Peer] {
	return func(yield func(Peer) bool) {
		said, enough := m.peek(ctx, ref, peers)
		defer enough()
		for range peers {
			if a := <-said; a.at == Held && !yield(a.from) {
				return
			}
		}
	}
}

// peek asks peers, in their order, whether they have the blob. Each answers once. Those
// that were not asked before enough is called are not asked any more.
func (m *Mesh) peek(ctx context.Context, ref oci.Ref, peers []Peer) (_ <-chan answer, enough func()) {
	said := make(chan answer, len(peers)) // so that nobody waits for who reads no more
	slots, end := make(chan struct{}, max(peekWidth, len(peers)/8)), make(chan struct{})
	over := func() {}
	if len(peers) > Many {
		ctx, over = wait.Within(ctx, manyTime, errMany)
	}
	go func() {
		defer over()
		var asked sync.WaitGroup
		defer asked.Wait()
		for _, p := range peers {
			select {
			case slots <- struct{}{}:
			case <-end:
				return
			}
			asked.Go(func() {
				at, answered := m.presence(ctx, ref, p)
				said <- answer{p, at, answered}
				<-slots
			})
		}
	}()
	return said, func() { close(end) }
}

// presence asks one node whether it has the blob. One that fails to answer is taken for one
// that does not; answered tells the two apart.
func (m *Mesh) presence(ctx context.Context, ref oci.Ref, p Peer) (at Presence, answered bool) {
	if ctx.Err() != nil {
		return Absent, false // nobody waits for the answer any more
	}
	at, err := p.Peek(ctx, ref)
	if err != nil {
		m.cfg.Log.DebugContext(ctx, "peer did not answer a peek", "peer", p.Name(), "registry", ref.Registry, "digest", ref.Digest.String(), "error", err)
		return Absent, false
	}
	return at, true
}
