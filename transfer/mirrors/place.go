package mirrors

import (
	"sync"
	"time"

	"oci-proxy/transfer/oci"
)

const (
	// weight is how much the newest measurement counts in a moving average.
	weight = 0.3
	// typicalBlob is the size by which places are compared for blobs, in bytes: how long
	// they take to begin counts as well as how fast they are.
	typicalBlob = 4 << 20
	// leastMeasured is how many bytes tell a speed.
	leastMeasured = 64 << 10
	// firstRest is for how long a place is not tried that failed once; each further failure
	// in a row doubles it, up to longestRest.
	firstRest   = 5 * time.Second
	longestRest = 5 * time.Minute
	// longestAsked is the longest that a place is left alone because it asks for that, as
	// package upstream has it. One that means a day by mistake is not out of use for a day.
	longestAsked = time.Hour
	// liarsRest is for how long a place is not tried that sent wrong bytes.
	liarsRest = 10 * time.Minute
)

// A place is a host that holds a registry's repositories: a mirror, or the registry itself.
type place struct {
	host    string
	own     bool // it is the registry itself
	trusted bool // for tags, and all else that nobody can check

	mu       sync.Mutex    // guards the fields below; never held during I/O
	latency  time.Duration // until an answer begins, a moving average; 0: not known
	rate     float64       // bytes a second of bodies, a moving average; 0: not known
	failures int           // in a row
	rests    time.Time     // until then it is not probed
	measured time.Time     // when latency or rate were last
	read     time.Time     // when a blob of it was last begun, to learn the rate
	wrong    string        // with what it last failed
	liar     time.Time     // until when it counts as one, however it answers
}

// A view is what is known of a place at one moment.
type view struct {
	*place
	sick     bool
	document time.Duration // how long a small answer is expected to take, 0: not known
	blob     time.Duration // how long a typical blob is, 0: not known
}

// look returns what is known of the place now.
func (p *place) look() view {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := view{place: p, sick: p.failures > 0, document: p.latency}
	if p.rate > 0 {
		v.blob = p.latency + time.Duration(typicalBlob/p.rate*float64(time.Second))
	}
	return v
}

// party is who gave an answer that the place's host sent.
func (p *place) party(by oci.Party) oci.Party {
	if p.own || by == oci.Middlebox {
		return by
	}
	return oci.Mirror
}

// answered notes that an answer began after that time. It does not make good what a liar sent: the request
// may have begun before that was found out.
func (p *place) answered(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.measured = time.Now(); !p.measured.Before(p.liar) {
		p.failures = 0
	}
	if p.latency == 0 {
		p.latency = max(took, 1)
		return
	}
	p.latency = max(1, p.latency+time.Duration(weight*float64(took-p.latency)))
}

// sent notes that n bytes of a body came in that time. Fewer than leastMeasured tell nothing.
func (p *place) sent(n int64, in time.Duration) {
	if n < leastMeasured {
		return
	}
	rate := float64(n) / max(in.Seconds(), 1e-6)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measured = time.Now()
	if p.rate == 0 {
		p.rate = rate
		return
	}
	p.rate += weight * (rate - p.rate)
}

// crawls notes that the place is no faster than that now, whatever it was before.
func (p *place) crawls(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate, p.measured = max(rate, 1), time.Now()
}

// speed returns the bytes a second, 0 if that is not known, or the place is out of use.
func (p *place) speed() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failures > 0 {
		return 0
	}
	return p.rate
}

// failed notes that the place did not answer as it should. It is tried again after a while:
// as long as it asks for, if it does, and that is not too long.
func (p *place) failed(why string, asked time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = why
	rest := min(firstRest<<min(p.failures, 10), longestRest)
	p.failures++
	p.rest(max(rest, min(asked, longestAsked)))
}

// lied notes that all bytes of a blob or manifest came from the place, and are wrong.
func (p *place) lied() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures++
	p.wrong = "it sent bytes that their digest does not name"
	p.liar = time.Now().Add(liarsRest)
	p.rest(liarsRest)
}

// rest has the place not tried for that time. The caller holds mu.
func (p *place) rest(d time.Duration) {
	if until := time.Now().Add(d); until.After(p.rests) {
		p.rests = until
	}
}

// due reports whether the place is to be probed, by reading a blob or else by a header: its
// rest is over, or what is wanted is not known, or was measured long ago.
func (p *place) due(blob bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.failures > 0:
		return time.Now().After(p.rests)
	case p.latency == 0:
		return true
	case blob && p.rate == 0:
		return time.Since(p.read) > reread
	default:
		return time.Since(p.measured) > remeasure
	}
}

// reading notes that a blob of the place is read to learn its speed.
func (p *place) reading() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = time.Now()
}

// describe returns how the place does, for people.
func (p *place) describe() Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Place{Host: p.host, Well: p.failures == 0, Wrong: p.wrong}
}
