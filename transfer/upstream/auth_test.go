package upstream

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestEachWayOfAskingForALoginIsMet(t *testing.T) {
	t.Parallel()
	type bearer = upstreamtest.BearerAuth
	for name, c := range map[string]struct {
		opt   upstreamtest.Option
		login bool
	}{
		"none":                        {upstreamtest.Redirect(), false},
		"basic":                       {upstreamtest.Basic("user", canary), true},
		"anonymous token":             {upstreamtest.Bearer(bearer{}), false},
		"token for a login":           {upstreamtest.Bearer(bearer{User: "user", Password: canary}), true},
		"access_token":                {upstreamtest.Bearer(bearer{AccessToken: true, OmitExpiry: true}), false},
		"no scope":                    {upstreamtest.Bearer(bearer{OmitScope: true}), false},
		"several challenges":          {upstreamtest.Bearer(bearer{User: "user", Password: canary, Extra: []string{`Negotiate`, `Basic realm="a, b"`}}), true},
		"relative realm":              {upstreamtest.Bearer(bearer{User: "user", Password: canary, Realm: "/Token-Service/auth"}), true},
		"token server on its own":     {upstreamtest.Bearer(bearer{User: "user", Password: canary, SeparateHost: true}), true},
		"anonymous where both can be": {upstreamtest.Bearer(bearer{User: "user", Password: canary, Anonymous: true}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := upstreamtest.New(t, c.opt)
			reg.PutBlob("team/app", []byte("hello"))
			cfg := plainly(reg.Host())
			if c.login {
				cfg = withLogin(cfg)
			}
			cfg.RealmHosts = []string{reg.TokenHost()}
			client := newClient(t, cfg)
			wantHello(t, client, reg.Host())
			wantHello(t, client, reg.Host())
			requests := reg.Requests()
			if first := requests[0].Header.Get("Authorization"); first != "" {
				t.Errorf("the first request has credentials: %q", first)
			}
			bare := 0
			for _, r := range requests {
				if r.Status == http.StatusUnauthorized {
					bare++
				}
			}
			if bare > 1 {
				t.Errorf("%d requests without credentials were challenged, want at most 1", bare)
			}
		})
	}
}

func TestAnEndedTokenIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			reg := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "user", Password: canary, ExpiredStatus: status}))
			reg.PutBlob("team/app", []byte("hello"))
			client := newClient(t, withLogin(plainly(reg.Host())))
			wantHello(t, client, reg.Host())
			reg.RevokeTokens()
			wantHello(t, client, reg.Host())
			if n := reg.Count("GET", "/Token-Service/"); n != 2 {
				t.Errorf("%d token requests, want 2", n)
			}
		})
	}
}

func TestFiftyPullersShareOneToken(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "user", Password: canary}))
	reg.PutBlob("team/app", []byte("hello"))
	release := reg.Hold(upstreamtest.Match{PathPart: "/Token-Service/"})
	client := newClient(t, withLogin(plainly(reg.Host())))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got, err := opened(t.Context(), client, hello(reg.Host())); got != "hello" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	reg.WaitFor(upstreamtest.Match{PathPart: "/Token-Service/"}, 1)
	release()
	wg.Wait()
	if n := reg.Count("GET", "/Token-Service/"); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

func TestATokenServerElsewhereGetsNoCredentials(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		realm  string // HOST is the other server's host:port
		listed string
		seen   bool
	}{
		"another port of the address":  {"http://HOST/token", "", false},
		"another spelling":             {"HTTP://HOST/ToKeN", "", false},
		"with the registry's userinfo": {"http://reg.example.com@HOST/token", "", false},
		"listed with its port":         {"http://HOST/token", "HOST", true},
		"listed by its name":           {"http://HOST/token", "127.0.0.1", true},
		"another is listed":            {"http://HOST/token", "127.0.0.2", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked, shown atomic.Int64
			other := server(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.Header.Get("Authorization") != "" {
					shown.Add(1)
				}
				_, _ = io.WriteString(w, `{"token":"t"}`)
			})
			home := server(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "Bearer t" {
					_, _ = io.WriteString(w, "hello")
					return
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.ReplaceAll(c.realm, "HOST", other)+`"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			cfg := withLogin(plainly(home))
			if c.listed != "" {
				cfg.RealmHosts = []string{strings.ReplaceAll(c.listed, "HOST", other)}
			}
			wantHello(t, newClient(t, cfg), home)
			if asked.Load() != 1 || (shown.Load() == 1) != c.seen {
				t.Errorf("%d requests, %d with credentials", asked.Load(), shown.Load())
			}
		})
	}
}

func TestATokenServersRedirectTakesNoCredentialsAlong(t *testing.T) {
	t.Parallel()
	other := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the credentials were sent on")
		}
		_, _ = io.WriteString(w, `{"token":"t"}`)
	})
	home := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			http.Redirect(w, r, "http://"+other+"/token?secret="+canary, http.StatusFound)
		case r.Header.Get("Authorization") == "Bearer t":
			_, _ = io.WriteString(w, "hello")
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	wantHello(t, newClient(t, withLogin(plainly(home))), home)
}

func TestWhoSeesCredentials(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		home, realm, listed string
		insecure, want      bool
		plain               bool // the registry was last seen to speak plain http
	}{
		{"reg.example.com", "https://reg.example.com/t", "", false, true, false},
		{"reg.example.com", "https://REG.EXAMPLE.COM/t", "", false, true, false},
		{"reg.example.com", "https://auth.example.com/t", "", false, true, false},
		{"reg.example.com", "https://auth.example.com:8443/t", "", false, true, false},
		{"reg.example.com", "https://example.com/t", "", false, true, false},
		{"reg.example.com", "http://auth.example.com/t", "", false, false, false},
		{"reg.example.com", "http://auth.example.com/t", "", true, false, false}, // insecure, but only because of its certificate
		{"reg.example.com", "http://auth.example.com/t", "", true, true, true},
		{"reg.example.com", "http://auth.other.net/t", "auth.other.net", true, false, false},
		{"reg.example.com", "http://auth.other.net/t", "auth.other.net", true, true, true},
		{"reg.example.com", "http://reg.example.com/t", "", true, false, false},
		{"reg.example.com", "https://auth.example.com/t", "", true, true, true},
		{"reg.example.com", "http://auth.example.com/t", "", false, false, true},
		{"reg.example.com", "https://example.net/t", "", false, false, false},
		{"reg.example.com", "https://reg.example.com.evil.net/t", "", false, false, false},
		{"reg.example.com", "https://evilexample.com/t", "", false, false, false},
		{"reg.example.com", "https://auth.other.net/t", "auth.other.net", false, true, false},
		{"reg.example.com", "https://auth.other.net:8443/t", "auth.other.net:443", false, false, false},
		{"reg.example.com", "http://auth.other.net/t", "auth.other.net", false, false, false},
		{"registry-1.docker.io", "https://auth.docker.io/token", "", false, true, false},
		{"a.github.io", "https://b.github.io/t", "", false, false, false}, // a public suffix: names below it have different owners
		{"a.co.uk", "https://b.co.uk/t", "", false, false, false},
		{"localhost:5000", "https://localhost:5001/t", "", false, false, false},
		{"10.0.0.1:5000", "https://10.0.0.1:5001/t", "", false, false, false},
		{"10.0.0.1:5000", "https://10.0.0.1:5000/t", "", false, true, false},
		{"reg.example.com:5000", "https://reg.example.com:5000/t", "", false, true, false},
	} {
		cfg := Registry{Host: c.home, Configured: true, Insecure: c.insecure}
		if c.listed != "" {
			cfg.RealmHosts = []string{c.listed}
		}
		r := newClientFor(t, withLogin(cfg))
		r.home.plain.Store(c.plain)
		if got := r.accounts.all[0].passes.login.mayBeSeenBy(mustURL(t, c.realm)); got != c.want {
			t.Errorf("%s shows its credentials to %s (listed %q, insecure %v, plain %v): %v", c.home, c.realm, c.listed, c.insecure, c.plain, got)
		}
	}
}

func TestRealmsThatAreNotUsed(t *testing.T) {
	t.Parallel()
	r := newClientFor(t, withLogin(Registry{Host: "reg.example.com", Configured: true}))
	home := mustURL(t, "https://reg.example.com/v2/a/blobs/x")
	for _, realm := range []string{
		"", "http://auth.example.com/t", "ftp://auth.example.com/t", "https://127.0.0.1/t", "https://[::1]/t",
		"https://10.0.0.1/t", "https://169.254.169.254/latest", "https://0x7f.1/t", "://", "https:///t", "https://[/",
		"http://127.0.0.1:8080/t", "https://[::ffff:10.0.0.1]/t", "javascript:x", "https://a..b/t",
	} {
		if u, err := r.accounts.all[0].passes.realm(home, realm); err == nil {
			t.Errorf("%q is used as %v", realm, u)
		}
	}
	for realm, want := range map[string]string{
		"/token":                               "https://reg.example.com/token",
		"token":                                "https://reg.example.com/v2/a/blobs/token",
		"https://u:p@auth.example.com/t#f":     "https://auth.example.com/t",
		"http://reg.example.com/service/token": "https://reg.example.com/service/token", // behind a gateway
		"https://Auth.Example.COM/ToKen":       "https://auth.example.com/ToKen",
	} {
		if u, err := r.accounts.all[0].passes.realm(home, realm); err != nil || u.String() != want {
			t.Errorf("%q is %v, %v; want %s", realm, u, err, want)
		}
	}
}

func TestRefusalsNameTheHostThatRefused(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "user", Password: "right", SeparateHost: true}))
	reg.PutBlob("team/app", []byte("hello"))
	cfg := withLogin(plainly(reg.Host()))
	cfg.RealmHosts = []string{reg.TokenHost()}
	_, err := newClient(t, cfg).Open(t.Context(), hello(reg.Host()), 0)
	if e := wantError(t, err, oci.Denied, "refused the credentials"); e.Host != reg.TokenHost() {
		t.Errorf("host %s, want the token server %s", e.Host, reg.TokenHost())
	}
	_, err = newClient(t, plainly(reg.Host())).Open(t.Context(), hello(reg.Host()), 0)
	wantError(t, err, oci.Denied, "without credentials")

	basic := upstreamtest.New(t, upstreamtest.Basic("user", "right"))
	basic.PutBlob("team/app", []byte("hello"))
	_, err = newClient(t, withLogin(plainly(basic.Host()))).Open(t.Context(), hello(basic.Host()), 0)
	wantError(t, err, oci.Denied, "access denied")
	if n := len(basic.Requests()); n != 2 {
		t.Errorf("a wrong login took %d requests, want 2", n)
	}
	_, err = newClient(t, plainly(basic.Host())).Open(t.Context(), hello(basic.Host()), 0)
	wantError(t, err, oci.Denied, "asks for a login")
}

func TestTokenRequestsAreMadeOfParts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key  tokenKey
		want string
	}{
		"plain":               {tokenKey{realm: "https://a/t", service: "s", scope: "repository:x:pull"}, "https://a/t?scope=repository%3Ax%3Apull&service=s"},
		"a query of its own":  {tokenKey{realm: "https://a/t?service=nvcr.io&x=1", scope: "s"}, "https://a/t?scope=s&service=nvcr.io&x=1"},
		"two scopes":          {tokenKey{realm: "https://a/t", scope: "x y"}, "https://a/t?scope=x&scope=y"},
		"signs in the fields": {tokenKey{realm: "https://a/t", service: "a&b=c#d"}, "https://a/t?service=a%26b%3Dc%23d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if u, err := tokenURL(c.key); err != nil || u.String() != c.want {
				t.Errorf("%v, %v; want %s", u, err, c.want)
			}
		})
	}
}

func TestTheScopeIsMadeWhereTheChallengeHasNone(t *testing.T) {
	t.Parallel()
	var query url.Values
	c := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
		switch {
		case r.URL.Path == "/token":
			query = r.URL.Query()
			return reply(200, `{"token":"t"}`), nil
		case r.Header.Get("Authorization") == "":
			return reply(401, "", "WWW-Authenticate", `Bearer realm="https://auth.example.com/token",service="s"`), nil
		}
		return reply(200, "hello"), nil
	})
	wantHello(t, c, "reg.example.com")
	if query.Get("scope") != "repository:team/app:pull" || query.Get("service") != "s" {
		t.Errorf("asked for %v", query)
	}
}

func TestTokenAnswersWithoutEndAreNotRead(t *testing.T) {
	t.Parallel()
	home := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			_, _ = io.WriteString(w, `{"token":"t","x":"`+strings.Repeat("x", maxTokenAnswer)+`"}`)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	_, err := newClient(t, plainly(home)).Open(t.Context(), hello(home), 0)
	wantError(t, err, oci.Unavailable, "too large")
}

func TestALostTokenServerIsLookedForAgain(t *testing.T) {
	t.Parallel()
	realm, life := "/old", 1 // life of the token in seconds; the registry refuses it before it would be renewed
	c := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
		switch {
		case r.URL.Path == realm:
			return reply(200, fmt.Sprintf(`{"token":%q,"expires_in":%d}`, realm, life)), nil
		case r.Header.Get("Authorization") == "Bearer "+realm:
			return reply(200, "hello"), nil
		case strings.HasPrefix(r.URL.Path, "/v2/"):
			return reply(401, "", "WWW-Authenticate", `Bearer realm="`+realm+`"`), nil
		}
		return reply(404, ""), nil
	})
	wantHello(t, c, "reg.example.com")
	realm = "/new"
	c.named["reg.example.com"].accounts.all[0].passes.tokens.kept.Purge()
	wantHello(t, c, "reg.example.com")
}

func TestAChallengeThatIsMissingIsAskedForAtTheRoot(t *testing.T) {
	t.Parallel()
	client := faked(t, withLogin(Registry{}), func(r *http.Request) (*http.Response, error) {
		switch {
		case r.Header.Get("Authorization") != "":
			return reply(200, "hello"), nil
		case r.URL.Path == "/v2/":
			return reply(401, "", "WWW-Authenticate", "Basic realm=r"), nil
		}
		return reply(401, ""), nil
	})
	wantHello(t, client, "reg.example.com")
}

func TestBasicIsTakenWhereTheTokenServerMayNotSeeTheLogin(t *testing.T) {
	t.Parallel()
	for realm, want := range map[string]string{
		"https://auth.example.net/t": "basic",
		"https://auth.example.com/t": "bearer",
		"http://auth.example.com/t":  "basic",
		"":                           "basic",
	} {
		r := newClientFor(t, withLogin(Registry{Host: "reg.example.com", Configured: true}))
		offered := parseChallenges(`Basic realm=r, Bearer realm="` + realm + `", Negotiate`)
		if ch, reason := r.accounts.all[0].passes.choose(mustURL(t, "https://reg.example.com/v2/"), offered); ch.scheme != want {
			t.Errorf("realm %q: %q, %s; want %s", realm, ch.scheme, reason, want)
		}
	}
}
