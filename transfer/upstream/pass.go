package upstream

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"oci-proxy/transfer/oci"
)

// A pass is what a request shows to be let in.
type pass struct {
	header     string   // of Authorization; "": the request is bare
	key        tokenKey // of the token in it, zero for Basic
	token      string
	challenge  challenge // that it meets
	remembered bool      // made from what an earlier 401 asked for
	unasked    bool      // made from what nothing asked for, and let an earlier request in
	cached     bool      // and, if it is a token, not fetched just now
}

// personal reports whether the pass is a login, or a token that was got with one.
func (p pass) personal() bool {
	return p.header != "" && (p.token == "" || p.key.username != "" || p.key.password != "")
}

// passes make what a registry's challenges ask for, for one of its accounts. Those of all
// accounts share the memory of challenges and tokens; each token's key names its account.
type passes struct {
	home       *home
	net        *network
	login      *login
	challenges *challenges
	tokens     *tokens
}

// known returns the pass that repo asked for in its last 401, a bare one if there
// was none. If that pass can't be had, repo may ask for another by now: realms move
// (NGC).
func (s *passes) known(ctx context.Context, repo string) (pass, error) {
	w, ok := s.challenges.recall(repo)
	if !ok {
		return pass{}, nil
	}
	p, err := s.meet(ctx, repo, w.challenge)
	if err != nil {
		s.challenges.forget(repo)
		if f, ok := errors.AsType[*failure](err); ok && f.again == never && ctx.Err() == nil {
			return pass{}, nil
		}
		return pass{}, err
	}
	p.remembered, p.unasked = true, w.unasked
	p.cached = p.cached || w.scheme == "basic"
	return p, nil
}

// learn remembers repo's challenge and returns the pass it asks for.
func (s *passes) learn(ctx context.Context, repo string, ch challenge) (pass, error) {
	s.challenges.remember(repo, wanted{challenge: ch})
	return s.meet(ctx, repo, ch)
}

// forget drops a pass of repo that was refused.
func (s *passes) forget(repo string, p pass) {
	s.tokens.drop(p.key, p.token)
	s.challenges.forget(repo)
}

// renew looks for a new login after one was refused, and reports whether there is one. Then
// it forgets what the old one got, and what repo asked for: that might show a wrong password
// twice. If there was no login before the request, it is the one that was got for it that was
// refused.
func (s *passes) renew(ctx context.Context, repo string, refused Credentials) bool {
	if s.login.source == nil {
		return false
	}
	refused = cmp.Or(refused, s.login.last())
	if s.login.fresh(ctx) == refused {
		return false
	}
	s.tokens.dropAll(refused)
	s.challenges.forget(repo)
	return true
}

// choose returns the challenge to meet, its realm resolved against at, or the
// reason why there is none. Bearer goes before Basic: some registries offer both
// and accept only Bearer (quay.io). But if the token server may not see the
// credentials and the registry itself accepts them, Basic gets further.
func (s *passes) choose(at *url.URL, offered []challenge) (_ challenge, reason string) {
	var bearer, basic *challenge
	reason = "it asks for a kind of login that is not supported"
	for _, ch := range offered {
		switch {
		case ch.scheme == "bearer" && bearer == nil:
			realm, err := s.realm(at, ch.params["realm"])
			if err != nil {
				reason = "its token server is not used: " + err.Error()
				continue
			}
			ch.params["realm"] = realm.String()
			bearer = &ch
		case ch.scheme == "basic" && basic == nil:
			if !s.login.mayBeSeenBy(at) {
				reason = s.noBasic()
				continue
			}
			basic = &ch
		}
	}
	switch {
	case bearer == nil && basic == nil:
		return challenge{}, reason
	case bearer == nil, basic != nil && !s.login.mayBeSeenAt(bearer.params["realm"]):
		return *basic, ""
	}
	return *bearer, ""
}

// noBasic returns the reason why a Basic challenge is not met.
func (s *passes) noBasic() string {
	if s.login.given() {
		return "it asks for a login over an unencrypted connection, where the login is not sent"
	}
	return "it asks for a login, and the config has none for it"
}

// realm returns the URL of the token server that the registry names at the URL at.
// A realm may say http though the registry was asked over https, as behind a
// gateway that does the TLS. If it is on the registry's host, it is taken for the
// registry's own https.
func (s *passes) realm(at *url.URL, value string) (*url.URL, error) {
	u, err := at.Parse(value)
	if value == "" || err != nil {
		return nil, &refusal{reason: "its URL can't be read"} // without the cause, which quotes it
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	u.Host = strings.ToLower(u.Host)
	if u.Scheme == "http" && at.Scheme == "https" && u.Hostname() == s.home.name {
		u.Scheme, u.Host = at.Scheme, at.Host
	}
	_, err = s.net.permitted(u)
	return u, err
}

// meet returns the pass that ch asks for.
func (s *passes) meet(ctx context.Context, repo string, ch challenge) (pass, error) {
	if ch.scheme == "basic" {
		header, err := s.login.header(ctx)
		return pass{header: header, challenge: ch}, err
	}
	key := s.key(ch)
	key.scope = scopeOf(ch, repo)
	if s.login.mayBeSeenAt(key.realm) {
		c, err := s.login.ready(ctx)
		if err != nil {
			return pass{}, err
		}
		key.username, key.password = c.Username, c.Password
	}
	token, cached, err := s.tokens.get(ctx, key)
	if err != nil {
		return pass{}, s.ownFailure(ctx, err)
	}
	return pass{header: "Bearer " + token, challenge: ch, key: key, token: token, cached: cached}, nil
}

// scopeOf returns the scope that a token for pulls from repo needs. Nearly always that is the
// challenge's. NGC may leave it out, and SWR names the repository without an action: a token
// for that allows nothing.
func scopeOf(ch challenge, repo string) string {
	scope := strings.TrimSpace(ch.params["scope"])
	own := "repository:" + repo
	if scope == "" || strings.TrimSuffix(scope, ":") == own {
		return own + ":pull"
	}
	return scope
}

// key returns the key of the token that ch asks for, without credentials.
func (s *passes) key(ch challenge) tokenKey {
	return tokenKey{registry: s.home.host, realm: ch.params["realm"], service: ch.params["service"], scope: ch.params["scope"]}
}

// ownFailure returns a failure of its own to each who waited for a token in vain.
func (s *passes) ownFailure(ctx context.Context, err error) *failure {
	f, ok := errors.AsType[*failure](err)
	if !ok || ctx.Err() != nil {
		f = s.home.fail(oci.Unavailable, never, s.home.host, "no token from the token server")
		f.Err = err
		f.ended(ctx)
		return f
	}
	e := *f.cause
	return &failure{cause: &e, again: f.again, age: f.age, login: f.login, page: f.page}
}

// guest returns a token that a host other than the registry asks for in ans, got
// without a login, or "" if there is none.
func (s *passes) guest(ctx context.Context, ans *answer) (key tokenKey, token string) {
	for _, ch := range challengesOf(ans.resp.Header) {
		if ch.scheme != "bearer" || ch.params["scope"] == "" {
			continue
		}
		realm, err := s.realm(ans.url, ch.params["realm"])
		if err != nil {
			continue
		}
		ch.params["realm"] = realm.String()
		key = s.key(ch)
		if token, _, err := s.tokens.get(ctx, key); err == nil {
			return key, token
		}
	}
	return tokenKey{}, ""
}

// dropGuest forgets a guest's token if ans refuses it.
func (s *passes) dropGuest(key tokenKey, token string, resp *http.Response) {
	if resp.StatusCode == http.StatusUnauthorized {
		s.tokens.drop(key, token)
	}
}
