package upstream

import (
	"fmt"
	"log/slog"
	"maps"
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

// A clerk stands in for a registry that knows several users. Each has the canary and its own
// name for a password, and its own answers.
type clerk struct {
	tokens bool // it wants tokens; otherwise the login itself

	mu     sync.Mutex
	status map[string]int         // by user: what its requests are answered, 0: content
	header map[string]http.Header // by user: beside the usual ones
	wrong  map[string]int         // by user: the status that its login is refused with
	blind  map[string]string      // by user: the repository that it may not see
	unseen int                    // how it is refused that
	came   []string               // the users whose requests came in, in order
	shown  []string               // the users whose logins were shown, in order
	mixed  []string               // what should never be
}

// newClerk returns one to whom every login is right.
func newClerk(tokens bool) *clerk {
	return &clerk{
		tokens: tokens, status: map[string]int{}, header: map[string]http.Header{}, wrong: map[string]int{}, blind: map[string]string{}, unseen: 404,
	}
}

// marked is the header of registries.
var marked = []string{"Docker-Distribution-Api-Version", "registry/2.0"}

// answer is a round trip.
func (k *clerk) answer(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	challenge := `Basic realm="x"`
	if k.tokens {
		challenge = `Bearer realm="https://reg.example.com/token",service="s",scope="repository:team/app:pull"`
	}
	name, password, login := r.BasicAuth()
	if login {
		k.shown = append(k.shown, name)
		if password != canary+name {
			k.mixed = append(k.mixed, name+" with the password of another")
		}
	}
	if r.URL.Path == "/token" {
		if status := k.wrong[name]; status != 0 {
			return reply(status, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, marked...), nil
		}
		return reply(200, `{"token":"of-`+name+`-`+strings.Join(r.URL.Query()["scope"], "")+`","expires_in":3600}`), nil
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer of-"); ok {
		name, _, _ = strings.Cut(token, "-")
		login = true
	}
	switch {
	case !login, !k.tokens && k.wrong[name] != 0:
		return reply(401, "", "WWW-Authenticate", challenge), nil
	}
	k.came = append(k.came, name)
	status, said := k.status[name], "hello"
	if repo := k.blind[name]; status == 0 && repo != "" && strings.Contains(r.URL.Path, repo) {
		status, said = k.unseen, ""
	}
	resp := reply(max(status, 200), said, marked...)
	maps.Copy(resp.Header, k.header[name])
	return resp, nil
}

// took returns whose requests came in since the last call.
func (k *clerk) took() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	came := k.came
	k.came = nil
	return came
}

// set changes what the clerk knows.
func (k *clerk) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// client returns a client of a registry with these users, whose network is the clerk.
func (k *clerk) client(t *testing.T, cfg Registry, users ...string) *Client {
	t.Helper()
	cfg.FollowRedirects = true
	for i, user := range users {
		cfg.Accounts = append(cfg.Accounts, Account{Name: fmt.Sprintf("accounts[%d]", i), Username: user, Password: canary + user})
	}
	c := faked(t, cfg, k.answer)
	t.Cleanup(func() {
		if len(k.mixed) > 0 {
			t.Errorf("mixed up: %v", k.mixed)
		}
	})
	return c
}

// both runs a test with tokens and without, in a bubble.
func both(t *testing.T, test func(t *testing.T, k *clerk)) {
	t.Helper()
	for name, tokens := range map[string]bool{"Basic": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, newClerk(tokens)) })
		})
	}
}

// in names the blob of "hello" in a repository.
func in(repo string) oci.Ref {
	ref := hello("reg.example.com")
	ref.Repository = repo
	return ref
}

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

// What one account may not see, the others are asked for. Then the one that may is asked first.
func TestWhatOneAccountMayNotSee(t *testing.T) {
	t.Parallel()
	for _, status := range []int{404, 403, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, k *clerk) {
				if status == 401 && !k.tokens {
					t.Skip("a 401 to a login is a wrong login")
				}
				c := k.client(t, Registry{}, "a", "b", "c")
				k.unseen, k.blind["a"], k.blind["b"], k.blind["c"] = status, "team/", "team/", "other/"
				for range 3 {
					if got, err := opened(t.Context(), c, in("team/app")); err != nil || got != "hello" {
						t.Fatalf("%q, %v", got, err)
					}
				}
				if got := strings.Join(k.took(), ""); !strings.HasPrefix(got, "a") || !strings.HasSuffix(got, "ccc") || len(got) > 9 {
					t.Errorf("they came as %s", got)
				}
				for range 3 {
					if got, err := opened(t.Context(), c, in("other/app")); err != nil || got != "hello" {
						t.Fatalf("%q, %v", got, err)
					}
				}
				k.blind["c"] = "team/"
				_, err := opened(t.Context(), c, in("team/app"))
				want := map[int]oci.Kind{404: oci.NotFound, 403: oci.Denied, 401: oci.Denied}[status]
				if e := wantError(t, err, want, ""); !e.Authoritative() {
					t.Errorf("the refusal of all is not final: %+v", e)
				}
				if names := c.Refused(); len(names) > 0 {
					t.Errorf("%v count as wrong", names)
				}
			})
		})
	}
}

// Tags are asked for by HEAD. That one account is refused those costs a GET once at most: they
// count against the limits of many registries.
func TestWhatOneAccountMayNotSeeIsLearntFromHEAD(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]bool{"a repository": false, "a wrong login": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, k *clerk) {
				gets := 0
				c := k.client(t, Registry{}, "a", "b")
				r := c.named["reg.example.com"]
				r.net.own = tripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/") && req.Header.Get("Authorization") != "" {
						gets++
					}
					resp, err := k.answer(req)
					resp.Header.Set("Docker-Content-Digest", helloDigest)
					return resp, err
				})
				if k.blind["a"] = "team/"; wrong {
					delete(k.blind, "a")
					k.wrong["a"] = 401
				}
				for range 8 {
					d, err := c.Stat(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}, false, nil)
					if err != nil || d.Digest != helloDigest {
						t.Fatalf("%+v, %v", d, err)
					}
				}
				if gets > 1 {
					t.Errorf("%d GETs with a login", gets)
				}
				as := 0
				for _, user := range k.took() {
					if user == "a" {
						as++
					}
				}
				if as > 1 {
					t.Errorf("the account was tried %d times", as)
				}
			})
		})
	}
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

// While an account is limited that may see it, what another is refused is no refusal. If that
// other one sees the repository, its word counts.
func TestARefusalIsNotBelievedWhileAnAccountIsLimited(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, k *clerk) {
		c := k.client(t, Registry{Limited: func(string, time.Duration) { t.Error("members were told") }}, "a", "b")
		k.blind["a"], k.status["b"], k.header["b"] = "team/", 429, http.Header{"Retry-After": {"60"}}
		for range 2 {
			_, err := opened(t.Context(), c, in("team/app"))
			if e := wantError(t, err, oci.Limited, ""); e.RetryAfter > time.Minute || e.RetryAfter < 40*time.Second {
				t.Errorf("the error is %+v", e)
			}
		}
		if got, err := opened(t.Context(), c, in("other/app")); err != nil || got != "hello" {
			t.Errorf("what the account may see: %q, %v", got, err)
		}
		k.blind["a"] = "other/"
		_, err := opened(t.Context(), c, in("other/app"))
		wantError(t, err, oci.NotFound, "")
		k.blind["a"] = "team/"
		clear(k.status)
		time.Sleep(time.Minute) // in the bubble
		if got, err := opened(t.Context(), c, in("team/app")); err != nil || got != "hello" {
			t.Errorf("after the rest: %q, %v", got, err)
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
