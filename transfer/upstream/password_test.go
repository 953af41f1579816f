package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/oci"
)

// A changing login has the password of the moment; what fresh is, Fresh finds.
type changing struct {
	mu              sync.Mutex
	user            string // "": user
	password, fresh string
	failing         error // of Ready
	looks           atomic.Int64
}

func (c *changing) Last() Credentials {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing != nil {
		return Credentials{}
	}
	return Credentials{cmp.Or(c.user, "user"), c.password}
}

func (c *changing) Ready(context.Context) (Credentials, error) { return c.Last(), c.failing }

func (c *changing) Fresh(context.Context) Credentials {
	c.looks.Add(1)
	c.mu.Lock()
	c.password = c.fresh
	c.mu.Unlock()
	return c.Last()
}

const (
	oldPassword = canary + "-old"
	newPassword = canary + "-new"
)

// A registry or token server refuses the old password. The new one is found at once.
func TestAPasswordThatEnded(t *testing.T) {
	t.Parallel()
	const bearer = `Bearer realm="https://reg.example.com/token",service="s",scope="repository:team/app:pull"`
	for name, c := range map[string]struct {
		status    int
		challenge string // of the refusal
		tokens    bool
	}{
		"Basic, 401":                {401, `Basic realm="x"`, false},
		"Basic, 403 (ECR)":          {403, "", false},
		"a token server's 401":      {401, `Basic realm="x"`, true},
		"a token server's 403":      {403, "", true},
		"a token server's bare 400": {400, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := &changing{password: oldPassword, fresh: newPassword}
			var right atomic.Value
			right.Store(oldPassword)
			client := faked(t, Registry{Source: source}, func(r *http.Request) (*http.Response, error) {
				_, password, given := r.BasicAuth()
				login := right.Load().(string)
				switch {
				case c.tokens && r.URL.Path == "/token" && password == login:
					return reply(200, `{"token":"`+login+`"}`), nil
				case c.tokens && r.URL.Path != "/token" && r.Header.Get("Authorization") == "Bearer "+login, !c.tokens && password == login:
					return reply(200, "hello"), nil
				case c.tokens && r.URL.Path != "/token":
					return reply(401, "", "WWW-Authenticate", bearer), nil
				case !given:
					return reply(401, "", "WWW-Authenticate", `Basic realm="x"`), nil
				case c.challenge != "":
					return reply(c.status, "", "WWW-Authenticate", c.challenge), nil
				}
				return reply(c.status, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired"}]}`), nil
			})
			wantHello(t, client, "reg.example.com")
			wantHello(t, client, "reg.example.com")
			if n := source.looks.Load(); n != 0 {
				t.Errorf("%d looks while the password was right", n)
			}
			right.Store(newPassword)
			for range 3 {
				wantHello(t, client, "reg.example.com")
			}
			if n := source.looks.Load(); n != 1 {
				t.Errorf("%d looks for one change", n)
			}
			if c.tokens {
				for _, key := range client.named["reg.example.com"].accounts.all[0].passes.tokens.kept.Keys() {
					if key.password == oldPassword {
						t.Error("a token of the old password is still there")
					}
				}
			}
		})
	}
}

// Without a new password a refusal is final, after one look.
func TestAPasswordThatIsWrong(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]*changing{
		"the same again":   {password: oldPassword, fresh: oldPassword},
		"another, no less": {password: oldPassword, fresh: newPassword},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var shown sync.Map
			client := faked(t, Registry{Source: source}, func(r *http.Request) (*http.Response, error) {
				if _, password, ok := r.BasicAuth(); ok {
					n, _ := shown.LoadOrStore(password, new(atomic.Int64))
					n.(*atomic.Int64).Add(1)
				}
				return reply(401, "", "WWW-Authenticate", `Basic realm="x"`), nil
			})
			_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
			wantError(t, err, oci.Denied, "")
			if n := source.looks.Load(); n != 1 {
				t.Errorf("%d looks", n)
			}
			shown.Range(func(password, n any) bool {
				if n.(*atomic.Int64).Load() != 1 {
					t.Errorf("%s was shown %d times", strings.TrimPrefix(password.(string), canary), n.(*atomic.Int64).Load())
				}
				return true
			})
		})
	}
}

// What is public is not asked for with any login. The refusal of a bare request is tried
// with the login, and costs a look at most.
func TestAPasswordIsNotLookedForWithoutNeed(t *testing.T) {
	t.Parallel()
	for status, looks := range map[int]int64{200: 0, 404: 0, 429: 0, 416: 0, 403: 1} {
		public := status == 200 || status == 416
		source := &changing{password: oldPassword, fresh: oldPassword}
		client := faked(t, Registry{Source: source}, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("Authorization") != "" && public {
				t.Errorf("%d: a login was shown", status)
			}
			return reply(status, "hello", "Docker-Distribution-Api-Version", "registry/2.0"), nil
		})
		if s, err := client.Open(t.Context(), hello("reg.example.com"), 0); err == nil {
			_ = s.Body.Close()
		}
		if n := source.looks.Load(); n != looks {
			t.Errorf("%d: %d looks, want %d", status, n, looks)
		}
	}
}

func TestOnlyConfiguredRegistriesHavePasswords(t *testing.T) {
	t.Parallel()
	_, err := New([]Registry{{Host: "reg.example.com", Source: &changing{}}}, Registry{Source: &changing{}}, nil)
	if err == nil || !strings.Contains(err.Error(), "reg.example.com: credentials") {
		t.Errorf("%v", err)
	}
}

// A login that cannot be had is no refusal, and what went wrong is for operators alone. Public
// content needs none.
func TestALoginThatCannotBeHad(t *testing.T) {
	t.Parallel()
	public := false
	client := faked(t, Registry{Source: &changing{failing: errors.New("the command failed")}}, func(r *http.Request) (*http.Response, error) {
		if public {
			return reply(200, "hello"), nil
		}
		return reply(401, "", "WWW-Authenticate", `Basic realm="x"`), nil
	})
	_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
	e := wantError(t, err, oci.Unavailable, "this node's login there cannot be had; its log says why")
	if strings.Contains(e.Reason, "command") || !strings.Contains(err.Error(), "the command failed") {
		t.Errorf("%v", err)
	}
	public = true
	wantHello(t, client, "reg.example.com")
}

// An identity token is exchanged by a POST to the token server, and goes nowhere else.
func TestIdentityTokens(t *testing.T) {
	t.Parallel()
	const bearer = `Bearer realm="https://reg.example.com/token?a=b",service="s",scope="repository:team/app:pull"`
	for name, c := range map[string]struct {
		challenge string
		answer    *http.Response
		kind      oci.Kind
		reason    string // "": it works
	}{
		"taken":            {bearer, reply(200, `{"access_token":"pass","refresh_token":"another","expires_in":300}`), 0, ""},
		"refused":          {bearer, reply(401, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`), oci.Denied, "the token server refused the credentials"},
		"not known there":  {bearer, reply(404, ""), oci.Unavailable, "it may not take identity tokens"},
		"not allowed":      {bearer, reply(405, ""), oci.Unavailable, "it may not take identity tokens"},
		"led elsewhere":    {bearer, reply(307, "", "Location", "https://evil.example.net/token"), oci.Unavailable, "an identity token does not follow"},
		"no token is used": {`Basic realm="x"`, nil, oci.Denied, "the login for it is an identity token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, Registry{Source: &changing{user: IdentityUser, password: canary, fresh: canary}}, func(r *http.Request) (*http.Response, error) {
				switch body := bodyOf(t, r); {
				case r.URL.Host != "reg.example.com", strings.Contains(r.URL.String()+fmt.Sprint(r.Header), canary):
					t.Errorf("%s %s shows the token", r.Method, r.URL)
				case r.URL.Path == "/token" && r.Method == http.MethodPost && r.URL.RawQuery == "a=b":
					if body != "client_id=oci-proxy&grant_type=refresh_token&refresh_token="+canary+"&scope=repository%3Ateam%2Fapp%3Apull&service=s" {
						t.Errorf("asked with %s", strings.ReplaceAll(body, canary, "…"))
					}
					return c.answer, nil
				case r.Header.Get("Authorization") == "Bearer pass":
					return reply(200, "hello"), nil
				}
				return reply(401, "", "WWW-Authenticate", c.challenge), nil
			})
			if c.reason == "" {
				wantHello(t, client, "reg.example.com")
				return
			}
			_, err := client.Open(t.Context(), hello("reg.example.com"), 0)
			wantError(t, err, c.kind, c.reason)
		})
	}
}

func bodyOf(t *testing.T, r *http.Request) string {
	if r.Body == nil {
		return ""
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}
