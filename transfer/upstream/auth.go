package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"oci-proxy/transfer/oci"

	"golang.org/x/net/publicsuffix"
)

// A pass is what a request shows to be let in.
type pass struct {
	header     string   // of Authorization; "": the request is bare
	key        tokenKey // of the token in it, zero for Basic
	token      string
	remembered bool // made from what an earlier 401 asked for
	cached     bool // and, for a token, it was not fetched just now
}

// maxRounds bounds how often one try asks the registry: bare, then with a
// token, and both once more where a token turned out to have ended.
const maxRounds = 6

// do asks for a and answers challenges: at first bare, so that what is public
// stays public and spares the account's quota; once a repository has asked for
// more, with that straight away. A 401 that is left as the answer is final.
func (r *registry) do(ctx context.Context, a ask) (*answer, error) {
	p, err := r.known(ctx, a.repo)
	if err != nil {
		return nil, err
	}
	by, restarted := oci.Nobody, false // restarted with a bare request, after a pass was refused that had been good
	for range maxRounds {
		ans, err := r.follow(ctx, a, p)
		if err != nil || !ans.challenged(p) {
			return r.asGuest(ctx, a, ans, err)
		}
		by = ans.by()
		if p.header != "" && (restarted || !p.remembered && !p.cached) {
			return ans, nil
		}
		if p.header != "" {
			restarted = true
			discard(ans.resp)
			r.tokens.drop(p.key, p.token)
			r.forget(a.repo)
			p = pass{}
			continue
		}
		if p, err = r.meet(ctx, a.repo, ans); err != nil {
			return nil, err
		}
	}
	f := r.fail(oci.Denied, never, r.host, "the registry asks for a login again and again")
	f.By = by
	return nil, f
}

// asGuest meets the challenge of a host that the registry's redirect led to,
// with an anonymous token for this one request: some registries redirect to
// others that want one. Our login is not for that host. It is tried once; an
// answer or error that asks for nothing of the kind stays what it is.
func (r *registry) asGuest(ctx context.Context, a ask, ans *answer, err error) (*answer, error) {
	if err != nil || ans.asked == oci.Registry || ans.redirect != "" || ans.resp.StatusCode != http.StatusUnauthorized || r.isOwn(ans.url) {
		return ans, err
	}
	key, token := r.guest(ctx, ans)
	if token == "" {
		return ans, nil // its 401 says enough
	}
	discard(ans.resp)
	resp, err := r.roundTrip(request(ctx, a, ans.url, "Bearer "+token))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		r.tokens.drop(key, token) // the next request gets another
	}
	return r.chase(ctx, a, pass{}, &answer{resp: resp, url: ans.url, host: ans.host, asked: ans.asked, before: ans.before})
}

// guest gets the token that a host other than the registry asks for, without a
// login; "" where there is none.
func (r *registry) guest(ctx context.Context, ans *answer) (key tokenKey, token string) {
	for _, ch := range challengesOf(ans.resp.Header) {
		if ch.scheme != "bearer" || ch.params["scope"] == "" {
			continue
		}
		realm, err := r.realm(ans.url, ch.params["realm"])
		if err != nil {
			continue
		}
		key = tokenKey{registry: r.host, realm: realm.String(), service: ch.params["service"], scope: ch.params["scope"]}
		if token, _, err := r.tokens.get(ctx, key, r.fetchToken); err == nil {
			return key, token
		}
	}
	return tokenKey{}, ""
}

// challenged reports whether another pass may change the answer: 401 always,
// 403 if it answers a pass that may have ended since (ECR, NGC), or asks for one.
func (a *answer) challenged(p pass) bool {
	if a.redirect != "" || a.asked != oci.Registry {
		return false
	}
	switch a.resp.StatusCode {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden:
		return p.cached || p.header == "" && a.resp.Header.Get("WWW-Authenticate") != ""
	}
	return false
}

// known returns the pass that repo asked for when it was last asked bare. Where
// it can't be had, repo may ask for another by now: realms move (NGC).
func (r *registry) known(ctx context.Context, repo string) (pass, error) {
	ch, ok := r.recall(repo)
	if !ok {
		return pass{}, nil
	}
	p, err := r.pass(ctx, repo, ch)
	if err != nil {
		r.forget(repo)
		if f, ok := errors.AsType[*failure](err); ok && f.again == never && ctx.Err() == nil {
			return pass{}, nil
		}
		return pass{}, err
	}
	p.remembered = true
	p.cached = p.cached || ch.scheme == "basic"
	return p, nil
}

// meet chooses among the challenges of a bare request's answer and returns the
// pass asked for. It closes the answer.
func (r *registry) meet(ctx context.Context, repo string, ans *answer) (pass, error) {
	offered := challengesOf(ans.resp.Header)
	if len(offered) == 0 && r.hasLogin() {
		offered = r.probe(ctx) // some say how to log in at /v2/ only
	}
	ch, reason := r.choose(ans.url, offered)
	if reason != "" {
		f := r.refused(ans)
		f.Reason += "; " + reason
		return pass{}, f
	}
	discard(ans.resp)
	r.remember(repo, ch)
	return r.pass(ctx, repo, ch)
}

// probe asks for the challenges of the registry as a whole.
func (r *registry) probe(ctx context.Context) []challenge {
	ans, err := r.follow(ctx, ask{method: http.MethodGet}, pass{})
	if err != nil {
		return nil // the answer that led here says enough
	}
	defer discard(ans.resp)
	if ans.asked != oci.Registry {
		return nil
	}
	return challengesOf(ans.resp.Header)
}

// choose returns the challenge to meet, its realm resolved against at, or the
// reason why there is none. Bearer goes before Basic: some registries offer
// both and take only Bearer (quay.io). But where the token server may not see
// the credentials and the registry itself would take them, Basic says more.
func (r *registry) choose(at *url.URL, offered []challenge) (_ challenge, reason string) {
	var bearer, basic *challenge
	reason = "it asks for no login that is known here"
	for _, ch := range offered {
		switch {
		case ch.scheme == "bearer" && bearer == nil:
			realm, err := r.realm(at, ch.params["realm"])
			if err != nil {
				reason = "its token server is not used: " + err.Error()
				continue
			}
			ch.params["realm"] = realm.String()
			bearer = &ch
		case ch.scheme == "basic" && basic == nil:
			if !r.hasLogin() || !r.sees(at) {
				reason = "it asks for a login"
				continue
			}
			basic = &ch
		}
	}
	switch {
	case bearer == nil && basic == nil:
		return challenge{}, reason
	case bearer == nil, basic != nil && !r.shows(bearer.params["realm"]):
		return *basic, ""
	}
	return *bearer, ""
}

// shows is sees for a realm that was resolved before.
func (r *registry) shows(realm string) bool {
	u, err := url.Parse(realm)
	return err == nil && r.sees(u)
}

// realm returns the URL of the token server that a registry names. One
// that says http though the registry was asked over https, as behind a gateway
// that does the TLS, is taken for the registry's own https.
func (r *registry) realm(at *url.URL, value string) (*url.URL, error) {
	u, err := at.Parse(value)
	if value == "" || err != nil {
		return nil, &refusal{"its URL can't be read"} // without the cause, which repeats it
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	u.Host = strings.ToLower(u.Host)
	if u.Scheme == "http" && at.Scheme == "https" && u.Hostname() == r.name {
		u.Scheme, u.Host = at.Scheme, at.Host
	}
	proxy, err := r.proxyFor(u)
	if err != nil {
		return nil, err
	}
	return u, r.permits(u, proxy != nil)
}

// sees says whether u's host may see the credentials: the registry itself, a
// host of the same registrable domain, or one that is listed. Addresses and
// localhost have no such domain: there it takes the same port, or the list.
// Over plain http nobody may who does not belong to a registry that speaks it:
// insecure alone does not mean so, it may be for a certificate's sake.
func (r *registry) sees(u *url.URL) bool {
	name := strings.ToLower(u.Hostname())
	switch {
	case !r.hasLogin(), u.Scheme != "https" && !(r.Insecure && r.plain.Load()):
		return false // in the clear only what the registry itself is shown in the clear
	case r.isOwn(u):
		return true
	}
	listed := slices.ContainsFunc(r.RealmHosts, func(h string) bool {
		h = strings.ToLower(h)
		return h == name || h == hostPort(u) || h == shown(u)
	})
	return listed || sameSite(name, r.name)
}

// sameSite reports whether a and b have their registrable domain in common.
func sameSite(a, b string) bool {
	for _, name := range []string{a, b} {
		if _, err := netip.ParseAddr(name); err == nil {
			return false
		}
	}
	siteA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	siteB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && siteA == siteB
}

// pass makes what ch asks for.
func (r *registry) pass(ctx context.Context, repo string, ch challenge) (pass, error) {
	if ch.scheme == "basic" {
		return pass{header: r.basic()}, nil
	}
	key := tokenKey{registry: r.host, realm: ch.params["realm"], service: ch.params["service"], scope: ch.params["scope"]}
	if key.scope == "" { // as NGC does
		key.scope = "repository:" + repo + ":pull"
	}
	if r.shows(key.realm) {
		key.username, key.password = r.Username, r.Password
	}
	token, cached, err := r.tokens.get(ctx, key, r.fetchToken)
	if err != nil {
		return pass{}, r.given(ctx, err)
	}
	return pass{header: "Bearer " + token, key: key, token: token, cached: cached}, nil
}

// basic returns an Authorization header with the credentials (RFC 7617).
func (r *registry) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(r.Username+":"+r.Password))
}
