package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

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

// A hidden registry shows its content to those who show its token, unasked for; to others
// it has nothing. It may know no HEAD.
type hidden struct {
	mu      sync.Mutex
	noHead  bool
	greets  func() *http.Response // at /v2/
	token   string                // that it takes
	issues  string                // that its token server gives
	refuses bool                  // its token server refuses the login
	asked   []string              // for content: method, and whether the token was shown
}

const hiddenChallenge = `Bearer realm="https://reg.example.com/token",service="s"`

func (h *hidden) trip(r *http.Request) (*http.Response, error) {
	const api = "Docker-Distribution-Api-Version"
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case r.URL.Path == "/token" && h.refuses:
		return reply(401, `{"details":"incorrect username or password"}`, "Content-Type", "application/json"), nil
	case r.URL.Path == "/token":
		return reply(200, `{"token":"`+h.issues+`","expires_in":3600}`), nil
	case r.URL.Path == "/v2/" && h.greets != nil:
		return h.greets(), nil
	case r.URL.Path == "/v2/":
		return reply(401, "", api, "registry/2.0", "WWW-Authenticate", hiddenChallenge), nil
	}
	shown := r.Header.Get("Authorization") == "Bearer "+h.token
	h.asked = append(h.asked, fmt.Sprint(r.Method, " ", shown))
	if !shown || r.Method == http.MethodHead && h.noHead {
		return reply(404, "", api, "registry/2.0"), nil
	}
	return reply(200, wholeIndex, "Docker-Content-Digest", digest.FromString(wholeIndex).String(), "Content-Type", "application/vnd.oci.image.index.v1+json"), nil
}

// TestAHiddenRegistryThatKnowsNoHead: what a HEAD is refused says nothing of the login.
func TestAHiddenRegistryThatKnowsNoHead(t *testing.T) {
	t.Parallel()
	for _, noHead := range []bool{true, false} {
		h := &hidden{noHead: noHead, token: "t", issues: "t"}
		client := faked(t, withLogin(Registry{}), h.trip)
		for i := range 2 {
			h.asked = nil
			if d, err := client.Stat(t.Context(), tagged, false, nil); err != nil || d.Digest != digest.FromString(wholeIndex) || len(h.asked) > 3 {
				t.Errorf("no HEAD %v, round %d: %+v, %v, asked %q", noHead, i, d, err, h.asked)
			}
		}
		if !noHead && len(h.asked) != 1 {
			t.Errorf("known, and asked %q", h.asked)
		}
	}
}

// TestATokenThatHasEndedUnseen: the registry shows nothing to a token that has ended, as
// to guests. That is not its last word.
func TestATokenThatHasEndedUnseen(t *testing.T) {
	t.Parallel()
	h := &hidden{token: "t", issues: "t"}
	client := faked(t, withLogin(Registry{}), h.trip)
	for _, token := range []string{"t", "u", "v"} {
		h.token, h.issues, h.asked = token, token, nil
		if _, err := client.Manifest(t.Context(), tagged, nil); err != nil || len(h.asked) > 2 {
			t.Errorf("GET with the token %s: %v, asked %q", token, err, h.asked)
		}
		h.token, h.issues, h.asked = token+"2", token+"2", nil
		if _, err := client.Stat(t.Context(), tagged, false, nil); err != nil || len(h.asked) > 3 {
			t.Errorf("HEAD with the token %s: %v, asked %q", token, err, h.asked)
		}
	}
	h.token, h.asked = "another", nil
	_, err := client.Manifest(t.Context(), tagged, nil)
	if e := wantError(t, err, oci.NotFound, ""); !e.Authoritative() || len(h.asked) > 2 {
		t.Errorf("%+v, asked %q", e, h.asked)
	}
}

// TestAGreetingThatIsNone: a hidden registry's 404 is not its last word while nobody can
// tell what login it wants, and what stood in its place is not remembered.
func TestAGreetingThatIsNone(t *testing.T) {
	t.Parallel()
	for name, greets := range map[string]func() *http.Response{
		"a portal's page": func() *http.Response { return reply(200, "<html>", "Content-Type", "text/html") },
		"a portal's page, packed": func() *http.Response {
			return reply(200, "\x1f\x8b", "Content-Type", "text/html", "Content-Encoding", "gzip")
		},
		"a redirect to a portal": func() *http.Response { return reply(302, "", "Location", "https://portal.example.net/") },
		"a redirect inside":      func() *http.Response { return reply(302, "", "Location", "https://10.0.0.1/") },
		"a balancer":             func() *http.Response { return reply(503, "<html>", "Content-Type", "text/html", "Retry-After", "3600") },
		"the registry is down": func() *http.Response {
			return reply(500, "", "Docker-Distribution-Api-Version", "registry/2.0", "Retry-After", "3600")
		},
		"too many requests": func() *http.Response { return reply(429, "", "Retry-After", "3600") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &hidden{token: "t", issues: "t", greets: greets}
			client := faked(t, withLogin(Registry{}), func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "portal.example.net" {
					return reply(200, "<html>", "Content-Type", "text/html"), nil
				}
				return h.trip(r)
			})
			_, err := client.Manifest(t.Context(), tagged, nil)
			if e, ok := oci.AsError(err); !ok || !e.LastWordCounts() || len(h.asked) > maxRequests {
				t.Errorf("%v, asked %q", err, h.asked)
			}
			h.greets = nil
			if _, err := client.Manifest(t.Context(), tagged, nil); err != nil {
				t.Errorf("when it is back: %v", err)
			}
		})
	}
}

// TestAGreetingThatIsMissing: where nothing is at /v2/, the login is shown by itself, and
// what the registry says then is its word.
func TestAGreetingThatIsMissing(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 405} {
		for _, right := range []bool{true, false} {
			client := faked(t, withLogin(Registry{FollowRedirects: true}), func(r *http.Request) (*http.Response, error) {
				switch {
				case r.URL.Path == "/v2/":
					return reply(status, "default backend", "Content-Type", "text/plain"), nil
				case right && strings.HasPrefix(r.Header.Get("Authorization"), "Basic "):
					return reply(200, "hello"), nil
				}
				return reply(404, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
			})
			got, err := opened(t.Context(), client, hello("reg.example.com"))
			if right && (err != nil || got != "hello") {
				t.Errorf("%d: %q, %v", status, got, err)
			}
			if !right && !wantError(t, err, oci.NotFound, "").Authoritative() {
				t.Errorf("%d: %v", status, err)
			}
		}
	}
}

// TestALoginThatAHiddenRegistryRefuses is told as such, and not as a tag that is missing.
func TestALoginThatAHiddenRegistryRefuses(t *testing.T) {
	t.Parallel()
	h := &hidden{token: "t", issues: "t"}
	client := faked(t, withLogin(Registry{}), h.trip)
	for _, refuses := range []bool{true, false, true} {
		h.refuses = refuses
		client.named["reg.example.com"].accounts.all[0].passes.tokens.dropAll(Credentials{"user", canary})
		_, err := client.Manifest(t.Context(), tagged, nil)
		if !refuses && err != nil {
			t.Error(err)
		}
		if refuses && !wantError(t, err, oci.Denied, "refused the credentials").Authoritative() {
			t.Errorf("%v is nobody's word", err)
		}
	}
}
