package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestRedirectsToACDNCarryNoPass(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]upstreamtest.Option{
		"token": upstreamtest.Bearer(upstreamtest.BearerAuth{User: "user", Password: canary}),
		"basic": upstreamtest.Basic("user", canary),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := upstreamtest.New(t, opt, upstreamtest.Redirect(), upstreamtest.RedirectManifests())
			reg.PutBlob("team/app", []byte("hello"))
			d := reg.PutManifest("team/app", "latest", upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
			client := newClient(t, withLogin(plainly(reg.Host())))
			wantHello(t, client, reg.Host())
			reg.RevokeLinks() // the client must not remember where a redirect led
			wantHello(t, client, reg.Host())
			m, err := client.Manifest(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app", Tag: "latest"}, []string{"application/x", upstreamtest.TypeManifest})
			if err != nil || m.Digest != d {
				t.Errorf("Manifest: %v, %v; want %s", m.Digest, err, d)
			}
			for _, r := range reg.Requests() {
				if r.Server == "cdn" && r.Header.Get("Authorization") != "" {
					t.Error("the CDN was shown the pass")
				}
			}
		})
	}
}

// leads returns a network where the registry redirects to location and every other
// host answers hello. It adds to seen each URL that was shown Authorization.
func leads(location string, seen *[]string) tripFunc {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Scheme == "https" && r.URL.Host == "reg.example.com" && r.Header.Get("Authorization") == "" && strings.HasPrefix(r.URL.Path, "/v2/") {
			return reply(401, "", "WWW-Authenticate", "Basic realm=r"), nil
		}
		if r.Header.Get("Authorization") != "" {
			*seen = append(*seen, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
		}
		if strings.HasPrefix(r.URL.Path, "/v2/") && r.URL.Host == "reg.example.com" {
			return reply(307, "", "Location", location), nil
		}
		return reply(200, "hello"), nil
	}
}

func TestWhereAPassGoesOnARedirect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		location string
		shown    bool // the pass is shown to the target
		reason   string
	}{
		"relative":             {"/artifacts/x?sig=" + canary, true, ""},
		"relative to the path": {"../../../../artifacts/x", true, ""},
		"the same, spelled":    {"https://REG.example.com:443/artifacts/x", true, ""},
		"another port":         {"https://reg.example.com:8443/x?sig=" + canary, false, ""},
		"a sub-domain":         {"https://cdn.reg.example.com/x", false, ""},
		"the parent domain":    {"https://example.com/x", false, ""},
		"another host":         {"https://cdn.example.net/x", false, ""},
		"without a scheme":     {"//cdn.example.net/x", false, ""},
		"with a login":         {"https://u:" + canary + "@cdn.example.net/x", false, ""},
		"down to http":         {"http://reg.example.com/x?sig=" + canary, false, "not followed"},
		"down to http, away":   {"http://cdn.example.net/x", false, "not followed"},
		"another scheme":       {"ftp://cdn.example.net/x", false, "not followed"},
		"to loopback":          {"https://127.0.0.1/x?sig=" + canary, false, "not public"},
		"to metadata":          {"https://169.254.169.254/latest/meta-data", false, "metadata"},
		"nowhere":              {"", false, "Location"},
		"nonsense":             {"https://[" + canary, false, "Location"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen []string
			client := faked(t, withLogin(Registry{FollowRedirects: true}), leads(c.location, &seen))
			got, err := opened(t.Context(), client, hello("reg.example.com"))
			if c.reason != "" {
				e, ok := errors.AsType[*oci.Error](err)
				if !ok || !strings.Contains(e.Reason, c.reason) || strings.Contains(err.Error(), canary) {
					t.Errorf("error %v, want one with %q", err, c.reason)
				}
			} else if got != "hello" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			want := 1
			if c.shown {
				want = 2
			}
			if len(seen) != want {
				t.Errorf("the pass was shown to %v", seen)
			}
		})
	}
}

func TestAPassIsNotShownOnTheWayBack(t *testing.T) {
	t.Parallel()
	shown := 0
	client := faked(t, withLogin(Registry{FollowRedirects: true}), func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Authorization") != "" {
			shown++
		}
		switch {
		case r.URL.Host == "evil.example.net":
			return reply(302, "", "Location", "https://reg.example.com/v2/secret/blobs/x"), nil
		case strings.Contains(r.URL.Path, "/secret/"):
			return reply(401, "", "WWW-Authenticate", "Basic realm=r"), nil
		case r.Header.Get("Authorization") == "":
			return reply(401, "", "WWW-Authenticate", "Basic realm=r"), nil
		}
		return reply(302, "", "Location", "https://evil.example.net/"), nil
	})
	_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
	wantError(t, err, oci.Unavailable, "refused access")
	if shown != 1 {
		t.Errorf("the pass was shown %d times, want once", shown)
	}
}

// TestARedirectInACircleEndsAtItsFirstTurn: a portal that wants a cookie leads back to the
// same URL for ever.
func TestARedirectInACircleEndsAtItsFirstTurn(t *testing.T) {
	t.Parallel()
	for first, turn := range map[string]map[string]string{
		"itself":       {},
		"two in turns": {"/v2/a": "/v2/b", "/v2/b": "/v2/a"},
		"and another":  {"/v2/a": "https://cdn.example.net/x", "/x": "https://reg.example.com/v2/a"},
	} {
		n := 0
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			n++
			to := turn[r.URL.Path]
			if to == "" && len(turn) > 0 {
				to = "/v2/a"
			} else if to == "" {
				to = r.URL.Path
			}
			return reply(302, "", "Location", to, "Set-Cookie", "a=b"), nil
		})
		_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		if wantError(t, err, oci.Unavailable, "in a circle"); n > maxRequests {
			t.Errorf("%s: %d requests", first, n)
		}
	}
}

func TestRedirectsEnd(t *testing.T) {
	t.Parallel()
	for hops, reason := range map[int]string{maxHops: "", maxHops + 1: "too many redirects", 1000: "too many redirects"} {
		t.Run(fmt.Sprint(hops), func(t *testing.T) {
			t.Parallel()
			n := 0
			client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
				if n == hops {
					return reply(200, "hello"), nil
				}
				n++
				return reply(307, "", "Location", fmt.Sprint(r.URL.Path, "?hop=", n)), nil
			})
			got, err := opened(t.Context(), client, hello("reg.example.com"))
			if reason == "" && (got != "hello" || err != nil) {
				t.Errorf("%q, %v", got, err)
			} else if reason != "" {
				wantError(t, err, oci.Unavailable, reason)
			}
		})
	}
}

func TestA401ElsewhereIsNoChallenge(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	cdn := server(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("WWW-Authenticate", "Basic realm=r")
		w.WriteHeader(http.StatusUnauthorized)
	})
	home := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		http.Redirect(w, r, "http://"+cdn+"/x?sig="+canary, http.StatusTemporaryRedirect)
	})
	_, err := newClient(t, withLogin(plainly(home))).Open(t.Context(), hello(home), 0)
	if e := wantError(t, err, oci.Unavailable, "refused access"); e.Host != cdn || e.Status != 401 || asked.Load() != 1 {
		t.Errorf("host %s, status %d after %d requests", e.Host, e.Status, asked.Load())
	}
}

// A registry may redirect to another that wants a token of its own. It gets one
// without our login, only for that request, and only from a public token server.
func TestAnotherRegistryGetsAGuestsToken(t *testing.T) {
	t.Parallel()
	for realm, served := range map[string]bool{
		"https://tokens.example.net/t": true,
		"https://reg.example.com/t":    true, // the registry's own token server, also asked as a guest
		"http://tokens.example.net/t":  false,
		"https://169.254.169.254/t":    false,
		"https://10.0.0.1/t":           false,
		"":                             false,
	} {
		for _, good := range []bool{true, false} {
			shown := map[string]int{}
			client := faked(t, withLogin(Registry{FollowRedirects: true}), func(r *http.Request) (*http.Response, error) {
				header := r.Header.Get("Authorization")
				shown[r.URL.Host+" "+header]++
				switch {
				case r.URL.Path == "/t":
					return reply(200, `{"token":"guest"}`), nil
				case r.URL.Host == "reg.example.com":
					return reply(307, "", "Location", "https://other.example.net/v2/x/blobs/y"), nil
				case header == "Bearer guest" && good:
					return reply(200, "hello"), nil
				}
				return reply(401, "", "WWW-Authenticate", `Bearer realm="`+realm+`",service="s",scope="repository:x:pull"`), nil
			})
			got, err := opened(t.Context(), client, hello("reg.example.com"))
			if served && good {
				if got != "hello" || err != nil {
					t.Errorf("%s: %q, %v", realm, got, err)
				}
			} else if err == nil {
				t.Errorf("%s, good %v: %q", realm, good, got)
			} else if e := wantError(t, err, oci.Unavailable, "refused access"); e.Host != "other.example.net" || e.Status != 401 {
				t.Errorf("%s: %+v", realm, e)
			}
			for seen, n := range shown {
				host, header, _ := strings.Cut(seen, " ")
				if header != "" && (header != "Bearer guest" || host != "other.example.net") || n > 1 && host != "reg.example.com" {
					t.Errorf("%s: %q was shown to %s, %d times", realm, header, host, n)
				}
			}
		}
	}
}

// A link may expire before it is used, or lead to a place that does not have the blob yet.
// Then the registry is asked for another link, once.
func TestALinkThatIsRefusedIsReplacedOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403, 404, 410} {
		for _, bad := range []int{1, 9} {
			links := 0
			client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "reg.example.com" {
					links++
					return reply(307, "", "Location", fmt.Sprintf("https://cdn.example.net/%d", links)), nil
				}
				if links <= bad {
					return reply(status, ""), nil
				}
				return reply(200, "hello"), nil
			})
			got, err := opened(t.Context(), client, hello("reg.example.com"))
			if links != 2 {
				t.Errorf("%d: %d links were asked for, want 2", status, links)
			}
			if bad == 1 && (got != "hello" || err != nil) {
				t.Errorf("%d: %q, %v", status, got, err)
			} else if bad > 1 {
				wantError(t, err, oci.Unavailable, "storage refused the link")
			}
		}
	}
}

func TestRedirectsAreHandedOverWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]string{
		"https://cdn.example.net/x?sig=1": "https://cdn.example.net/x?sig=1",
		"/artifacts/x":                    "https://reg.example.com/artifacts/x",
	} {
		client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
			return reply(307, "", "Location", location), nil
		})
		s, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		if err != nil || s.Redirect != want || s.Body != nil || s.Size != -1 {
			t.Errorf("%s: %+v, %v", location, s, err)
		}
	}
	// A client can't follow a redirect to the registry itself if the registry wants a login.
	var seen []string
	client := faked(t, withLogin(Registry{}), leads("/artifacts/x", &seen))
	wantHello(t, client, "reg.example.com")
	client = faked(t, withLogin(Registry{}), leads("https://cdn.example.net/x", &seen))
	if s, err := client.Open(t.Context(), hello("reg.example.com"), 0); err != nil || s.Redirect != "https://cdn.example.net/x" {
		t.Errorf("%+v, %v", s, err)
	}
}

// A request over TLS does not follow a redirect to plain HTTP, even if the registry is
// insecure.
func TestNothingGoesDownToPlainHTTP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		chain []string
		plain bool // the registry speaks plain http
		ok    bool
	}{
		"from TLS":                      {[]string{"http://cdn.example.net/x"}, false, false},
		"from TLS, to itself":           {[]string{"http://reg.example.com/x"}, false, false},
		"from plain http":               {[]string{"http://cdn.example.net/x"}, true, true},
		"from plain http, up, and down": {[]string{"https://cdn.example.net/x", "http://cdn.example.net/y"}, true, false},
		"from plain http, up":           {[]string{"https://cdn.example.net/x"}, true, true},
		"from plain http, and on":       {[]string{"http://cdn.example.net/x", "http://cdn2.example.net/y"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 0
			client := faked(t, Registry{Insecure: true, FollowRedirects: true}, func(*http.Request) (*http.Response, error) {
				if n == len(c.chain) {
					return reply(200, "hello"), nil
				}
				n++
				return reply(307, "", "Location", c.chain[n-1], "Docker-Distribution-Api-Version", "registry/2.0"), nil
			})
			client.named["reg.example.com"].home.plain.Store(c.plain)
			got, err := opened(t.Context(), client, hello("reg.example.com"))
			if c.ok && (got != "hello" || err != nil) {
				t.Errorf("%q, %v", got, err)
			} else if !c.ok {
				wantError(t, err, oci.Unavailable, "not followed")
			}
		})
	}
}

// A client is never redirected to a host that this program would not ask itself.
func TestWhereAClientIsSent(t *testing.T) {
	t.Parallel()
	for location, ok := range map[string]bool{
		"https://cdn.example.net/x?sig=1": true, "https://8.8.8.8/x": true, "https://127.0.0.1/x": false, "https://10.0.0.1/x": false,
		"http://cdn.example.net/x": false, "https://169.254.169.254/x": false, "https://vault.internal/x": false, "https://localhost/x": false, "https://2130706433/x": false,
	} {
		client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
			return reply(307, "", "Location", location), nil
		})
		s, err := client.Open(t.Context(), hello("reg.example.com"), 0)
		kind := oci.Denied
		if strings.HasPrefix(location, "http:") {
			kind = oci.Unavailable
		}
		if ok && (err != nil || s.Redirect != location) || !ok && oci.KindOf(err) != kind {
			t.Errorf("%s: %v, %v", location, s, err)
		}
		d, err := client.Stat(t.Context(), hello("reg.example.com"), true, nil)
		if ok && (err != nil || d.Redirect != location) || !ok && oci.KindOf(err) != kind {
			t.Errorf("HEAD, %s: %v, %v", location, d, err)
		}
	}
}

// TestLocationsAsServersWriteThem: what a URL may not hold is escaped, and what it may is left
// as it is, or its signature would not fit.
func TestLocationsAsServersWriteThem(t *testing.T) {
	t.Parallel()
	const cdn = "https://cdn.example.net"
	for location, want := range map[string]string{
		cdn + "/a b?name=x y&sig=1":            "/a%20b?name=x%20y&sig=1",
		cdn + `/x?disposition=filename="a b"`:  `/x?disposition=filename="a%20b"`,
		cdn + "/a%2Fb+c?sig=a+b%2F=&x;y":       "/a%2Fb+c?sig=a+b%2F=&x;y",
		cdn + "/x?a=%20b":                      "/x?a=%20b",
		cdn + "/\u00fc?n=\u00fc":               "/%C3%BC?n=\u00fc",
		cdn + "/x?":                            "/x?",
		"HTTPS://CDN.example.net/x":            "/x",
		" " + cdn + "/x ":                      "/x",
		"//cdn.example.net/x":                  "/x",
		"https://user:pw@cdn.example.net/x#at": "/x",
	} {
		location = strings.TrimSpace(location) // as net/http reads a header
		got := ""
		client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			if strings.EqualFold(r.URL.Host, "cdn.example.net") {
				got = r.URL.RequestURI()
				return reply(200, "hello"), nil
			}
			return reply(307, "", "Location", location), nil
		})
		wantHello(t, client, "reg.example.com")
		if got != want {
			t.Errorf("%q: asked for %q, want %q", location, got, want)
		}
	}
}
