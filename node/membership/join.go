package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	firstPause = 500 * time.Millisecond // between tries while alone; doubles
	lastPause  = 10 * time.Second
	abreast    = 3 // joins at a time, and as many successes are enough
	roundSize  = 9 // addresses tried in a round while alone
)

// mingling is when, after the first join, others are joined: gossip alone
// leaves some members of a mesh that starts at once unknown to some for more
// than a minute.
var mingling = []time.Duration{time.Second, 3 * time.Second, 8 * time.Second}

// A seeker looks for other members, for ever: while alone, and while a seed's
// address or a member known in the last day is not alive, since memberlist
// never tries again who was dead for half a minute. Only its one goroutine
// has it.
type seeker struct {
	m       *Membership
	alone   bool
	missing int // seeds' addresses that were not alive when last looked up
	pause   time.Duration
	mingled sync.WaitGroup
}

// run seeks until ctx ends.
func (s *seeker) run(ctx context.Context) {
	defer s.mingled.Wait()
	s.alone, s.pause = true, firstPause
	over := sync.OnceFunc(func() { close(s.m.sought) })
	for {
		began := time.Now()
		s.round(ctx)
		over()
		s.settle(ctx)
		// Jitter, as all may have been started by one hand.
		pause := time.Duration((0.75 + rand.Float64()/4) * float64(s.pause))
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(pause-time.Since(began), firstPause/2)):
		}
	}
}

// settle chooses the pause, and mingles after a first join.
func (s *seeker) settle(ctx context.Context) {
	others, _ := s.m.roster.company()
	switch {
	case others > 0 && s.alone:
		s.mingled.Go(func() { s.mingle(ctx) })
		s.pause = lastPause
	case others > 0:
		s.pause = lastPause
	case !s.alone:
		s.pause = firstPause
	default:
		s.pause = min(2*s.pause, lastPause)
		s.m.tryNextSecret()
	}
	s.alone = others == 0
}

// round tries once what is to be tried.
func (s *seeker) round(ctx context.Context) {
	others, _ := s.m.roster.company()
	lost := s.m.book.lost()
	// The smaller side of a split tries at each round. Where one of a hundred
	// is missing, it is one of the hundred who tries.
	if others > 0 && rand.Float64()*float64(others+1) >= float64(max(len(lost)+s.missing, 1)) {
		return
	}
	seeds, failed := s.seeds(ctx)
	s.missing = len(seeds)
	s.m.seedless.Store(len(seeds) == 0 && !failed)
	if others > 0 {
		s.try(ctx, append(seeds[:min(1, len(seeds))], recent(lost, abreast-1)...))
		return
	}
	room := max(roundSize-len(seeds), abreast)
	s.try(ctx, append(seeds[:min(roundSize-abreast, len(seeds))], recent(lost, room)...))
}

// recent picks up to n at random, those at the front more often.
func recent(all []netip.AddrPort, n int) (picked []netip.AddrPort) {
	all = slices.Clone(all)
	for ; n > 0 && len(all) > 0; n-- {
		f := rand.Float64()
		i := int(f * f * f * float64(len(all)))
		picked = append(picked, all[i])
		all = slices.Delete(all, i, i+1)
	}
	return picked
}

// seeds are all addresses of the seeds that are not alive, in random order,
// without this node's own. failed: a name was not resolved.
func (s *seeker) seeds(ctx context.Context) (all []netip.AddrPort, failed bool) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found := make([][]netip.AddrPort, len(s.m.cfg.Seeds))
	errs := make([]error, len(s.m.cfg.Seeds))
	var lookups sync.WaitGroup
	for i, seed := range s.m.cfg.Seeds {
		lookups.Go(func() { found[i], errs[i] = s.m.cfg.addresses(ctx, seed) })
	}
	lookups.Wait()
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		s.m.murmur.tell(slog.LevelWarn, "seed not found", "error", err)
	}
	alive := s.m.roster.gossips()
	for _, a := range slices.Concat(found...) {
		if !alive[a.String()] && !slices.Contains(all, a) && !s.m.own(a) {
			all = append(all, a)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all, errors.Join(errs...) != nil
}

// addresses are all that the seed, host:port, stands for.
func (c *Config) addresses(ctx context.Context, seed string) (all []netip.AddrPort, err error) {
	host, port, err := splitAddress(seed)
	if err != nil {
		return nil, err
	}
	ips, err := c.lookupAll(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		all = append(all, netip.AddrPortFrom(ip, port))
	}
	return all, nil
}

// try joins one after the other, some abreast, until enough were a success.
func (s *seeker) try(ctx context.Context, targets []netip.AddrPort) {
	work := make(chan netip.AddrPort, len(targets))
	for _, t := range targets {
		work <- t
	}
	close(work)
	var mu sync.Mutex
	won := 0
	var joins sync.WaitGroup
	for range min(abreast, len(targets)) {
		joins.Go(func() {
			for t := range work {
				mu.Lock()
				enough := won >= abreast
				mu.Unlock()
				if enough || ctx.Err() != nil {
					return
				}
				if s.join(ctx, t) {
					mu.Lock()
					won++
					mu.Unlock()
				}
			}
		})
	}
	joins.Wait()
}

// join tells whether there is company after joining the address: memberlist
// takes it for a success to have joined oneself.
func (s *seeker) join(ctx context.Context, a netip.AddrPort) bool {
	_, err := s.m.list.Join([]string{a.String()})
	if err != nil {
		level, why := explain(err)
		failure := fmt.Sprintf("%s: %s", a, why)
		s.m.joinFailure.Store(&failure)
		if ctx.Err() == nil {
			s.m.murmur.tell(level, "member not joined", "address", a.String(), "reason", why)
		}
		return false
	}
	others, _ := s.m.roster.company()
	return others > 0
}

// explain says in words of ours why a join failed.
func explain(err error) (slog.Level, string) {
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, known := range []struct{ sign, why string }{
		{"no installed keys could decrypt", "it has another secret"},
		{"encryption is not configured", "it has a secret, this node has none"},
		{"not encrypted", "it has no secret, this node has one"},
		{"remote state is encrypted", "it has a secret, this node has none"},
	} {
		if strings.Contains(text, known.sign) {
			return slog.LevelWarn, known.why
		}
	}
	if strings.HasSuffix(text, "EOF") {
		return slog.LevelWarn, "it hung up: it may be no oci-proxy, or have another secret, or too much to do"
	}
	return slog.LevelInfo, text
}

// mingle joins random others, some time after the first join.
func (s *seeker) mingle(ctx context.Context) {
	began := time.Now()
	for _, at := range mingling {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(began.Add(at))):
		}
		for gossip := range s.m.roster.gossips() { // in random order
			if a, err := netip.ParseAddrPort(gossip); err == nil {
				s.join(ctx, a)
				break
			}
		}
	}
}
