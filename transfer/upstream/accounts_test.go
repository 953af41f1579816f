package upstream

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestAccountsTakeTurns(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{}, "a", "b", "c")
		for range 6 {
			wantHello(t, c, "reg.example.com")
		}
		if got := strings.Join(k.took(), ""); got != "abcabc" {
			t.Errorf("they came as %s", got)
		}
	})
}

// The first login and the further ones are alike.
func TestTheFirstLoginIsAnAccount(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{Username: "a", Password: canary + "a"}, "b")
		for range 4 {
			wantHello(t, c, "reg.example.com")
		}
		if got := strings.Join(k.took(), ""); got != "abab" {
			t.Errorf("they came as %s", got)
		}
	})
}

// Each account has tokens of its own, one for each scope, and shows no other's.
func TestTokensOfAccountsAreNeverMixed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newClerk(true)
		c := k.client(t, Registry{}, "a", "b")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { wantHello(t, c, "reg.example.com") })
		}
		wg.Wait()
		slices.Sort(k.shown)
		if !slices.Equal(k.shown, []string{"a", "b"}) {
			t.Errorf("logins were shown by %v, want one for each account", k.shown)
		}
		a, b := 0, 0
		for _, user := range k.took() {
			if user == "a" {
				a++
			} else {
				b++
			}
		}
		if a != 10 || b != 10 {
			t.Errorf("%d requests by a and %d by b", a, b)
		}
	})
}

// An account that is limited rests. The request that found it so goes on with the next one.
func TestAnAccountThatIsLimitedRests(t *testing.T) {
	t.Parallel()
	for retryAfter, rest := range map[string]time.Duration{"60": time.Minute, "": untoldRest, "86400": longestPause} {
		both(t, func(t *testing.T, k *clerk) {
			c := k.client(t, Registry{Limited: func(string, time.Duration) { t.Error("the others are told that the registry is limited") }}, "a", "b")
			wantHello(t, c, "reg.example.com") // by a, so b is next
			k.took()
			k.status["b"], k.header["b"] = 429, http.Header{"Retry-After": {retryAfter}}
			wantHello(t, c, "reg.example.com")
			wantHello(t, c, "reg.example.com")
			if got := strings.Join(k.took(), ""); got != "baa" {
				t.Errorf("they came as %s", got)
			}
			if s := c.Standings()[0]; s.State != Up {
				t.Errorf("the registry stands as %+v", s)
			}
			time.Sleep(rest - time.Second) // in the bubble
			wantHello(t, c, "reg.example.com")
			delete(k.status, "b")
			time.Sleep(time.Second) // in the bubble
			wantHello(t, c, "reg.example.com")
			wantHello(t, c, "reg.example.com")
			if got := strings.Join(k.took(), ""); got != "aba" {
				t.Errorf("after the rest they came as %s", got)
			}
		})
	}
}

// Only when all accounts are limited the registry is left alone, for the shortest of their
// rests, and members are told.
func TestARegistryIsLeftAloneWhenAllAccountsAreLimited(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		var told []time.Duration
		c := k.client(t, Registry{Limited: func(_ string, d time.Duration) { told = append(told, d) }}, "a", "b")
		k.status["a"], k.header["a"] = 429, http.Header{"Retry-After": {"600"}}
		k.status["b"], k.header["b"] = 429, http.Header{"Retry-After": {"60"}}
		_, err := opened(t.Context(), c, hello("reg.example.com"))
		if e := wantError(t, err, oci.Limited, ""); e.RetryAfter != time.Minute {
			t.Errorf("the error is %+v", e)
		}
		if !slices.Equal(told, []time.Duration{time.Minute}) {
			t.Errorf("members were told %v", told)
		}
		if got := strings.Join(k.took(), ""); got != "ab" {
			t.Errorf("they came as %s", got)
		}
		time.Sleep(30 * time.Second) // in the bubble
		_, err = opened(t.Context(), c, hello("reg.example.com"))
		if wantError(t, err, oci.Limited, ""); len(k.took()) > 0 || !c.Low("reg.example.com", 1) {
			t.Error("a request came to the registry in its pause, or it does not count as low")
		}
		clear(k.status)
		time.Sleep(30 * time.Second) // in the bubble
		wantHello(t, c, "reg.example.com")
		wantHello(t, c, "reg.example.com")
		if got := strings.Join(k.took(), ""); got != "bb" {
			t.Errorf("after the pause they came as %s: a rests", got)
		}
		time.Sleep(540 * time.Second) // in the bubble
		wantHello(t, c, "reg.example.com")
		if got := strings.Join(k.took(), ""); got != "a" {
			t.Errorf("after its rest came %s", got)
		}
	})
}

// Accounts whose limit has no end are tried again and again, as a single one is.
func TestAccountsWhoseLimitHasNoEnd(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{Limited: func(string, time.Duration) { t.Error("members were told") }}, "a", "b")
		k.status["a"], k.status["b"] = 429, 429
		_, err := opened(t.Context(), c, hello("reg.example.com"))
		wantError(t, err, oci.Limited, "")
		if n := len(k.took()); n < 2 || n > maxRequests+1 {
			t.Errorf("%d requests came", n)
		}
		clear(k.status)
		wantHello(t, c, "reg.example.com")
	})
}

// An account with little left goes after the others until its window ends.
func TestAnAccountWithLittleLeftGoesLast(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		left    string
		reserve int
		spared  bool
	}{
		"nothing": {"0", 0, true}, "one, no reserve": {"1", 0, false}, "under the reserve": {"9", 10, true}, "over it": {"10", 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, k *clerk) {
				c := k.client(t, Registry{Reserve: test.reserve}, "a", "b")
				k.header["a"] = http.Header{"Ratelimit-Limit": {"100;w=60"}, "Ratelimit-Remaining": {test.left + ";w=60"}}
				k.header["b"] = http.Header{"Ratelimit-Limit": {"50;w=60"}, "Ratelimit-Remaining": {"40;w=60"}}
				for range 4 {
					wantHello(t, c, "reg.example.com")
				}
				want := map[bool]string{true: "abbb", false: "abab"}[test.spared]
				if got := strings.Join(k.took(), ""); got != want {
					t.Errorf("they came as %s, want %s", got, want)
				}
				var left int64
				fmt.Sscan(test.left, &left)
				if q := c.Standings()[0].Quota; q.Limit != 150 || q.Remaining != 40+left {
					t.Errorf("the registry has %+v", q)
				}
				if c.Low("reg.example.com", 20) || !c.Low("reg.example.com", 90) {
					t.Error("it is low while one account is not, or is not low when both are")
				}
				time.Sleep(time.Minute) // in the bubble
				wantHello(t, c, "reg.example.com")
				if got := strings.Join(k.took(), ""); got != "a" {
					t.Errorf("after the window came %s", got)
				}
				k.header["b"] = http.Header{"Ratelimit-Limit": {"50;w=60"}, "Ratelimit-Remaining": {"0;w=60"}}
				wantHello(t, c, "reg.example.com")
				wantHello(t, c, "reg.example.com") // none is free of it, and both are asked
			})
		})
	}
}

// A login that is refused is passed over; the log hears of it once, and no pull fails.
func TestAnAccountWhoseLoginIsRefused(t *testing.T) {
	t.Parallel()
	for status, tokens := range map[int]bool{401: false, 4010: true, 403: true, 400: true} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k := newClerk(tokens)
				k.wrong["a"] = status
				if status > 1000 {
					k.wrong["a"] = status / 10
				}
				var log testkit.Log
				c := k.client(t, Registry{}, "a", "b")
				c.named["reg.example.com"].accounts.log = slog.New(slog.NewTextHandler(&log, nil))
				for range 10 {
					wantHello(t, c, "reg.example.com")
				}
				if got := c.Refused(); !slices.Equal(got, []string{"registries.reg.example.com.accounts[0]"}) {
					t.Errorf("refused are %v", got)
				}
				k.shown = slices.DeleteFunc(k.shown, func(user string) bool { return user != "a" })
				if n := len(k.shown); n > 2 {
					t.Errorf("the wrong login was shown %d times", n)
				}
				if got := strings.Join(k.took(), ""); got != "bbbbbbbbbb" {
					t.Errorf("they came as %s", got)
				}
				time.Sleep(wrongFor) // in the bubble
				wantHello(t, c, "reg.example.com")
				k.took()
				if n := strings.Count(log.String(), "login refused; the other accounts are used instead"); n != 1 || log.Has(canary) {
					t.Errorf("the log has it %d times:\n%s", n, log.String())
				}
				clear(k.wrong)
				time.Sleep(wrongFor) // in the bubble
				wantHello(t, c, "reg.example.com")
				wantHello(t, c, "reg.example.com")
				if got := strings.Join(slices.Sorted(slices.Values(k.took())), ""); got != "ab" || len(c.Refused()) != 0 || !log.Has("login taken again") {
					t.Errorf("when it is right they came as %s, and %v is refused", got, c.Refused())
				}
			})
		})
	}
}

// The only login of a registry that is refused is told, once in the log, until it is taken. A
// token server's 403 may mean the repository, which is for clients to choose: only many of
// them count.
func TestTheOnlyLoginIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tokens       bool
		status, sure int
	}{"basic": {false, 401, 1}, "token 401": {true, 401, 1}, "token 403": {true, 403, manyRefusals}, "token 400": {true, 400, manyRefusals}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k := newClerk(c.tokens)
				k.wrong["a"] = c.status
				var log testkit.Log
				client := k.client(t, Registry{}, "a")
				client.named["reg.example.com"].accounts.log = slog.New(slog.NewTextHandler(&log, nil))
				for i := range 2 * manyRefusals {
					if got, err := opened(t.Context(), client, hello("reg.example.com")); err == nil {
						t.Fatalf("%q came by a wrong login", got)
					}
					if got := len(client.Refused()) == 1; got != (i+1 >= c.sure) {
						t.Fatalf("after %d refusals: told %v", i+1, got)
					}
				}
				if n := log.Count("level=WARN msg=\"login refused: correct it in the config\""); n != 1 || log.Has(canary) {
					t.Errorf("%d lines: %s", n, &log)
				}
				k.set(func() { clear(k.wrong) })
				time.Sleep(wrongFor) // in the bubble
				wantHello(t, client, "reg.example.com")
				if got := client.Refused(); len(got) > 0 || !log.Has("login taken again") {
					t.Errorf("%v is refused, and it was taken; %s", got, &log)
				}
				k.set(func() { k.wrong["a"] = 403 })
				_, _ = opened(t.Context(), client, in("private/of-others")) // the token server's 403 means this
				if got := client.Refused(); c.tokens && len(got) > 0 {
					t.Errorf("%v counts as refused", got)
				}
			})
		})
	}
}

// If no login is right the refusal is told, whatever the order; and a wrong login beside one
// that is limited makes no refusal of it.
func TestNoAccountIsRight(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{}, "a", "b")
		k.wrong["a"], k.wrong["b"] = 401, 401
		for range 4 {
			_, err := opened(t.Context(), c, hello("reg.example.com"))
			wantError(t, err, oci.Denied, "")
		}
		k.set(func() {
			delete(k.wrong, "b")
			k.status["b"], k.header["b"] = 429, http.Header{"Retry-After": {"60"}}
		})
		_, err := opened(t.Context(), c, hello("reg.example.com"))
		if e := wantError(t, err, oci.Limited, ""); e.RetryAfter != time.Minute {
			t.Errorf("the error is %+v", e)
		}
		clear(k.status)
		time.Sleep(time.Minute) // in the bubble
		wantHello(t, c, "reg.example.com")
	})
}

// An answer that crossed the limit of its account does not end the account's rest.
func TestAnAnswerThatCrossedTheLimit(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{}, "a", "b")
		wantHello(t, c, "reg.example.com") // by a
		wantHello(t, c, "reg.example.com") // by b
		r := c.named["reg.example.com"]
		r.net.own = tripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := k.answer(req)
			if strings.Contains(req.URL.Path, "slow/") && resp.StatusCode == http.StatusOK {
				time.Sleep(5 * time.Second) // in the bubble
			}
			return resp, err
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := opened(t.Context(), c, in("slow/app")); err != nil || got != "hello" { // by a
				t.Errorf("%q, %v", got, err)
			}
		})
		time.Sleep(time.Second)            // in the bubble
		wantHello(t, c, "reg.example.com") // by b
		k.set(func() { k.status["a"], k.header["a"] = 429, http.Header{"Retry-After": {"60"}} })
		wantHello(t, c, "reg.example.com") // by a, then b
		wg.Wait()
		k.took()
		wantHello(t, c, "reg.example.com")
		wantHello(t, c, "reg.example.com")
		if got := strings.Join(k.took(), ""); got != "bb" {
			t.Errorf("they came as %s", got)
		}
	})
}

// An outage is no account's fault: the others are not asked for it.
func TestAnOutageIsNotTriedWithEachAccount(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{}, "a", "b", "c")
		k.status["a"], k.status["b"], k.status["c"] = 503, 503, 503
		_, err := opened(t.Context(), c, hello("reg.example.com"))
		wantError(t, err, oci.Unavailable, "")
		if n := len(k.took()); n > maxRequests {
			t.Errorf("%d requests came", n)
		}
	})
}

func TestTooManyAccounts(t *testing.T) {
	t.Parallel()
	_, err := New([]Registry{{Host: "reg.example.com", Configured: true, Accounts: make([]Account, maxAccounts+1)}}, Registry{}, nil)
	if err == nil || !strings.Contains(err.Error(), "reg.example.com: more than 31 further accounts") {
		t.Errorf("%v", err)
	}
	if _, err = New([]Registry{{Host: "reg.example.com", Accounts: make([]Account, 1)}}, Registry{}, nil); err == nil {
		t.Error("accounts for a registry that is not configured")
	}
}

// A greeting names the account that is refused.
func TestGreetWithAccounts(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{}, "a", "b")
		if g, err := c.Greet(t.Context(), "reg.example.com"); err != nil || !g.Login {
			t.Errorf("%+v, %v", g, err)
		}
		c.named["reg.example.com"].accounts.all[1].passes.tokens.kept.Purge()
		k.wrong["b"] = 401
		_, err := c.Greet(t.Context(), "reg.example.com")
		wantError(t, err, oci.Denied, "accounts[1]: ")
	})
}
