package membership

import (
	"context"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// maxVigils bounds the vigils that begin at the same moment. A member beyond that is lost at once.
const maxVigils = 256

// vigils are kept for members that gossip has found dead while their machines still take
// connections for them: a process that hardly ever gets a processor answers too late, and takes
// some seconds to hear of its death and to deny it. Until then, for lateFor at most, it counts
// as alive. A process that has ended is lost at once, a machine that is off after knockTime.
type vigils struct {
	m     *Membership
	begin chan *boot
}

func newVigils(m *Membership) *vigils { return &vigils{m: m, begin: make(chan *boot, maxVigils)} }

// found hears that gossip has found a boot dead. It returns at once.
func (v *vigils) found(name string) {
	if b := doubt(v.m.roster, name); b != nil {
		select {
		case v.begin <- b:
			return
		default:
		}
	}
	v.lose(name)
}

// lose notes a boot as lost.
func (v *vigils) lose(name string) {
	if v.m.roster.lost(name) {
		// Who has missed that it drains would take it for dead.
		id, epoch := untitle(name)
		v.m.rumours.spread(departure{ID: id, Epoch: epoch, Left: true, Said: true})
	}
}

// run keeps vigils until ctx ends.
func (v *vigils) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case b := <-v.begin:
			all.Go(func() { v.keep(ctx, b) })
		case <-ctx.Done():
			return
		}
	}
}

// keep keeps a vigil for a boot, until it proves to live or is lost.
func (v *vigils) keep(ctx context.Context, b *boot) {
	address := b.member.Gossip // it never changes
	until := time.Now().Add(lateFor)
	for pause := firstKnock; late(v.m.roster, b) && time.Now().Before(until) && v.takes(address); pause *= 2 {
		if wait.For(ctx, min(pause, time.Until(until))) != nil {
			return
		}
	}
	if doubted(v.m.roster, b) {
		v.lose(title(b.member.ID, b.member.Epoch))
	}
}

// takes reports whether something takes connections at an address.
func (v *vigils) takes(address string) bool {
	conn, err := v.m.gossip.network.DialTimeout(address, knockTime)
	if err == nil {
		_ = conn.Close() // nothing was sent
	}
	return err == nil
}

// doubt notes that a boot was found dead, and returns it if it may merely be late: nil if it said
// that it ends, or if another has its id or its address.
func doubt(r *roster, name string) *boot {
	id, epoch := untitle(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boots[id][epoch]
	if b == nil || b.member.State != Active || !stands(r, b) {
		return nil
	}
	b.late = true
	return b
}

// late reports whether it is still to be seen whether the boot lives.
func late(r *roster, b *boot) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.boots[b.member.ID][b.member.Epoch] == b && stands(r, b)
}

// doubted reports whether the boot still counts as alive, and has not proved to be.
func doubted(r *roster, b *boot) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.boots[b.member.ID][b.member.Epoch] == b && b.member.alive
}

// stands reports whether the boot counts as alive, is the newest of its id, and the only one
// that is alive at its address. It is called with r.mu held.
func stands(r *roster, b *boot) bool {
	if newest, _ := r.boots[b.member.ID].newest(); !b.member.alive || newest != b {
		return false
	}
	for _, boots := range r.boots {
		for _, other := range boots {
			if other != b && other.member.alive && other.member.Gossip == b.member.Gossip {
				return false
			}
		}
	}
	return true
}
