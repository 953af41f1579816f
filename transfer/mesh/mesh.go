package mesh

import (
	"context"
	"errors"
	"io"
	"net/url"
	"oci-proxy/transfer/oci"
)

// Causes of requests to peers that this node has ended.
var (
	// ErrHangs: the peer shows no sign of life.
	ErrHangs = errors.New("the node hangs")
	// ErrCrawls: the peer has the bytes, and they hardly come.
	ErrCrawls = errors.New("the link to the node crawls")
	// ErrDrips: hardly anything comes. That may be the registry's fault.
	ErrDrips = errors.New("hardly anything comes from the node")
	// ErrLies: the peer sent what the digest does not name.
	ErrLies = errors.New("the node sent wrong bytes")
)

// A Mesh tells who else of the cluster may be asked. It answers at once, from
// what this node knows: it does no I/O.
type Router interface {
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
	Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error)
	// Manifest gets the manifest that ref's digest names. The caller checks the
	// bytes.
	Manifest(ctx context.Context, ref oci.Ref, terms Terms) (*oci.Found, error)
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

// A Holder is this node as the other members see it. Each method asks the
// registry at most, never a third node, so that no loop can form, whatever the
// members believe about the ring. Errors are *oci.Error where the registry
// failed; any other error is this node's own failure.
type Holder interface {
	// Blob opens a blob. If terms ask for what is held, it has to be in the shard,
	// or on its way from the registry so that the member of the id asker may
	// follow it; else the *oci.Error is of kind NotFound.
	Blob(ctx context.Context, ref oci.Ref, terms Terms, asker string) (*Given, error)
	// Stat tells a blob's size, -1 if the registry does not tell.
	Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error)
	// Tag tells what a tag means, for a client's Accept list. The Found may lack Bytes.
	Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error)
	// Manifest gets the manifest of ref's digest. terms are as for Blob.
	Manifest(ctx context.Context, ref oci.Ref, terms Terms) (*oci.Found, error)
	// Tags gets a page of the registry's tags of the repository.
	Tags(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error)
	// Referrers gets a page of the manifests that refer to ref.Digest.
	Referrers(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error)
	// Presence answers the Peek of the member of the id asker, and notes that it is
	// about to get the blob.
	Presence(ref oci.Ref, asker string) Presence
	// Progress tells how far this node is with the blob.
	Progress(ref oci.Ref) Progress
	// Take takes a blob that another member offers, as Peer.Offer says.
	Take(ctx context.Context, from Peer, ref oci.Ref, mediaType string) error
	// Refused hears that the registry refused another member ref's repository.
	Refused(ref oci.Ref)
}

// Given is a blob that a node gives to another member. Close it.
type Given struct {
	oci.Provenance
	Redirect string // where the registry sends the client; there is no blob then
	Blob
}

// A Blob can be sent, from any offset, as cache.Blob can.
type Blob interface {
	Size() int64
	Send(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	Close() error
}
