package transfer

import (
	"context"
	"net/url"
	"oci-proxy/transfer/oci"
)

// A Mesh tells who else of the cluster may be asked. It answers at once, from
// what this node knows: it does no I/O.
type Mesh interface {
	// Self is this node's id, as other members' Peers have it.
	Self() string
	// Route lists who is to get what key names (a digest, or a tag's key) from
	// the registry for the whole cluster: first the one whom all nodes would
	// ask, then who stands in for it. nil stands for this node. Members that
	// are down, and those that can't ask the registry, are not in it.
	Route(registry, key string) []Peer
	// Holders lists the other members that may hold what key names though it
	// is not theirs to get: those next to its owner, and former owners.
	Holders(registry, key string) []Peer
	// Peer returns the member of that id, nil if it is unknown, down, passed over
	// or this node.
	Peer(id string) Peer
	// Members lists all other members that live.
	Members() []Peer
}

// A Peer is another node of the cluster. The errors of its methods are *Error
// where the peer speaks for the registry, *PeerError where it is the peer
// itself that fails. None of them makes the peer ask a third node. What they tell
// of a tag or a private registry's content says since when that holds (Way.At).
type Peer interface {
	// ID is the member's id, which is its own for good.
	ID() string
	// Name is what people call it.
	Name() string
	// Open opens the blob that ref names at the peer, from offset on.
	Open(ctx context.Context, ref oci.Ref, offset int64, terms Terms) (*oci.Stream, error)
	// Peek asks whether the peer would give the blob to one that asks for held
	// content only. It also tells the peer that this node is about to get it.
	Peek(ctx context.Context, ref oci.Ref) (Presence, error)
	// Progress asks how far the peer is with the blob, if ref has a digest. An
	// answer, whatever it says, is a sign of life.
	Progress(ctx context.Context, ref oci.Ref) (Progress, error)
	// Stat asks for a blob's size, -1 if the registry does not tell.
	Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error)
	// Tag asks what ref's tag means, for a client's Accept list. The Found has
	// no Bytes. Way.Stale is set where the registry failed.
	Tag(ctx context.Context, ref oci.Ref, accept []string) (*Found, error)
	// Manifest gets the manifest that ref's digest names. The caller checks the
	// bytes.
	Manifest(ctx context.Context, ref oci.Ref, terms Terms) (*Found, error)
	// Tags gets a page of the registry's tags of the repository.
	Tags(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error)
	// Referrers gets a page of the manifests that refer to ref.Digest.
	Referrers(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error)
	// Offer asks the peer to take the blob of ref's registry and digest (ref has
	// no repository) from this node's shard; mediaType is that of a manifest, ""
	// for a blob. nil means that the peer has it.
	Offer(ctx context.Context, ref oci.Ref, mediaType string) error
	// Refused tells the peer that the registry refused ref's repository.
	Refused(ctx context.Context, ref oci.Ref) error
	// Fault tells that the peer failed this node (it hung, or it crawled), so
	// that it is passed over until it has shown that it lives.
	Fault(err error)
}

// Terms say what a peer is asked for. By the zero value it gets from the
// registry what it has not got.
type Terms struct {
	Held bool // only what it has, or is getting from the registry already
	// Vouched goes with Held: the asker knows the registry as private, and shows
	// what it gets only for a repository that this vouched for. To others a peer
	// that knows it gives what it has itself a recent word of.
	Vouched bool
}

// A PeerError says that another node failed, not the registry.
type PeerError struct {
	Peer string // its name
	Busy bool   // it lives, and asks to come back in a moment
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

// Presence is what a node answers to a Peek.
type Presence int

// The presences.
const (
	Absent   Presence = iota // it has not got the blob
	Arriving                 // it is getting it from the registry, and can be followed
	Held                     // it is in its shard
)

// Progress is how far a node is with a blob.
type Progress struct {
	Held      bool  `json:"held"`                // it is in the shard
	Offset    int64 `json:"offset"`              // bytes that can be sent by now; the size once all can
	Streams   int   `json:"streams"`             // answers to peers that the node is sending at the moment
	Unvouched bool  `json:"unvouched,omitempty"` // the registry has to vouch for it first, unless only what is held is asked for
}
