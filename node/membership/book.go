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

const (
	// remember is how long the address of a member that does not answer is tried.
	remember = 24 * time.Hour
	// renewed is how old the file may be while a member lives: who reads it goes
	// by when it was last seen.
	renewed = time.Hour
)

// A book holds the addresses of members, over restarts too: so that a node
// finds the others though its seeds are gone, and both sides of a split each
// other.
type book struct {
	dir string // "": in memory only

	mu    sync.Mutex
	known map[string]entry // by id
	fresh bool             // it differs from the file, and not only by when the living were seen
	saved time.Time        // when the file was last written
}

// An entry is a member as it was last seen.
type entry struct {
	Name   string `json:"name"`
	Gossip string `json:"gossip"`
	Seen   int64  `json:"seen"` // unix seconds
	alive  bool
}

// openBook reads the book in dir; a damaged one is as good as none.
func openBook(dir string, now time.Time) (*book, error) {
	b := &book{dir: dir, known: map[string]entry{}}
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
		e.Seen = min(e.Seen, now.Unix()) // the clock may have gone back
		b.known[id] = e
		if _, err := netip.ParseAddrPort(e.Gossip); err != nil || !validID(id) || len(b.known) > ring.MaxMembers {
			delete(b.known, id)
		}
	}
	b.expire(census{}, now)
	return b, nil
}

// note takes the census.
func (b *book) note(c census, self string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range c.gone {
		b.drop(id)
	}
	for _, m := range c.members {
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
	b.expire(c, now)
}

func (b *book) drop(id string) {
	if _, known := b.known[id]; known {
		delete(b.known, id)
		b.fresh = true
	}
}

// expire forgets who was not seen for long, and whose address is another's now.
func (b *book) expire(c census, now time.Time) {
	taken := map[string]string{}
	for _, m := range c.members {
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

// lost are the addresses of those that don't live, the latest lost first.
func (b *book) lost() []netip.AddrPort {
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

// save writes the book if it has changed, or if a member lives and the file is
// as old as after or older.
func (b *book) save(now time.Time, after time.Duration) error {
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
	b.fresh = false // what changes from here on is for the next time
	b.mu.Unlock()
	if err == nil {
		err = replace(b.dir, membersFile, append(text, '\n'))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.fresh = true
		return fmt.Errorf("keeping the known members: %w", err)
	}
	b.saved = now
	return nil
}
