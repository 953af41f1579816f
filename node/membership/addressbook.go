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

// An addressBook keeps the addresses of members over restarts. So a node finds the
// others even if its seeds are gone, and both sides of a split find each other.
type addressBook struct {
	dir string // "": in memory only

	mu    sync.Mutex       // guards the fields below; never held during I/O
	known map[string]entry // by id
	fresh bool             // the file lacks a change other than when live members were seen
	saved time.Time        // when the file was last written
}

// An entry is a member as it was last seen.
type entry struct {
	Name   string `json:"name"`
	Gossip string `json:"gossip"`
	Seen   int64  `json:"seen"` // unix seconds
	alive  bool
}

// openAddressBook reads the address book in dir. If it is damaged, it returns an
// empty one and the error.
func openAddressBook(dir string, now time.Time) (*addressBook, error) {
	b := &addressBook{dir: dir, known: map[string]entry{}}
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
		if _, err := netip.ParseAddrPort(e.Gossip); err != nil || !validID(id) || len(b.known) > ring.MaxMembers {
			delete(b.known, id)
		}
	}
	b.expire(snapshot{}, now)
	return b, nil
}

// note updates the entries from the snapshot of the roster.
func (b *addressBook) note(s snapshot, self string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range s.gone {
		b.drop(id)
	}
	for _, m := range s.members {
		old, known := b.known[m.ID]
		switch {
		case m.ID == self:
		case m.State == Draining && !m.alive:
			b.drop(m.ID)
		case m.alive || !known:
			b.known[m.ID] = entry{m.Name, m.Gossip, now.Unix(), m.alive}
			b.fresh = b.fresh || !known || old.Gossip != m.Gossip || old.alive != m.alive
		case old.alive:
			old.alive, old.Seen, b.fresh = false, now.Unix(), true
			b.known[m.ID] = old
		}
	}
	b.expire(s, now)
}

func (b *addressBook) drop(id string) {
	if _, known := b.known[id]; known {
		delete(b.known, id)
		b.fresh = true
	}
}

// expire drops members that were not seen for a day, and those whose address now
// belongs to another member.
func (b *addressBook) expire(s snapshot, now time.Time) {
	taken := map[string]string{}
	for _, m := range s.members {
		if m.alive {
			taken[m.Gossip] = m.ID
		}
	}
	for id, e := range b.known {
		owner, isTaken := taken[e.Gossip]
		if now.Sub(time.Unix(e.Seen, 0)) > remember && !e.alive || isTaken && owner != id {
			b.drop(id)
		}
	}
}

// lost returns the addresses of members that are not alive, the latest lost first.
func (b *addressBook) lost() []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lost []entry
	for _, e := range b.known {
		if !e.alive {
			lost = append(lost, e)
		}
	}
	slices.SortFunc(lost, func(a, b entry) int { return cmp.Or(-cmp.Compare(a.Seen, b.Seen), cmp.Compare(a.Gossip, b.Gossip)) })
	var all []netip.AddrPort
	for _, e := range lost {
		if a, err := netip.ParseAddrPort(e.Gossip); err == nil {
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
