// Package peer is how nodes of one cluster ask each other for blobs, manifests
// and news: both ends of the protocol.
//
// It is HTTP/1.1 on a port of its own, over TLS that is pinned to what gossip
// tells of a member's certificate, or plain. Each request is signed with the
// cluster's secret and counts once (sign.go); what is not a signed, fresh
// request of a member gets a bare 404. A [Client] asks ([Client.Peer] is a
// transfer.Peer, calls.go), keeps connections to each member (link.go) and
// passes over those that fail (health.go). A [Server] answers (server.go,
// serve.go). What both ends say in headers stands in wire.go, the names of
// things in query.go.
//
//	GET  /peer/v1/blobs/{digest}      the bytes; held=1: only what is there or on its way;
//	                                  vouched=1: and the asker minds who may have it
//	HEAD /peer/v1/blobs/{digest}      the size; held=1: a presence
//	GET  /peer/v1/manifests/{digest}  the bytes; held=1: only what is there; vouched=1
//	GET  /peer/v1/tags                what a tag means
//	GET  /peer/v1/lists/tags          a page
//	GET  /peer/v1/lists/referrers     a page
//	GET  /peer/v1/progress/{digest}   how far a blob is
//	POST /peer/v1/offers              take this blob from me
//	POST /peer/v1/refusals            the registry refused me this repository
//	GET  /peer/v1/stats               what the node counts
//	GET  /peer/v1/ping                nothing, which is a sign of life
//
// registry, repository, tag and accept are query parameters.
package peer

import "time"

// A Member is what the protocol has to know of another node. It comes from
// gossip and may change at any time.
type Member struct {
	ID          string   // its own for good: 1 to 128 visible ASCII characters
	Name        string   // what people call it
	Addr        string   // host:port of its peers' listener
	Nonce       []byte   // random, made anew at each start of it; without one it can't be asked
	Fingerprint [32]byte // SHA-256 of its certificate; all zero: plain HTTP
	Key         int      // which of this node's keys it accepts, by number: not the first while secrets are exchanged
}

// The protocol's version, as it stands in paths and headers. Another one means
// that the two ends can't understand each other.
const (
	version = "1"
	root    = "/peer/v" + version + "/"
)

// Headers of the protocol.
const (
	headerAuth      = "Oci-Peer-Auth"      // of a request: its signature
	headerMark      = "Oci-Peer"           // of each answer: the version
	headerFailure   = "Oci-Peer-Failure"   // the request failed: one of the failures below
	headerError     = "Oci-Peer-Error"     // JSON of the registry's failure
	headerStale     = "Oci-Peer-Stale"     // the same of one that stale content stands in for
	headerSource    = "Oci-Peer-Source"    // hit: from a node's shard
	headerAge       = "Oci-Peer-Age"       // for how many milliseconds the registry's word is known
	headerCollapsed = "Oci-Peer-Collapsed" // set: the answer joined a download
	headerPresence  = "Oci-Peer-Presence"  // answer to a peek
	headerRedirect  = "Oci-Peer-Redirect"  // where the registry sends the client
	headerNext      = "Oci-Peer-Next"      // query of the next page
	headerVia       = "Cache-Status"
	headerFilters   = "Oci-Filters-Applied"
)

// The values of headerFailure.
const (
	failedUpstream = "upstream" // the registry's; headerError says how
	failedBusy     = "busy"     // come back in a moment
	failedPeer     = "peer"     // the node's own
)

// Limits, in bytes.
const (
	maxHeader   = 32 << 10
	maxManifest = 4 << 20
	maxList     = 32 << 20
	maxJSON     = 1 << 20
	maxOffer    = 4 << 10
	maxQuery    = 16 << 10
	maxNext     = 8 << 10 // of a link to a next page, and of a redirect
	maxWord     = 255     // of a media type, a host
	maxReason   = 1 << 10
	maxVia      = 1 << 10
)

// maxAge bounds the age of a registry's word, in milliseconds: a hundred years.
const maxAge = 100 * 365 * 24 * 3600 * 1000

const (
	// callTime bounds a call whose answer is small, its body included.
	callTime = 39 * time.Second
	// answerTime is how long a node waits for the registry before it tells the
	// other that this has not answered: in time for the other to hear it, so
	// that it does not blame the node.
	answerTime = callTime - time.Second
)
