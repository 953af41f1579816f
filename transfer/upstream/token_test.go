package upstream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/wait"
)

// tokensBy returns tokens that are got by fetch. Their life ends with the test.
func tokensBy(t *testing.T, fetch fetcher) *tokens {
	t.Helper()
	life := wait.NewLife()
	t.Cleanup(func() { life.Close(context.Background()) })
	return newTokens(life, fetch)
}

func TestFiftyWaitersMakeOneTokenRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		s := tokensBy(t, func(context.Context, tokenKey) (string, time.Duration, error) {
			asked.Add(1)
			time.Sleep(time.Second) // in the bubble's time
			return "t", time.Minute, nil
		})
		first, giveUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := s.get(first, tokenKey{realm: "r"}); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that gave up got %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				if v, cached, err := s.get(t.Context(), tokenKey{realm: "r"}); v != "t" || cached || err != nil {
					t.Errorf("got %q, %v, %v", v, cached, err)
				}
			})
		}
		synctest.Wait()
		giveUp() // the caller that began the request gives up; the others still get its answer
		wg.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestTokensAreRenewedEarlyAndUsedUpWhileThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, broken := 0, false
		s := tokensBy(t, func(context.Context, tokenKey) (string, time.Duration, error) {
			asked++
			if broken {
				return "", 0, errors.New("down")
			}
			return strings.Repeat("t", asked), time.Minute, nil
		})
		step := func(wait time.Duration, wantAsked int, want string) {
			t.Helper()
			time.Sleep(wait) // in the bubble's time
			v, _, err := s.get(t.Context(), tokenKey{})
			if v != want || asked != wantAsked || (err != nil) != (want == "") {
				t.Fatalf("token %q, %d requests, error %v; want %q, %d", v, asked, err, want, wantAsked)
			}
		}
		step(0, 1, "t")
		step(50*time.Second, 1, "t") // of 60: still valid
		step(2*time.Second, 2, "tt") // renewed 8 s before its end
		broken = true
		step(52*time.Second, 3, "tt") // the renewal fails; the old token is still valid
		step(time.Second, 3, "tt")    // and is not renewed at every request
		step(5*time.Second, 4, "tt")
		step(10*time.Second, 5, "") // now it has expired
	})
}

func TestKeysOfTokensDoNotRunTogether(t *testing.T) {
	t.Parallel()
	asked := 0
	s := tokensBy(t, func(context.Context, tokenKey) (string, time.Duration, error) {
		asked++
		return "t", time.Minute, nil
	})
	for _, key := range []tokenKey{
		{username: "a:b", password: "c"},
		{username: "a", password: "b:c"},
		{service: "a b", scope: "c"},
		{service: "a", scope: "b c"},
		{registry: "x"},
		{realm: "x"},
	} {
		if _, cached, _ := s.get(t.Context(), key); cached {
			t.Errorf("%v shares a token with another", key)
		}
	}
	if asked != 6 {
		t.Errorf("%d requests, want 6", asked)
	}
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	s := tokensBy(t, nil)
	for i := range maxTokens + 100 {
		s.keep(tokenKey{scope: strings.Repeat("x", i)}, token{ends: time.Now().Add(time.Hour)})
	}
	if n := s.kept.Len(); n != maxTokens {
		t.Errorf("%d kept, want %d", n, maxTokens)
	}
}

func TestTokenAnswersAreReadAsServersWriteThem(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		value string
		life  time.Duration
	}{
		`{"token":"a","expires_in":300}`:               {"a", 5 * time.Minute},
		`{"access_token":"b"}`:                         {"b", time.Minute},
		`{"token":"a","access_token":"b"}`:             {"a", time.Minute},
		`{"token":"","access_token":"b"}`:              {"b", time.Minute},
		`{"token":null,"access_token":"b"}`:            {"b", time.Minute},
		`{"token":"a","expires_in":0}`:                 {"a", time.Minute},
		`{"token":"a","expires_in":-5}`:                {"a", time.Minute},
		`{"token":"a","expires_in":"90"}`:              {"a", 90 * time.Second},
		`{"token":"a","expires_in":"soon"}`:            {"a", time.Minute},
		`{"token":"a","expires_in":1e300}`:             {"a", 24 * time.Hour},
		`{"token":"a","expires_in":10.5}`:              {"a", 10500 * time.Millisecond},
		`{"token":"a","issued_at":"not a date"}`:       {"a", time.Minute},
		`{}`:                                           {},
		`[]`:                                           {},
		`not JSON`:                                     {},
		`{"token":7}`:                                  {},
		`{"token":"a\r\nX-Evil: 1"}`:                   {},
		`{"token":"` + strings.Repeat("x", 1e5) + `"}`: {},
	} {
		value, life, ok := parseToken([]byte(body))
		if value != want.value || life != want.life || ok != (want.value != "") {
			t.Errorf("%.60s: %.20q, %v, %v; want %q, %v", body, value, life, ok, want.value, want.life)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte(`{"token":"a","expires_in":300}`))
	f.Add([]byte(`{"access_token":"b","expires_in":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if value, life, ok := parseToken(body); ok && (value == "" || life <= 0 || strings.ContainsAny(value, "\r\n ")) {
			t.Errorf("%q gives %q, %v", body, value, life)
		}
	})
}

func TestMarginOfShortAndLongLives(t *testing.T) {
	t.Parallel()
	for life, want := range map[time.Duration]time.Duration{
		time.Second:      500 * time.Millisecond,
		10 * time.Second: 5 * time.Second,
		time.Minute:      9 * time.Second,
		5 * time.Minute:  30 * time.Second,
		time.Hour:        30 * time.Second,
	} {
		if got := margin(life); got != want {
			t.Errorf("margin of %v: %v, want %v", life, got, want)
		}
	}
}
