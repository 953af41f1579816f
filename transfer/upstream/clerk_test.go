package upstream

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"oci-proxy/transfer/oci"
)

// A clerk stands in for a registry that knows several users. Each has the canary and its own
// name for a password, and its own answers.
type clerk struct {
	tokens bool // it wants tokens; otherwise the login itself

	mu     sync.Mutex
	status map[string]int         // by user: what its requests are answered, 0: content
	header map[string]http.Header // by user: beside the usual ones
	wrong  map[string]int         // by user: the status that its login is refused with
	blind  map[string]string      // by user: the repository that it may not see
	unseen int                    // how it is refused that
	came   []string               // the users whose requests came in, in order
	shown  []string               // the users whose logins were shown, in order
	mixed  []string               // what should never be
}

// newClerk returns one to whom every login is right.
func newClerk(tokens bool) *clerk {
	return &clerk{
		tokens: tokens, status: map[string]int{}, header: map[string]http.Header{}, wrong: map[string]int{}, blind: map[string]string{}, unseen: 404,
	}
}

// marked is the header of registries.
var marked = []string{"Docker-Distribution-Api-Version", "registry/2.0"}

// answer is a round trip.
func (k *clerk) answer(r *http.Request) (*http.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	challenge := `Basic realm="x"`
	if k.tokens {
		challenge = `Bearer realm="https://reg.example.com/token",service="s",scope="repository:team/app:pull"`
	}
	name, password, login := r.BasicAuth()
	if login {
		k.shown = append(k.shown, name)
		if password != canary+name {
			k.mixed = append(k.mixed, name+" with the password of another")
		}
	}
	if r.URL.Path == "/token" {
		if status := k.wrong[name]; status != 0 {
			return reply(status, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, marked...), nil
		}
		return reply(200, `{"token":"of-`+name+`-`+strings.Join(r.URL.Query()["scope"], "")+`","expires_in":3600}`), nil
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer of-"); ok {
		name, _, _ = strings.Cut(token, "-")
		login = true
	}
	switch {
	case !login, !k.tokens && k.wrong[name] != 0:
		return reply(401, "", "WWW-Authenticate", challenge), nil
	}
	k.came = append(k.came, name)
	status, said := k.status[name], "hello"
	if repo := k.blind[name]; status == 0 && repo != "" && strings.Contains(r.URL.Path, repo) {
		status, said = k.unseen, ""
	}
	resp := reply(max(status, 200), said, marked...)
	maps.Copy(resp.Header, k.header[name])
	return resp, nil
}

// took returns whose requests came in since the last call.
func (k *clerk) took() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	came := k.came
	k.came = nil
	return came
}

// set changes what the clerk knows.
func (k *clerk) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// client returns a client of a registry with these users, whose network is the clerk.
func (k *clerk) client(t *testing.T, cfg Registry, users ...string) *Client {
	t.Helper()
	cfg.FollowRedirects = true
	for i, user := range users {
		cfg.Accounts = append(cfg.Accounts, Account{Name: fmt.Sprintf("accounts[%d]", i), Username: user, Password: canary + user})
	}
	c := faked(t, cfg, k.answer)
	t.Cleanup(func() {
		if len(k.mixed) > 0 {
			t.Errorf("mixed up: %v", k.mixed)
		}
	})
	return c
}

// both runs a test with tokens and without, in a bubble.
func both(t *testing.T, test func(t *testing.T, k *clerk)) {
	t.Helper()
	for name, tokens := range map[string]bool{"Basic": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(t, newClerk(tokens)) })
		})
	}
}

// in names the blob of "hello" in a repository.
func in(repo string) oci.Ref {
	ref := hello("reg.example.com")
	ref.Repository = repo
	return ref
}
