package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"oci-proxy/transfer/oci"
)

// A visit is one request until it is let in or turned away for good.
type visit struct {
	*registry
	passes    *passes
	account   *account
	ask       ask
	pass      pass // that the next request shows
	restarted bool // with a bare request, after a pass that worked was refused
	knocked   bool // the pass is one that no challenge asked for
	began     time.Time
	showed    bool // a request has shown the login, or a token got with it

	ans *answer // what the visit ended with
	err error
}

// meetAll sends the request until it is let in or turned away for good.
func (v *visit) meetAll(ctx context.Context, former *visit) (*answer, error) {
	var err error
	if v.pass, err = v.begin(ctx, former); err != nil {
		return nil, err
	}
	for {
		v.ask.budget.take()
		v.showed = v.showed || v.pass.personal()
		ans, err := v.hops.follow(ctx, v.ask, v.pass)
		if err != nil {
			return nil, err
		}
		again, err := v.tryAgain(ctx, ans)
		if err != nil {
			return nil, err
		}
		if !again {
			return v.asGuest(ctx, v.passes, v.ask, ans)
		}
	}
}

// begin returns the pass of the first request. What another account was asked for on its
// visit, this one is asked for too.
func (v *visit) begin(ctx context.Context, former *visit) (pass, error) {
	if former == nil || !former.pass.personal() {
		return v.passes.known(ctx, v.ask.repo)
	}
	p, err := v.passes.meet(ctx, v.ask.repo, former.pass.challenge)
	p.unasked = former.pass.unasked
	v.knocked = former.knocked
	return p, err
}

// tryAgain reports whether the request is to be sent again, with another pass. If so
// it closes the answer.
func (v *visit) tryAgain(ctx context.Context, ans *answer) (bool, error) {
	p := v.pass
	switch {
	case ans.challenged(p) && p.header == "" && v.ask.budget.refund():
		return true, v.meet(ctx, ans)
	case ans.challenged(p) && !v.restarted && (p.remembered || p.cached):
		return v.restart(ans), nil
	case ans.is(http.StatusNotFound) && ans.turnsAway() && p.unasked && p.cached && p.token != "":
		return v.refresh(ctx, ans)
	case p.header == "" && v.mayKnock(ans):
		return v.knock(ctx, ans)
	case v.knocked && !ans.turnsAway():
		v.passes.challenges.remember(v.ask.repo, wanted{p.challenge, true})
	}
	return false, nil
}

// mayKnock reports whether a pass may be shown that nothing asked for. A HEAD that is
// refused may be so because it is one: the GET that follows knocks.
func (v *visit) mayKnock(ans *answer) bool {
	b := v.ask.budget
	return ans.turnsAway() && !b.knocked && !b.spent() && (v.ask.method != http.MethodHead || ans.is(http.StatusTooManyRequests))
}

// restart drops a pass that worked before and is refused now. It reports whether a
// bare request is to follow. A refused HEAD without a challenge tells so little that
// the GET follows instead.
func (v *visit) restart(ans *answer) bool {
	v.passes.forget(v.ask.repo, v.pass)
	if v.ask.budget.spent() || v.ask.method == http.MethodHead && len(challengesOf(ans.resp.Header)) == 0 {
		return false
	}
	ans.discard()
	v.restarted, v.pass = true, pass{}
	return true
}

// refresh replaces a token that may have ended: a registry that pretends to have nothing
// for guests may do so for that, too. It reports whether the request is to be sent again.
// After a HEAD the GET is, as a HEAD's refusal tells so little.
func (v *visit) refresh(ctx context.Context, ans *answer) (bool, error) {
	v.passes.tokens.drop(v.pass.key, v.pass.token)
	if v.ask.budget.spent() || v.ask.method == http.MethodHead {
		return false, nil
	}
	ans.discard()
	var err error
	v.pass, err = v.passes.known(ctx, v.ask.repo)
	v.pass.unasked = false // once
	return true, err
}

// meet chooses among the challenges of a bare request's answer, closes the answer
// and gets the pass asked for.
func (v *visit) meet(ctx context.Context, ans *answer) error {
	ch, reason := v.passes.choose(ans.url, challengesOf(ans.resp.Header))
	if reason != "" {
		f := ans.refused()
		f.Reason += "; " + reason
		return f
	}
	ans.discard()
	var err error
	v.pass, err = v.passes.learn(ctx, v.ask.repo, ch)
	return err
}

// knock shows a pass although no challenge asked for one: some registries challenge
// at /v2/ alone, and answer other bare requests as if there was nothing. It reports
// whether there is such a pass.
func (v *visit) knock(ctx context.Context, ans *answer) (bool, error) {
	v.ask.budget.knocked = true
	login := v.passes.login.mayBeSeenBy(ans.url)
	if ans.is(http.StatusTooManyRequests) && !login {
		return false, nil // an anonymous pass has the same quota
	}
	offered, err := v.greet(ctx)
	if err != nil && login {
		ans.discard() // with the login it may be another
		return false, err
	}
	ch, reason := v.passes.choose(ans.url, offered)
	if reason != "" && !login {
		return false, nil
	}
	if reason != "" {
		ch = challenge{scheme: "basic"}
	}
	if ch.scheme == "bearer" {
		ch.params["scope"] = ownScope(ch.params["scope"])
	}
	p, err := v.passes.meet(ctx, v.ask.repo, ch)
	if f, ok := errors.AsType[*failure](err); ok && f.Kind == oci.Denied && !v.passes.login.mayBeSeenAt(ch.params["realm"]) {
		return false, nil // the registry's own answer tells more
	}
	if ans.discard(); err != nil {
		return false, err
	}
	v.pass, v.knocked = p, true
	return true, nil
}

// ownScope returns what is asked for in the scope of the registry as a whole: all but what
// names a repository or the catalog. GHCR's /v2/ names repository:user/image:pull, which is
// nobody's. If that leaves nothing, it is the repository's own scope that is asked for.
func ownScope(scope string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(scope), func(one string) bool {
		return strings.HasPrefix(one, "repository:") || strings.HasPrefix(one, "registry:")
	}), " ")
}

// greet returns the challenges of the registry as a whole. The error says that it could
// not be asked for them: it does not answer, it is in trouble, or a page for people came.
func (v *visit) greet(ctx context.Context) ([]challenge, error) {
	if offered, ok := v.passes.challenges.greeting(); ok {
		return offered, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, headTimeout, errTry)
	defer cancel()
	ans, err := v.hops.follow(ctx, ask{method: http.MethodGet}, pass{})
	if f, ok := errors.AsType[*failure](err); ok {
		f.again = never // another try of the request would not ask this again
	}
	if err != nil {
		return nil, err
	}
	said := ans.hear()
	switch {
	case ans.resp.StatusCode >= 500, ans.is(http.StatusTooManyRequests, http.StatusRequestTimeout), ans.resp.StatusCode < 400 && ans.by() != oci.Registry:
		f := ans.wrong(oci.Unavailable, never, "the registry refused, and does not tell at /v2/ what login it wants")
		f.RetryAfter = retryAfter(ans.resp.Header, time.Now())
		if said != "" {
			f.Reason += ": " + said
		}
		return nil, f
	case ans.by() != oci.Registry:
		return nil, nil // nothing of the registry's is there, which need not last
	}
	v.passes.challenges.greeted(challengesOf(ans.resp.Header))
	offered, _ := v.passes.challenges.greeting()
	return offered, nil
}
