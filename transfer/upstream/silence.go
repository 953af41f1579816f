package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// How places are remembered that take connections and do not answer.
const (
	// silentAfter is after how many requests in a row without an answer a place counts as silent.
	// One that is slow now and then never gets there: any answer begins the count anew.
	silentAfter = 3
	// tooLong is how long an answer's header must have been waited for, over a
	// connection, for the wait to count.
	tooLong = 5 * time.Second
	// silenceFor is how long a silence is remembered after the last request.
	silenceFor = 5 * time.Minute
)

// silences remember the places that take connections but do not answer requests, as
// outages remember those that take no connections. While a place is silent one request
// at a time goes there; others fail at once, for the same reason. Only the wait for the
// header of an answer counts: a body may be slow, and a 503 is an answer.
type silences struct {
	mu      sync.Mutex // guards the fields below and every silence; never held during I/O
	byPlace *simplelru.LRU[string, *silence]
	answers *simplelru.LRU[string, time.Time] // when each place last answered
}

// A silence is one place that did not answer.
type silence struct {
	waits  int // in a row
	err    error
	since  time.Time // the first of them ended
	until  time.Time // it is forgotten then
	asking bool      // a request is there to see whether it answers again
}

// newSilences returns an empty memory.
func newSilences() *silences {
	return &silences{byPlace: newMemory[string, *silence](maxOutages), answers: newMemory[string, time.Time](maxOutages)}
}

// at returns the silence of a place, nil if none is remembered. The caller holds mu.
func (s *silences) at(place string) *silence {
	if one, ok := s.byPlace.Get(place); ok && time.Now().Before(one.until) {
		return one
	}
	return nil
}

// enter is called before a request to a place. It returns the error of the last one if
// the place is silent and another request is there to see. Otherwise call leave, with
// probe.
func (s *silences) enter(place string) (probe bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.at(place)
	switch {
	case one == nil || one.waits < silentAfter:
		return false, nil
	case one.asking:
		return false, &remembered{one.err}
	}
	one.asking = true
	return true, nil
}

// leave is called when a request to a place has ended: with an answer, with the wait for
// one since then, or in another way, which tells nothing. A place that has answered another
// request meanwhile is not silent, however many waited in vain at a time.
func (s *silences) leave(place string, probe, answered bool, waited error, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.at(place)
	if one != nil && probe {
		one.asking = false
	}
	last, _ := s.answers.Peek(place)
	switch {
	case answered:
		s.answers.Add(place, time.Now())
		s.byPlace.Remove(place)
	case waited != nil && last.After(since):
	case waited != nil:
		if one == nil {
			one = &silence{since: time.Now()}
			s.byPlace.Add(place, one)
		}
		one.waits, one.err, one.until = one.waits+1, waited, time.Now().Add(silenceFor)
	}
}

// age returns for how long a place has been silent, 0 if it is not known to be.
func (s *silences) age(place string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.at(place); one != nil && one.waits >= silentAfter {
		return max(time.Since(one.since), 1)
	}
	return 0
}

// A silentError ends a request that got no answer in time.
type silentError struct{}

func (silentError) Error() string { return "no answer in time" }

// Timeout implements net.Error.
func (silentError) Timeout() bool { return true }

// Temporary implements net.Error.
func (silentError) Temporary() bool { return true }

// waited returns the error to remember if the request of a trip waited for an answer for
// too long, nil if it ended with err for another reason. ctx is its own.
func (t *trip) waited(ctx context.Context, err error) error {
	if err == nil || !t.connected || time.Since(t.since) < tooLong {
		return nil
	}
	timeout, ok := errors.AsType[net.Error](err)
	if ctx.Err() != nil && isLate(context.Cause(ctx)) || ctx.Err() == nil && ok && timeout.Timeout() {
		return silentError{}
	}
	return nil
}
