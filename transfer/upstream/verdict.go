package upstream

import (
	"net/http"
	"slices"

	"oci-proxy/transfer/oci"
)

// A verdict is what follows from an answer that is no success.
type verdict struct {
	kind   oci.Kind // decides what the client is told, and whether stale content may stand in
	again  again
	reason string
}

// verdictRow is what one group of statuses means, by who gave the answer.
type verdictRow struct {
	says        string // the statuses, for readers
	has         func(status int) bool
	registry    verdict
	tokenServer verdict
	storage     verdict // where the registry's redirect leads
	sibling     verdict // another registry where that leads, such as registry.k8s.io's
	middlebox   verdict // no registry, token server or storage gave it
}

// The verdicts that stand in several rows.
var (
	denied      = verdict{oci.Denied, never, "access denied"}
	absent      = verdict{oci.NotFound, never, "not found"}
	unsupported = verdict{oci.Invalid, never, "the server does not support this request"}
	rejected    = verdict{oci.Invalid, never, "the server rejected the request"}
	limited     = verdict{oci.Limited, patiently, "too many requests"}
	late        = verdict{oci.Timeout, patiently, "no answer in time"}
	troubled    = verdict{oci.Unavailable, patiently, "the server reported an error"}
	unexpected  = verdict{oci.Unavailable, once, "unexpected status"}
	noTokenYet  = verdict{oci.Unavailable, never, "the request for a token failed"}
	deadLink    = verdict{oci.Unavailable, once, "the registry's storage refused the link that the registry gave"}
	shut        = verdict{oci.Unavailable, never, "the host that the registry redirects to refused access"}
	intercepted = verdict{oci.Unavailable, shortly, "something on the way answered in the registry's place: a proxy, a firewall or a balancer"}
	looped      = verdict{oci.Looped, never, "the name leads back to this proxy, or around through others: use the registry's own name, and check default_registry, alias and the DNS"}
	behindLogin = verdict{oci.Unavailable, never, wrongProxyLogin}
)

// verdicts are the one place that says what an answer without content means. The
// first row that has the status counts. Only a verdict of the registry or its token
// server is final in a way that anything is forgotten for (oci.Error.Authoritative);
// what storage or a middlebox says passes, so stale content stands in for it.
// docs/registries.md shows this table.
var verdicts = []verdictRow{
	{
		"401", statuses(http.StatusUnauthorized),
		denied, denied, shut, shut, intercepted,
	},
	{
		"403", statuses(http.StatusForbidden),
		denied, denied, deadLink, shut, intercepted,
	},
	{
		"404, 410", statuses(http.StatusNotFound, http.StatusGone),
		absent, noTokenYet, deadLink, absent, intercepted,
	},
	{
		"407", statuses(http.StatusProxyAuthRequired),
		behindLogin, behindLogin, behindLogin, behindLogin, behindLogin,
	},
	{
		"408, 504", statuses(http.StatusRequestTimeout, http.StatusGatewayTimeout),
		late, late, late, late, late,
	},
	{
		"429", statuses(http.StatusTooManyRequests),
		limited, limited, limited, limited, limited,
	},
	{
		"405, 501", statuses(http.StatusMethodNotAllowed, http.StatusNotImplemented),
		unsupported, noTokenYet, deadLink, unsupported, intercepted,
	},
	{
		"416", statuses(http.StatusRequestedRangeNotSatisfiable),
		noRange, noTokenYet, noRange, noRange, intercepted,
	},
	{
		"451", statuses(http.StatusUnavailableForLegalReasons),
		denied, denied, shut, shut, intercepted,
	},
	{
		"508", statuses(http.StatusLoopDetected),
		looped, looped, looped, looped, looped,
	},
	{
		"511", statuses(http.StatusNetworkAuthenticationRequired),
		intercepted, intercepted, intercepted, intercepted, intercepted,
	},
	{
		"other 4xx", between(400, 499),
		rejected, noTokenYet, deadLink, rejected, intercepted,
	},
	{
		"other 5xx", between(500, 599),
		troubled, troubled, troubled, troubled, troubled,
	},
	{
		"others", between(0, 999),
		unexpected, unexpected, unexpected, unexpected, unexpected,
	},
}

// noRange is the verdict on a range that the content does not have.
var noRange = verdict{oci.Invalid, never, "no such range"}

// statuses returns what reports whether a status is one of list.
func statuses(list ...int) func(int) bool {
	return func(status int) bool { return slices.Contains(list, status) }
}

// between returns what reports whether a status lies in a range, the ends included.
func between(first, last int) func(int) bool {
	return func(status int) bool { return status >= first && status <= last }
}

// judge returns the verdict on an answer that is no success.
func judge(a *answer) verdict {
	for _, row := range verdicts {
		if row.has(a.resp.StatusCode) {
			return row.by(a)
		}
	}
	return unexpected
}

// by returns the verdict of the row for who gave the answer.
func (row verdictRow) by(a *answer) verdict {
	switch a.by() {
	case oci.Registry:
		return row.registry
	case oci.TokenServer:
		return row.tokenServer
	case oci.Storage:
		if isSibling(a) {
			return row.sibling
		}
		return row.storage
	default:
		return row.middlebox
	}
}

// isSibling reports whether a registry answered where the registry's redirect led:
// registry.k8s.io redirects manifests to other registries.
func isSibling(a *answer) bool {
	return a.asked == oci.Storage && (a.oci || a.resp.Header.Get("Docker-Distribution-Api-Version") != "")
}
