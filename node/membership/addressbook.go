package membership

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"oci-proxy/ring"
)

// An addressBook keeps the members of the last day over restarts. So a node finds the
// others even if its seeds are gone, both sides of a split find each other, and a member
// that died is listed as gone (see gone.go).
type addressBook struct {
	dir    string // "": in memory only
	opened time.Time
	grace  time.Duration // how long a member that is down keeps its place

	mu    sync.Mutex       // guards the fields below; never held during I/O
	known map[string]entry // by id
	fresh bool             // the file lacks a change other than when live members were seen
	saved time.Time        // when the file was last written
}

// An entry is a member as it was last seen.
type entry struct {
	Name   string `json:"name"`
	Gossip string `json:"gossip"`
	Seen   int64  `json:"seen"`            // unix seconds; of one that is not alive: when it was lost
	Epoch  uint64 `json:"epoch,omitempty"` // of its last start; 0: not known
	Gone   bool   `json:"gone,omitempty"`  // it died, and has lost its place
	Left   bool   `json:"left,omitempty"`  // it left for good, or was forgotten: no late word of others may list it again
	alive  bool
	placed bool // it is down and keeps its place
	taken  bool // its address belongs to another member now
}

// openAddressBook reads the address book in dir. If it is damaged, it returns an
// empty one and the error.
func openAddressBook(dir string, grace time.Duration, now time.Time) (*addressBook, error) {
	b := &addressBook{dir: dir, opened: now, grace: grace, known: map[string]entry{}}
	if dir == "" {
		return b, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, membersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b.known)
	}
	if err != nil {
		b.known = map[string]entry{}
		return b, fmt.Errorf("reading the known members: %w", err)
	}
	for id, e := range b.known {
		e.Seen = min(e.Seen, now.Unix()) // the clock may have been set back
		b.known[id] = e
		if _, err := netip.ParseAddrPort(e.Gossip); err != nil && !e.Left || !validID(id) || len(b.known) > ring.MaxMembers {
			delete(b.known, id)
		}
	}
	b.expire(snapshot{}, now)
	return b, nil
}

// note updates the entries from the snapshot of the roster.
func (b *addressBook) note(s snapshot, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, e := range b.known {
		e.placed = false
		b.known[id] = e
	}
	for _, m := range s.gone {
		b.bury(&m, now)
	}
	for _, m := range s.members {
		old, known := b.known[m.ID]
		switch {
		case m.ID == s.self:
		case m.alive || !known:
			b.known[m.ID] = entry{Name: m.Name, Gossip: m.Gossip, Seen: now.Unix(), Epoch: m.Epoch, alive: m.alive, placed: !m.alive}
			b.fresh = b.fresh || !known || old.Gossip != m.Gossip || old.alive != m.alive || old.Epoch != m.Epoch
		case old.Left && old.Epoch >= m.Epoch: // the roster is told, too
		default:
			if old.alive {
				old.Seen, b.fresh = now.Unix(), true
			}
			old.alive, old.placed, old.Gone, old.Left, old.Epoch = false, true, false, false, m.Epoch
			b.known[m.ID] = old
		}
	}
	b.expire(s, now)
}

// expire drops members that were not seen for a day. Of those that are not alive it
// notes whether another member has their address, or took their place.
func (b *addressBook) expire(s snapshot, now time.Time) {
	var dead []string
	for id, e := range b.known {
		if !e.alive {
			dead = append(dead, id)
		}
	}
	taken, named := map[string]string{}, map[string][]*Member{}
	for i := range s.members {
		if m := &s.members[i]; m.alive && len(dead) > 0 {
			taken[m.Gossip] = m.ID
			named[m.Name] = append(named[m.Name], m)
		}
	}
	for _, id := range dead {
		e := b.known[id]
		owner, isTaken := taken[e.Gossip]
		e.taken = isTaken && owner != id
		if e.Gone && !e.Left && slices.ContainsFunc(named[e.Name], e.replaced) {
			e.Left, b.fresh = true, true
		}
		b.known[id] = e
		if e.old(now) {
			b.drop(id)
		}
	}
	b.bound()
}

func (b *addressBook) drop(id string) {
	if _, known := b.known[id]; known {
		delete(b.known, id)
		b.fresh = true
	}
}

// lost returns the addresses of members that are not alive, the latest lost first.
func (b *addressBook) lost() []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lost []entry
	for _, e := range b.known {
		if !e.alive && !e.Left && !e.taken {
			lost = append(lost, e)
		}
	}
	slices.SortFunc(lost, func(a, b entry) int { return cmp.Or(-cmp.Compare(a.Seen, b.Seen), cmp.Compare(a.Gossip, b.Gossip)) })
	var all []netip.AddrPort
	for _, e := range lost {
		if a, err := netip.ParseAddrPort(e.Gossip); err == nil && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// save writes the file if the book has changed, or if a member is alive and the
// file is at least as old as after.
func (b *addressBook) save(now time.Time, after time.Duration) error {
	b.mu.Lock()
	alive := false
	for id, e := range b.known {
		if e.alive {
			alive, e.Seen = true, now.Unix()
			b.known[id] = e
		}
	}
	if b.dir == "" || !b.fresh && !(alive && now.Sub(b.saved) >= after) {
		b.mu.Unlock()
		return nil
	}
	text, err := json.Marshal(b.known)
	b.fresh = false // a change from here on is for the next save
	b.mu.Unlock()
	if err == nil {
		err = replace(b.dir, membersFile, append(text, '\n'))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.fresh = true
		return fmt.Errorf("saving the known members: %w", err)
	}
	b.saved = now
	return nil
}
