package mesh

import (
	"context"

	"oci-proxy/transfer/oci"
)

// A Router tells which other nodes may be asked. It answers at once, from what
// this node knows, and does no I/O.
type Router interface {
	// Self returns this node's id, the one that other members' Peers have.
	Self() string
	// Route lists the nodes that are to get what key names (a digest, or a tag's
	// key) from the registry for the whole cluster: first the one that every node
	// would ask, then its stand-ins. nil stands for this node. Members that are
	// down, or may not ask the registry, are left out.
	Route(registry, key string) []Peer
	// Owner returns the member that is to keep what key names of the registry, also an owner that
	// is late or down now: it has its place still. nil: that is this node, or nobody.
	Owner(registry, key string) Peer
	// Holders lists the other members to ask whether they hold what key names before
	// the registry is: first those that said so, those next to it on the ring and its former
	// owners, then all others. If there are more than Many, the others are left out of which it
	// is known that they do not hold it. Those that are quarantined are among them: they may
	// just be late. Those that lied are not.
	Holders(registry, key string) []Peer
	// Peer returns the member of that id. It returns nil if the member is unknown,
	// down, quarantined for lies or this node.
	Peer(id string) Peer
	// Members lists all other members that are alive.
	Members() []Peer
	// Settle returns once Route, Holders and Members tell of all members that this node has
	// heard of, and not before a node that has just started has met the others. It waits for
	// some seconds at most, and no longer than ctx.
	Settle(ctx context.Context)
}

// A Peer is another node of the cluster. Its methods return an *oci.Error if the
// peer speaks for the registry, and a *PeerError if the peer itself fails. None
// of them makes the peer ask a third node. What they tell about a tag, or about a
// private registry's content, says since when it holds (oci.Provenance.At).
type Peer interface {
	// ID returns the member's id, which never changes.
	ID() string
	// Name returns what people call the member.
	Name() string
	// Open opens the blob that ref names at the peer, from offset on.
	Open(ctx context.Context, ref oci.Ref, offset int64, terms Terms) (*oci.Stream, error)
	// Peek asks whether the peer would give the blob to a node that asks only for
	// held content. It also tells the peer that this node is about to get it.
	Peek(ctx context.Context, ref oci.Ref) (Presence, error)
	// Progress asks how far the peer is with the blob, if ref has a digest. Any
	// answer is a sign of life.
	Progress(ctx context.Context, ref oci.Ref) (Progress, error)
	// Report is Progress for a member with a seat, and tells the peer who gave it the seat
	// how far this node is.
	Report(ctx context.Context, ref oci.Ref, how Report) (Progress, error)
	// Stat asks for a blob's size, -1 if the registry does not tell.
	Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error)
	// Tag asks what ref's tag means, for a client's Accept list. The Found has no
	// Bytes. Its Stale is set if the registry failed.
	Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error)
	// Manifest gets the manifest that ref's digest names. The caller checks the
	// bytes.
	Manifest(ctx context.Context, ref oci.Ref, terms Terms) (*oci.Found, error)
	// List gets a page of the registry's tags of the repository, or of the manifests that
	// refer to q.Digest. Its bytes go to to. If kept is set, it is the registry's last
	// answer as the peer knows it, and the registry is not asked.
	List(ctx context.Context, q oci.Question, kept bool, to oci.Sink) (*oci.Page, oci.Provenance, error)
	// LastWord asks what the peer knows of the registry's last answer to q. The *oci.Error
	// is of kind NotFound if it knows none.
	LastWord(ctx context.Context, q oci.Question) (Word, error)
	// Offer asks the peer to take the blob of ref's registry and digest from this
	// node's shard; ref has no repository. mediaType is a manifest's, "" for a
	// blob. nil means that the peer has it.
	Offer(ctx context.Context, ref oci.Ref, mediaType string) error
	// Refused tells the peer that the registry refused ref's repository.
	Refused(ctx context.Context, ref oci.Ref) error
	// Lost tells the peer that the registry does not have what ref's digest, as that
	// resource, or ref's tag names. A member of an earlier version ignores it.
	Lost(ctx context.Context, ref oci.Ref, as oci.Resource) error
	// Told tells the peer that the registry answered q here, so that the peer asks for
	// the answer (LastWord, List) and keeps it too. A member of an earlier version
	// ignores it.
	Told(ctx context.Context, q oci.Question) error
	// Fault reports that the peer failed this node: it hung, crawled or lied. It is
	// quarantined until it has shown that it is alive.
	Fault(err error)
}

// Terms say what a peer is asked for. The zero value asks it to get from the
// registry what it does not hold.
type Terms struct {
	Held bool // only what the peer holds, or is getting from the registry already
	// Vouched goes with Held: the asker knows that the registry is private, and
	// serves what it gets only to those whom the registry vouched for. Without it, a
	// peer that knows the registry as private gives only what it has itself a recent
	// grant for.
	Vouched bool
	// Part says that no more than these bytes are wanted, from the offset asked for on.
	// A Length of 0 stands for all. A member of an earlier version sends all.
	Part oci.Span
	// Feed says that the asker may be sent on to another member, or was. A member of an
	// earlier version sends all itself.
	Feed Feed
}

// Feed is what a member says that may be fed by another than the one it asks (transfer/feed).
type Feed struct {
	Asks bool   // it may be sent on,
	Here bool   // but not this time
	Zone string // its zone
	Seat string // what it was told by, "" for nothing yet
	Not  string // ids of members that could not feed it, with spaces between
	// By goes with held content: the seat of the member that is asked, by which it feeds
	// the asker.
	By string
}

// A Report is how far a member is with a blob that it is fed.
type Report struct {
	Seat string // that it has
	Came int64  // bytes
}

// A PeerError says that another node failed, not the registry.
type PeerError struct {
	Peer string // its name
	Busy bool   // it is alive and asks to come back in a moment
	Err  error
}

// Error names the peer and the cause.
func (e *PeerError) Error() string {
	if e.Busy {
		return "peer " + e.Peer + " is busy"
	}
	return "peer " + e.Peer + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// Presence is a node's answer to a Peek.
type Presence int

// The presences.
const (
	Absent   Presence = iota // it does not have the blob
	Arriving                 // it is getting the blob from the registry, and can be followed
	Held                     // the blob is in its shard
	Begun                    // it has the first bytes, and gets the others from a node that may not be followed
)

// Progress is how far a node is with a blob.
type Progress struct {
	Held      bool  `json:"held"`                // it is in the shard
	Offset    int64 `json:"offset"`              // how many bytes can be sent by now; the blob's size once all can
	Streams   int   `json:"streams"`             // how many answers to peers the node is sending at the moment
	Unvouched bool  `json:"unvouched,omitempty"` // the registry has to vouch for it first, unless only held content is asked for
	Leaves    bool  `json:"leaves,omitempty"`    // the node leaves for good: what it holds goes with it
	// Blob and Manifest are how many milliseconds ago a private registry vouched for it, as
	// that; 0: never, as far as the member knows.
	Blob     int64 `json:"blob,omitempty"`
	Manifest int64 `json:"manifest,omitempty"`
	// Begun is how many of the first bytes the node can send though it is not to be followed. A
	// part that ends there can be had (Terms.Part).
	Begun int64 `json:"begun,omitempty"`
	// Leave answers a Report: the asker is to leave who feeds it, and to ask anew. Else it is
	// to report again after Next milliseconds; 0: as it likes.
	Leave bool  `json:"leave,omitempty"`
	Next  int64 `json:"next,omitempty"`
}
