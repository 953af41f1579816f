package gate

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/transfer/testkit"
)

// A door is access with something behind it.
type door struct {
	*access
	t   *testing.T
	log *testkit.Log
}

func newDoor(t *testing.T, text string) door {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	log := new(testkit.Log)
	a, err := newAccess(cfg, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.logins.life.Close(context.WithoutCancel(t.Context())) })
	return door{a, t, log}
}

// knock asks with a login from an address. forwarded may name another one.
func (d door) knock(from, user, password string, forwarded ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(d.t.Context(), http.MethodGet, "/", nil)
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(from), 1234).String()
	for _, f := range forwarded {
		r.Header.Add("X-Forwarded-For", f)
	}
	if user != "" || password != "" {
		r.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	d.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w
}

// want fails the test unless the answer has this status and took so long.
func (d door) want(status int, took time.Duration, from, user, password string, forwarded ...string) {
	d.t.Helper()
	start := time.Now()
	w := d.knock(from, user, password, forwarded...)
	if got := time.Since(start); w.Code != status || got != took {
		d.t.Errorf("%s as %s: status %d after %s, want %d after %s", from, user, w.Code, got, status, took)
	}
	if (w.Code == 429) != (w.Header().Get("Retry-After") != "") || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
		d.t.Errorf("status %d with %v", w.Code, w.Header())
	}
}

// canary is a secret that must not appear in the log.
const canary = "canary-5c1f"

const oneUser = "auth: {username: ann, password: right}\n"

func TestGuessersAreSlowedDownThenIgnored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, oneUser)
		const me, other = "192.0.2.1", "192.0.2.2"
		d.want(200, 0, me, "ann", "right")
		for range 3 * failuresSlow { // asking without a login is no failure
			d.want(401, 0, me, "", "")
		}
		for i := range failuresFree {
			d.want(401, 0, me, "ann", fmt.Sprint(i))
		}
		for i := range failuresSlow - failuresFree {
			d.want(401, refusalDelay, me, "bob", fmt.Sprint(i))
			d.want(200, 0, other, "ann", "right")
			d.want(200, 0, me, "ann", "right") // behind the same address
		}
		d.want(429, 0, me, "ann", "wrong")
		d.want(200, 0, me, "ann", "right") // known there
		d.want(401, 0, other, "ann", "wrong")
		if n := strings.Count(d.log.String(), "login failed"); n != failuresSlow+1 {
			t.Errorf("%d failures in the log:\n%s", n, d.log)
		}
		time.Sleep(failureSpan) // in the bubble
		d.want(401, 0, me, "ann", "wrong")
		d.want(200, 0, me, "ann", "right")
	})
}

func TestABarredAddressLearnsNothingFromARightLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, oneUser)
		for range failuresSlow {
			d.knock("192.0.2.1", "ann", "wrong")
		}
		d.want(429, 0, "192.0.2.1", "ann", "right")
		d.want(200, 0, "192.0.2.2", "ann", "right")
		d.want(429, 0, "192.0.2.1", "ann", "right") // known elsewhere only
	})
}

func TestAFloodOfGuessesIsIgnored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, oneUser)
		d.want(200, 0, "192.0.2.1", "ann", "right")
		for range failuresMost {
			d.knock("192.0.2.1", "ann", "wrong")
		}
		d.want(429, 0, "192.0.2.1", "ann", "right")
		d.want(200, 0, "192.0.2.2", "ann", "right")
		time.Sleep(failureSpan) // in the bubble
		d.want(200, 0, "192.0.2.1", "ann", "right")
	})
}

func TestSuccessMakesUpOnlyForTheSameUsersFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, oneUser)
		for range 5 {
			for range failuresFree {
				d.want(401, 0, "192.0.2.1", "ann", "wrong")
			}
			d.want(200, 0, "192.0.2.1", "ann", "right")
			time.Sleep(loginAge + time.Second) // in the bubble: so that it is looked at
		}
		for range failuresFree { // a user guesses at another's password
			d.want(401, 0, "192.0.2.9", "bob", "wrong")
		}
		d.want(200, 0, "192.0.2.9", "ann", "right")
		d.want(401, refusalDelay, "192.0.2.9", "bob", "wrong")
	})
}

func TestFailuresCountByTheClientsAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, top, from, other string
		forwarded, another     []string
		slowed                 bool // the first one's failures slow down the other
	}{
		{"neighbours", "", "192.0.2.1", "192.0.2.2", nil, nil, false},
		{"one IPv6 network", "", "2001:db8::1", "2001:db8::ffff:1", nil, nil, true},
		{"another IPv6 network", "", "2001:db8::1", "2001:db8:0:1::1", nil, nil, false},
		{"mapped", "", "192.0.2.1", "::ffff:192.0.2.1", nil, nil, true},
		{"behind a trusted balancer", "trusted_proxies: [127.0.0.0/8]", "127.0.0.1", "127.0.0.1", []string{"192.0.2.1"}, []string{"192.0.2.2"}, false},
		{"the same behind another balancer", "trusted_proxies: [127.0.0.0/8]", "127.0.0.1", "127.0.0.2", []string{"192.0.2.1"}, []string{"192.0.2.1"}, true},
		{"who lies to a trusted balancer", "trusted_proxies: [127.0.0.0/8]", "127.0.0.1", "127.0.0.1", []string{"10.0.0.1, 192.0.2.1"}, []string{"10.0.0.2, 192.0.2.1"}, true},
		{"who lies to us", "", "192.0.2.1", "192.0.2.1", []string{"10.0.0.1"}, []string{"10.0.0.2"}, true},
		{"no address at all", "trusted_proxies: [127.0.0.0/8]", "127.0.0.1", "127.0.0.1", []string{"x"}, []string{"y"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(t, oneUser+c.top)
				for range failuresFree {
					d.want(401, 0, c.from, "ann", "wrong", c.forwarded...)
				}
				var took time.Duration
				if c.slowed {
					took = refusalDelay
				}
				d.want(401, took, c.other, "ann", "wrong", c.another...)
				d.want(200, 0, c.other, "ann", "right", c.another...)
			})
		})
	}
}

func TestOfAThousandGuessesAtOnceTwentyAreLookedAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, "auth: {htpasswd_file: "+htpasswd(t, "ann", "right")+"}")
		var mu sync.Mutex
		got := map[int]int{}
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				w := d.knock("192.0.2.1", "ann", fmt.Sprint(i))
				mu.Lock()
				defer mu.Unlock()
				got[w.Code]++
			})
		}
		all.Wait()
		if got[401] != failuresSlow || got[429] != 1000-failuresSlow {
			t.Errorf("answers %v, want %d refused after a look", got, failuresSlow)
		}
	})
}

func TestRememberedFailuresAreBounded(t *testing.T) {
	t.Parallel()
	th := newThrottle()
	for i := range 3 * maxFailing {
		th.failed(Network(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), "u")
	}
	if th.failing.Len() != maxFailing || len(th.turns) != 0 {
		t.Errorf("%d addresses, %d turns", th.failing.Len(), len(th.turns))
	}
}

func TestRefusalsHeldBackAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		var all sync.WaitGroup
		for range maxDelayed {
			all.Go(func() { th.delay(t.Context(), refusalDelay) })
		}
		synctest.Wait()
		if th.delay(t.Context(), refusalDelay) {
			t.Error("one more was held back")
		}
		all.Wait()
		if !th.delay(t.Context(), refusalDelay) {
			t.Error("none is held back any more")
		}
	})
}

func TestFailedLoginsLogNoPassword(t *testing.T) {
	t.Parallel()
	d := newDoor(t, oneUser)
	d.knock("192.0.2.1", "ann", canary)
	d.knock("192.0.2.1", canary+"\n{}", "x")
	lines := d.log.String()
	if strings.Contains(lines, canary) || strings.Count(lines, "\n") != 2 || strings.Count(lines, `"user":"ann"`) != 1 ||
		strings.Count(lines, `"client":"192.0.2.1"`) != 2 || strings.Count(lines, `"level":"WARN"`) != 2 {
		t.Errorf("log:\n%s", lines)
	}
}
