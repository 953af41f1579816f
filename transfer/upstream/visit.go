package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"oci-proxy/transfer/oci"
)

// A visit is one request until it is let in or turned away for good.
type visit struct {
	*registry
	ask       ask
	pass      pass // that the next request shows
	restarted bool // with a bare request, after a pass that worked was refused
	knocked   bool // the pass is one that no challenge asked for
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
	case p.header == "" && !v.ask.budget.knocked && !v.ask.budget.spent() && ans.turnsAway():
		return v.knock(ctx, ans)
	case v.knocked && !ans.turnsAway():
		v.passes.challenges.remember(v.ask.repo, p.challenge)
	}
	return false, nil
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
	ch, reason := v.passes.choose(ans.url, v.greet(ctx))
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
	if f, ok := errors.AsType[*failure](err); ok && f.Kind == oci.Denied {
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

// greet returns the challenges of the registry as a whole.
func (v *visit) greet(ctx context.Context) []challenge {
	if offered, ok := v.passes.challenges.greeting(); ok {
		return offered
	}
	ans, err := v.hops.follow(ctx, ask{method: http.MethodGet}, pass{})
	if err != nil {
		return nil // the caller reports the answer that led here
	}
	defer ans.discard()
	if ans.asked != oci.Registry || ans.by() == oci.Middlebox && !ans.is(http.StatusOK) {
		return nil
	}
	v.passes.challenges.greeted(challengesOf(ans.resp.Header))
	offered, _ := v.passes.challenges.greeting()
	return offered
}
