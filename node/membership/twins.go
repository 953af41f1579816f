package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A card is what a node says of itself when two exchange what they know. Of two nodes
// with one id, each sees by it which of them keeps the id.
type card struct {
	ID    string `json:"i"`
	Epoch uint64 `json:"e"`
	Name  string `json:"m"`
	At    string `json:"a"` // host:port of gossip
	Nonce []byte `json:"n"` // of this start
	Up    int64  `json:"u"` // ms since the start; clocks differ
	Ends  bool   `json:"x"` // it stops or leaves
}

// maxSought bounds the addresses that wait for a look.
const maxSought = 16

// twins watches for another node with this node's id, as after copying a cache
// directory. The one that has run for longer keeps the id. The other takes a new one
// by itself, and saves it.
type twins struct {
	m    *Membership
	born time.Time
	seek chan string // gossip addresses of nodes that may have this node's id
	met  chan card   // one that keeps it
	off  bool        // for tests: a node of an older version, which has no card

	mu      sync.Mutex       // guards the fields below; never held during I/O
	twice   error            // why a new id could not be saved
	clashes map[string]clash // of other nodes, by title
}

// A clash is a title that several nodes have. memberlist tells each of them of one
// other at most, which may be another by now. So third nodes tell them whom they saw.
type clash struct {
	Title string   `json:"t"`
	At    []string `json:"a"` // gossip addresses
	last  time.Time
}

func newTwins(m *Membership) *twins {
	return &twins{m: m, clashes: map[string]clash{}, born: time.Now(), seek: make(chan string, maxSought), met: make(chan card, 1)}
}

// card returns this node's card.
func (t *twins) card() *card {
	v := t.m.View()
	if t.off || v == nil { // memberlist may ask before the first view
		return nil
	}
	self := v.Self
	return &card{
		ID: self.ID, Epoch: self.Epoch, Name: self.Name, At: t.m.at.gossip, Nonce: self.Nonce,
		Up: time.Since(t.born).Milliseconds(), Ends: self.State != Active,
	}
}

// meet looks at the card of another node. It must not call memberlist.
func (t *twins) meet(theirs *card) {
	ours := t.card()
	if ours == nil || theirs == nil || theirs.ID != ours.ID || bytes.Equal(theirs.Nonce, ours.Nonce) || theirs.Ends || ours.Ends || !ours.yields(theirs) {
		return
	}
	select {
	case t.met <- *theirs:
	default: // it is being seen to
	}
}

// yields reports whether this node takes another id. It never does so at both ends: a
// message takes time, so the other one looks younger than it is. Of two that started
// at about the same time, the nonce decides; if both should keep the id once, the next
// exchange decides again.
func (c *card) yields(theirs *card) bool {
	older := time.Duration(theirs.Up-c.Up) * time.Millisecond
	if older.Abs() > sameStart {
		return older > 0
	}
	return bytes.Compare(theirs.Nonce, c.Nonce) < 0
}

// look makes the nodes exchange cards, if the node at the address has this node's id.
// It returns at once.
func (t *twins) look(gossip string) {
	if a, err := netip.ParseAddrPort(gossip); err != nil || t.m.at.own(a) {
		return // the last start of this node
	}
	select {
	case t.seek <- gossip:
	default:
	}
}

// clash notes that other nodes have one title.
func (t *twins) clash(title string, at ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for old, c := range t.clashes {
		if now.Sub(c.last) > clashFor {
			delete(t.clashes, old)
		}
	}
	c, known := t.clashes[title]
	if !known && len(t.clashes) >= maxSought {
		return
	}
	for _, a := range at {
		if !slices.Contains(c.At, a) {
			c.At = append(c.At, a)
		}
	}
	c.Title, c.last, c.At = title, now, c.At[max(0, len(c.At)-maxSought):]
	t.clashes[title] = c
}

// seen returns the clashes that this node saw a moment ago.
func (t *twins) seen(now time.Time) (all []clash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.clashes {
		if now.Sub(c.last) <= clashFor {
			all = append(all, clash{Title: c.Title, At: slices.Clone(c.At)})
		}
	}
	return all
}

// hear takes the clashes that another node saw.
func (t *twins) hear(all []clash) {
	me := t.m.roster.me()
	for _, c := range all[:min(len(all), maxSought)] {
		if c.Title == title(me.id, me.epoch) {
			for _, at := range c.At[:min(len(c.At), maxSought)] {
				t.look(at)
			}
		}
	}
}

// run sees to twins until ctx ends.
func (t *twins) run(ctx context.Context) {
	looked := map[string]time.Time{} // by address: when it looked there
	for {
		select {
		case gossip := <-t.seek:
			if len(looked) > maxSought {
				clear(looked)
			}
			if time.Since(looked[gossip]) < lookAgain/2 {
				continue // it is told again
			}
			looked[gossip] = time.Now()
			// An error is none of ours: the last start of this node may have been there.
			_, _ = t.m.gossip.list().Join([]string{gossip})
		case theirs := <-t.met:
			if theirs.ID != t.m.roster.me().id {
				continue // it has been seen to
			}
			t.renew(&theirs)
		case <-ctx.Done():
			return
		}
	}
}

// renew takes a new id.
func (t *twins) renew(keeper *card) {
	old := t.m.roster.me()
	who := identity{newID(), epochAfter(0, time.Now())}
	err := who.save(t.m.cfg.Dir)
	t.note(err)
	t.m.log.Warn("another node has this node's id, as after copying a cache directory: this node takes a new id", "old_id", old.id, "id", who.id, "peer", keeper.Name)
	if err != nil {
		t.m.log.Warn("identity not saved: after a restart this node may count as a new member", "error", err)
	}
	if err := t.m.gossip.renew(who, keeper, keeper.Epoch == old.epoch); err != nil && !errors.Is(err, errEnded) {
		t.m.log.Error("node not in the cluster under its new id: restart it", "error", err)
		t.note(fmt.Errorf("joining the others under a new id failed: %w: restart this node", err))
	}
}

func (t *twins) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.twice = err
}

// health returns an error while another node has this node's id, or once it had and
// the new one is not safe. A twin of an older version does not see to it itself.
func (t *twins) health(now time.Time) error {
	r := t.m.roster
	since, _ := r.overlap()
	if !since.IsZero() && now.Sub(since) >= twiceFor || r.contested(now) {
		return fmt.Errorf("another node has this node's id %s, as after copying a cache directory: delete the file %s of one of the two and restart it", r.me().id, idFile)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.twice
}
