package mesh

import (
	"context"
	"iter"
	"time"

	"oci-proxy/transfer/oci"
)

// followAfter is how long a peek waits for a node that holds the blob before one is
// followed that is getting it. All nodes that are well answer sooner.
const followAfter = 250 * time.Millisecond

// An answer is what a node said to a peek.
type answer struct {
	from Peer
	at   Presence
}

// Peek asks all of peers at once whether they have the blob. It returns those that hold
// it, each as soon as it says so, and then those that can be followed. It ends when all
// have answered, or been late; nobody waits for a slow one while another has the blob.
func (m *Mesh) Peek(ctx context.Context, ref oci.Ref, peers []Peer) iter.Seq[Peer] {
	return func(yield func(Peer) bool) {
		soon := time.NewTimer(followAfter)
		defer soon.Stop()
		said := m.peek(ctx, ref, peers)
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
				if a.at == Arriving {
					arriving = append(arriving, a.from)
				} else if a.at == Held && !yield(a.from) {
					return
				}
			}
		}
	}
}

// Held is Peek for those that hold the blob.
func (m *Mesh) Held(ctx context.Context, ref oci.Ref, peers []Peer) iter.Seq[Peer] {
	return func(yield func(Peer) bool) {
		said := m.peek(ctx, ref, peers)
		for range peers {
			if a := <-said; a.at == Held && !yield(a.from) {
				return
			}
		}
	}
}

// peek asks all of peers at once whether they have the blob. Each answers once; one that
// fails to is taken for one that does not have it.
func (m *Mesh) peek(ctx context.Context, ref oci.Ref, peers []Peer) <-chan answer {
	said := make(chan answer, len(peers)) // so that nobody waits for who reads no more
	for _, p := range peers {
		go func() {
			at, err := p.Peek(ctx, ref)
			if err != nil {
				m.cfg.Log.DebugContext(ctx, "peer did not answer a peek", "peer", p.Name(), "registry", ref.Registry, "digest", ref.Digest.String(), "error", err)
				at = Absent
			}
			said <- answer{p, at}
		}()
	}
	return said
}
