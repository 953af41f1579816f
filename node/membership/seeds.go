package membership

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"oci-proxy/node/health"
)

// maxTold bounds the seeds that Health names.
const maxTold = 4

// A seedBook knows of each configured seed whether a member was met there, and if not,
// why. Met once is enough: the member may leave, or get another address.
type seedBook struct {
	born time.Time

	mu  sync.Mutex // guards the field below; never held during I/O
	all []seed
}

// A seed is one that the config names.
type seed struct {
	name  string           // host:port
	at    []netip.AddrPort // what it stood for when it was last looked up, without this node's own
	own   bool             // it stood for this node alone
	met   bool
	tried bool  // why says how the last try ended
	why   error // nil: it was not looked up or tried yet
}

// newSeedBook makes the book of the seeds, each host:port.
func newSeedBook(seeds []string) (*seedBook, error) {
	b := &seedBook{born: time.Now()}
	for _, name := range seeds {
		if _, _, err := splitAddress(name); err != nil {
			return nil, fmt.Errorf("the seed %q is not host:port: %w", name, err)
		}
		b.all = append(b.all, seed{name: name})
	}
	return b, nil
}

// resolved notes what the seed of that number stands for. live are the gossip addresses
// of the other live members.
func (b *seedBook) resolved(i int, at []netip.AddrPort, own func(netip.AddrPort) bool, live map[string]bool, err error) {
	var others []netip.AddrPort
	for _, a := range at {
		if !own(a) {
			others = append(others, a)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.all[i]
	if err != nil {
		s.why, s.tried, s.own = err, true, false
		return
	}
	s.at, s.own = others, len(others) == 0
	s.meet(live)
}

// meet notes the seed as met if a live member has one of its addresses.
func (s *seed) meet(live map[string]bool) {
	for _, a := range s.at {
		s.met = s.met || live[a.String()]
	}
}

// joined notes how a try to join the address ended.
func (b *seedBook) joined(a netip.AddrPort, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.all {
		s := &b.all[i]
		for _, at := range s.at {
			if at != a {
				continue
			}
			s.tried, s.met = true, s.met || why == nil
			if s.why = why; why != nil && a.String() != s.name {
				s.why = fmt.Errorf("%s: %w", a, why)
			}
		}
	}
}

// untried reports whether some seed has neither been met nor tried. Then it is not
// known what is wrong with it.
func (b *seedBook) untried() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.all {
		if s := &b.all[i]; !s.own && !s.met && !s.tried {
			return true
		}
	}
	return false
}

// health returns an error for each seed that was never met, and one while the node is
// alone and should not be.
func (b *seedBook) health(now time.Time, alone bool, live map[string]bool) []error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	others := false
	if alone {
		errs = append(errs, health.Because(health.Alone, errors.New("no other member found, although there are seeds")))
	}
	for i := range b.all {
		s := &b.all[i]
		s.meet(live)
		others = others || !s.own
		if why := s.unmet(); why != nil && now.Sub(b.born) >= aloneFor {
			errs = append(errs, why)
		}
	}
	if !others {
		return nil
	}
	if n := len(errs) - maxTold; n > 0 {
		errs = append(errs[:maxTold], health.Because(health.Seed, fmt.Errorf("%d more seeds were never met", n)))
	}
	return errs
}

// unmet says why the seed was not met, or returns nil.
func (s *seed) unmet() error {
	switch {
	case s.met || s.own:
		return nil
	case s.why == nil:
		return health.Because(health.Seed, fmt.Errorf("the seed %s was never met", s.name))
	}
	code := health.CodeOf(s.why)
	if code == health.Other {
		code = health.Seed
	}
	return health.Because(code, fmt.Errorf("the seed %s was never met: %w", s.name, s.why))
}
