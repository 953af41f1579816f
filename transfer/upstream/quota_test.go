package upstream

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestRateLimitsAreRead(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for name, test := range map[string]struct {
		header    []string
		limit     int64
		remaining int64
		reset     time.Duration
	}{
		"Docker Hub":                   {[]string{"ratelimit-limit", "100;w=21600", "ratelimit-remaining", "76;w=21600"}, 100, 76, 6 * time.Hour},
		"Docker Hub, nothing left":     {[]string{"RateLimit-Limit", "100;w=21600", "RateLimit-Remaining", "0;w=21600"}, 100, 0, 6 * time.Hour},
		"GitLab":                       {[]string{"RateLimit-Limit", "600", "RateLimit-Observed", "60", "RateLimit-Remaining", "540", "RateLimit-Reset", "1700000060"}, 600, 540, time.Minute},
		"GitHub":                       {[]string{"X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", "4999", "X-RateLimit-Reset", "1700003600"}, 5000, 4999, time.Hour},
		"with more hyphens":            {[]string{"X-Rate-Limit-Limit", "10", "X-Rate-Limit-Remaining", "3", "X-Rate-Limit-Reset", "7"}, 10, 3, 7 * time.Second},
		"an early draft":               {[]string{"RateLimit-Limit", "10, 10;w=1, 50;w=60", "RateLimit-Remaining", "9", "RateLimit-Reset", "4"}, 10, 9, 4 * time.Second},
		"draft 07":                     {[]string{"RateLimit", "limit=100, remaining=50, reset=5", "RateLimit-Policy", "100;w=60"}, 100, 50, 5 * time.Second},
		"draft 08":                     {[]string{"RateLimit", `"default";r=50;t=30`, "RateLimit-Policy", `"default";q=100;w=60`}, 100, 50, 30 * time.Second},
		"draft 08 without an end":      {[]string{"RateLimit", `"default";r=50`, "RateLimit-Policy", `"default";q=100;w=60`}, 100, 50, time.Minute},
		"no window and no end":         {[]string{"RateLimit-Limit", "100", "RateLimit-Remaining", "50"}, 100, 50, quotaFor},
		"more left than there is":      {[]string{"RateLimit-Limit", "100", "RateLimit-Remaining", "5000"}, 100, 100, quotaFor},
		"an end that is past":          {[]string{"RateLimit-Limit", "100", "RateLimit-Remaining", "1", "RateLimit-Reset", "1600000000"}, 100, 1, -100_000_000 * time.Second},
		"an end in a thousand years":   {[]string{"RateLimit-Limit", "100", "RateLimit-Remaining", "1", "RateLimit-Reset", "33000000000"}, 100, 1, longestWindow},
		"a window of a thousand years": {[]string{"RateLimit-Limit", "100;w=33000000000", "RateLimit-Remaining", "1"}, 100, 1, longestWindow},
		"nothing":                      {nil, 0, 0, 0},
		"a limit alone":                {[]string{"RateLimit-Limit", "100"}, 0, 0, 0},
		"no limit":                     {[]string{"RateLimit-Limit", "0", "RateLimit-Remaining", "0"}, 0, 0, 0},
		"what is left alone":           {[]string{"x-ms-ratelimit-remaining-calls-per-second", "166.5"}, 0, 0, 0},
		"words":                        {[]string{"RateLimit-Limit", "many", "RateLimit-Remaining", "few"}, 0, 0, 0},
		"negative":                     {[]string{"RateLimit-Limit", "-100", "RateLimit-Remaining", "-1"}, 0, 0, 0},
		"a fraction":                   {[]string{"RateLimit-Limit", "1.5", "RateLimit-Remaining", "1.5"}, 0, 0, 0},
		"too many digits":              {[]string{"RateLimit-Limit", "99999999999999999999", "RateLimit-Remaining", "1"}, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, ok := quotaOf(reply(200, "", test.header...).Header, now)
			if ok != (test.limit > 0) || q.Limit != test.limit || q.Remaining != test.remaining || ok && q.Reset.Sub(now) != test.reset {
				t.Errorf("got %+v, %t, which ends in %v", q, ok, q.Reset.Sub(now))
			}
		})
	}
}

// The limit counts as low while less than the percentage is left, until its window ends or
// the registry says otherwise.
func TestALowLimitIsKnownUntilItsWindowEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		left := "11;w=60"
		c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			return reply(200, "hello", "RateLimit-Limit", "100;w=60", "RateLimit-Remaining", left), nil
		})
		low := func(percent int) bool { return c.Low("reg.example.com", percent) }
		if low(100) {
			t.Error("low before anything was told")
		}
		wantHello(t, c, "reg.example.com")
		if !low(12) || low(11) || low(0) || c.Low("other.example.com", 100) {
			t.Errorf("with 11%% left: under 12%% %t, under 11%% %t, under none %t", low(12), low(11), low(0))
		}
		left = "90;w=60"
		wantHello(t, c, "reg.example.com")
		if low(12) {
			t.Error("low although the registry says otherwise")
		}
		left = "0;w=60"
		wantHello(t, c, "reg.example.com")
		time.Sleep(59 * time.Second) // in the bubble
		if !low(1) {
			t.Error("not low within the window")
		}
		time.Sleep(time.Second) // in the bubble
		if low(100) {
			t.Error("low after the window has ended")
		}
	})
}

// A registry that says that its window ends in weeks is asked again after an hour: until then
// nothing need ask it, and it could not say otherwise.
func TestALowLimitIsNotBelievedForWeeks(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Registry{
		"without a login": {},
		"two accounts":    {Username: "a", Password: canary, Accounts: []Account{{Name: "b", Username: "b", Password: canary}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg.FollowRedirects = true
				c := faked(t, cfg, func(r *http.Request) (*http.Response, error) {
					if _, _, login := r.BasicAuth(); !login && cfg.Username != "" {
						return reply(401, "", "WWW-Authenticate", `Basic realm="x"`), nil
					}
					return reply(200, "hello", "RateLimit-Limit", "100", "RateLimit-Remaining", "1", "RateLimit-Reset", "2000000"), nil
				})
				for range 2 {
					wantHello(t, c, "reg.example.com")
				}
				time.Sleep(believedFor - time.Second) // in the bubble
				if !c.Low("reg.example.com", 10) {
					t.Error("it is not low within the hour")
				}
				time.Sleep(time.Second) // in the bubble
				if c.Low("reg.example.com", 10) {
					t.Error("it is low still")
				}
			})
		})
	}
}

// What is shown of a registry tells how it does, and no secret.
func TestStandings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		state  State
		wrong  string
	}{
		"it answers": {func(*http.Request) (*http.Response, error) { return reply(200, "hello"), nil }, Up, ""},
		"it has no such": {func(*http.Request) (*http.Response, error) {
			return reply(404, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
		}, Up, ""},
		"it refuses": {func(*http.Request) (*http.Response, error) {
			return reply(403, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
		}, Up, ""},
		"it is in trouble": {func(*http.Request) (*http.Response, error) { return reply(503, ""), nil }, Down, "the server reported an error: upstream answered 503"},
		"it limits":        {func(*http.Request) (*http.Response, error) { return reply(429, ""), nil }, Limited, "too many requests: upstream answered 429"},
		"nobody is there":  {func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, Down, "the connection broke"},
		"its storage fails": {func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "cdn.example.com" {
				return reply(500, ""), nil
			}
			return reply(307, "", "Location", "https://cdn.example.com/x?sig="+canary), nil
		}, Down, "the server reported an error (at cdn.example.com): upstream answered 500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
					time.Sleep(40 * time.Millisecond) // in the bubble
					return test.answer(r)
				})
				if s := c.Standings(); len(s) != 1 || s[0] != (Standing{Host: "reg.example.com", State: Up, Since: began}) {
					t.Errorf("before it was asked: %+v", s)
				}
				_, err := opened(t.Context(), c, hello("reg.example.com"))
				if test.wrong == "" && test.state == Up && name == "it answers" && err != nil {
					t.Error(err)
				}
				s := c.Standings()[0]
				if s.State != test.state || s.LastError != test.wrong {
					t.Errorf("it stands as %+v", s)
				}
				if answered := name != "nobody is there"; answered != (s.Latency == 40*time.Millisecond) {
					t.Errorf("its latency is %v", s.Latency)
				}
			})
		})
	}
}
