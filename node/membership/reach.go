package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"oci-proxy/node/health"
)

// maxMute bounds the members of which it is told that their address does not answer.
const maxMute = 64

// An unheard is a start of a member whose address does not answer, as the node that
// tried it tells the others. It is meant for that member itself.
type unheard struct {
	ID      string `json:"i"`
	Epoch   uint64 `json:"e"`
	Address string `json:"a"`
	Why     string `json:"w"`
}

// A mute is an unheard as this node keeps it.
type mute struct {
	unheard
	checked time.Time
	answers bool
}

// reach tells members that advertise a wrong address. Such a member is heard, so it
// is alive again each time that it was found dead. The others try its address then,
// and what they tell it is part of its own health.
type reach struct {
	m      *Membership
	doubts chan [2]string // title and address of a member that was found dead and is heard again

	mu    sync.Mutex      // guards the fields below; never held during I/O
	mutes map[string]mute // by title
	told  unheard         // what another member told of this node
	by    string          // its name
	until time.Time       // how long that counts
}

func newReach(m *Membership) *reach {
	return &reach{m: m, doubts: make(chan [2]string, 16), mutes: map[string]mute{}}
}

// doubt makes run try the member's address. It returns at once.
func (r *reach) doubt(title, address string) {
	select {
	case r.doubts <- [2]string{title, address}:
	default: // it will be found dead again
	}
}

// run tries addresses until ctx ends.
func (r *reach) run(ctx context.Context) {
	for {
		select {
		case d := <-r.doubts:
			if r.due(d[0], time.Now()) {
				r.try(d[0], d[1])
			}
		case <-ctx.Done():
			return
		}
	}
}

// due reports whether it is time to try the address of a member, and that there is
// room to note it.
func (r *reach) due(title string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t, one := range r.mutes {
		if now.Sub(one.checked) >= toldFor {
			delete(r.mutes, t)
		}
	}
	one, known := r.mutes[title]
	return !known && len(r.mutes) < maxMute || known && now.Sub(one.checked) >= tryAgain
}

// try tries an address.
func (r *reach) try(title, address string) {
	id, epoch := untitle(title)
	one := mute{unheard: unheard{ID: id, Epoch: epoch, Address: address}}
	switch conn, err := r.m.gossip.network.DialTimeout(address, streamTimeout); {
	case err != nil:
		one.Why = whyNot(err)
	default:
		_ = conn.Close() // nothing was sent
		if one.Why = r.m.roster.occupant(id, address); one.Why == "" {
			one.answers = true // it was cut off or overloaded for a while
		}
	}
	one.checked = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mutes[title] = one
}

// whyNot says in a few words why a connection failed.
func whyNot(err error) string {
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ETIMEDOUT), isNet && timeout.Timeout():
		return "no answer"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route there"
	default:
		return "no connection"
	}
}

// mute returns what this node tells the others.
func (r *reach) mute(now time.Time) (all []unheard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.mutes {
		if !one.answers && now.Sub(one.checked) < toldFor {
			all = append(all, one.unheard)
		}
	}
	return all
}

// hear takes what another node tells.
func (r *reach) hear(all []unheard, by *card, now time.Time) {
	me, at := r.m.roster.me(), r.m.at.gossip
	for _, one := range all[:min(len(all), maxMute)] {
		if one.ID != me.id || one.Epoch != me.epoch || one.Address != at || by == nil || !plain(by.Name) || !plain(one.Why) {
			continue
		}
		r.mu.Lock()
		r.told, r.by, r.until = one, by.Name, now.Add(toldFor)
		r.mu.Unlock()
		r.m.bridge.tell(slog.LevelWarn, "this node's address does not answer: set cluster.advertise, or open the gossip port", "address", at, "peer", by.Name, "error", one.Why)
	}
}

// misplaced reports whether others say that this node's address does not answer.
func (r *reach) misplaced() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.until)
}

// health returns an error while the others don't reach this node.
func (r *reach) health(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !now.Before(r.until) {
		return nil
	}
	return health.Because(health.Address, fmt.Errorf("other members can't reach this node at %s (%s tried: %s): set cluster.advertise to an address at which they can, or open the gossip port there for TCP and UDP", r.told.Address, r.by, r.told.Why))
}

// occupant says that another live member has the address, and not only had it a moment
// ago under another id; "" if none has.
func (r *roster) occupant(id, address string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, boots := range r.boots {
		for _, b := range boots {
			if other != id && b.member.alive && b.member.Gossip == address && time.Since(b.since) > r.surely() {
				return "another member answers there"
			}
		}
	}
	return ""
}
