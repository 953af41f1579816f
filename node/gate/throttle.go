package gate

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/wait"
)

const (
	// failuresFree is how many logins from an address may fail within failureSpan
	// before it has to wait for its next refusal.
	failuresFree = 10
	// failuresSlow is how many may fail before no login from it is looked at any
	// more, except those that were right from there before: otherwise one machine
	// with an old password would lock out all others behind a shared address.
	failuresSlow = 20
	// failuresMost is how many may fail before no login at all is looked at: even
	// those that are known can be guessed.
	failuresMost = 600
	// maxDelayed bounds the refusals held back at a time. Others go out at once, as
	// 429.
	maxDelayed = 256
	// maxFailing bounds the addresses remembered. The one that failed least
	// recently is forgotten.
	maxFailing = 8192
)

// A level is how an address that fails is treated.
type level int

const (
	free    level = iota
	slowed        // a wrong login waits for its refusal
	barred        // only logins known from there are looked at
	ignored       // no login is looked at
)

// A throttle slows down whoever guesses logins, by network.
type throttle struct {
	delayed chan struct{} // a place for each refusal held back

	mu      sync.Mutex // guards the fields below; never held during I/O
	failing *simplelru.LRU[netip.Prefix, *failures]
	turns   map[netip.Prefix]*turn
}

// A turn lets the logins from one address be looked at one after the other, so
// that a thousand at once are not a thousand guesses.
type turn struct {
	taken chan struct{}
	users int // requests that have it or want it
}

// failures are those of one address.
type failures struct {
	since time.Time
	count int
	user  string // named by all of them
	mixed bool   // they named more than one user
}

func newThrottle() *throttle {
	failing, err := simplelru.NewLRU[netip.Prefix, *failures](maxFailing, nil)
	if err != nil {
		panic(err) // it only refuses a size below 1
	}
	return &throttle{failing: failing, turns: map[netip.Prefix]*turn{}, delayed: make(chan struct{}, maxDelayed)}
}

// level returns how an address is treated now, and for how much longer.
func (t *throttle) level(addr netip.Prefix) (level, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.find(addr)
	if f == nil {
		return free, 0
	}
	return f.level(), f.left()
}

// failed counts a failed login as user, and returns how that login is treated.
func (t *throttle) failed(addr netip.Prefix, user string) (level, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.find(addr)
	if f == nil {
		f = &failures{since: time.Now(), user: user}
	}
	t.failing.Add(addr, f) // now the most recent
	was := f.level()
	f.count++
	f.mixed = f.mixed || f.user != user
	return was, f.left()
}

// succeeded counts a right login. It makes up for failures of the same user
// only: a login of one's own must not wash off guesses at another's.
func (t *throttle) succeeded(addr netip.Prefix, user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.find(addr); f != nil && !f.mixed && f.user == user && f.level() < barred {
		t.failing.Remove(addr)
	}
}

// find returns the failures of an address, nil for none. The caller holds mu.
func (t *throttle) find(addr netip.Prefix) *failures {
	f, ok := t.failing.Peek(addr)
	if ok && f.left() <= 0 {
		t.failing.Remove(addr)
		return nil
	}
	return f
}

// left is for how much longer the failures count.
func (f *failures) left() time.Duration { return time.Until(f.since.Add(failureSpan)) }

// level is how the address is treated.
func (f *failures) level() level {
	switch {
	case f.count < failuresFree:
		return free
	case f.count < failuresSlow:
		return slowed
	case f.count < failuresMost:
		return barred
	default:
		return ignored
	}
}

// delay holds an answer back for d, or until ctx ends. It reports false at once
// if too many are held back.
func (t *throttle) delay(ctx context.Context, d time.Duration) bool {
	select {
	case t.delayed <- struct{}{}:
	default:
		return false
	}
	defer func() { <-t.delayed }()
	_ = wait.For(ctx, d) // ctx's end is the end of the delay too
	return true
}

// turn waits until no other login from addr is being looked at. It reports false
// if ctx ended before. The caller calls end to give the turn back.
func (t *throttle) turn(ctx context.Context, addr netip.Prefix) (end func(), ok bool) {
	one := t.join(addr)
	select {
	case one.taken <- struct{}{}:
		return func() {
			<-one.taken
			t.leave(addr, one)
		}, true
	case <-ctx.Done():
		t.leave(addr, one)
		return nil, false
	}
}

// join returns the turn of an address for one more request.
func (t *throttle) join(addr netip.Prefix) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, ok := t.turns[addr]
	if !ok {
		one = &turn{taken: make(chan struct{}, 1)}
		t.turns[addr] = one
	}
	one.users++
	return one
}

// leave forgets the turn of an address once no request uses it.
func (t *throttle) leave(addr netip.Prefix, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(t.turns, addr)
	}
}
