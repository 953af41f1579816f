package upstream

import (
	"context"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// tokenPause is the time between tries to renew a token that is still valid.
const tokenPause = 5 * time.Second

// A tokenKey is all that a token depends on. It is a struct, not a string put
// together, so that two keys never run into one.
type tokenKey struct {
	registry, realm, service, scope, username, password string
}

// A token is valid until ends, and renewed from renew on.
type token struct {
	value       string
	renew, ends time.Time
}

// tokens hold a registry's tokens, in memory only. Many who wait for one token make
// one request.
type tokens struct {
	fetch fetcher
	calls *wait.Calls[tokenKey, string]

	mu   sync.Mutex // guards the fields below; never held during I/O
	kept *weighed[tokenKey, token]
}

// A fetcher gets a token and how long it lives.
type fetcher func(context.Context, tokenKey) (string, time.Duration, error)

// newTokens returns an empty store. It gets tokens by fetch as long as life lasts.
func newTokens(life *wait.Life, fetch fetcher) *tokens {
	return &tokens{
		fetch: fetch,
		calls: wait.NewCalls[tokenKey, string](life, Within), // each request ends before that
		kept:  newWeighed(maxTokens, weightOfToken),
	}
}

// weightOfToken is what is held of a token.
func weightOfToken(k tokenKey, t token) int {
	return entryWeight + len(k.registry) + len(k.realm) + len(k.service) + len(k.scope) + len(k.username) + len(k.password) + len(t.value)
}

// get returns key's token, and whether it was there already. A request for it goes
// on if those who wait for it give up. A token is renewed before it ends. While
// that fails, the old one is used up.
func (s *tokens) get(ctx context.Context, key tokenKey) (value string, cached bool, err error) {
	old := s.find(key)
	now := time.Now()
	if now.Before(old.renew) {
		return old.value, true, nil
	}
	value, _, err = s.calls.Do(ctx, key, func(ctx context.Context) (string, error) { return s.request(ctx, key) })
	if err != nil && ctx.Err() == nil && time.Now().Before(old.ends) {
		return old.value, true, nil
	}
	return value, false, err
}

// find returns key's token, a zero one if there is none.
func (s *tokens) find(key tokenKey) token {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, _ := s.kept.Get(key)
	return t
}

// request gets a token and keeps it. At any time it runs once for each key.
func (s *tokens) request(ctx context.Context, key tokenKey) (string, error) {
	if t := s.find(key); time.Now().Before(t.renew) { // another request has ended since the caller looked
		return t.value, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, tryTimeout, errTry)
	defer cancel()
	asked := time.Now() // a token lives from here by our clock; its issued_at is by another's
	value, life, err := s.fetch(ctx, key)
	if err != nil {
		s.postpone(key)
		return "", err
	}
	s.keep(key, token{value: value, renew: asked.Add(life - margin(life)), ends: asked.Add(life)})
	return value, nil
}

// postpone puts off the renewal of key's token, after one has failed.
func (s *tokens) postpone(key tokenKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.kept.Peek(key); ok {
		t.renew = time.Now().Add(tokenPause)
		if t.renew.After(t.ends) {
			t.renew = t.ends
		}
		s.kept.Add(key, t)
	}
}

// keep stores t.
func (s *tokens) keep(key tokenKey, t token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.Add(key, t)
}

// drop forgets a token that was refused, unless it was replaced meanwhile.
func (s *tokens) drop(key tokenKey, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.kept.Peek(key); ok && t.value == value {
		s.kept.Remove(key)
	}
}

// dropAll forgets the tokens that a login got.
func (s *tokens) dropAll(c Credentials) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range s.kept.Keys() {
		if key.username == c.Username && key.password == c.Password {
			s.kept.Remove(key)
		}
	}
}

// margin returns how long before its end a token of that life is renewed: 15 % of
// it, within 5 to 30 s, so that it does not end while a request is on its way.
func margin(life time.Duration) time.Duration {
	m := min(max(life*15/100, 5*time.Second), 30*time.Second)
	return min(m, life/2)
}
