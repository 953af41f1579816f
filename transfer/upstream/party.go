package upstream

import (
	"net/http"

	"oci-proxy/transfer/oci"
)

// A clue tells who gave an answer by what the answer looks like.
type clue struct {
	says  string // for readers
	found func(*answer) bool
	by    oci.Party // Nobody: the party that was asked
}

// clues are in order: the first one found decides. An error without any of them has
// no form that registries use, so something on the way gave it.
//
// Most registries set Docker-Distribution-Api-Version on every answer: distribution,
// Docker Hub, GHCR, ECR, ACR, Artifact Registry, GitLab, Artifactory, Gitea. Others
// show themselves by an OCI error body, and to a HEAD by its media type (Quay,
// Harbor, GitHub Enterprise), or by their challenge (early Harbor). These have none of
// the clues: Cloud Armor's 403 page in front of registry.k8s.io, a balancer's 502, and
// the page by which early Nexus refuses HEAD although GET succeeds.
var clues = []clue{
	{
		says: "a proxy wants a login, or a portal does (RFC 6585)",
		found: func(a *answer) bool {
			return a.is(http.StatusProxyAuthRequired, http.StatusNetworkAuthenticationRequired)
		},
		by: oci.Middlebox,
	},
	{
		says:  "the header of the registry API",
		found: func(a *answer) bool { return a.resp.Header.Get("Docker-Distribution-Api-Version") != "" },
	},
	{
		says:  "a redirect in the clear, which anybody on the way can send",
		found: func(a *answer) bool { return a.redirects() && a.url.Scheme != "https" },
		by:    oci.Middlebox,
	},
	{
		says: "a page for people in place of content",
		found: func(a *answer) bool {
			return a.resp.StatusCode < 300 && a.isPage() && a.resp.Header.Get("Docker-Content-Digest") == ""
		},
		by: oci.Middlebox,
	},
	{
		says:  "no error",
		found: func(a *answer) bool { return a.resp.StatusCode < 400 },
	},
	{
		says:  "storage refuses in a form of its own: XML, a page or plain text",
		found: func(a *answer) bool { return a.asked == oci.Storage },
	},
	{
		says: "a challenge that a client of registries can meet",
		found: func(a *answer) bool {
			for _, ch := range challengesOf(a.resp.Header) {
				if ch.scheme == "bearer" || ch.scheme == "basic" {
					return true
				}
			}
			return false
		},
	},
	{
		says:  "an OCI error body",
		found: func(a *answer) bool { return a.oci },
	},
	{
		says: "JSON where no body is read: HEAD has none, and token servers have no common form of error",
		found: func(a *answer) bool {
			return a.bareType() == "application/json" && (a.resp.Request.Method == http.MethodHead || a.asked == oci.TokenServer)
		},
	},
}

// by returns who gave the answer. It is the registry or its token server only if the
// answer came from that server's own host.
func (a *answer) by() oci.Party {
	for _, c := range clues {
		if c.found(a) {
			if c.by == oci.Nobody {
				return a.asked
			}
			return c.by
		}
	}
	return oci.Middlebox
}

// askedNext returns who answers at the place that a redirects to. The registry's
// redirect to another host leads to storage. What something on the way redirects to
// counts as something on the way, and so does what a token server redirects to.
func (a *answer) askedNext(sameOrigin bool) oci.Party {
	switch {
	case sameOrigin && a.asked != oci.Storage:
		return a.asked
	case a.asked == oci.TokenServer, a.by() == oci.Middlebox:
		return oci.Middlebox
	default:
		return oci.Storage
	}
}
