package upstream

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A State says in a word how a registry does.
type State string

// The states. Their names are outward.
const (
	Up      State = "up"      // it answers, or has not been asked
	Down    State = "down"    // nothing answers in its place, or only with errors
	Limited State = "limited" // it asks to come back later
)

// A Standing is how a registry does, as this node last saw it.
type Standing struct {
	Host      string
	State     State
	Since     time.Time     // when the State began; of a registry that has not been asked, this node's start
	LastError string        // how it last failed, "" if it did not; without secrets, names inside the network and queries
	Latency   time.Duration // from a request to the header of the answer, a moving average; 0: it has not answered
	Quota     Quota         // what it says of its rate limit; of several accounts the sum of those that have been used
	Active    int           // requests that have a turn now
	Waiting   int           // requests that wait for one
}

// A standing is what is noted of one registry. Latency and quota are those of its own host;
// a failure may be that of where it sends clients for tokens and blobs.
type standing struct {
	mu    sync.Mutex // guards the fields below; never held during I/O
	now   Standing
	heard time.Time // when the quota was told
}

// newStanding returns that of a registry which has not been asked.
func newStanding(host string) *standing {
	return &standing{now: Standing{Host: host, State: Up, Since: time.Now()}}
}

// weight is how much the newest measurement counts in a moving average.
const weight = 0.25

// answered notes an answer of the registry's own host, which took that long to begin. The log
// hears of it if the registry failed before.
func (h *home) answered(ctx context.Context, resp *http.Response, took time.Duration) {
	if was, changed := h.standing.answered(resp, took); changed {
		h.log.InfoContext(ctx, "registry does well again", "registry", h.host, "for_ms", wait.Milliseconds(time.Since(was.Since)))
	}
}

// failed notes what a request ended with, retries included. The log hears of it if the
// registry did well before, or failed in another way: at warn if somebody means to use it.
// Clients can name others, also ones that never were.
func (h *home) failed(ctx context.Context, e *oci.Error) {
	now, changed := h.standing.failed(e)
	if !changed {
		return
	}
	level := slog.LevelInfo
	if !h.stranger || now.Latency > 0 {
		level = slog.LevelWarn
	}
	h.log.Log(ctx, level, "registry fails", "registry", h.host, "state", string(now.State), "error", now.LastError)
}

// answered notes an answer. It returns what stood before, and whether the state has changed.
func (s *standing) answered(resp *http.Response, took time.Duration) (was Standing, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was = s.now
	if q, ok := quotaOf(resp.Header, time.Now()); ok {
		s.now.Quota, s.heard = q, time.Now()
	}
	if s.now.Latency == 0 {
		s.now.Latency = took
	}
	s.now.Latency += time.Duration(weight * float64(took-s.now.Latency))
	if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
		s.become(Up)
	}
	return was, s.now.State != was.State
}

// failed notes a failure. It returns what stands now, and whether the state has changed.
func (s *standing) failed(e *oci.Error) (now Standing, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.now.State
	switch e.Kind {
	case oci.Limited:
		s.become(Limited)
	case oci.Unavailable, oci.Timeout, oci.Looped:
		s.become(Down)
	default:
		return s.now, false // it is the request that is wrong, or this node
	}
	s.now.LastError = plainReason(e)
	return s.now, s.now.State != was
}

// plainReason is why a request failed, without names inside the network.
func plainReason(e *oci.Error) string {
	plain := *e
	plain.Inside, plain.Err = "", nil
	return strings.TrimPrefix(plain.Error(), e.Registry+": ")
}

// become changes the state. The caller holds mu.
func (s *standing) become(state State) {
	if s.now.State != state {
		s.now.State, s.now.Since = state, time.Now()
	}
}

// low reports whether the registry said lately that less than percent of its limit is left.
func (s *standing) low(percent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Quota.Low(percent) && time.Since(s.heard) < believedFor
}

// get returns what is noted.
func (s *standing) get() Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// standingOf returns how a registry does.
func standingOf(r *registry) Standing {
	s := r.home.standing.get()
	if pause, on := r.net.pauses.of(r.home.host); on && s.State != Limited {
		s.State, s.Since, s.LastError = Limited, pause.since, plainReason(&pause.said) // as another member told
	}
	if q, ok := r.accounts.quota(); ok {
		s.Quota = q
	}
	s.Active, s.Waiting = r.turns.figures()
	return s
}
