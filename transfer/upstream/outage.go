package upstream

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// How what failed at the dial is remembered.
const (
	// outageFor is how long a place that could not be dialled is remembered after
	// the last try.
	outageFor = 10 * time.Second
	// glance is how long a request waits for the one dial under way to such a place.
	// It is measured from that dial's beginning. Where something listens again, most
	// dials end within it.
	glance = 250 * time.Millisecond
	// probeTime is how long a dial counts as under way at most: lookup, connection,
	// TLS.
	probeTime = dialTimeout + handshakeTimeout
)

// outages remember the places that one registry's requests could not dial: a host and
// port, and the proxy on the way there. While a place is remembered, one dial to it at
// a time is under way. Other requests fail at once for the same reason. Only what
// happens before there is a connection counts: no answer of a server does.
type outages struct {
	mu      sync.Mutex // guards the fields below and every outage; never held during I/O
	byPlace *simplelru.LRU[string, *outage]
	reaches *simplelru.LRU[string, time.Time] // when each place was last reached
}

// An outage is one place that could not be dialled.
type outage struct {
	err   error     // of the last dial
	since time.Time // the first of them ended
	until time.Time // it is forgotten then
	probe *probe    // the dial under way, nil for none
}

// A probe is a dial under way.
type probe struct {
	began time.Time
	ended chan struct{}
	once  sync.Once
}

// end says that the dial is over.
func (p *probe) end() { p.once.Do(func() { close(p.ended) }) }

// runs reports whether the dial is under way.
func (p *probe) runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return time.Since(p.began) < probeTime
	}
}

// A remembered error is that of an earlier dial.
type remembered struct{ error }

// Unwrap returns the error of that dial.
func (e *remembered) Unwrap() error { return e.error }

// newOutages returns an empty memory.
func newOutages() *outages {
	return &outages{byPlace: newMemory[string, *outage](maxOutages), reaches: newMemory[string, time.Time](maxOutages)}
}

// at returns the outage of a place, nil if none is remembered. The caller holds mu.
func (o *outages) at(place string) *outage {
	one, ok := o.byPlace.Get(place)
	if ok && time.Now().Before(one.until) {
		return one
	}
	return nil
}

// known returns the error of the last dial to a place, nil if none is remembered.
func (o *outages) known(place string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if one := o.at(place); one != nil {
		return &remembered{one.err}
	}
	return nil
}

// age returns for how long a place has been out of reach, 0 if it is not known to be.
func (o *outages) age(place string) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if one := o.at(place); one != nil {
		return time.Since(one.since)
	}
	return 0
}

// patience returns how long a request may wait for a connection to a place: most, if
// nothing is wrong there.
func (o *outages) patience(place string, most time.Duration) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	one := o.at(place)
	switch {
	case one == nil:
		return most
	case one.probe != nil && one.probe.runs():
		return max(glance-time.Since(one.probe.began), 0)
	default:
		return glance
	}
}

// enter is called before a dial to a place. It returns nil if the dial p may begin. If
// there is another one under way to a place that is out of reach, it waits for its end,
// or until gone is closed, and returns the error if the place is still out of reach.
func (o *outages) enter(place string, p *probe, gone <-chan struct{}) error {
	other := o.claim(place, p)
	if other == nil {
		return nil
	}
	select {
	case <-other.ended:
	case <-gone:
	}
	return o.known(place)
}

// claim makes p the dial under way to a place, if that is out of reach and no other is.
// Otherwise it returns the other one.
func (o *outages) claim(place string, p *probe) (other *probe) {
	o.mu.Lock()
	defer o.mu.Unlock()
	one := o.at(place)
	if one == nil || one.probe == p {
		return nil
	}
	if one.probe != nil && one.probe.runs() {
		return one.probe
	}
	one.probe = p
	return nil
}

// sinceReached returns how long ago anybody last reached a place; a long time, if that
// is not known.
func (o *outages) sinceReached(place string) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, _ := o.reaches.Peek(place)
	return time.Since(at)
}

// failed notes that the dial p to a place has failed, or takes too long and goes on
// without anybody who waits for it. A place that another dial has reached since p began
// is not out of reach.
func (o *outages) failed(place string, p *probe, err error, goesOn bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.reaches.Peek(place); ok && at.After(p.began) {
		if !goesOn {
			p.end()
		}
		return
	}
	now := time.Now()
	one := o.at(place)
	if one == nil {
		one = &outage{since: now}
		o.byPlace.Add(place, one)
	}
	one.err, one.until = err, now.Add(outageFor)
	switch {
	case !goesOn:
		p.end()
	case one.probe == nil || !one.probe.runs():
		one.probe = p
	}
}

// reached notes that the dial p to a place has led to a connection.
func (o *outages) reached(place string, p *probe) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reaches.Add(place, time.Now())
	if one, ok := o.byPlace.Peek(place); ok {
		o.byPlace.Remove(place)
		if one.probe != nil {
			one.probe.end()
		}
	}
	p.end()
}
