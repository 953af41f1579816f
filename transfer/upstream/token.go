package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"oci-proxy/transfer/oci"
)

// Limits of tokens and of their servers' answers.
const (
	maxTokenAnswer = 1 << 20
	maxTokenBytes  = 64 << 10
	maxTokens      = 4096 // kept for one registry
	maxTokenHops   = 5
	tokenLife      = time.Minute // where the server does not tell
	maxTokenLife   = 24 * time.Hour
	tokenPause     = 5 * time.Second // between tries to renew a token that is still good
)

// A tokenKey is all that a token depends on. It is a struct and no string put
// together, so that no choice of names makes two keys one.
type tokenKey struct {
	registry, realm, service, scope, username, password string
}

// A token is good until ends, and renewed from renew on.
type token struct {
	value       string
	renew, ends time.Time
}

// A flight is a token request under way. value and err are set once done is closed.
type flight struct {
	done  chan struct{}
	value string
	err   error
}

// tokens holds a registry's tokens, in memory only.
type tokens struct {
	life    context.Context
	running *sync.WaitGroup

	mu      sync.Mutex
	kept    map[tokenKey]token
	flights map[tokenKey]*flight
}

// fetcher gets a token and how long it lives.
type fetcher func(context.Context, tokenKey) (string, time.Duration, error)

// newTokens returns an empty store whose requests end with life and are counted in running.
func newTokens(life context.Context, running *sync.WaitGroup) *tokens {
	return &tokens{
		life: life, running: running,
		kept: make(map[tokenKey]token), flights: make(map[tokenKey]*flight),
	}
}

// get returns key's token and whether it was there already. Many who wait for
// one token make one request, which goes on if those who wait give up. A token
// is renewed before it ends; while that fails the old one is used up.
func (s *tokens) get(ctx context.Context, key tokenKey, fetch fetcher) (value string, cached bool, err error) {
	s.mu.Lock()
	now := time.Now()
	old, ok := s.kept[key]
	if ok && now.Before(old.renew) {
		s.mu.Unlock()
		return old.value, true, nil
	}
	f := s.flights[key]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flights[key] = f
		s.running.Go(func() { s.fly(ctx, key, f, fetch) })
	}
	s.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return "", false, ctx.Err()
	}
	if f.err != nil && ok && time.Now().Before(old.ends) {
		return old.value, true, nil
	}
	return f.value, false, f.err
}

// fly makes the request of f and keeps the token.
func (s *tokens) fly(ctx context.Context, key tokenKey, f *flight, fetch fetcher) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), headerTimeout, errTry)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	asked := time.Now() // a token's life is counted from here by our clock; issued_at is by another's
	value, life, err := fetch(ctx, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.kept[key]; err != nil && ok {
		old.renew = time.Now().Add(tokenPause)
		if !old.renew.Before(old.ends) {
			old.renew = old.ends
		}
		s.kept[key] = old
	}
	if err == nil {
		s.keep(key, token{value: value, renew: asked.Add(life - margin(life)), ends: asked.Add(life)})
	}
	f.value, f.err = value, err
	delete(s.flights, key)
	close(f.done)
}

// margin is how long before its end a token of that life is renewed: 15 %,
// within 5 to 30 s, so that a request on its way does not meet its end.
func margin(life time.Duration) time.Duration {
	m := min(max(life*15/100, 5*time.Second), 30*time.Second)
	return min(m, life/2)
}

// keep stores t, making room where there are too many.
func (s *tokens) keep(key tokenKey, t token) {
	if len(s.kept) >= maxTokens {
		now := time.Now()
		for k, old := range s.kept {
			if now.After(old.ends) {
				delete(s.kept, k)
			}
		}
	}
	for k := range s.kept {
		if len(s.kept) < maxTokens {
			break
		}
		delete(s.kept, k)
	}
	s.kept[key] = t
}

// drop forgets a token that was refused, unless it was replaced meanwhile.
func (s *tokens) drop(key tokenKey, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[key].value == value {
		delete(s.kept, key)
	}
}

// given makes a failure of its own for each who waited for a token in vain.
func (r *registry) given(ctx context.Context, err error) *failure {
	f, ok := errors.AsType[*failure](err)
	if !ok || ctx.Err() != nil {
		f = r.fail(oci.Unavailable, never, r.host, "no token")
		f.Err = err
		f.ended(ctx)
		return f
	}
	e := *f.cause
	return &failure{&e, f.again}
}

// fetchToken asks key's token server (the Docker token protocol, "How to
// authenticate"). Redirects to another origin are followed without credentials.
func (r *registry) fetchToken(ctx context.Context, key tokenKey) (string, time.Duration, error) {
	u, err := tokenURL(key)
	if err != nil {
		return "", 0, r.fail(oci.Unavailable, never, r.host, "the token server's URL can't be read")
	}
	header, asked := "", oci.TokenServer
	if key.username != "" || key.password != "" {
		header = r.basic()
	}
	for range maxTokenHops {
		resp, err := r.roundTrip(request(ctx, ask{method: http.MethodGet, accept: "application/json"}, u, header))
		if err != nil {
			return "", 0, err
		}
		ans := &answer{resp: resp, url: u, host: shown(u), asked: asked}
		next, f := r.next(ans)
		if f != nil {
			return "", 0, f
		}
		if next == nil {
			return r.readToken(ctx, ans, header != "")
		}
		discard(resp)
		asked = ans.askedNext(sameOrigin(u, next))
		if asked != oci.TokenServer {
			header = ""
		}
		u = next
	}
	return "", 0, r.fail(oci.Unavailable, never, shown(u), "the token server redirects too often")
}

// tokenURL returns the URL to get a token at. A query that the realm has of its
// own stays.
func tokenURL(key tokenKey) (*url.URL, error) {
	u, err := url.Parse(key.realm)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	if key.service != "" {
		q.Set("service", key.service)
	}
	q.Del("scope")
	for scope := range strings.FieldsSeq(key.scope) {
		q.Add("scope", scope)
	}
	u.RawQuery = q.Encode()
	return u, nil
}

// readToken reads a token server's answer and closes it.
func (r *registry) readToken(ctx context.Context, ans *answer, login bool) (string, time.Duration, error) {
	resp := ans.resp
	if resp.StatusCode != http.StatusOK {
		return "", 0, r.noToken(ans, login)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return "", 0, r.broken(resp.Request.WithContext(ctx), &trip{}, err)
	}
	value, life, ok := parseToken(body)
	if !ok || len(body) > maxTokenAnswer {
		return "", 0, r.wrong(ans, oci.Unavailable, never, "the token server's answer holds no token")
	}
	return value, life, nil
}

// noToken says what a token server's refusal means. Whatever it does not find
// is not the blob or manifest that was asked for.
func (r *registry) noToken(ans *answer, login bool) *failure {
	f := r.refused(ans)
	switch {
	case f.Kind == oci.Denied && login:
		f.Reason = "the token server refused the credentials: " + f.Reason
	case f.Kind == oci.Denied:
		f.Reason = "the token server gives no token without credentials: " + f.Reason
	default:
		if f.Kind == oci.NotFound || f.Kind == oci.Invalid {
			f.Kind = oci.Unavailable
		}
		f.Reason = "no token: " + f.Reason
	}
	return f
}

// parseToken reads a token and its life from a token server's answer: token or
// access_token, expires_in in seconds as a number or a string of one.
func parseToken(body []byte) (value string, life time.Duration, ok bool) {
	var answer struct {
		Token     any `json:"token"`
		Access    any `json:"access_token"`
		ExpiresIn any `json:"expires_in"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return "", 0, false
	}
	value, _ = answer.Token.(string)
	if value == "" {
		value, _ = answer.Access.(string)
	}
	if value == "" || len(value) > maxTokenBytes || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", 0, false
	}
	seconds, _ := answer.ExpiresIn.(float64)
	if s, isString := answer.ExpiresIn.(string); isString {
		_ = json.Unmarshal([]byte(s), &seconds) // not a number: as if it were missing
	}
	if seconds < 1 {
		return value, tokenLife, true
	}
	return value, time.Duration(min(seconds, maxTokenLife.Seconds()) * float64(time.Second)), true
}
