package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// Greet says what a registry thinks of the login, in a few requests.
func TestGreet(t *testing.T) {
	t.Parallel()
	basicAuth := upstreamtest.Basic("user", canary)
	bearer := func(b upstreamtest.BearerAuth) upstreamtest.Option {
		b.User, b.Password = "user", canary
		return upstreamtest.Bearer(b)
	}
	for name, c := range map[string]struct {
		options []upstreamtest.Option
		change  func(Registry) Registry
		want    Greeting
		wrong   string // what the error says
	}{
		"open to all":          {want: Greeting{}},
		"open, and a login":    {change: withLogin, want: Greeting{}},
		"the right login":      {options: []upstreamtest.Option{basicAuth}, change: withLogin, want: Greeting{Asks: true, Login: true}},
		"a wrong login":        {options: []upstreamtest.Option{upstreamtest.Basic("user", "other")}, change: withLogin, wrong: "401"},
		"no login":             {options: []upstreamtest.Option{basicAuth}, wrong: "the config has none"},
		"a token by the login": {options: []upstreamtest.Option{bearer(upstreamtest.BearerAuth{})}, change: withLogin, want: Greeting{Asks: true, Login: true}},
		"a token by a wrong login": {options: []upstreamtest.Option{bearer(upstreamtest.BearerAuth{})}, change: func(r Registry) Registry {
			r.Username, r.Password = "user", "other"
			return r
		}, wrong: "the token server refused the credentials"},
		"a token for guests":  {options: []upstreamtest.Option{bearer(upstreamtest.BearerAuth{Anonymous: true, OmitScope: true})}, want: Greeting{Asks: true, Guests: true}},
		"no token for guests": {options: []upstreamtest.Option{bearer(upstreamtest.BearerAuth{})}, want: Greeting{Asks: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, c.options...)
			cfg := plainly(up.Host())
			if c.change != nil {
				cfg = c.change(cfg)
			}
			got, err := newClient(t, cfg).Greet(t.Context(), up.Host())
			if c.wrong == "" && (err != nil || got != c.want) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("got %+v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

// What is no registry is told as such, whatever it answers.
func TestGreetWhatIsNoRegistry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		header []string
		want   string
	}{
		"a portal's page": {200, "<html>Welcome to the hotel</html>", []string{"Content-Type", "text/html"}, "a page for people"},
		"no API there":    {404, "nothing", nil, "404"},
		"a gateway":       {502, "<html>", []string{"Content-Type", "text/html"}, "502"},
		"too many":        {429, "", nil, "429"},
		"a strange login": {401, "", []string{"WWW-Authenticate", "Negotiate"}, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			host := server(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				for i := 0; i < len(c.header); i += 2 {
					w.Header().Set(c.header[i], c.header[i+1])
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			})
			_, err := newClient(t, withLogin(plainly(host))).Greet(t.Context(), host)
			if _, ok := errors.AsType[*oci.Error](err); !ok || !strings.Contains(err.Error(), c.want) || asked != 1 {
				t.Errorf("%T %v, %d requests", err, err, asked)
			}
		})
	}
}

// The example of a scope that GHCR's challenge has is not asked for.
func TestGreetAsksForNoScope(t *testing.T) {
	t.Parallel()
	var srv *httptest.Server
	scopes := make(chan string, 1)
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			scopes <- r.URL.Query().Get("scope")
			_, _ = fmt.Fprint(w, `{"token":"t"}`)
		case r.Header.Get("Authorization") == "Bearer t":
			_, _ = fmt.Fprint(w, "{}")
		default:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="repository:user/image:pull"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	got, err := newClient(t, withLogin(plainly(host))).Greet(t.Context(), host)
	if scope := <-scopes; scope != "" || err != nil || !got.Login {
		t.Errorf("scope %q, %+v, %v", scope, got, err)
	}
}

// Who is not reached is told with the reason.
func TestGreetWhoIsNotReached(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.Down()
	_, err := newClient(t, plainly(up.Host())).Greet(t.Context(), up.Host())
	if f, ok := errors.AsType[*oci.Error](err); !ok || !strings.Contains(f.Reason, "connection refused") {
		t.Error(err)
	}
}
