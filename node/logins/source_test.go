package logins

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/wait"
)

var errBroken = errors.New("the command failed")

// hourly gives logins of an hour.
func hourly(n int64) (Login, error) {
	return Login{upstream.Credentials{Username: "u", Password: fmt.Sprint(secret, n)}, time.Hour, after(time.Hour)}, nil
}

// bubble runs a test in virtual time, with a source of the logins that c gives.
func bubble(t *testing.T, c *counter, test func(t *testing.T, s *Source, log *testkit.Log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		defer closed(life)
		logger, log := logged()
		s := New("registries.a.io.auth.exec", c.get, life, logger)
		test(t, s, log)
		silent(t, log, s.Health())
	})
}

// wantLogin fails unless the n-th login is what is shown now.
func wantLogin(t *testing.T, s *Source, n int64) {
	t.Helper()
	got, err := s.Ready(t.Context())
	if err != nil || got.Password != fmt.Sprint(secret, n) {
		t.Errorf("got login %s (%v), want %d", strings.TrimPrefix(got.Password, secret), err, n)
	}
}

// A login is renewed once four fifths of its time are over, while the old one is used.
func TestALoginIsRenewedBeforeItEnds(t *testing.T) {
	t.Parallel()
	c := &counter{login: hourly}
	bubble(t, c, func(t *testing.T, s *Source, _ *testkit.Log) {
		wantLogin(t, s, 1)
		rest(48*time.Minute - time.Nanosecond)
		wantLogin(t, s, 1)
		wantTries(t, c, 1)
		rest(time.Nanosecond)
		wantLogin(t, s, 1) // nobody waits
		synctest.Wait()
		wantLogin(t, s, 2)
		rest(3 * time.Hour)
		wantTries(t, c, 2) // not while nobody needs it
		wantLogin(t, s, 3) // this one waits
	})
}

// All who need a login wait for one try; one who gives up does not end it.
func TestOneTryForAll(t *testing.T) {
	t.Parallel()
	c := &counter{login: func(n int64) (Login, error) {
		rest(5 * time.Second)
		return hourly(n)
	}}
	bubble(t, c, func(t *testing.T, s *Source, _ *testkit.Log) {
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Ready(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { wantLogin(t, s, 1) })
			all.Go(func() { s.Fresh(t.Context()) })
		}
		all.Wait()
		wantTries(t, c, 1)
	})
}

// While the command fails the last login is used until it ends. The log tells it once, health
// for as long as it lasts.
func TestTheLastLoginIsUsedUntilItEnds(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	c := &counter{}
	c.login = func(n int64) (Login, error) {
		if n > 1 && !mended.Load() {
			return Login{}, errBroken
		}
		return hourly(n)
	}
	bubble(t, c, func(t *testing.T, s *Source, log *testkit.Log) {
		wantLogin(t, s, 1)
		if err := s.Health(); err != nil {
			t.Error(err)
		}
		for range 11 {
			rest(5 * time.Minute)
			wantLogin(t, s, 1)
			synctest.Wait()
		}
		if got, want := fmt.Sprint(s.Health()), "registries.a.io.auth.exec: the command failed; the last login stays in use until 2000-01-01T01:00:00Z"; got != want {
			t.Errorf("health: %s", got)
		}
		if n := log.Count("login cannot be renewed"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		rest(5 * time.Minute)
		if _, err := s.Ready(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("%v", err)
		}
		if got := fmt.Sprint(s.Health()); !strings.Contains(got, "there is no login") {
			t.Errorf("health: %s", got)
		}
		tries := c.tries.Load()
		for range 1000 { // pulls
			_, _ = s.Ready(t.Context())
		}
		wantTries(t, c, tries)
		mended.Store(true)
		rest(failedPause)
		wantLogin(t, s, tries+1)
		if err := s.Health(); err != nil || !log.Has("login renewed again") {
			t.Errorf("%v", err)
		}
	})
}

// A login that is refused is got again at once, and ever less often while that does not help.
func TestARefusedLogin(t *testing.T) {
	t.Parallel()
	var current atomic.Int64
	current.Store(1)
	c := &counter{login: func(int64) (Login, error) { return hourly(current.Load()) }}
	bubble(t, c, func(t *testing.T, s *Source, _ *testkit.Log) {
		wantLogin(t, s, 1)
		current.Store(2)
		if got, _ := hourly(2); s.Fresh(t.Context()) != got.Credentials {
			t.Error("the new login is not taken")
		}
		wantTries(t, c, 2)
		rest(time.Minute)
		for range 3600 { // a pull a second
			s.Fresh(t.Context())
			rest(time.Second)
		}
		if n := c.tries.Load(); n < 12 || n > 22 {
			t.Errorf("%d tries in an hour of refusals", n)
		}
	})
}

// A command that ends no login's time is run again every 5 minutes of use.
func TestALoginWithoutAnEnd(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	c := &counter{login: func(int64) (Login, error) {
		if broken.Load() {
			return Login{}, errBroken
		}
		return Login{Credentials: upstream.Credentials{Username: "u", Password: secret + "1"}, Again: untoldAgain}, nil
	}}
	bubble(t, c, func(t *testing.T, s *Source, _ *testkit.Log) {
		for range 61 {
			wantLogin(t, s, 1)
			rest(time.Minute)
		}
		wantTries(t, c, 13)
		broken.Store(true)
		rest(24 * time.Hour)
		wantLogin(t, s, 1)
		synctest.Wait()
		wantLogin(t, s, 1)
		if got := fmt.Sprint(s.Health()); !strings.HasSuffix(got, "the last login stays in use") {
			t.Errorf("health: %s", got)
		}
	})
}

// The node's end ends a try, and begins no other.
func TestTheEndOfTheNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		life := wait.NewLife()
		logger, _ := logged()
		s := New("key", func(ctx context.Context) (Login, error) {
			<-ctx.Done()
			return Login{}, ctx.Err()
		}, life, logger)
		s.Begin()
		synctest.Wait()
		closed(life)
		if _, err := s.Ready(t.Context()); err == nil {
			t.Error("a login after the end")
		}
		rest(failedPause)
		if _, err := s.Ready(t.Context()); !errors.Is(err, wait.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
