package upstream

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
)

// A shy registry answers bare requests by a status without a challenge. It challenges at
// /v2/ alone, or nowhere.
type shy struct {
	status    int    // to a bare request
	challenge string // at /v2/, "": none
	accepts   string // Authorization that it accepts
	greeted   int
	shown     []string // Authorization of requests for content
}

func (s *shy) trip(r *http.Request) (*http.Response, error) {
	const api = "Docker-Distribution-Api-Version"
	authorization := r.Header.Get("Authorization")
	switch {
	case r.URL.Path == "/token":
		if r.Header.Get("Authorization") != "" {
			return reply(200, `{"token":"member"}`), nil
		}
		return reply(200, `{"token":"guest"}`), nil
	case r.URL.Path == "/v2/" && s.challenge != "":
		s.greeted++
		return reply(401, "", api, "registry/2.0", "WWW-Authenticate", s.challenge), nil
	case r.URL.Path == "/v2/":
		s.greeted++
		return reply(200, "{}", api, "registry/2.0"), nil
	}
	s.shown = append(s.shown, authorization)
	if authorization != "" && strings.HasPrefix(authorization, s.accepts) {
		return reply(200, "hello"), nil
	}
	return reply(s.status, "", api, "registry/2.0"), nil
}

// TestAShyRegistryIsShownALogin: a bare request that is refused without a challenge is
// tried once more, with the login or an anonymous token.
func TestAShyRegistryIsShownALogin(t *testing.T) {
	t.Parallel()
	const bearer, basic = `Bearer realm="https://reg.example.com/token",service="s"`, `Basic realm="r"`
	for name, c := range map[string]struct {
		login     bool
		challenge string
		accepts   string
		served    []int // the statuses after which it is let in
	}{
		"a login for a token":          {true, bearer, "Bearer member", []int{401, 403, 404, 429}},
		"a login by itself":            {true, basic, "Basic ", []int{401, 403, 404, 429}},
		"a login nobody asks for":      {true, "", "Basic ", []int{401, 403, 404, 429}},
		"an anonymous token":           {false, bearer, "Bearer guest", []int{401, 403, 404}},
		"no login, and it wants one":   {false, basic, "Basic ", nil},
		"a login that is not good":     {true, basic, "Bearer ", nil},
		"no login, and nobody asks":    {false, "", "Basic ", nil},
		"a token that is not good":     {false, bearer, "Basic ", nil},
		"a scheme that nobody can use": {false, "Negotiate", "Basic ", nil},
	} {
		for _, status := range []int{401, 403, 404, 429} {
			t.Run(name+", "+http.StatusText(status), func(t *testing.T) {
				t.Parallel()
				s := &shy{status: status, challenge: c.challenge, accepts: c.accepts}
				cfg := Registry{FollowRedirects: true}
				if c.login {
					cfg = withLogin(cfg)
				}
				client := faked(t, cfg, s.trip)
				served := false
				for _, good := range c.served {
					served = served || good == status
				}
				ref := hello("reg.example.com")
				if status == http.StatusTooManyRequests && !served {
					return // it is waited out
				}
				for range 3 {
					got, err := opened(t.Context(), client, ref)
					if served && (err != nil || got != "hello") {
						t.Errorf("%q, %v; shown %q", got, err, s.shown)
					}
					if e, ok := oci.AsError(err); !served && (!ok || e.Status != status || !e.Authoritative()) {
						t.Errorf("%q, %v", got, err)
					}
				}
				if s.greeted > 1 {
					t.Errorf("/v2/ was asked %d times", s.greeted)
				}
				if served && len(s.shown) != 4 { // bare once, and then the pass each time
					t.Errorf("shown %q", s.shown)
				}
				if !served && len(s.shown) > 3*maxRequests {
					t.Errorf("shown %q", s.shown)
				}
			})
		}
	}
}

// TestATokenServerThatIsDownIsNoRefusal: what a bare request is told does not count while
// the pass that /v2/ asks for can't be had.
func TestATokenServerThatIsDownIsNoRefusal(t *testing.T) {
	t.Parallel()
	client := faked(t, withLogin(Registry{}), func(r *http.Request) (*http.Response, error) {
		switch r.URL.Path {
		case "/token":
			return reply(503, "", "Retry-After", "3600"), nil
		case "/v2/":
			return reply(401, "", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token"`), nil
		}
		return reply(404, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
	})
	_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
	if e := wantError(t, err, oci.Unavailable, "token"); !e.Passing() {
		t.Errorf("%+v is final", e)
	}
}

// TestAGreetingIsForgotten: after ten minutes /v2/ is asked again.
func TestAGreetingIsForgotten(t *testing.T) {
	t.Parallel()
	c := newChallenges()
	if _, ok := c.greeting(); ok {
		t.Error("a greeting is known before there was one")
	}
	c.greeted([]challenge{{"basic", map[string]string{"realm": "r"}}})
	offered, ok := c.greeting()
	if !ok || len(offered) != 1 {
		t.Fatalf("%v, %v", offered, ok)
	}
	offered[0].params["realm"] = "changed"
	if again, _ := c.greeting(); again[0].params["realm"] != "r" {
		t.Error("who reads a greeting changes it")
	}
	c.asked = c.asked.Add(-greetingFor - time.Second)
	if _, ok := c.greeting(); ok {
		t.Error("it is not forgotten")
	}
}

// TestAScopeThatIsNobodys: /v2/ may name a repository that is an example (GHCR), or the
// catalog (cloudflare/serverless-registry#148). The token is for what is asked for.
func TestAScopeThatIsNobodys(t *testing.T) {
	t.Parallel()
	const own = "repository:team/app:pull"
	for scope, want := range map[string]string{
		"repository:user/image:pull":                    own,
		"repository:user/image:pull,push":               own,
		"registry:catalog:*":                            own,
		"registry:catalog:* repository:user/image:pull": own,
		"":                               own,
		" ":                              own,
		"*":                              "*",   // Gitea
		"aws":                            "aws", // ECR Public
		"aws repository:user/image:pull": "aws",
	} {
		for _, status := range []int{401, 403, 404} {
			client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
				const api = "Docker-Distribution-Api-Version"
				switch {
				case r.URL.Path == "/token":
					return reply(200, `{"token":"for-`+strings.Join(r.URL.Query()["scope"], "+")+`"}`), nil
				case r.URL.Path == "/v2/":
					return reply(401, "", api, "registry/2.0", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token",service="s",scope="`+scope+`"`), nil
				case r.Header.Get("Authorization") == "Bearer for-"+want:
					return reply(200, "hello"), nil
				}
				return reply(status, "", api, "registry/2.0"), nil
			})
			for range 2 {
				wantHello(t, client, "reg.example.com")
			}
		}
	}
}
