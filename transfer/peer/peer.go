// Package peer is the protocol by which the nodes of a cluster ask each other for
// blobs, manifests and news. It holds both ends.
//
// It is HTTP/1.1 on a port of its own, over TLS or plain. TLS is pinned to the
// certificate that gossip tells of a member. Each request is signed with a key
// made from the cluster's secret, and counts once (request.go, replay.go). The
// server answers members' fresh requests (admit.go) and nothing else: all others
// get a bare 404. Each answer is signed for its request (answer.go), so that
// nobody who took over a crashed node's address is believed. A member of an older
// version does not sign: its answers are taken over TLS, which proves who it is.
// Over plain HTTP they are refused, and this node goes to the registry.
//
// A [Client] asks: [Client.Peer] is a mesh.Peer (remote.go). It keeps connections
// to members, of more than 128 to those that it asked last (links.go, link.go, idle.go), and
// quarantines those that fail (health.go).
// A [Server] has a table of what can be asked (routes.go) and answers from a
// mesh.Holder (answers.go). The time-outs of both ends stand in times.go.
//
//	GET  /peer/v1/blobs/{digest}      the bytes; held=1: only those that are held or arriving;
//	                                  vouched=1: the asker checks who may have them;
//	                                  part=N: N bytes from the Range's offset on are enough;
//	                                  feed=1: the asker may be sent on to another member (feed.go),
//	                                  with zone, seat and not; by=SEAT: it was
//	HEAD /peer/v1/blobs/{digest}      the size; held=1: a presence
//	GET  /peer/v1/manifests/{digest}  the bytes; held=1: only if they are held; vouched=1
//	GET  /peer/v1/tags                what a tag means
//	GET  /peer/v1/lists/tags          a page; held=1: only the registry's last one that is kept;
//	                                  peek=1 with it: only when the registry gave its last answer.
//	                                  tag={tag} with both: its last answer that there is no such tag
//	GET  /peer/v1/lists/referrers     a page; held=1, peek=1
//	GET  /peer/v1/progress/{digest}   how much of a blob is here; seat, came=N: and at the asker
//	POST /peer/v1/offers              take this blob from me
//	POST /peer/v1/refusals            the registry refused me this repository;
//	                                  lost={repository}: it has no such digest or tag there, blob=1: as a blob
//	GET  /peer/v1/relay-blobs/{digest}  a blob's bytes as the registry sends them; part=N
//	GET  /peer/v1/relay-heads         what the registry says to a HEAD; blob=1: of a blob
//	GET  /peer/v1/relay-manifests     a manifest as the registry sends it
//	GET  /peer/v1/relay-tags          a page as the registry sends it
//	GET  /peer/v1/relay-referrers     a page as the registry sends it
//	GET  /peer/v1/stats               the node's counters
//	POST /peer/v1/examinations        what the node finds of itself, or of its way to a registry
//	POST /peer/v1/certificates        certificates of the clients' port, with their keys: over TLS or
//	                                  loopback only
//	POST /peer/v1/directory           which of the receiver's blobs the sender holds
//	GET  /peer/v1/ping                nothing: a sign of life
//
// registry, repository, tag and accept are query parameters. Who answers a relay-request asks
// the registry, or with mirrors=1 its mirrors too, and keeps nothing, and never asks a third
// node (relay.go, relays.go, told.go).
// Each answer about a registry also tells how the node's own way there is (way.go).
package peer

// A Member is what the protocol has to know of another node. It comes from
// gossip and may change at any time.
type Member struct {
	ID          string   // its own for good: 1 to 128 visible ASCII characters
	Name        string   // what people call it
	Addr        string   // host:port of its peers' listener
	Nonce       []byte   // random, new at each start; a member without one can't be asked
	Boot        uint64   // which of its starts this is: Dead names it
	Fingerprint [32]byte // SHA-256 of its certificate; all zero: plain HTTP
	Key         int      // number of the first of this node's keys that it accepts: not 0 while secrets are exchanged
}

// A roster tells what gossip knows of a member by now. It answers at once.
type roster func(id string) (Member, bool)

// name is what people call a member.
func (r roster) name(id string) string {
	if m, ok := r(id); ok && m.Name != "" {
		return m.Name
	}
	return id
}

// The protocol's version, as it stands in paths and headers. Nodes of different
// versions can't understand each other.
const (
	version = "1"
	root    = "/peer/v" + version + "/"
)

// Headers of the protocol.
const (
	headerPrefix    = "Oci-Peer-"          // of all that follow but the first
	headerMark      = "Oci-Peer"           // of each answer: the version
	headerAuth      = "Oci-Peer-Auth"      // the signature of a request, or of an answer
	headerBody      = "Oci-Peer-Body"      // SHA-256 of a small answer's body
	headerFailure   = "Oci-Peer-Failure"   // the request failed: one of the failures below
	headerError     = "Oci-Peer-Error"     // JSON of the registry's failure
	headerStale     = "Oci-Peer-Stale"     // the same, of a failure that stale content stands in for
	headerSource    = "Oci-Peer-Source"    // hit: from a node's shard
	headerSum       = "Oci-Peer-Sum"       // SHA-256 of a page that is kept
	headerMeaning   = "Oci-Peer-Meaning"   // JSON of what a tag means
	headerAge       = "Oci-Peer-Age"       // how many milliseconds ago the registry said it
	headerCollapsed = "Oci-Peer-Collapsed" // set: the answer joined a download
	headerPresence  = "Oci-Peer-Presence"  // the answer to a peek
	headerBegun     = "Oci-Peer-Begun"     // set: a node that is absent by its presence has the first bytes
	headerRedirect  = "Oci-Peer-Redirect"  // where the registry sends the client
	headerNext      = "Oci-Peer-Next"      // query of the next page
	headerPadding   = "Oci-Peer-Padding"   // makes a request large
	headerWay       = "Oci-Peer-Way"       // how the node's own way to the registry is
	headerRequest   = "Oci-Peer-Request"   // id of the client's request, for the log
	headerSeat      = "Oci-Peer-Seat"      // the asker's place in the tree by which a blob spreads
	headerFeeder    = "Oci-Peer-Feeder"    // who feeds it instead: a member's id and that one's seat
	headerTold      = "Oci-Peer-Told"      // JSON of what the registry's answer says, if it is passed on
	headerVia       = "Cache-Status"
	headerFilters   = "Oci-Filters-Applied"
)

// The values of headerFailure.
const (
	failedUpstream = "upstream" // the registry failed; headerError says how
	failedBusy     = "busy"     // come back in a moment
	failedPeer     = "peer"     // the node itself failed
	failedRules    = "rules"    // its access rules refuse this to the user; earlier versions take it for failedPeer
)

// Limits, in bytes.
const (
	maxHeader   = 32 << 10
	maxManifest = 4 << 20
	maxList     = 32 << 20
	maxJSON     = 1 << 20
	padding     = 12 << 10 // of what is asked and answered now and then: more than a jumbo frame (9,000), less than maxHeader
	maxPart     = 1 << 20  // of a blob, that is asked for by itself
	maxOffer    = 4 << 10  // of the body of any request but the two kinds that follow
	maxTold     = 16 << 10 // of the body of what a member tells of its blobs
	maxVault    = 64 << 10 // of the body of a request about certificates
	maxHoldings = 128 << 20
	maxQuery    = 16 << 10
	maxNext     = 8 << 10 // of a link to a next page, and of a redirect
	maxWord     = 255     // of a media type, a host
	maxReason   = 1 << 10
	maxVia      = 1 << 10
)

// maxAge bounds how long ago a registry may have said something, in
// milliseconds: a hundred years.
const maxAge = 100 * 365 * 24 * 3600 * 1000
