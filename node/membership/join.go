package membership

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/node/health"
	"oci-proxy/transfer/wait"
)

const (
	abreast   = 3 // joins at a time; that many successes are enough
	roundSize = 9 // addresses tried in a round while alone
)

// A seeker looks for other members for as long as the node runs: while the node is
// alone, and while a seed's address or a member of the last day is not alive.
// memberlist itself never tries a member again that was dead for half a minute.
// A seeker belongs to one goroutine.
type seeker struct {
	m       *Membership
	alone   bool
	missing int           // seeds' addresses that were not alive when last looked up
	turn    int           // counts the seeds' addresses tried: each has its turn
	pause   time.Duration // before the next round
	mingled sync.WaitGroup
}

// run looks for members until ctx ends.
func (s *seeker) run(ctx context.Context) {
	defer s.mingled.Wait()
	s.alone, s.pause, s.turn = true, firstPause, rand.IntN(1<<16) // nodes start at different seeds
	searched := sync.OnceFunc(func() { close(s.m.sought) })
	for {
		began := time.Now()
		s.round(ctx)
		searched()
		s.settle(ctx)
		// Jitter, as all nodes may have been started at the same moment.
		pause := time.Duration((0.75 + rand.Float64()/4) * float64(s.pause))
		if wait.Until(ctx, s.m.anew, max(pause-time.Since(began), firstPause/2)) != nil {
			return
		}
	}
}

// settle chooses the next pause, and mingles after a first join.
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
		s.m.tellSecret(s.m.keys.tryNext())
	}
	s.alone = others == 0
}

// round tries the addresses that are due.
func (s *seeker) round(ctx context.Context) {
	others, _ := s.m.roster.company()
	lost := s.m.book.lost()
	// The smaller side of a split tries in each round. If one of a hundred is
	// missing, one of the hundred tries.
	// Each tries a seed once, to know what is wrong with it.
	untried := s.m.seeds.untried()
	if others > 0 && !untried && rand.Float64()*float64(others+1) >= float64(max(len(lost)+s.missing, 1)) {
		return
	}
	seeds := s.seeds(ctx)
	s.missing = len(seeds)
	due, room := min(roundSize-abreast, len(seeds)), max(roundSize-len(seeds), abreast)
	if others > 0 && !(untried && s.m.seeds.untried()) {
		due, room = min(1, len(seeds)), abreast-1
	}
	s.turn += due
	s.try(ctx, append(seeds[:due], recent(lost, room)...))
}

// recent picks up to n addresses at random, more often from the front.
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

// seeds returns the addresses of the seeds, those whose turn it is first, without this
// node's own and those of live members.
func (s *seeker) seeds(ctx context.Context) (all []netip.AddrPort) {
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
		s.m.bridge.tell(slog.LevelWarn, "seed not resolved", "error", err)
	}
	alive := s.m.roster.gossips()
	for i := range found {
		s.m.seeds.resolved(i, found[i], s.m.at.own, alive, errs[i])
	}
	for _, a := range slices.Concat(found...) {
		if !alive[a.String()] && !slices.Contains(all, a) && !s.m.at.own(a) {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	first := s.turn % len(all)
	return slices.Concat(all[first:], all[:first])
}

// addresses returns all addresses that the seed, host:port, stands for.
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

// try joins the targets, some at a time, until enough joins have succeeded.
func (s *seeker) try(ctx context.Context, targets []netip.AddrPort) {
	work := make(chan netip.AddrPort, len(targets))
	for _, t := range targets {
		work <- t
	}
	close(work)
	var mu sync.Mutex // guards won; never held during I/O
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

// join joins the address and reports whether there are other members then.
// memberlist's own success does not tell: a node may join itself.
func (s *seeker) join(ctx context.Context, a netip.AddrPort) bool {
	_, err := s.m.gossip.list().Join([]string{a.String()})
	if err != nil {
		level, why := explain(err)
		code := health.Seed
		if level == slog.LevelWarn { // it turns this node away
			code = health.Secret
		}
		s.m.seeds.joined(a, health.Because(code, errors.New(why)))
		if ctx.Err() == nil {
			s.m.bridge.tell(level, "joining a member failed", "address", a.String(), "error", why)
		}
		return false
	}
	others, _ := s.m.roster.company()
	if others > 0 {
		s.m.seeds.joined(a, nil)
	}
	return others > 0
}

// explain says in plain words why a join failed. It is worth a warning if the other node
// has turned this one away.
func explain(err error) (slog.Level, string) {
	text := strings.Join(strings.Fields(err.Error()), " ")
	for _, known := range []struct{ sign, why string }{
		{"no installed keys could decrypt", "it has a different secret"},
		{"encryption is not configured", "it has a secret, this node has none"},
		{errElsewhere.Error(), "it belongs to another cluster: cluster.id differs"},
		{"not encrypted", "it has no secret, this node has one"},
		{"remote state is encrypted", "it has a secret, this node has none"},
	} {
		if strings.Contains(text, known.sign) {
			return slog.LevelWarn, known.why
		}
	}
	if strings.HasSuffix(text, "EOF") {
		return slog.LevelWarn, "it closed the connection: it may have a different secret or cluster.id, be overloaded, or not be an oci-proxy"
	}
	for _, known := range []struct{ sign, why string }{
		{"connection refused", "connection refused: nothing listens there"},
		{"timeout", "no answer"},
		{"timed out", "no answer"},
		{"no route to host", "no route to that host"},
		{"network is unreachable", "no route to that network"},
	} {
		if strings.Contains(text, known.sign) {
			return slog.LevelInfo, known.why
		}
	}
	return slog.LevelInfo, text
}

// mingle joins random other members, at set times after the first join.
func (s *seeker) mingle(ctx context.Context) {
	began := time.Now()
	for _, at := range mingling {
		if wait.For(ctx, time.Until(began.Add(at))) != nil {
			return
		}
		for gossip := range s.m.roster.gossips() { // in random order
			if a, err := netip.ParseAddrPort(gossip); err == nil {
				s.join(ctx, a)
				break
			}
		}
	}
}
