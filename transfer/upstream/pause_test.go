package upstream

import (
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// A registry that has asked to wait is left alone by all requests, of whatever repository and
// kind, until the time is over.
func TestNoRequestGoesToARegistryThatAskedToWait(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		retryAfter string
		alone      time.Duration // how long no request may come
	}{
		"30 s":           {"30", 30 * time.Second},
		"a date":         {time.Date(2000, 1, 1, 0, 0, 45, 0, time.UTC).Format(http.TimeFormat), 45 * time.Second},
		"an hour":        {"3600", time.Hour},
		"a day, capped":  {"86400", longestPause},
		"nothing":        {"", 0},
		"nonsense":       {"soon", 0},
		"a negative one": {"-30", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				asked, limits := 0, true
				c := faked(t, Registry{FollowRedirects: true}, func(*http.Request) (*http.Response, error) {
					asked++
					if limits {
						return reply(429, "", "Retry-After", test.retryAfter), nil
					}
					return reply(200, "hello"), nil
				})
				_, err := opened(t.Context(), c, hello("reg.example.com"))
				wantError(t, err, oci.Limited, "")
				asked, limits = 0, false
				if test.alone == 0 {
					wantHello(t, c, "reg.example.com")
					return
				}
				time.Sleep(test.alone - 11*time.Second) // in the bubble
				other := oci.Ref{Registry: "reg.example.com", Repository: "other/repo", Tag: "v1"}
				_, err = c.Manifest(t.Context(), other, nil)
				if e := wantError(t, err, oci.Limited, ""); e.RetryAfter != 11*time.Second || e.Status != 429 || asked != 0 {
					t.Errorf("%d requests came, and the error is %+v", asked, e)
				}
				if s := c.Standings(); len(s) != 1 || s[0].State != Limited {
					t.Errorf("the registry stands as %+v", s)
				}
				time.Sleep(2 * time.Second) // in the bubble: what is left now is waited out
				wantHello(t, c, "reg.example.com")
				if asked != 1 {
					t.Errorf("%d requests came, want one", asked)
				}
			})
		})
	}
}

// Waiting because the registry has asked for that is no try: one that fails twice between
// such waits is asked a third time.
func TestWaitsAreNoTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var c *Client
		c = faked(t, Registry{FollowRedirects: true}, func(*http.Request) (*http.Response, error) {
			asked++
			if asked < maxRequests {
				c.Pause("reg.example.com", 3*time.Second) // as it told another request
				return reply(503, ""), nil
			}
			return reply(200, "hello"), nil
		})
		c.Pause("reg.example.com", 3*time.Second)
		wantHello(t, c, "reg.example.com")
		if asked != maxRequests {
			t.Errorf("%d requests came", asked)
		}
	})
}

// What a guest is refused, an account may have: its login is tried before the registry counts
// as limited.
func TestAGuestsLimitIsNotTheAccounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := faked(t, withLogin(Registry{FollowRedirects: true}), func(r *http.Request) (*http.Response, error) {
			if _, _, ok := r.BasicAuth(); ok {
				return reply(200, "hello"), nil
			}
			if r.URL.Path == "/v2/" {
				return reply(401, "", "WWW-Authenticate", `Basic realm="x"`), nil
			}
			return reply(429, "", "Retry-After", "600", "Docker-Distribution-Api-Version", "registry/2.0"), nil
		})
		wantHello(t, c, "reg.example.com")
		other := hello("reg.example.com")
		other.Repository = "team/other"
		if got, err := opened(t.Context(), c, other); err != nil || got != "hello" {
			t.Errorf("another repository: %q, %v", got, err)
		}
	})
}

// A storage host that has asked to wait is left alone; the registry goes on.
func TestStorageThatAskedToWaitIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stored := 0
		c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			switch {
			case r.URL.Host == "cdn.example.com":
				stored++
				return reply(429, "", "Retry-After", "60"), nil
			case r.Method == http.MethodHead:
				return reply(200, "", "Docker-Content-Digest", helloDigest), nil
			}
			return reply(307, "", "Location", "https://cdn.example.com/x?sig="+url.QueryEscape(canary)), nil
		})
		for range 3 {
			_, err := opened(t.Context(), c, hello("reg.example.com"))
			if e := wantError(t, err, oci.Limited, ""); e.RetryAfter > time.Minute || e.RetryAfter < 50*time.Second {
				t.Errorf("the error is %+v", e)
			}
		}
		if stored != 1 {
			t.Errorf("%d requests came to the storage, want one", stored)
		}
		if _, err := c.Stat(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}, false, nil); err != nil {
			t.Errorf("the registry is not asked: %v", err)
		}
	})
}

// Members tell each other: who hears it from one leaves the registry alone as well.
func TestAPauseIsToldAndHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []time.Duration
		limits := true
		trip := func(*http.Request) (*http.Response, error) {
			if limits {
				return reply(429, "", "Retry-After", "60"), nil
			}
			return reply(200, "hello"), nil
		}
		a := faked(t, Registry{FollowRedirects: true, Limited: func(registry string, d time.Duration) {
			if registry == "reg.example.com" {
				told = append(told, d)
			}
		}}, trip)
		b := faked(t, Registry{FollowRedirects: true}, trip)
		for range 2 {
			_, err := opened(t.Context(), a, hello("reg.example.com"))
			wantError(t, err, oci.Limited, "")
		}
		if len(told) != 1 || told[0] != time.Minute {
			t.Fatalf("told %v, want a minute once", told)
		}
		limits = false
		b.Pause("reg.example.com", told[0])
		b.Pause("nobody-asked.example.com", told[0])
		_, err := opened(t.Context(), b, hello("reg.example.com"))
		wantError(t, err, oci.Limited, "another node")
		time.Sleep(time.Minute) // in the bubble
		wantHello(t, b, "reg.example.com")
	})
}

// A page for people that asks to wait may be anybody's on the way. This node waits for a minute at
// most, and the others hear nothing.
func TestAPagesPauseIsShortAndThisNodesOwn(t *testing.T) {
	t.Parallel()
	const html = "text/html; charset=utf-8"
	for name, test := range map[string]struct {
		header []string
		token  bool // the token server sends it
		short  bool
	}{
		"a page":              {[]string{"Content-Type", html}, false, true},
		"a token server's":    {[]string{"Content-Type", html}, true, true},
		"the registry's page": {[]string{"Content-Type", html, "Docker-Distribution-Api-Version", "registry/2.0"}, false, false},
		"no page":             {[]string{"Content-Type", "text/plain"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				told, limits := 0, true
				c := faked(t, Registry{FollowRedirects: true, Limited: func(string, time.Duration) { told++ }}, func(r *http.Request) (*http.Response, error) {
					switch {
					case limits && (r.URL.Path == "/token") == test.token:
						return reply(429, "", append(test.header, "Retry-After", "3600")...), nil
					case test.token && limits:
						return reply(401, "", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token"`), nil
					}
					return reply(200, "hello"), nil
				})
				_, err := opened(t.Context(), c, hello("reg.example.com"))
				wantError(t, err, oci.Limited, "")
				limits = false
				time.Sleep(pagesPause) // in the bubble
				_, err = opened(t.Context(), c, hello("reg.example.com"))
				if (err == nil) != test.short || (told == 0) != test.short {
					t.Errorf("after a minute: %v; others were told %d times", err, told)
				}
			})
		})
	}
}
