package upstream

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/oci"
)

// A changing password is what password is now; what fresh is, Fresh finds.
type changing struct {
	mu              sync.Mutex
	password, fresh string
	looks           atomic.Int64
}

func (c *changing) Password() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.password
}

func (c *changing) Fresh(context.Context) string {
	c.looks.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.password = c.fresh
	return c.fresh
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
			client := faked(t, Registry{Username: "user", PasswordSource: source}, func(r *http.Request) (*http.Response, error) {
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
			client := faked(t, Registry{Username: "user", PasswordSource: source}, func(r *http.Request) (*http.Response, error) {
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
		client := faked(t, Registry{Username: "user", PasswordSource: source}, func(r *http.Request) (*http.Response, error) {
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
	_, err := New([]Registry{{Host: "reg.example.com", PasswordSource: &changing{}}}, Registry{PasswordSource: &changing{}}, nil)
	if err == nil || !strings.Contains(err.Error(), "reg.example.com: credentials") {
		t.Errorf("%v", err)
	}
}
