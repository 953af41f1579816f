package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"oci-proxy/transfer/oci"
)

// A Greeting says how a registry answers at /v2/.
type Greeting struct {
	Asks   bool   // it asks for a login, or for a token that one may get with or without one
	Login  bool   // it took the configured login
	Guests bool   // it asks, and lets in who has no login
	Unseen string // the token server that may not see the configured login, "" if it may
}

// causeOf returns the oci.Error of a failure.
func causeOf(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.cause
	}
	return err
}

// A greeter asks one registry for /v2/.
type greeter struct {
	hops   hops
	passes *passes
}

// greet asks for /v2/ bare, and once more with the pass that the answer asks for.
func (r greeter) greet(ctx context.Context) (g Greeting, err error) {
	hello := ask{method: http.MethodGet}
	ans, err := r.hops.follow(ctx, hello, pass{})
	if err != nil {
		return g, err
	}
	offered := challengesOf(ans.resp.Header)
	if !ans.is(http.StatusUnauthorized) || len(offered) == 0 {
		return g, welcomed(ans)
	}
	g.Asks = true
	ch, reason := r.passes.choose(ans.url, offered)
	if reason != "" {
		f := ans.refused()
		f.Reason += "; " + reason
		return g, f
	}
	ans.discard()
	p, showed, err := r.introduce(ctx, ch)
	if r.passes.login.given() && !showed {
		g.Unseen = realmHost(ch)
	}
	if f, ok := errors.AsType[*failure](err); ok && f.Kind == oci.Denied && !showed {
		return g, nil // guests get no token
	}
	if err != nil {
		return g, err
	}
	if ans, err = r.hops.follow(ctx, hello, p); err != nil {
		return g, err
	}
	if !showed && ans.is(http.StatusUnauthorized, http.StatusForbidden) {
		ans.discard()
		return g, nil
	}
	if err := welcomed(ans); err != nil {
		return g, err
	}
	g.Login, g.Guests = showed, !showed
	return g, nil
}

// realmHost returns the host[:port] of the token server that a challenge names.
func realmHost(ch challenge) string {
	u, err := url.Parse(ch.params["realm"])
	if err != nil {
		return "" // choose has read it
	}
	return shown(u)
}

// welcomed closes the answer of /v2/, and returns the failure if it is not that of a
// registry which lets us in.
func welcomed(ans *answer) error {
	switch {
	case !ans.isWhole():
		return ans.refused()
	case ans.isPage():
		ans.discard()
		return ans.wrong(oci.Corrupt, never, aPage)
	}
	ans.discard()
	return nil
}

// introduce returns the pass that the challenge of /v2/ asks for, and whether the
// login was shown for it. A scope in that challenge is an example (GHCR): clients that
// log in leave it out.
func (r greeter) introduce(ctx context.Context, ch challenge) (p pass, showed bool, err error) {
	s := r.passes
	if ch.scheme == "basic" {
		header, err := s.login.header(ctx)
		return pass{header: header, challenge: ch}, true, err
	}
	key := s.key(ch)
	key.scope = ""
	if showed = s.login.mayBeSeenAt(key.realm); showed {
		c, err := s.login.ready(ctx)
		if err != nil {
			return pass{}, showed, err
		}
		key.username, key.password = c.Username, c.Password
	}
	token, _, err := s.tokens.get(ctx, key)
	if err != nil {
		return pass{}, showed, s.ownFailure(ctx, err)
	}
	return pass{header: "Bearer " + token, challenge: ch, key: key, token: token}, showed, nil
}
