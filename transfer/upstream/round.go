package upstream

import (
	"context"
	"net/http"

	"oci-proxy/transfer/oci"
)

// A round is one request that is asked with one account after the other, until one gets what
// it asks for. What one is refused is believed only if no other may see it.
type round struct {
	*registry
	ask ask

	blind   uint32 // the accounts that were refused what is asked for
	refusal *visit // the refusal that counts if no account fares better
	limit   *visit // the last one that found its account limited
}

// run asks with each account once at most. An answer or error that is no account's fault ends
// it.
func (o *round) run(ctx context.Context) (*answer, error) {
	var v *visit
	for _, who := range o.accounts.order(o.ask.repo) {
		if v != nil {
			o.ask.budget.another()
		}
		v = o.askAs(ctx, who, o.ask, v)
		switch result := o.accounts.hear(ctx, v); result {
		case exceeded:
			o.limit.drop()
			o.limit = v
		case unseen, refused:
			o.keep(v, result)
		default:
			if result == granted {
				o.accounts.saw(o.ask.repo, who, o.blind)
			}
			o.refusal.drop()
			o.limit.drop()
			return v.ans, v.err
		}
	}
	return o.end()
}

// keep keeps the refusal that tells the most: the first one, but not that of a wrong login if
// there is another.
func (o *round) keep(v *visit, result outcome) {
	if result == unseen || !o.accounts.refuses(v.account) {
		o.blind |= v.account.bit
	}
	if o.refusal == nil || result == unseen && o.refusal.outcome() == refused {
		v, o.refusal = o.refusal, v
	}
	v.drop()
}

// end returns what counts after no account got what was asked for. While one is limited that
// may see it, that is no refusal: content would be forgotten for it. But an account that was
// let in to the repository can say that something is not there.
func (o *round) end() (*answer, error) {
	wait, some, all := o.accounts.limits()
	if v := o.refusal; v != nil && (!some || v.status() == http.StatusNotFound && o.accounts.sees(o.ask.repo, v.account)) {
		o.limit.drop()
		return v.ans, v.err
	}
	o.refusal.drop()
	f := o.home.fail(oci.Limited, patiently, o.home.host, limited.reason+" by an account that may see this")
	f.By, f.Status = oci.Registry, http.StatusTooManyRequests
	if o.limit != nil {
		f = o.limit.fails()
	}
	f.RetryAfter, f.held = wait, !all // while one account is left, the registry is asked
	return nil, f
}
