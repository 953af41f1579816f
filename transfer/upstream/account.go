package upstream

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"oci-proxy/transfer/oci"
)

// An Account is a login at a registry beside its first one.
type Account struct {
	// Name is how messages call it: where the config has it, below the registry.
	Name string
	// Username and Password are shown only to the registry and its token servers.
	Username, Password string
	// Source gives both instead, if they may change. Nil: they stay.
	Source LoginSource
}

// How an account is passed over.
const (
	// untoldRest is how long an account rests whose limit the registry tells no end of.
	untoldRest = 10 * time.Second
	// wrongFor is how long the other accounts go before one whose login was refused.
	wrongFor = 10 * time.Minute
	// manyRefusals is after how many refusals of tokens in a row a login counts as wrong
	// that was taken before. A token server may refuse tokens for some repositories alone.
	manyRefusals = 10
)

// An account is one login and what is known of it. What changes is guarded by accounts.mu.
type account struct {
	name   string // for messages
	bit    uint32 // that stands for it in a sight
	passes *passes

	used     uint64      // when it was last used, in requests
	limited  time.Time   // until then the registry answers 429
	since    time.Time   // when it last did so
	told     bool        // it was the registry that said until when
	quota    Quota       // what the registry says of its rate limit
	heard    time.Time   // when it said so
	refusals int         // of its login, in a row
	taken    bool        // its login was taken once
	wrong    time.Time   // when its login was last refused; zero: it counts as right
	wrongOne Credentials // that were refused then
	logged   Credentials // whose refusal is in the log
}

// rests reports whether the registry has limited the account.
func (a *account) rests(now time.Time) bool { return now.Before(a.limited) }

// isWrong reports whether the account's login is refused, with the credentials of the moment.
func (a *account) isWrong() bool { return !a.wrong.IsZero() && a.wrongOne == a.passes.login.last() }

// spare reports whether the account has less than percent of its rate limit left, or nothing.
func (a *account) spare(percent int, now time.Time) bool {
	return a.quota.Low(percent) || a.quota.Limit > 0 && a.quota.Remaining == 0 && now.Before(a.quota.Reset)
}

// refuse notes that the account's login was refused, and, if that is sure, that it is wrong.
// It reports whether the log is to hear of it. The caller holds accounts.mu.
func (a *account) refuse(v *visit, sure bool) (news bool) {
	a.refusals++
	if !sure {
		return false
	}
	a.wrong, a.wrongOne = time.Now(), v.passes.login.last()
	news = a.logged != a.wrongOne
	a.logged = a.wrongOne
	return news
}

// grant notes that the account's login was taken. It reports whether the log is to hear of
// it. The caller holds accounts.mu.
func (a *account) grant() (news bool) {
	news = a.logged != Credentials{}
	a.refusals, a.taken, a.wrong, a.logged = 0, true, time.Time{}, Credentials{}
	return news
}

// An outcome is what a visit tells of its account.
type outcome int

const (
	beside   outcome = iota // nothing: the answer would be the same with any other
	granted                 // it got what was asked for
	unseen                  // it may not see that, or there is no such thing
	refused                 // its login may be wrong
	exceeded                // it is limited
)

// outcome returns what the visit tells of its account.
func (v *visit) outcome() outcome {
	if v.err != nil {
		f, ok := errors.AsType[*failure](v.err)
		switch {
		case !ok || !f.login:
			return beside
		case f.Kind == oci.Limited:
			return exceeded
		case f.By == oci.TokenServer && slices.Contains([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden}, f.Status):
			return refused
		}
		return beside
	}
	own := v.ans.redirect == nil && v.ans.asked == oci.Registry
	switch {
	case own && v.pass.personal() && v.ans.is(http.StatusTooManyRequests):
		return exceeded
	case own && v.showed && v.ans.is(http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound):
		if v.ans.is(http.StatusUnauthorized) && v.pass.personal() && v.pass.token == "" {
			return refused
		}
		return unseen
	case v.pass.personal() && (!own || v.ans.resp.StatusCode < 400):
		return granted
	}
	return beside
}

// status returns the status that the visit ended with, 0 without one.
func (v *visit) status() int {
	if v.err == nil {
		return v.ans.resp.StatusCode
	}
	f, ok := errors.AsType[*failure](v.err)
	if !ok {
		return 0
	}
	return f.Status
}

// rest returns for how long the registry wants the account to rest, 0 if it does not say.
func (v *visit) rest() time.Duration {
	if v.err == nil {
		return retryAfter(v.ans.resp.Header, time.Now())
	}
	f, ok := errors.AsType[*failure](v.err)
	if !ok {
		return 0
	}
	return f.RetryAfter
}

// quota returns what the registry said of the account's rate limit.
func (v *visit) quota() (Quota, bool) {
	if v.err != nil || !v.pass.personal() {
		return Quota{}, false
	}
	h := v.ans.before
	if h == nil && (v.ans.asked == oci.Registry || v.ans.redirect != nil) {
		h = v.ans.resp.Header
	}
	return quotaOf(h, time.Now())
}

// drop closes the answer that a visit ended with.
func (v *visit) drop() {
	if v != nil && v.err == nil {
		v.ans.discard()
	}
}

// fails returns the failure that the visit ended with, and closes its answer.
func (v *visit) fails() *failure {
	if v.err == nil {
		return v.ans.refused()
	}
	if f, ok := errors.AsType[*failure](v.err); ok {
		return f
	}
	f := v.home.fail(oci.Unavailable, never, v.home.host, "the request failed")
	f.Err = v.err
	return f
}
