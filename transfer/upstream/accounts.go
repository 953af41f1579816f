package upstream

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

// maxAccounts is how many logins a registry may have beside the first one: a sight has a bit
// for each.
const maxAccounts = 31

// accounts are the logins of one registry. They own whose turn it is: requests take those by
// turns that are not limited, and the others only if nothing else is left.
type accounts struct {
	all     []*account // at least one; if the registry has no login, one that shows none
	home    *home
	reserve int // percentage of its rate limit below which the others go before an account
	log     *slog.Logger

	mu       sync.Mutex // guards the fields below and what changes of each account; never held during I/O
	requests uint64
	sights   *simplelru.LRU[string, sight] // by repository
}

// A sight is which accounts were let in to a repository, and which were not while another was.
type sight struct {
	sees, blind uint32
	at          time.Time // when blind was last true
}

// blindFor is how long an account that may not see a repository goes after the others there.
const blindFor = time.Hour

// newAccounts returns the accounts of a registry. shared is what their passes have in common.
func newAccounts(cfg Registry, shared passes) *accounts {
	s := &accounts{home: shared.home, reserve: cfg.Reserve, log: shared.net.log, sights: newMemory[string, sight](maxRepositories)}
	first := Account{"auth", cfg.Username, cfg.Password, cfg.Source}
	logins := slices.Concat([]Account{first}, cfg.Accounts)
	if first.Username == "" && first.Password == "" && first.Source == nil && len(cfg.Accounts) > 0 {
		logins = cfg.Accounts
	}
	for i, one := range logins {
		p := shared
		p.login = &login{home: shared.home, fixed: Credentials{one.Username, one.Password}, source: one.Source, realmHosts: cfg.RealmHosts}
		s.all = append(s.all, &account{name: one.Name, bit: 1 << i, passes: &p})
	}
	return s
}

// order returns the accounts that a request for repo is to be asked with, one after the other.
// Those that are limited are left out, unless no right login is left: then it is the one
// alone whose rest ends first.
func (s *accounts) order(repo string) []*account {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var free, resting []*account
	right := false // some free one has a right login
	for _, a := range s.all {
		switch {
		case !a.rests(now):
			free, right = append(free, a), right || !a.isWrong()
		case !a.isWrong():
			resting = append(resting, a)
		}
	}
	switch {
	case !right && len(resting) > 0:
		free = []*account{slices.MinFunc(resting, func(a, b *account) int { return a.limited.Compare(b.limited) })}
	case len(free) == 0:
		free = slices.Clone(s.all) // no login is right
	}
	slices.SortStableFunc(free, func(a, b *account) int {
		return cmp.Or(cmp.Compare(s.rank(a, repo, now), s.rank(b, repo, now)), cmp.Compare(a.used, b.used))
	})
	s.requests++
	free[0].used = s.requests
	return free
}

// rank tells accounts apart that are asked one after the other: after the others go those that
// have little left of their limit, then those that were refused the repository, and at last
// those whose login is refused. The caller holds mu.
func (s *accounts) rank(a *account, repo string, now time.Time) (rank int) {
	if a.spare(s.reserve, now) {
		rank++
	}
	if seen, ok := s.sights.Get(repo); ok && seen.blind&a.bit != 0 && now.Sub(seen.at) < blindFor {
		rank += 2
	}
	if a.isWrong() && now.Sub(a.wrong) < wrongFor {
		rank += 4
	}
	return rank
}

// hear notes what a visit tells of its account, and returns it.
func (s *accounts) hear(ctx context.Context, v *visit) outcome {
	o := v.outcome()
	switch news := s.note(v, o); {
	case news && o == refused:
		s.log.WarnContext(ctx, "login refused; the other accounts are used instead", "registry", s.home.host, "account", v.account.name, "status", v.status())
	case news:
		s.log.InfoContext(ctx, "login taken again", "registry", s.home.host, "account", v.account.name)
	}
	return o
}

// note notes what a visit tells of its account. It reports whether the log is to hear of it.
func (s *accounts) note(v *visit, o outcome) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := v.account
	if q, ok := v.quota(); ok {
		a.quota, a.heard = q, time.Now()
	}
	if o != beside && o != exceeded && !v.began.Before(a.since) { // not an answer that crossed the limit
		a.limited = time.Time{}
	}
	switch o {
	case exceeded:
		now, rest := time.Now(), v.rest()
		if a.told = rest > 0; !a.told && a.spare(0, now) {
			rest = a.quota.Reset.Sub(now)
		}
		a.since, a.limited = now, now.Add(min(cmp.Or(rest, untoldRest), longestPause))
		a.wrong = time.Time{} // it may be right
	case refused:
		return a.refuse(v, v.status() == http.StatusUnauthorized || !a.taken || a.refusals+1 >= manyRefusals)
	case granted:
		return a.grant()
	}
	return news
}

// hearOnly notes whether the login of a registry that has one alone is right. A token server
// that refuses a token by 403 may mean the repository, which is any client's choice, so that
// takes many of them.
func (s *accounts) hearOnly(ctx context.Context, v *visit) {
	o := v.outcome()
	if o != refused && o != granted || !v.passes.login.given() {
		return
	}
	s.mu.Lock()
	a := v.account
	var news bool
	if o == granted {
		news = a.grant()
	} else {
		news = a.refuse(v, v.status() == http.StatusUnauthorized || a.refusals+1 >= manyRefusals)
	}
	s.mu.Unlock()
	switch {
	case news && o == refused:
		s.log.WarnContext(ctx, "login refused: correct it in the config", "registry", s.home.host, "account", a.name, "status", v.status())
	case news:
		s.log.InfoContext(ctx, "login taken again", "registry", s.home.host, "account", a.name)
	}
}

// saw notes that an account was let in to a repository, and which were not.
func (s *accounts) saw(repo string, a *account, blind uint32) {
	if repo == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, _ := s.sights.Get(repo)
	seen.sees = (seen.sees | a.bit) &^ blind
	seen.blind = (seen.blind | blind) &^ a.bit
	if blind != 0 {
		seen.at = time.Now()
	}
	s.sights.Add(repo, seen)
}

// sees reports whether an account was let in to a repository when it was last asked.
func (s *accounts) sees(repo string, a *account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, _ := s.sights.Get(repo)
	return seen.sees&a.bit != 0
}

// limits reports which of the accounts with a right login are limited: any of them, and all.
// wait is how long the shortest of their rests is, 0 if the registry has not said so of each.
func (s *accounts) limits() (wait time.Duration, some, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, told := time.Now(), true
	all = true
	for _, a := range s.all {
		switch {
		case a.isWrong():
		case !a.rests(now):
			all = false
		default:
			if left := a.limited.Sub(now); !some || left < wait {
				wait = left
			}
			some, told = true, told && a.told
		}
	}
	if !told {
		wait = 0
	}
	return wait, some, some && all
}

// low reports whether each account with a right login is limited or has less than percent of
// its rate limit left.
func (s *accounts) low(percent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, some := time.Now(), false
	for _, a := range s.all {
		if a.isWrong() {
			continue
		}
		if !a.rests(now) && !(a.quota.Low(percent) && now.Sub(a.heard) < believedFor) {
			return false
		}
		some = true
	}
	return some
}

// quota returns what the rate limits of several accounts add up to, as far as the registry
// has told them. A window that is over is full again.
func (s *accounts) quota() (sum Quota, ok bool) {
	if len(s.all) == 1 {
		return Quota{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		q := a.quota
		if q.Limit == 0 {
			continue
		}
		if !time.Now().Before(q.Reset) {
			q.Remaining = q.Limit
		}
		sum.Limit += q.Limit
		sum.Remaining += q.Remaining
		if q.Reset.After(sum.Reset) {
			sum.Reset = q.Reset
		}
	}
	return sum, sum.Limit > 0
}

// refuses reports whether the registry refuses an account's login.
func (s *accounts) refuses(a *account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.isWrong()
}

// wrong lists the names of the accounts whose login the registry refuses.
func (s *accounts) wrong() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		if a.isWrong() {
			names = append(names, a.name)
		}
	}
	return names
}

// greet asks the registry for /v2/ with each account, until one is refused.
func (s *accounts) greet(ctx context.Context, hops hops) (g Greeting, err error) {
	for _, a := range s.all {
		if g, err = (greeter{hops, a.passes}).greet(ctx); err == nil {
			continue
		}
		err = causeOf(err)
		if e, ok := oci.AsError(err); ok && len(s.all) > 1 {
			e.Reason = a.name + ": " + e.Reason
		}
		return g, err
	}
	return g, nil
}
