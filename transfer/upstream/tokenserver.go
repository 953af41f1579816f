package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"oci-proxy/transfer/oci"
)

// Limits of what token servers answer.
const (
	maxTokenAnswer = 1 << 20
	maxTokenBytes  = 64 << 10
	maxTokenHops   = 5
	tokenLife      = time.Minute // if the server does not tell
	maxTokenLife   = 24 * time.Hour
)

// tokenServers ask the token servers that a registry's challenges name.
type tokenServers struct{ hops hops }

// fetch gets key's token: for an identity token in exchange, else as get does.
func (s tokenServers) fetch(ctx context.Context, key tokenKey) (string, time.Duration, error) {
	if key.username == IdentityUser {
		return s.exchange(ctx, key)
	}
	return s.get(ctx, key)
}

// exchange gets key's token for an identity token (RFC 6749 section 6, as the Docker token
// protocol has it under "OAuth2"). Redirects are not followed, since the identity token is in
// the body.
func (s tokenServers) exchange(ctx context.Context, key tokenKey) (string, time.Duration, error) {
	u, err := url.Parse(key.realm)
	if err != nil {
		return "", 0, s.unreadable()
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {key.password}, "client_id": {"oci-proxy"}, "service": {key.service}}
	if key.scope != "" {
		form.Set("scope", key.scope)
	}
	resp, at, err := s.hops.send(ctx, ask{method: http.MethodPost, accept: "application/json", token: true, form: form.Encode()}, u, "")
	if err != nil {
		return "", 0, err
	}
	ans := &answer{resp: resp, home: s.hops.home, url: at, asked: oci.TokenServer}
	if ans.redirects() {
		ans.discard()
		return "", 0, s.hops.home.fail(oci.Unavailable, never, shown(at), "the token server redirects, which an identity token does not follow")
	}
	value, life, err := s.take(ctx, ans, true)
	if f, ok := errors.AsType[*failure](err); ok && slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, f.Status) {
		f.Reason += "; it may not take identity tokens"
	}
	return value, life, err
}

// unreadable is the failure of a realm that is no URL.
func (s tokenServers) unreadable() *failure {
	return s.hops.home.fail(oci.Unavailable, never, s.hops.home.host, "the token server's URL can't be read")
}

// take reads the token in a token server's answer.
func (s tokenServers) take(ctx context.Context, ans *answer, withLogin bool) (string, time.Duration, error) {
	value, life, err := readToken(ctx, ans, withLogin)
	if err == nil {
		s.hops.home.meter.Token()
	}
	return value, life, err
}

// get gets key's token (the Docker token protocol, "How to authenticate").
// Redirects to another origin are followed without credentials.
func (s tokenServers) get(ctx context.Context, key tokenKey) (string, time.Duration, error) {
	u, err := tokenURL(key)
	if err != nil {
		return "", 0, s.unreadable()
	}
	header, asked := "", oci.TokenServer
	if key.username != "" || key.password != "" {
		header = basic(key.username, key.password)
	}
	a := ask{method: http.MethodGet, accept: "application/json", token: true}
	for range maxTokenHops {
		resp, at, err := s.hops.send(ctx, a, u, header)
		if err != nil {
			return "", 0, err
		}
		ans := &answer{resp: resp, home: s.hops.home, url: at, asked: asked}
		next, f := s.hops.next(ans)
		if f != nil {
			return "", 0, f
		}
		if next == nil {
			return s.take(ctx, ans, header != "")
		}
		asked = ans.askedNext(sameOrigin(at, next))
		if asked != oci.TokenServer {
			header = ""
		}
		ans.discard()
		u = next
	}
	return "", 0, s.hops.home.fail(oci.Unavailable, never, shown(u), "the token server redirects too often")
}

// tokenURL returns the URL to get a token at. A query in the realm stays.
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

// readToken reads a token server's answer and closes it. withLogin says that
// credentials were sent.
func readToken(ctx context.Context, ans *answer, withLogin bool) (string, time.Duration, error) {
	if ans.resp.StatusCode/100 != 2 { // some answer 201, and proxies make a 203 of 200
		return "", 0, noToken(ans, withLogin)
	}
	body, err := readContent(ctx, ans, maxTokenAnswer)
	if err != nil {
		return "", 0, err
	}
	value, life, ok := parseToken(body)
	switch {
	case !ok && !ans.identity():
		return "", 0, ans.wrong(oci.Unavailable, once, "the token server's answer can't be read: "+ans.coding())
	case !ok:
		return "", 0, ans.wrong(oci.Unavailable, never, "the token server's answer holds no token")
	}
	return value, life, nil
}

// noToken returns the failure of a token server's refusal. What it did not find is
// not the blob or manifest that was asked for.
func noToken(ans *answer, withLogin bool) *failure {
	f := ans.refused()
	f.login = withLogin
	switch {
	case f.Kind == oci.Denied && withLogin:
		f.Reason = "the token server refused the credentials: " + f.Reason
	case f.Kind == oci.Denied:
		f.Reason = "the token server gives no token without credentials: " + f.Reason
	default:
		if f.Kind == oci.NotFound || f.Kind == oci.Invalid {
			f.Kind = oci.Unavailable
		}
		f.Reason = "the token server gave no token: " + f.Reason
	}
	return f
}

// parseToken reads a token and its life from a token server's answer. The token is
// in token or access_token, perhaps with space around it. expires_in is in seconds, a
// number or a string of one.
func parseToken(body []byte) (value string, life time.Duration, ok bool) {
	var answer struct {
		Token     any `json:"token"`
		Access    any `json:"access_token"`
		ExpiresIn any `json:"expires_in"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return "", 0, false
	}
	token, _ := answer.Token.(string)
	access, _ := answer.Access.(string)
	value = strings.Clone(cmp.Or(strings.TrimSpace(token), strings.TrimSpace(access))) // it is kept, and the space is not
	if value == "" || len(value) > maxTokenBytes || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", 0, false
	}
	seconds, _ := answer.ExpiresIn.(float64)
	if s, isString := answer.ExpiresIn.(string); isString {
		_ = json.Unmarshal([]byte(strings.TrimSpace(s)), &seconds) // if it is not a number, it counts as missing
	}
	if seconds < 1 {
		return value, tokenLife, true
	}
	return value, time.Duration(min(seconds, maxTokenLife.Seconds()) * float64(time.Second)), true
}
