package logins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/wait"
)

// A Source keeps one login. It gets a new one in the background after most of the last one's
// life, at the next use; once the last one has ended, whoever needs it waits. At any time one
// try is under way, for all. It implements upstream.LoginSource.
type Source struct {
	key  string // of the config, for logs and health
	get  Getter
	life *wait.Life
	log  *slog.Logger

	mu      sync.Mutex // guards the fields below; never held during I/O
	now     state
	running chan struct{} // closed when the try under way has ended, nil without one
	forced  time.Time     // when the last try because of a refusal began
	pause   time.Duration // from then to the next one
}

var _ upstream.LoginSource = (*Source)(nil)

// A state is what the last tries gave.
type state struct {
	login upstream.Credentials // zero: there was none yet
	ends  time.Time            // zero: nobody knows
	next  time.Time            // from then on the next use begins a try
	err   error                // of the last try
}

// lasts reports whether the login has not ended.
func (s state) lasts(now time.Time) bool {
	return s.login != upstream.Credentials{} && (s.ends.IsZero() || now.Before(s.ends))
}

// errEnded is what is wrong with a login that has ended while nothing failed.
var errEnded = errors.New("the login has ended")

// result returns the login, or why there is none.
func (s state) result(now time.Time) (upstream.Credentials, error) {
	switch {
	case s.lasts(now):
		return s.login, nil
	case s.err != nil:
		return upstream.Credentials{}, s.err
	}
	return upstream.Credentials{}, errEnded
}

// New returns a Source. key is the config's key for the login. Tries end with life.
func New(key string, get Getter, life *wait.Life, log *slog.Logger) *Source {
	return &Source{key: key, get: get, life: life, log: log, pause: leastPause}
}

// Begin gets the first login in the background, so that it is known early if that fails.
func (s *Source) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.try()
}

// Last implements upstream.LoginSource.
func (s *Source) Last() upstream.Credentials { return s.state().login }

// Ready implements upstream.LoginSource.
func (s *Source) Ready(ctx context.Context) (upstream.Credentials, error) {
	now := time.Now()
	last, trying := s.use(now)
	if last.lasts(now) || trying == nil {
		return last.result(now)
	}
	select {
	case <-trying:
		return s.state().result(time.Now())
	case <-ctx.Done():
		return upstream.Credentials{}, context.Cause(ctx)
	}
}

// Fresh implements upstream.LoginSource. While tries bring nothing new, they are made ever less
// often.
func (s *Source) Fresh(ctx context.Context) upstream.Credentials {
	if trying := s.force(time.Now()); trying != nil {
		select {
		case <-trying:
		case <-ctx.Done():
		}
	}
	return s.Last()
}

// Health returns what is wrong now, under the config's key.
func (s *Source) Health() error {
	last, now := s.state(), time.Now()
	if last.err == nil {
		return nil
	}
	rest := "there is no login"
	switch {
	case last.lasts(now) && last.ends.IsZero():
		rest = "the last login stays in use"
	case last.lasts(now):
		rest = "the last login stays in use until " + last.ends.UTC().Format(time.RFC3339)
	}
	return fmt.Errorf("%s: %w; %s", s.key, last.err, rest)
}

func (s *Source) state() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// use returns what is known, and what is closed when the try under way has ended, nil if
// there is none. It begins one if it is time.
func (s *Source) use(now time.Time) (state, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.Before(s.now.next) {
		s.try()
	}
	return s.now, s.running
}

// force is use after the login was refused.
func (s *Source) force(now time.Time) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil && now.Sub(s.forced) >= s.pause {
		s.forced = now
		s.pause = min(2*s.pause, mostPause) // until there is a new one
		s.try()
	}
	return s.running
}

// try begins a try, if none is under way. The caller holds mu.
func (s *Source) try() {
	if s.running != nil {
		return
	}
	done := make(chan struct{})
	if s.life.Go(func() { s.run(done) }) {
		s.running = done
	} else {
		s.now.err = wait.ErrClosed
	}
}

// run gets a login and keeps it.
func (s *Source) run(done chan struct{}) {
	defer close(done)
	began := time.Now() // the login lasts from here at least
	got, err := s.get(s.life.Context())
	last, now := s.keep(began, got, err)
	switch {
	case err != nil && (last.err == nil || last.err.Error() != err.Error()):
		s.log.Warn("login cannot be renewed", "key", s.key, "error", err, "usable", now.lasts(time.Now()))
	case err == nil && last.err != nil:
		s.log.Info("login renewed again", "key", s.key)
	case err == nil:
		s.log.Debug("login renewed", "key", s.key)
	}
}

// keep keeps what a try gave, and returns the states before and after.
func (s *Source) keep(began time.Time, got Login, err error) (last, now state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last = s.now
	s.running = nil
	if err != nil {
		s.now.err, s.now.next = err, time.Now().Add(failedPause)
		return last, s.now
	}
	s.now = state{login: got.Credentials, next: began.Add(got.Again)}
	if got.Life > 0 {
		s.now.ends = began.Add(got.Life)
	}
	if s.now.login != last.login || got.Again < leastPause {
		s.pause = min(leastPause, got.Again)
	}
	return last, s.now
}
