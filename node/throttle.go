package node

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

const (
	// failuresFree is how many logins of an address may fail within failureSpan
	// before it is made to wait for its next refusal.
	failuresFree = 10
	// failuresSlow is how many may fail before no login of it is looked at any
	// more but those that were right from there before: else a machine behind a
	// shared address, with a password of yesterday, would lock out the others.
	failuresSlow = 20
	// failuresMost is how many may fail before nothing is looked at, for what is
	// looked at can be guessed.
	failuresMost = 600
	// failureSpan is how long failures count together, from the first.
	failureSpan = time.Minute
	// refusalDelay is how long a refusal is held back.
	refusalDelay = time.Second
	// maxDelayed bounds the refusals held back at a time; others go at once, as 429.
	maxDelayed = 256
	// maxFailing bounds the addresses remembered. The longest quiet is forgotten.
	maxFailing = 8192
)

// A strictness is how an address that fails is treated.
type strictness int

const (
	free   strictness = iota
	slow              // a wrong login waits for its refusal
	barred            // only logins known from there are looked at
	deaf              // nothing is
)

// A throttle slows down who guesses logins, by address: an IPv4 address, or an
// IPv6 network of 64 bits, since who has one address there has them all.
type throttle struct {
	mu      sync.Mutex
	at      map[netip.Prefix]*list.Element
	recent  *list.List // of *failing, the last first
	turns   map[netip.Prefix]*turn
	delayed chan struct{}
}

// A turn lets one login of an address be looked at after the other, so that a
// thousand at once are no thousand guesses.
type turn struct {
	taken chan struct{}
	many  int // who have it or want it
}

// A failing is an address that failed.
type failing struct {
	addr  netip.Prefix
	since time.Time
	many  int
	user  string // whom the failures named, for as long as it was one
	mixed bool
}

func newThrottle() *throttle {
	return &throttle{at: map[netip.Prefix]*list.Element{}, recent: list.New(), turns: map[netip.Prefix]*turn{}, delayed: make(chan struct{}, maxDelayed)}
}

// network is what an address counts as.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.WithZone("").Prefix(bits) // invalid for no address at all, which then is one of all such
	return p
}

// find returns what is remembered of an address, nil for nothing. The caller
// holds the lock.
func (t *throttle) find(addr netip.Prefix) *failing {
	e, ok := t.at[addr]
	if !ok {
		return nil
	}
	f := e.Value.(*failing)
	if time.Since(f.since) >= failureSpan {
		t.forget(e)
		return nil
	}
	return f
}

func (t *throttle) forget(e *list.Element) {
	delete(t.at, t.recent.Remove(e).(*failing).addr)
}

// level returns how an address is treated now, and for how long still.
func (t *throttle) level(addr netip.Prefix) (strictness, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.find(addr)
	if f == nil {
		return free, 0
	}
	return f.level(), time.Until(f.since.Add(failureSpan))
}

func (f *failing) level() strictness {
	switch {
	case f.many < failuresFree:
		return free
	case f.many < failuresSlow:
		return slow
	case f.many < failuresMost:
		return barred
	default:
		return deaf
	}
}

// failed notes that a login failed, as user, and returns how that one is
// treated.
func (t *throttle) failed(addr netip.Prefix, user string) (strictness, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.find(addr)
	if f == nil {
		f = &failing{addr: addr, since: time.Now(), user: user}
		t.at[addr] = t.recent.PushFront(f)
		if len(t.at) > maxFailing {
			t.forget(t.recent.Back())
		}
	}
	t.recent.MoveToFront(t.at[addr])
	was := f.level()
	f.many++
	f.mixed = f.mixed || f.user != user
	return was, time.Until(f.since.Add(failureSpan))
}

// succeeded notes a right login. It makes up for the failures of that user: with
// a login of one's own nobody can wash off guesses at another's.
func (t *throttle) succeeded(addr netip.Prefix, user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.find(addr); f != nil && !f.mixed && f.user == user && f.level() < barred {
		t.forget(t.at[addr])
	}
}

// delay holds a refusal back, until gone is closed at most. It reports false at
// once if too many are held back.
func (t *throttle) delay(gone <-chan struct{}, d time.Duration) bool {
	select {
	case t.delayed <- struct{}{}:
	default:
		return false
	}
	defer func() { <-t.delayed }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
	}
	return true
}

// turn waits until no other login from addr is being looked at; false: gone was
// closed before. end gives the turn back.
func (t *throttle) turn(gone <-chan struct{}, addr netip.Prefix) (end func(), ok bool) {
	t.mu.Lock()
	its, exists := t.turns[addr]
	if !exists {
		its = &turn{taken: make(chan struct{}, 1)}
		t.turns[addr] = its
	}
	its.many++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if its.many--; its.many == 0 {
			delete(t.turns, addr)
		}
	}
	select {
	case its.taken <- struct{}{}:
		return func() { <-its.taken; leave() }, true
	case <-gone:
		leave()
		return nil, false
	}
}
